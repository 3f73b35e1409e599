"""Padam: AMSGrad with a smaller power of the second moment, between it and SGD with momentum.

Chen, Zhou, Tang, Yang, Cao and Gu, "Closing the Generalization Gap of Adaptive Gradient Methods in
Training Deep Neural Networks", IJCAI 2020, algorithm 1. https://arxiv.org/abs/1806.06763
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from optax_adaptive import _check
from optax_adaptive._core import descend, map_leaves, transformation, zero_count, zeros_like
from optax_adaptive._numerics import bias, increment, squarable


class PadamState(NamedTuple):
    """The count of steps and the running means, shaped like the parameters."""

    count: jax.Array  # int32, shape ()
    mu: optax.Updates  # of gradients
    nu: optax.Updates  # of squared gradients
    nu_max: optax.Updates  # the largest nu so far


def padam(
    learning_rate: optax.ScalarOrSchedule,
    *,
    b1: Any = 0.9,
    b2: Any = 0.999,
    partial: Any = 0.125,
    eps: Any = 1e-8,
    weight_decay: optax.ScalarOrSchedule | None = None,
    mask: Any = None,
) -> optax.GradientTransformationExtraArgs:
    """Padam.

    With g the gradient at step t = 1, 2, ..., for every coordinate::

        mu     = b1 mu + (1 - b1) g
        nu     = b2 nu + (1 - b2) g²
        nu_max = max(nu_max, nu)
        rate   = learning_rate sqrt(1 - b2^t) / (1 - b1^t)
        step   = rate mu / (sqrt(nu_max) + eps)^(2 partial)

    Args:
        learning_rate: A number >= 0 or a schedule; closer to SGD's than to Adam's. The paper starts
            at 0.1.
        b1: The share of `mu` kept at each step, in [0, 1).
        b2: The share of `nu` kept at each step, in [0, 1).
        partial: The power of the second moment, in [0, 1/2]: 1/2 is AMSGrad, 0 SGD with momentum.
        eps: Added to the root, > 0, in units of gradients. Its power shows: 1e-8 becomes 0.01.
        weight_decay: A number >= 0 or a schedule, times the learning rate; None for no decay.
        mask: Which leaves decay: booleans in a prefix of the parameters' tree, or a function of
            the parameters that returns them; None for all.

    Raises:
        ValueError: If an argument is outside its domain.

    Departures: as the authors' code (https://github.com/uclaml/Padam), except that its weight decay
    is added to the gradient, and its `partial` is 1/4 by default; the paper recommends 1/8, and so
    does the page of that code. The paper corrects no bias and has no eps. Without its option
    `amsgrad` the code takes nu for nu_max, as `pytorch_optimizer` always does.
    """
    direction = scale_by_padam(b1=b1, b2=b2, partial=partial, eps=eps)
    return descend(direction, learning_rate, weight_decay, mask)


def scale_by_padam(
    *, b1: Any = 0.9, b2: Any = 0.999, partial: Any = 0.125, eps: Any = 1e-8
) -> optax.GradientTransformationExtraArgs:
    """The direction of `padam`, without its learning rate."""
    _check.decay_rate(b1=b1, b2=b2)
    _check.up_to_half(partial=partial)
    _check.positive(eps=eps)

    def init(params):
        zeros = (zeros_like(params) for _ in range(3))
        return PadamState(zero_count(), *zeros)

    def update(grads, state):
        t = increment(state.count)
        correction = jnp.sqrt(bias(b2, t)) / bias(b1, t)

        def leaf(g, mu, nu, nu_max):
            g, flaw = squarable(g)
            mu = b1 * mu + (1 - b1) * g + flaw
            nu = b2 * nu + (1 - b2) * (g * g)
            nu_max = jnp.maximum(nu_max, nu)
            return correction * mu / (jnp.sqrt(nu_max) + eps) ** (2 * partial), mu, nu, nu_max

        updates, mu, nu, nu_max = map_leaves(leaf, grads, state.mu, state.nu, state.nu_max)
        return updates, PadamState(t, mu, nu, nu_max)

    return transformation(init, update)
