"""Polynomial averaging: a mean of the parameters in which the late ones weigh more.

Shamir and Zhang, "Stochastic Gradient Descent for Non-smooth Optimization: Convergence Results and
Optimal Averaging Schemes", ICML 2013. https://arxiv.org/abs/1212.1824
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from optax_adaptive import _check
from optax_adaptive._core import (
    find_states,
    map_leaves,
    replace_params,
    transformation,
    zero_count,
    zeros_like,
)
from optax_adaptive._numerics import increment


class PolynomialAveragingState(NamedTuple):
    """The mean of the parameters, shaped like them, and the state behind."""

    seen: jax.Array  # count of parameters in the mean, int32, shape ()
    average: optax.Params  # after the last step
    inner: optax.OptState  # of the wrapped transformation


def polynomial_averaging(
    tx: optax.GradientTransformation, *, gamma: Any = 8.0
) -> optax.GradientTransformationExtraArgs:
    """The updates of `tx`, and beside them a mean of the parameters that they lead to.

    With p the parameters after step t = 1, 2, ..., those before it plus the update::

        weight  = (1 + gamma) / (t + gamma)
        average = (1 - weight) average + weight p

    So the mean is over about the last t / (1 + gamma) steps. Training goes on as with `tx` alone,
    and `averaged_params(state, params)` are what to evaluate. `dog` and `ldog` need it: their rate
    never decays. A step that makes any parameter not finite is not averaged, and not counted. Of
    parameters below 32 bits it is the mean in float32, before they are rounded.

    It must be outermost: what follows it in a chain changes updates that have been counted.

    Args:
        tx: Any optimizer.
        gamma: How much more late parameters weigh, >= 0: as t^gamma. 0 is the plain mean.

    Raises:
        ValueError: If an argument is outside its domain, or `update` is not given the parameters.

    Departures: as PolynomialDecayAverager of the authors of DoG (dog-optimizer 1.0.3), which is
    stepped by hand and averages the running means of batch normalisation, too.
    """
    tx = _check.wrapped(tx)
    _check.non_negative(gamma=gamma)

    def init(params):
        return PolynomialAveragingState(zero_count(), zeros_like(params), tx.init(params))

    def update(grads, state, *, params, **extra):
        updates, inner = tx.update(grads, state.inner, params, **extra)
        # Of p only the sum is read: p could not be overwritten otherwise.
        there = map_leaves(jnp.add, params, updates, inline=True)
        largest = map_leaves(lambda x: jnp.max(jnp.abs(x), initial=0), there)
        finite = jnp.all(jnp.isfinite(jnp.stack(jax.tree.leaves(largest))))
        seen = jnp.where(finite, increment(state.seen), state.seen)
        weight = (1 + gamma) / (seen + gamma)

        def leaf(x, average):
            # Not a sum of two products: exact where a parameter stays.
            return jnp.where(finite, average + weight * (x - average), average)

        average = map_leaves(leaf, there, state.average)
        return updates, PolynomialAveragingState(seen, average, inner)

    return transformation(init, update)


def averaged_params(state: optax.OptState, params: optax.Params) -> optax.Params:
    """The means of `polynomial_averaging`, wherever it is in the state of the optimizer.

    Args:
        state: Of any optimizer with `polynomial_averaging` in it: in chains, masks, groups.
        params: The parameters. They stay where nothing is averaged: what a mask leaves out, what
            does not train, and all of them before the first step.

    Returns:
        A tree like `params`, in their dtypes.

    Raises:
        ValueError: If nothing in the state averages parameters.
    """
    states = find_states(state, PolynomialAveragingState)
    if not states:
        raise ValueError(
            "averaged_params: state must be that of an optimizer with polynomial_averaging in it, "
            f"got {type(state).__name__}."
        )
    for s in states:

        def leaf(p, average, seen=s.seen):
            return jnp.where(seen > 0, average, p)

        params = replace_params(leaf, params, s.average)
    return params
