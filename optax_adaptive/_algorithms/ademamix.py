"""AdEMAMix: Adam with a second mean of the gradients that forgets a hundred times more slowly.

Pagliardini, Ablin and Grangier, "The AdEMAMix Optimizer: Better, Faster, Older", ICLR 2025,
algorithm 1. https://arxiv.org/abs/2409.03137
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from optax_adaptive import _check
from optax_adaptive._core import at, descend, map_leaves, transformation, zero_count, zeros_like
from optax_adaptive._numerics import bias, increment, squarable


class AdemamixState(NamedTuple):
    """The count of steps and the running means, shaped like the parameters."""

    count: jax.Array  # int32, shape ()
    mu: optax.Updates  # of gradients
    mu_slow: optax.Updates  # of gradients, by b3
    nu: optax.Updates  # of squared gradients


def ademamix(
    learning_rate: optax.ScalarOrSchedule,
    b1: Any = 0.9,
    b2: Any = 0.999,
    b3: optax.ScalarOrSchedule = 0.9999,
    alpha: optax.ScalarOrSchedule = 5.0,
    eps: Any = 1e-8,
    eps_root: Any = 0.0,
    *,
    weight_decay: optax.ScalarOrSchedule | None = None,
    mask: Any = None,
) -> optax.GradientTransformationExtraArgs:
    """AdEMAMix.

    With g the gradient at step t = 1, 2, ..., for every coordinate::

        mu      = b1 mu + (1 - b1) g
        mu_slow = b3 mu_slow + (1 - b3) g
        nu      = b2 nu + (1 - b2) g²
        m       = mu / (1 - b1^t) + alpha mu_slow
        v       = nu / (1 - b2^t)
        step    = learning_rate m / (sqrt(v + eps_root) + eps)

    The slow mean is not corrected: it starts at 0 and fills within some 1 / (1 - b3) steps. It also
    remembers a giant gradient long after nu has forgotten it, and then makes giant steps: clip the
    gradients. The paper warms b3 and alpha up over T steps, usually all of training, alpha in
    proportion to t and the half-life of mu_slow from that of mu::

        alpha(t) = alpha min(1, t / T)
        b3(t)    = min(b3, exp(1 / ((1 - t / T) / log(b1) + t / T / log(b3))))

    Args:
        learning_rate: A number >= 0 or a schedule; a step is up to 1 + alpha times as long.
        b1: The share of `mu` kept at each step, in [0, 1).
        b2: The share of `nu` kept at each step, in [0, 1).
        b3: The share of `mu_slow` kept at each step, in [0, 1), or a schedule. Less, such as 0.999,
            for runs of a few thousand steps.
        alpha: The weight of the slow mean, >= 0, or a schedule.
        eps: Added to the root, >= 0, in units of gradients; > 0 unless eps_root is.
        eps_root: Added under the root, >= 0, in units of squared gradients.
        weight_decay: A number >= 0 or a schedule, times the learning rate; None for no decay.
        mask: Which leaves decay: booleans in a prefix of the parameters' tree, or a function of
            the parameters that returns them; None for all.

    Raises:
        ValueError: If an argument is outside its domain.

    Departures: as the paper, the authors' code (https://github.com/apple/ml-ademamix) and
    `optax.contrib.ademamix`, where `weight_decay` and `mask` may be positional, behind a `mu_dtype`
    that narrows nu as well. Schedules are evaluated at the count of steps made before this one, as
    in optax: the t above is their argument + 1. `scale_by_ademamix` has the same default alpha, in
    optax it is 6 there.
    """
    direction = scale_by_ademamix(b1, b2, b3, alpha, eps, eps_root)
    return descend(direction, learning_rate, weight_decay, mask)


def scale_by_ademamix(
    b1: Any = 0.9,
    b2: Any = 0.999,
    b3: optax.ScalarOrSchedule = 0.9999,
    alpha: optax.ScalarOrSchedule = 5.0,
    eps: Any = 1e-8,
    eps_root: Any = 0.0,
) -> optax.GradientTransformationExtraArgs:
    """The direction of `ademamix`, without learning rate and decay."""
    _check.decay_rate(b1=b1, b2=b2)
    _check.scheduled_decay_rate(b3=b3)
    _check.scheduled(alpha=alpha)
    _check.some_eps(eps=eps, eps_root=eps_root)

    def init(params):
        return AdemamixState(zero_count(), *(zeros_like(params) for _ in range(3)))

    def update(grads, state):
        t = increment(state.count)
        c1, c2 = bias(b1, t), bias(b2, t)
        slow, weight = at(b3, state.count), at(alpha, state.count)

        def leaf(g, mu, mu_slow, nu):
            g, flaw = squarable(g)
            mu = b1 * mu + (1 - b1) * g + flaw
            mu_slow = slow * mu_slow + (1 - slow) * g
            nu = b2 * nu + (1 - b2) * (g * g)
            m = mu / c1 + weight * mu_slow
            return m / (jnp.sqrt(nu / c2 + eps_root) + eps), mu, mu_slow, nu

        updates, *means = map_leaves(leaf, grads, state.mu, state.mu_slow, state.nu)
        return updates, AdemamixState(t, *means)

    return transformation(init, update)
