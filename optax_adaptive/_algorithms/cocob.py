"""COCOB: every coordinate bets on the sign of its next gradient, with what it has won.

Orabona and Tommasi, "Training Deep Networks without Learning Rates Through Coin Betting",
NeurIPS 2017, algorithm 2. https://arxiv.org/abs/1705.07795
"""

from typing import Any, NamedTuple

import jax.numpy as jnp
import optax

from optax_adaptive import _check
from optax_adaptive._core import full_like, map_leaves, zeros_like
from optax_adaptive._free import descend_freely
from optax_adaptive._numerics import finite


class CocobState(NamedTuple):
    """What every coordinate has seen and won, shaped like the parameters."""

    bound: optax.Updates  # of |g|: the largest so far
    sum_abs: optax.Updates  # of g
    grad_sum: optax.Updates
    reward: optax.Updates  # what the bets have won, 0 at least


def cocob(
    learning_rate: optax.ScalarOrSchedule = 1.0,
    alpha: Any = 100.0,
    eps: Any = 1e-8,
    weight_decay: optax.ScalarOrSchedule | None = None,
    mask: Any = None,
) -> optax.GradientTransformationExtraArgs:
    """COCOB, as the authors train deep networks with it.

    With g the gradient, p the parameters and p0 the first ones, bound = eps at first, for every
    coordinate::

        bound    = max(bound, |g|)
        sum_abs  = sum_abs + |g|
        grad_sum = grad_sum + g
        reward   = max(0, reward - g (p - p0))
        wealth   = learning_rate bound + reward
        p        = p0 - grad_sum / max(sum_abs + bound, alpha bound) wealth / bound

    A coordinate whose gradients keep their sign wins and bets more, exponentially; one whose
    gradients alternate stays near its start. No coordinate knows of another.

    Args:
        learning_rate: A number >= 0 or a schedule: the wealth that every coordinate starts with, in
            units of the largest gradient. It multiplies all distances from the start; 1 for the
            authors' method.
        alpha: The first bets are held to 1 / alpha of the wealth, for about so many steps; >= 0.
        eps: What `bound` starts from, > 0, in units of gradients; below the largest.
        weight_decay: A number >= 0 or a schedule, times the parameters added to the gradients.
            Parameters are found anew from the first ones: apart from the gradients a decay would be
            undone.
        mask: Which leaves decay: booleans in a prefix of the parameters' tree, or a function of
            the parameters that returns them; None for all.

    Raises:
        ValueError: If an argument is outside its domain, or `update` is not given the parameters.

    Departures: as the authors' parameterfree 0.0.1, which has no learning rate. That of
    optax.contrib.cocob multiplies the gradients: a constant changes nothing, whatever its value,
    and a schedule changes the weights of gradients in the bets, not the steps. There state is in
    the dtype of the parameters; in bfloat16 its sums stop growing. A gradient that is not finite
    stops the bets of its coordinate for one step.
    """
    _check.non_negative(alpha=alpha)
    _check.positive(eps=eps)

    def init(params):
        return CocobState(full_like(params, eps), *(zeros_like(params) for _ in range(3)))

    def update(grads, state, *, learning_rate, moved):
        def leaf(g, moved, bound, sum_abs, grad_sum, reward):
            flaw, g = 0 * g, finite(g)
            bound = jnp.maximum(bound, jnp.abs(g))
            sum_abs = sum_abs + jnp.abs(g)
            grad_sum = grad_sum + g
            # Not max(0, .), which XLA would compute twice, and keep a copy of the old one for it.
            reward = reward - jnp.minimum(reward, g * moved)
            fraction = -grad_sum / jnp.maximum(sum_abs + bound, alpha * bound)
            bet = fraction * (learning_rate + reward / bound)
            return moved - bet + flaw, bound, sum_abs, grad_sum, reward

        step, *sums = map_leaves(leaf, grads, moved, *state)
        return step, CocobState(*sums)

    return descend_freely(
        init, update, learning_rate, weight_decay, mask, coupled=True, together=False
    )
