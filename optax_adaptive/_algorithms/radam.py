"""RAdam: Adam that waits until its second moment can be trusted.

Liu, Jiang, He, Chen, Liu, Gao and Han, "On the Variance of the Adaptive Learning Rate and Beyond",
ICLR 2020. https://arxiv.org/abs/1908.03265
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from optax_adaptive import _check
from optax_adaptive._core import descend, map_leaves, transformation, zero_count, zeros_like
from optax_adaptive._numerics import bias, increment, rectifier, squarable


class RadamState(NamedTuple):
    """The count of steps and the running means, shaped like the parameters."""

    count: jax.Array  # int32, shape ()
    mu: optax.Updates  # of gradients
    nu: optax.Updates  # of squared gradients


def radam(
    learning_rate: optax.ScalarOrSchedule,
    b1: Any = 0.9,
    b2: Any = 0.999,
    eps: Any = 1e-8,
    eps_root: Any = 0.0,
    threshold: Any = 5.0,
    *,
    nesterov: bool = False,
    eps_hat: bool = False,
    weight_decay: optax.ScalarOrSchedule | None = None,
    mask: Any = None,
) -> optax.GradientTransformationExtraArgs:
    """RAdam, rectified Adam.

    With g the gradient at step t = 1, 2, ..., for every coordinate::

        mu, nu, m, v as in `adam`, nesterov included
        rho_inf = 2 / (1 - b2) - 1
        rho     = rho_inf - 2 t b2^t / (1 - b2^t)
        r       = sqrt((rho - 4) (rho - 2) rho_inf / ((rho_inf - 4) (rho_inf - 2) rho))
        step    = learning_rate r m / (sqrt(v + eps_root) + eps)    if rho >= threshold
                  learning_rate m                                   otherwise

    rho is about t in the first steps, so with b2 = 0.999 the step is rectified from t = 6 on; with
    b2 <= 2/3 it never is. eps_hat=True divides eps by sqrt(1 - b2^t), as in `adam`.

    Args:
        learning_rate: A number >= 0 or a schedule.
        b1: The share of `mu` kept at each step, in [0, 1).
        b2: The share of `nu` kept at each step, in (0, 1).
        eps: Added to the root, >= 0, in units of gradients; > 0 unless eps_root is.
        eps_root: Added under the root, >= 0, in units of squared gradients.
        threshold: The least rho that is rectified, >= 4: below, the variance has no bound.
        nesterov: Whether the mean looks one step ahead.
        eps_hat: Whether eps is added to the root of `nu` before its correction.
        weight_decay: A number >= 0 or a schedule, times the learning rate; None for no decay.
        mask: Which leaves decay: booleans in a prefix of the parameters' tree, or a function of
            the parameters that returns them; None for all.

    Raises:
        ValueError: If an argument is outside its domain.

    Departures: as `optax.radam`, whose float32 rho loses 1 % of the step at t = 6 to cancellation;
    here it is exact. The paper rectifies above 4 and has no eps; torch rectifies above 5
    and has eps_hat=True.
    """
    direction = scale_by_radam(b1, b2, eps, eps_root, threshold, nesterov=nesterov, eps_hat=eps_hat)
    return descend(direction, learning_rate, weight_decay, mask)


def scale_by_radam(
    b1: Any = 0.9,
    b2: Any = 0.999,
    eps: Any = 1e-8,
    eps_root: Any = 0.0,
    threshold: Any = 5.0,
    *,
    nesterov: bool = False,
    eps_hat: bool = False,
) -> optax.GradientTransformationExtraArgs:
    """The direction of `radam`, without its learning rate."""
    _check.decay_rate(b1=b1)
    _check.open_unit(b2=b2)
    _check.some_eps(eps=eps, eps_root=eps_root)
    _check.at_least_four(threshold=threshold)
    _check.flag(nesterov=nesterov, eps_hat=eps_hat)

    def init(params):
        return RadamState(zero_count(), zeros_like(params), zeros_like(params))

    def update(grads, state):
        t = increment(state.count)
        c1, c1_next, c2 = bias(b1, t), bias(b1, increment(t)), bias(b2, t)
        eps_t = eps / jnp.sqrt(c2) if eps_hat else eps
        is_rectified, r = rectifier(b2, t, threshold)

        def leaf(g, mu, nu):
            g, flaw = squarable(g)
            mu = b1 * mu + (1 - b1) * g + flaw
            nu = b2 * nu + (1 - b2) * (g * g)
            m = b1 * mu / c1_next + (1 - b1) * g / c1 if nesterov else mu / c1
            rate = r / (jnp.sqrt(nu / c2 + eps_root) + eps_t)
            return m * jnp.where(is_rectified, rate, 1), mu, nu

        updates, mu, nu = map_leaves(leaf, grads, state.mu, state.nu)
        return updates, RadamState(t, mu, nu)

    return transformation(init, update)
