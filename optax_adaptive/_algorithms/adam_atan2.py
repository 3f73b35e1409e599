"""AdamAtan2: Adam with an arctangent for its quotient, which needs no eps and bounds every step.

Everett, Xiao, Wortsman, Alemi, Novak, Liu, Gur, Sohl-Dickstein, Kaelbling, Lee and Pennington,
"Scaling Exponents Across Parameterizations and Optimizers", ICML 2024, Adam-atan2.
https://arxiv.org/abs/2407.05872
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from optax_adaptive import _check
from optax_adaptive._core import descend, map_leaves, transformation, zero_count, zeros_like
from optax_adaptive._numerics import bias, increment, squarable


class AdamAtan2State(NamedTuple):
    """The count of steps and the running means, shaped like the parameters."""

    count: jax.Array  # int32, shape ()
    mu: optax.Updates  # of gradients
    nu: optax.Updates  # of squared gradients


def adam_atan2(
    learning_rate: optax.ScalarOrSchedule,
    *,
    b1: Any = 0.9,
    b2: Any = 0.99,
    a: Any = 1.27,
    b: Any = 1.0,
    weight_decay: optax.ScalarOrSchedule | None = None,
    mask: Any = None,
) -> optax.GradientTransformationExtraArgs:
    """Adam-atan2.

    With g the gradient at step t = 1, 2, ..., for every coordinate::

        mu   = b1 mu + (1 - b1) g
        nu   = b2 nu + (1 - b2) g²
        m    = mu / (1 - b1^t)
        v    = nu / (1 - b2^t)
        step = learning_rate a atan2(m, b sqrt(v))

    For small m / sqrt(v) that is a / b times the step of Adam, and never more than a π / 2. With
    a = 1.27, almost 4 / π, and b = 1 the step of a constant gradient is the learning rate. Where a
    gradient has always been zero, so is the step: atan2(0, 0) = 0.

    Args:
        learning_rate: A number >= 0 or a schedule; about the size of a step.
        b1: The share of `mu` kept at each step, in [0, 1).
        b2: The share of `nu` kept at each step, in [0, 1).
        a: The factor of the angle, > 0.
        b: The factor of the root, > 0; the more, the closer to a quotient.
        weight_decay: A number >= 0 or a schedule, times the learning rate; None for no decay.
        mask: Which leaves decay: booleans in a prefix of the parameters' tree, or a function of
            the parameters that returns them; None for all.

    Raises:
        ValueError: If an argument is outside its domain.

    Departures: the authors released no code. Names and defaults are those of `AdamAtan2` in
    adam_atan2_pytorch; `adam` has b2 = 0.999. A gradient below 1e-19, whose square is 0 in float32,
    makes the longest step, a π / 2.
    """
    return descend(scale_by_adam_atan2(b1=b1, b2=b2, a=a, b=b), learning_rate, weight_decay, mask)


def scale_by_adam_atan2(
    *, b1: Any = 0.9, b2: Any = 0.99, a: Any = 1.27, b: Any = 1.0
) -> optax.GradientTransformationExtraArgs:
    """The direction of `adam_atan2`, without learning rate and decay."""
    _check.decay_rate(b1=b1, b2=b2)
    _check.positive(a=a, b=b)

    def init(params):
        return AdamAtan2State(zero_count(), zeros_like(params), zeros_like(params))

    def update(grads, state):
        t = increment(state.count)
        c1, c2 = bias(b1, t), bias(b2, t)

        def leaf(g, mu, nu):
            g, flaw = squarable(g)
            mu = b1 * mu + (1 - b1) * g + flaw
            nu = b2 * nu + (1 - b2) * (g * g)
            return a * jnp.atan2(mu / c1, b * jnp.sqrt(nu / c2)), mu, nu

        updates, mu, nu = map_leaves(leaf, grads, state.mu, state.nu)
        return updates, AdamAtan2State(t, mu, nu)

    return transformation(init, update)
