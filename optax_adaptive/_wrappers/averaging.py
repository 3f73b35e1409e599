"""Averaging: beside the parameters, a mean of them in which the late ones weigh more.

Polynomial averaging: Shamir and Zhang, "Stochastic Gradient Descent for Non-smooth Optimization:
Convergence Results and Optimal Averaging Schemes", ICML 2013. https://arxiv.org/abs/1212.1824
Exponential averaging: Morales-Brotons, Vogels and Hendrikx, "Exponential Moving Average of Weights
in Deep Learning: Dynamics and Benefits", TMLR 2024. https://arxiv.org/abs/2411.18704
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from optax_adaptive import _check
from optax_adaptive._core import (
    map_leaves,
    replace_params,
    states_of,
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


class ExponentialAveragingState(NamedTuple):
    """The running mean of the parameters, shaped like them, and the state behind."""

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

    What changes updates goes inside: behind it in a chain, it changes what has been counted.

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
        there, finite, seen = _after(params, updates, state.seen)
        weight = (1 + gamma) / (seen + gamma)

        def leaf(x, average):
            # Not a sum of two products: exact where a parameter stays.
            return jnp.where(finite, average + weight * (x - average), average)

        average = map_leaves(leaf, there, state.average)
        return updates, PolynomialAveragingState(seen, average, inner)

    return transformation(init, update)


def exponential_averaging(
    tx: optax.GradientTransformation,
    *,
    decay: Any = 0.99,
    start: Any = 1,
    overwrite_every: Any = None,
) -> optax.GradientTransformationExtraArgs:
    """The updates of `tx`, and beside them a running mean of the parameters that they lead to.

    With p the parameters after step t = 1, 2, ..., those before it plus the update::

        average = p                                    while t <= start
        average = decay average + (1 - decay) p        after that

    So the mean is over about the last 1 / (1 - decay) steps. `averaged_params(state, params)` are
    what to evaluate. Training goes on as with `tx` alone, unless `overwrite_every` is given: after
    every step t that it divides, the parameters become the average, by an update that is the
    average less the parameters before the step.

    A step that makes any parameter not finite is not averaged, and not counted as one of t; nor is
    it overwritten, which would hide it. Of parameters below 32 bits it is the mean in float32,
    before they are rounded.

    What changes updates goes inside: behind it in a chain, it changes what has been counted.

    Args:
        tx: Any optimizer. Those that find the parameters anew from the first ones, as `cocob`,
            undo an overwriting.
        decay: The share of the average kept at each step, in [0, 1].
        start: The first steps, of which only the last one counts: a whole number >= 1.
        overwrite_every: After how many steps the parameters become the average, each time: a whole
            number >= 1, or None for never.

    Raises:
        ValueError: If an argument is outside its domain, or `update` is not given the parameters.

    Departures: as `use_ema`, `ema_momentum` and `ema_overwrite_frequency` of the optimizers of
    Keras 3 (https://keras.io/api/optimizers/adam/), whose `start` is 1, and which put the average
    into the model when training ends. There a NaN makes the average NaN.
    """
    tx = _check.wrapped(tx)
    _check.share(decay=decay)
    _check.whole(start=start)
    if overwrite_every is not None:
        _check.whole(overwrite_every=overwrite_every)

    def init(params):
        return ExponentialAveragingState(zero_count(), zeros_like(params), tx.init(params))

    def update(grads, state, *, params, **extra):
        updates, inner = tx.update(grads, state.inner, params, **extra)
        there, finite, seen = _after(params, updates, state.seen)
        early = seen <= start

        def leaf(x, average):
            new = jnp.where(early, x, average + (1 - decay) * (x - average))
            return jnp.where(finite, new, average)

        average = map_leaves(leaf, there, state.average)
        if overwrite_every is not None:
            due = finite & (seen % jnp.asarray(overwrite_every, seen.dtype) == 0)
            updates = map_leaves(
                lambda u, p, average: jnp.where(due, average - p, u), updates, params, average
            )
        return updates, ExponentialAveragingState(seen, average, inner)

    return transformation(init, update)


def averaged_params(state: optax.OptState, params: optax.Params) -> optax.Params:
    """The means of the parameters, wherever they are in the state of the optimizer.

    Args:
        state: Of any optimizer with `polynomial_averaging` or `exponential_averaging` in it: in
            chains, masks, groups.
        params: The parameters. They stay where nothing is averaged: what a mask leaves out, what
            does not train, and all of them before the first step.

    Returns:
        A tree like `params`, in their dtypes.

    Raises:
        ValueError: If nothing in the state averages parameters.
    """
    kinds = (PolynomialAveragingState, ExponentialAveragingState)
    for s in states_of("polynomial_averaging or exponential_averaging", state, kinds):

        def leaf(p, average, seen=s.seen):
            return jnp.where(seen > 0, average, p)

        params = replace_params(leaf, params, s.average)
    return params


def _after(params: Any, updates: Any, seen: jax.Array) -> tuple[Any, jax.Array, jax.Array]:
    """The parameters after the step, whether all are finite, and the count of those that were."""
    # Of p only the sum is read: p could not be overwritten otherwise.
    there = map_leaves(jnp.add, params, updates, inline=True)
    largest = map_leaves(lambda x: jnp.max(jnp.abs(x), initial=0), there)
    finite = jnp.all(jnp.isfinite(jnp.stack(jax.tree.leaves(largest))))
    return there, finite, jnp.where(finite, increment(seen), seen)
