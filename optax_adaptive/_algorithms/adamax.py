"""Adamax: Adam with the largest recent gradient in place of the root mean square.

Kingma and Ba, "Adam: A Method for Stochastic Optimization", ICLR 2015, section 7.1.
https://arxiv.org/abs/1412.6980
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from optax_adaptive import _check
from optax_adaptive._core import descend, map_leaves, transformation, zero_count, zeros_like
from optax_adaptive._numerics import bias, increment


class AdamaxState(NamedTuple):
    """The count of steps and what is known of the gradients, shaped like the parameters."""

    count: jax.Array  # int32, shape ()
    mu: optax.Updates  # the running mean of gradients
    nu: optax.Updates  # the largest |gradient|, older ones discounted


def adamax(
    learning_rate: optax.ScalarOrSchedule,
    b1: Any = 0.9,
    b2: Any = 0.999,
    eps: Any = 1e-8,
    *,
    eps_in_max: bool = True,
    weight_decay: optax.ScalarOrSchedule | None = None,
    mask: Any = None,
) -> optax.GradientTransformationExtraArgs:
    """Adamax.

    With g the gradient at step t = 1, 2, ..., for every coordinate::

        mu   = b1 mu + (1 - b1) g
        nu   = max(b2 nu, |g| + eps)
        step = learning_rate / (1 - b1^t) mu / nu

    eps_in_max=False takes the maximum of b2 nu and |g|, and divides by nu + eps.

    Args:
        learning_rate: A number >= 0 or a schedule.
        b1: The share of `mu` kept at each step, in [0, 1).
        b2: The share of `nu` kept at each step, in [0, 1).
        eps: > 0, in units of gradients.
        eps_in_max: Whether eps is added before the maximum is taken.
        weight_decay: A number >= 0 or a schedule, times the learning rate; None for no decay.
        mask: Which leaves decay: booleans in a prefix of the parameters' tree, or a function of
            the parameters that returns them; None for all.

    Raises:
        ValueError: If an argument is outside its domain.

    Departures: as `optax.adamax` and `torch.optim.Adamax`. The paper has no eps, Keras has
    eps_in_max=False.
    """
    direction = scale_by_adamax(b1, b2, eps, eps_in_max=eps_in_max)
    return descend(direction, learning_rate, weight_decay, mask)


def adamaxw(
    learning_rate: optax.ScalarOrSchedule,
    b1: Any = 0.9,
    b2: Any = 0.999,
    eps: Any = 1e-8,
    weight_decay: optax.ScalarOrSchedule | None = 1e-4,
    mask: Any = None,
    *,
    eps_in_max: bool = True,
) -> optax.GradientTransformationExtraArgs:
    """AdamaxW: `adamax` with decoupled weight decay, 1e-4 times the learning rate by default.

    Args and errors as for `adamax`. Departures: none from `optax.adamaxw`.
    """
    direction = scale_by_adamax(b1, b2, eps, eps_in_max=eps_in_max)
    return descend(direction, learning_rate, weight_decay, mask)


def scale_by_adamax(
    b1: Any = 0.9, b2: Any = 0.999, eps: Any = 1e-8, *, eps_in_max: bool = True
) -> optax.GradientTransformationExtraArgs:
    """The direction of `adamax` and `adamaxw`, without learning rate and decay."""
    _check.decay_rate(b1=b1, b2=b2)
    _check.positive(eps=eps)
    _check.flag(eps_in_max=eps_in_max)
    inside, outside = (eps, 0) if eps_in_max else (0, eps)

    def init(params):
        return AdamaxState(zero_count(), zeros_like(params), zeros_like(params))

    def update(grads, state):
        t = increment(state.count)
        c1 = bias(b1, t)

        def leaf(g, mu, nu):
            mu = b1 * mu + (1 - b1) * g
            nu = jnp.maximum(b2 * nu, jnp.abs(g) + inside)
            return mu / (c1 * (nu + outside)), mu, nu

        updates, mu, nu = map_leaves(leaf, grads, state.mu, state.nu)
        return updates, AdamaxState(t, mu, nu)

    return transformation(init, update)
