"""LaProp: the mean of the normalised gradients, where Adam normalises the mean.

Ziyin, Wang and Ueda, "LaProp: Separating Momentum and Adaptivity in Adam", arXiv 2020, algorithm 1.
https://arxiv.org/abs/2002.04839
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from optax_adaptive import _check
from optax_adaptive._core import descend, map_leaves, transformation, zero_count, zeros_like
from optax_adaptive._numerics import bias, increment, squarable


class LapropState(NamedTuple):
    """The count of steps and the running means, shaped like the parameters."""

    count: jax.Array  # int32, shape ()
    mu: optax.Updates  # of normalised gradients
    nu: optax.Updates  # of squared gradients


def laprop(
    learning_rate: optax.ScalarOrSchedule,
    *,
    b1: Any = 0.9,
    b2: Any = 0.999,
    eps: Any = 1e-15,
    weight_decay: optax.ScalarOrSchedule | None = None,
    mask: Any = None,
) -> optax.GradientTransformationExtraArgs:
    """LaProp.

    With g the gradient at step t = 1, 2, ..., for every coordinate::

        nu   = b2 nu + (1 - b2) g²
        v    = nu / (1 - b2^t)
        mu   = b1 mu + (1 - b1) g / (sqrt(v) + eps)
        step = learning_rate mu / (1 - b1^t)

    A gradient enters the mean at the size it has beside those before it, and a giant that comes
    later changes nothing about it. So no step is longer than learning_rate / sqrt(1 - b2), for
    every b1; Adam's steps have no bound where b1 > sqrt(b2). With b2 = 0 it is the mean of signs.

    Args:
        learning_rate: A number >= 0 or a schedule; about the size of a step. The authors' default
            is 4e-4.
        b1: The share of `mu` kept at each step, in [0, 1).
        b2: The share of `nu` kept at each step, in [0, 1).
        eps: Added to the root, > 0, in units of gradients.
        weight_decay: A number >= 0 or a schedule, times the learning rate; None for no decay.
        mask: Which leaves decay: booleans in a prefix of the parameters' tree, or a function of
            the parameters that returns them; None for all.

    Raises:
        ValueError: If an argument is outside its domain.

    Departures: as the paper. The authors' code (https://github.com/Z-T-WANG/LaProp-Optimizer) is
    the same while the learning rate is; when it changes, that code weighs the gradients in the mean
    by the rates they came at, and here, as in the paper, the whole step takes the new rate. It also
    decays by `weight_decay` alone and after the step; here the decay is that of AdamW. Its options
    `centered` and `amsgrad` need another state.
    """
    direction = scale_by_laprop(b1=b1, b2=b2, eps=eps)
    return descend(direction, learning_rate, weight_decay, mask)


def scale_by_laprop(
    *, b1: Any = 0.9, b2: Any = 0.999, eps: Any = 1e-15
) -> optax.GradientTransformationExtraArgs:
    """The direction of `laprop`, without learning rate and decay."""
    _check.decay_rate(b1=b1, b2=b2)
    _check.positive(eps=eps)

    def init(params):
        return LapropState(zero_count(), zeros_like(params), zeros_like(params))

    def update(grads, state):
        t = increment(state.count)
        c1, c2 = bias(b1, t), bias(b2, t)

        def leaf(g, mu, nu):
            g, flaw = squarable(g)
            nu = b2 * nu + (1 - b2) * (g * g)
            mu = b1 * mu + (1 - b1) * g / (jnp.sqrt(nu / c2) + eps) + flaw
            return mu / c1, mu, nu

        updates, mu, nu = map_leaves(leaf, grads, state.mu, state.nu)
        return updates, LapropState(t, mu, nu)

    return transformation(init, update)
