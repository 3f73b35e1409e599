"""Yogi: Adam whose mean of squared gradients moves by a bounded amount.

Zaheer, Reddi, Sachan, Kale and Kumar, "Adaptive Methods for Nonconvex Optimization", NeurIPS 2018,
algorithm 2. https://papers.nips.cc/paper/8186-adaptive-methods-for-nonconvex-optimization
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from optax_adaptive import _check
from optax_adaptive._core import descend, full_like, map_leaves, transformation, zero_count
from optax_adaptive._numerics import bias, increment, squarable


class YogiState(NamedTuple):
    """The count of steps and what is known of the gradients, shaped like the parameters."""

    count: jax.Array  # int32, shape ()
    mu: optax.Updates  # mean of gradients
    nu: optax.Updates  # level of squared gradients, followed step by step


def yogi(
    learning_rate: optax.ScalarOrSchedule,
    b1: Any = 0.9,
    b2: Any = 0.999,
    eps: Any = 1e-3,
    *,
    eps_root: Any = 0.0,
    initial_accumulator_value: Any = 1e-6,
    weight_decay: optax.ScalarOrSchedule | None = None,
    mask: Any = None,
) -> optax.GradientTransformationExtraArgs:
    """Yogi.

    With g the gradient at step t = 1, 2, ..., for every coordinate::

        mu   = b1 mu + (1 - b1) g
        nu   = nu - (1 - b2) sign(nu - g²) g²
        m    = mu / (1 - b1^t)
        v    = nu / (1 - b2^t)
        step = learning_rate m / (sqrt(v + eps_root) + eps)

    where mu and nu start at initial_accumulator_value.

    Where gradients become small, Adam forgets the large ones at an exponential rate, and its steps
    grow; here nu falls by no more than (1 - b2) g².

    Args:
        learning_rate: A number >= 0 or a schedule; about the size of a step where gradients are
            larger than eps.
        b1: The share of `mu` kept at each step, in [0, 1).
        b2: 1 less the share of g² by which `nu` moves, in [0, 1).
        eps: Added to the root, >= 0, in units of gradients; > 0 unless eps_root is. The default is
            the paper's: smaller gradients make smaller steps.
        eps_root: Added under the root, >= 0, in units of squared gradients.
        initial_accumulator_value: Where `mu` (in units of gradients) and `nu` (of their squares)
            start, >= 0.
        weight_decay: A number >= 0 or a schedule, times the learning rate; None for no decay.
        mask: Which leaves decay: booleans in a prefix of the parameters' tree, or a function of
            the parameters that returns them; None for all.

    Raises:
        ValueError: If an argument is outside its domain.

    Departures: as `optax.yogi` (whose last two numbers only `optax.scale_by_yogi` takes),
    TensorFlow Addons and the packages for torch: they add to the paper the corrections of the bias,
    as if the start were 0, and a `mu` that does not start at 0, so that a parameter without
    gradient moves a little, too: 0.0016 learning rates in all.
    """
    direction = scale_by_yogi(b1, b2, eps, eps_root, initial_accumulator_value)
    return descend(direction, learning_rate, weight_decay, mask)


def scale_by_yogi(
    b1: Any = 0.9,
    b2: Any = 0.999,
    eps: Any = 1e-3,
    eps_root: Any = 0.0,
    initial_accumulator_value: Any = 1e-6,
) -> optax.GradientTransformationExtraArgs:
    """The direction of `yogi`, without learning rate and decay."""
    _check.decay_rate(b1=b1, b2=b2)
    _check.some_eps(eps=eps, eps_root=eps_root)
    _check.non_negative(initial_accumulator_value=initial_accumulator_value)

    def init(params):
        start = (full_like(params, initial_accumulator_value) for _ in range(2))
        return YogiState(zero_count(), *start)

    def update(grads, state):
        t = increment(state.count)
        c1, c2 = bias(b1, t), bias(b2, t)

        def leaf(g, mu, nu):
            g, flaw = squarable(g)
            mu = b1 * mu + (1 - b1) * g + flaw
            nu = nu - (1 - b2) * jnp.sign(nu - g * g) * (g * g)
            return mu / c1 / (jnp.sqrt(nu / c2 + eps_root) + eps), mu, nu

        updates, mu, nu = map_leaves(leaf, grads, state.mu, state.nu)
        return updates, YogiState(t, mu, nu)

    return transformation(init, update)
