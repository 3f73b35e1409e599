"""DiffGrad: Adam, its steps halved where the gradient no longer changes.

Dubey, Chakraborty, Roy, Mukherjee, Singh and Chaudhuri, "diffGrad: An Optimization Method for
Convolutional Neural Networks", IEEE Transactions on Neural Networks and Learning Systems 31 (11),
2020. https://arxiv.org/abs/1909.11015
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from optax_adaptive import _check
from optax_adaptive._core import descend, map_leaves, transformation, zero_count, zeros_like
from optax_adaptive._numerics import bias, increment, squarable


class DiffgradState(NamedTuple):
    """The count of steps, and arrays shaped like the parameters."""

    count: jax.Array  # int32, shape ()
    mu: optax.Updates  # mean of gradients
    nu: optax.Updates  # mean of squared gradients
    last_grads: optax.Updates  # the gradients of the step before


def diffgrad(
    learning_rate: optax.ScalarOrSchedule,
    *,
    b1: Any = 0.9,
    b2: Any = 0.999,
    eps: Any = 1e-8,
    weight_decay: optax.ScalarOrSchedule | None = None,
    mask: Any = None,
) -> optax.GradientTransformationExtraArgs:
    """DiffGrad.

    With g the gradient at step t = 1, 2, ... and g' that of the step before (0 at first), for every
    coordinate::

        mu       = b1 mu + (1 - b1) g
        nu       = b2 nu + (1 - b2) g²
        friction = 1 / (1 + exp(-|g' - g|))
        rate     = learning_rate sqrt(1 - b2^t) / (1 - b1^t) / (sqrt(nu) + eps)
        step     = rate friction mu

    The friction is between 1/2, where the gradient stays, and 1, where it jumps. It compares the
    change with 1, not with the gradient: the scale of the loss matters, unlike for Adam. Gradients
    far below 1 make it 1/2 throughout.

    Args:
        learning_rate: A number >= 0 or a schedule; one to two times the size of a step.
        b1: The share of `mu` kept at each step, in [0, 1).
        b2: The share of `nu` kept at each step, in [0, 1).
        eps: Added to the root, > 0, in units of gradients.
        weight_decay: A number >= 0 or a schedule, times the learning rate; None for no decay.
        mask: Which leaves decay: booleans in a prefix of the parameters' tree, or a function of
            the parameters that returns them; None for all.

    Raises:
        ValueError: If an argument is outside its domain.

    Departures: as the authors' code of today (`diffGrad_v2.py` of shivram1987/diffGrad), except
    that its weight decay is added to the gradient; the code of the paper compared each gradient
    with itself, and its friction was always 1/2. The paper adds eps to the corrected root.
    """
    return descend(scale_by_diffgrad(b1=b1, b2=b2, eps=eps), learning_rate, weight_decay, mask)


def scale_by_diffgrad(
    *, b1: Any = 0.9, b2: Any = 0.999, eps: Any = 1e-8
) -> optax.GradientTransformationExtraArgs:
    """The direction of `diffgrad`, without its learning rate."""
    _check.decay_rate(b1=b1, b2=b2)
    _check.positive(eps=eps)

    def init(params):
        zeros = (zeros_like(params) for _ in range(3))
        return DiffgradState(zero_count(), *zeros)

    def update(grads, state):
        t = increment(state.count)
        correction = jnp.sqrt(bias(b2, t)) / bias(b1, t)

        def leaf(grad, mu, nu, last):
            g, flaw = squarable(grad)
            mu = b1 * mu + (1 - b1) * g + flaw
            nu = b2 * nu + (1 - b2) * (g * g)
            # The one copy: the last gradient is read in the step that overwrites it.
            friction = 1 / (1 + jnp.exp(-jnp.abs(last - grad)))
            return correction * friction * mu / (jnp.sqrt(nu) + eps), mu, nu, grad

        updates, mu, nu, last = map_leaves(leaf, grads, state.mu, state.nu, state.last_grads)
        return updates, DiffgradState(t, mu, nu, last)

    return transformation(init, update)
