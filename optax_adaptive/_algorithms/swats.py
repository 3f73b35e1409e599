"""SWATS: Adam that becomes SGD, at a rate that it has found by itself.

Keskar and Socher, "Improving Generalization Performance by Switching from Adam to SGD", arXiv 2017,
algorithm 1. https://arxiv.org/abs/1712.07628
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from optax_adaptive import _check
from optax_adaptive._core import (
    descend,
    map_leaves,
    transformation,
    zero_count,
    zeros_like,
    zeros_of,
)
from optax_adaptive._numerics import bias, increment, squarable


class SwatsState(NamedTuple):
    """The count of steps, running means shaped like the parameters, two scalars per leaf."""

    count: jax.Array  # int32, shape ()
    mu: optax.Updates  # of gradients; since the switch, if there was one
    nu: optax.Updates  # of squared gradients
    sgd_rate: optax.Updates  # mean of SGD's rates per leaf; from the switch on corrected and fixed
    switched: optax.Updates  # int32 per leaf: the step of the switch, 0 before it


def swats(
    learning_rate: optax.ScalarOrSchedule,
    *,
    b1: Any = 0.9,
    b2: Any = 0.999,
    eps: Any = 1e-9,
    tolerance: Any = 1e-6,
    weight_decay: optax.ScalarOrSchedule | None = None,
    mask: Any = None,
) -> optax.GradientTransformationExtraArgs:
    """SWATS.

    With g the gradient of one leaf at step t = 1, 2, ...::

        mu   = b1 mu + (1 - b1) g
        nu   = b2 nu + (1 - b2) g²
        u    = sqrt(1 - b2^t) / (1 - b1^t) mu / (sqrt(nu) + eps)
        step = learning_rate u

    The SGD whose step, projected onto u, is u has the rate::

        r        = (u · u) / (u · g)
        sgd_rate = b2 sgd_rate + (1 - b2) r             (where u · g is not 0)
        mean     = sgd_rate / (1 - b2^t)

    As soon as t > 1, mean > 0 and |mean - r| <= tolerance |r|, the leaf goes over to SGD: `mu`
    starts again at 0, and from the next step on::

        mu   = b1 mu + (1 - b1) g
        step = learning_rate mean mu

    Args:
        learning_rate: A number >= 0 or a schedule, of Adam. SGD's rate is found in units of it.
        b1: The share of `mu` kept at each step, in [0, 1): the momentum of SGD, too.
        b2: The share of `nu` and of `sgd_rate` kept at each step, in [0, 1).
        eps: Added to the root, > 0, in units of gradients.
        tolerance: How close, as a share of it, a rate must come to the mean, > 0. At 1e-6 noisy
            gradients meet it by chance, after many thousand steps.
        weight_decay: A number >= 0 or a schedule, times the learning rate; None for no decay.
        mask: Which leaves decay: booleans in a prefix of the parameters' tree, or a function of
            the parameters that returns them; None for all.

    Raises:
        ValueError: If an argument is outside its domain.

    Departures: at a constant learning rate, for one leaf, as the paper, with two exceptions: its
    tolerance is absolute, 1e-9, below the resolution of float32 for most rates (1e-6 as a share is
    that of the implementation most used, https://github.com/Mrpatekful/swats), and a mean below 0,
    an ascent, does not switch, as there. The paper takes the parameters for one vector, that
    implementation switches all of them with the first leaf; here every leaf switches by itself. The
    rates are in units of the learning rate, so SGD goes on with the schedule; in the paper they
    keep that of the moment of the switch.
    """
    direction = scale_by_swats(b1=b1, b2=b2, eps=eps, tolerance=tolerance)
    return descend(direction, learning_rate, weight_decay, mask)


def scale_by_swats(
    *, b1: Any = 0.9, b2: Any = 0.999, eps: Any = 1e-9, tolerance: Any = 1e-6
) -> optax.GradientTransformationExtraArgs:
    """The direction of `swats`, without its learning rate."""
    _check.decay_rate(b1=b1, b2=b2)
    _check.positive(eps=eps, tolerance=tolerance)

    def init(params):
        switched = map_leaves(lambda _: zero_count(), params)
        means = zeros_like(params), zeros_like(params)
        return SwatsState(zero_count(), *means, zeros_of(jnp.sum, params), switched)

    def update(grads, state):
        t = increment(state.count)
        c2 = bias(b2, t)
        correction = jnp.sqrt(c2) / bias(b1, t)

        def leaf(grad, mu, nu, sgd_rate, switched):
            g, flaw = squarable(grad)
            mu = b1 * mu + (1 - b1) * g + flaw
            nu = b2 * nu + (1 - b2) * (g * g)
            u = correction * mu / (jnp.sqrt(nu) + eps)
            rate = jnp.sum(u * u) / jnp.sum(u * grad)
            exists = jnp.isfinite(rate)
            average = jnp.where(exists, b2 * sgd_rate + (1 - b2) * rate, sgd_rate)
            mean = average / c2
            close = exists & (mean > 0) & (jnp.abs(mean - rate) <= tolerance * jnp.abs(rate))
            is_adam = switched == 0
            switches = is_adam & close & (t > 1)
            return (
                jnp.where(is_adam, u, sgd_rate * mu),
                jnp.where(switches, 0, mu),
                nu,
                jnp.where(is_adam, jnp.where(switches, mean, average), sgd_rate),
                jnp.where(switches, t, switched),
            )

        scalars = (state.sgd_rate, state.switched)
        updates, *states = map_leaves(leaf, grads, state.mu, state.nu, other=scalars)
        return updates, SwatsState(t, *states)

    return transformation(init, update)
