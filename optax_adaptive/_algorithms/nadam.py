"""NAdam: Adam whose running mean of the gradients looks one step ahead.

Dozat, "Incorporating Nesterov Momentum into Adam", ICLR 2016 workshop.
https://openreview.net/forum?id=OM0jvwB8jIp57ZJjtNEZ
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from optax_adaptive import _check
from optax_adaptive._core import (
    descend,
    map_leaves,
    scalar_like,
    transformation,
    zero_count,
    zeros_like,
)
from optax_adaptive._numerics import bias, increment, squarable


class NadamState(NamedTuple):
    """The count of steps, the running means, shaped like the parameters, and a weight."""

    count: jax.Array  # int32, shape ()
    mu: optax.Updates  # of gradients
    nu: optax.Updates  # of squared gradients
    momentum_gap: jax.Array  # 1 - the product of all momenta so far, float32, shape ()


def nadam(
    learning_rate: optax.ScalarOrSchedule,
    b1: Any = 0.9,
    b2: Any = 0.999,
    eps: Any = 1e-8,
    eps_root: Any = 0.0,
    *,
    momentum_decay: Any = None,
    weight_decay: optax.ScalarOrSchedule | None = None,
    mask: Any = None,
) -> optax.GradientTransformationExtraArgs:
    """NAdam.

    With g the gradient at step t = 1, 2, ..., for every coordinate::

        momentum_t = b1 (1 - 0.96^(t momentum_decay) / 2)      (b1 without momentum_decay)
        gap_t      = 1 - momentum_1 ... momentum_t

        mu   = b1 mu + (1 - b1) g
        nu   = b2 nu + (1 - b2) g²
        m    = momentum_(t+1) mu / gap_(t+1) + (1 - momentum_t) g / gap_t
        v    = nu / (1 - b2^t)
        step = learning_rate m / (sqrt(v + eps_root) + eps)

    Args:
        learning_rate: A number >= 0 or a schedule; about the size of a step.
        b1: The share of `mu` kept at each step, in [0, 1).
        b2: The share of `nu` kept at each step, in [0, 1).
        eps: Added to the root, >= 0, in units of gradients; > 0 unless eps_root is.
        eps_root: Added under the root, >= 0, in units of squared gradients.
        momentum_decay: How fast the momentum grows from b1 / 2 to b1, >= 0: 0.004 in the paper and
            in torch, where it is 0.9 b1 after 10,000 steps; 1 in Keras 3, after 40 steps. None for
            b1 from the start.
        weight_decay: A number >= 0 or a schedule, times the learning rate; None for no decay.
        mask: Which leaves decay: booleans in a prefix of the parameters' tree, or a function of
            the parameters that returns them; None for all.

    Raises:
        ValueError: If an argument is outside its domain.

    Departures: without momentum_decay as `optax.nadam`, whose nesterov=False is `adam`. With it as
    torch, Keras and TensorFlow; the paper lets mu follow the growing momentum, too, which nobody
    does, and has v = b2 nu / (1 - b2^t).
    """
    direction = scale_by_nadam(b1, b2, eps, eps_root, momentum_decay=momentum_decay)
    return descend(direction, learning_rate, weight_decay, mask)


def nadamw(
    learning_rate: optax.ScalarOrSchedule,
    b1: Any = 0.9,
    b2: Any = 0.999,
    eps: Any = 1e-8,
    eps_root: Any = 0.0,
    *,
    momentum_decay: Any = None,
    weight_decay: optax.ScalarOrSchedule | None = 1e-4,
    mask: Any = None,
) -> optax.GradientTransformationExtraArgs:
    """NAdamW: `nadam` with decoupled weight decay, 1e-4 times the learning rate by default.

    Args and errors as for `nadam`. Departures as for `nadam`, and as for `adamw`.
    """
    direction = scale_by_nadam(b1, b2, eps, eps_root, momentum_decay=momentum_decay)
    return descend(direction, learning_rate, weight_decay, mask)


def scale_by_nadam(
    b1: Any = 0.9,
    b2: Any = 0.999,
    eps: Any = 1e-8,
    eps_root: Any = 0.0,
    *,
    momentum_decay: Any = None,
) -> optax.GradientTransformationExtraArgs:
    """The direction of `nadam` and `nadamw`, without learning rate and decay."""
    _check.decay_rate(b1=b1, b2=b2)
    _check.some_eps(eps=eps, eps_root=eps_root)
    if momentum_decay is not None:
        _check.non_negative(momentum_decay=momentum_decay)

    def momentum(t):
        return b1 if momentum_decay is None else b1 * (1 - 0.5 * 0.96 ** (t * momentum_decay))

    def init(params):
        gap = scalar_like(params, 0.0)
        return NadamState(zero_count(), zeros_like(params), zeros_like(params), gap)

    def update(grads, state):
        t = increment(state.count)
        c2 = bias(b2, t)
        now, ahead = momentum(t), momentum(increment(t))
        # 1 - the product, without cancellation where the momenta are nearly 1.
        gap = 1 - now + now * state.momentum_gap
        gap_ahead = 1 - ahead + ahead * gap

        def leaf(g, mu, nu):
            g, flaw = squarable(g)
            mu = b1 * mu + (1 - b1) * g + flaw
            nu = b2 * nu + (1 - b2) * (g * g)
            m = ahead / gap_ahead * mu + (1 - now) / gap * g
            return m / (jnp.sqrt(nu / c2 + eps_root) + eps), mu, nu

        updates, mu, nu = map_leaves(leaf, grads, state.mu, state.nu)
        return updates, NadamState(t, mu, nu, gap)

    return transformation(init, update)
