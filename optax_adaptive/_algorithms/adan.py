"""Adan: Adam with Nesterov's momentum, from means of the gradients and of their differences.

Xie, Zhou, Li, Lin and Yan, "Adan: Adaptive Nesterov Momentum Algorithm for Faster Optimizing Deep
Models", IEEE TPAMI 2024, algorithm 1. https://arxiv.org/abs/2208.06677
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from optax_adaptive import _check
from optax_adaptive._core import descend, map_leaves, transformation, zero_count, zeros_like
from optax_adaptive._numerics import bias, increment, squarable


class AdanState(NamedTuple):
    """The count of steps, the running means and the last gradients, shaped like the parameters."""

    count: jax.Array  # int32, shape ()
    mu: optax.Updates  # of gradients
    mu_diff: optax.Updates  # of differences of one gradient from the one before
    nu: optax.Updates  # of squared gradients, extrapolated
    last_grads: optax.Updates  # of the step before


def adan(
    learning_rate: optax.ScalarOrSchedule,
    b1: Any = 0.98,
    b2: Any = 0.92,
    b3: Any = 0.99,
    eps: Any = 1e-8,
    eps_root: Any = 1e-8,
    *,
    weight_decay: optax.ScalarOrSchedule | None = None,
    mask: Any = None,
) -> optax.GradientTransformationExtraArgs:
    """Adan.

    With g the gradient at step t = 1, 2, ..., and d what it differs from the last one by (0 at the
    first step), for every coordinate::

        mu      = b1 mu + (1 - b1) g
        mu_diff = b2 mu_diff + (1 - b2) d
        nu      = b3 nu + (1 - b3) (g + b2 d)²
        m       = mu / (1 - b1^t) + b2 mu_diff / (1 - b2^t)
        v       = nu / (1 - b3^t)
        step    = learning_rate m / (sqrt(v + eps_root) + eps)

    Args:
        learning_rate: A number >= 0 or a schedule; about the size of a step. It may be larger than
            Adam's; the authors say five to ten times.
        b1: The share of `mu` kept at each step, in [0, 1).
        b2: The share of `mu_diff` kept at each step, in [0, 1), and how far the gradient is
            extrapolated, in steps.
        b3: The share of `nu` kept at each step, in [0, 1).
        eps: Added to the root, >= 0, in units of gradients; > 0 unless eps_root is.
        eps_root: Added under the root, >= 0, in units of squared gradients. With the default
            gradients below 1e-4 make small steps; the authors' code has none.
        weight_decay: A number >= 0 or a schedule, times the learning rate; None for no decay.
        mask: Which leaves decay: booleans in a prefix of the parameters' tree, or a function of
            the parameters that returns them; None for all.

    Raises:
        ValueError: If an argument is outside its domain.

    Departures: as the authors' code (https://github.com/sail-sg/Adan) with `no_prox=True`; by
    default it divides the parameters by 1 + learning_rate weight_decay, which differs in the second
    order. The paper writes 1 - b for every b, and starts with the first gradients where the code
    corrects the bias. `optax.adan` has the arguments and their defaults, but extrapolates by 1 - b2
    where paper and code have b2: by 0.08 steps and not 0.92. With b2 = 0.5 it is the same.
    """
    direction = scale_by_adan(b1, b2, b3, eps, eps_root)
    return descend(direction, learning_rate, weight_decay, mask)


def scale_by_adan(
    b1: Any = 0.98,
    b2: Any = 0.92,
    b3: Any = 0.99,
    eps: Any = 1e-8,
    eps_root: Any = 0.0,
) -> optax.GradientTransformationExtraArgs:
    """The direction of `adan`, without learning rate and decay; `eps_root` is 0, as in optax."""
    _check.decay_rate(b1=b1, b2=b2, b3=b3)
    _check.some_eps(eps=eps, eps_root=eps_root)

    def init(params):
        zeros = (zeros_like(params) for _ in range(4))
        return AdanState(zero_count(), *zeros)

    def update(grads, state):
        t = increment(state.count)
        c1, c2, c3 = bias(b1, t), bias(b2, t), bias(b3, t)
        # The first gradient differs from none: its difference has no weight anywhere.
        share, ahead = (jnp.where(state.count > 0, weight, 0) for weight in (1 - b2, b2))

        def leaf(g, mu, mu_diff, nu, last):
            g, flaw = squarable(g)
            mu = b1 * mu + (1 - b1) * g + flaw
            mu_diff = b2 * mu_diff + share * (g - last)
            nu = b3 * nu + (1 - b3) * ((g + ahead * (g - last)) * (g + ahead * (g - last)))
            m = mu / c1 + b2 * mu_diff / c2
            u = m / (jnp.sqrt(nu / c3 + eps_root) + eps)
            # 0 x what reads the last gradient: it must be read before it is overwritten, and XLA
            # copies it where nothing says so.
            return u, mu, mu_diff, nu, g + 0 * (mu_diff + nu)

        updates, *means = map_leaves(leaf, grads, *state[1:])
        return updates, AdanState(t, *means)

    return transformation(init, update)
