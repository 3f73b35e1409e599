"""AMSGrad: Adam whose second moment never shrinks.

Reddi, Kale and Kumar, "On the Convergence of Adam and Beyond", ICLR 2018.
https://openreview.net/forum?id=ryQu7f-RZ
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from optax_adaptive import _check
from optax_adaptive._core import descend, map_leaves, transformation, zero_count, zeros_like
from optax_adaptive._numerics import bias, increment, squarable


class AmsgradState(NamedTuple):
    """The count of steps and the running means, shaped like the parameters."""

    count: jax.Array  # int32, shape ()
    mu: optax.Updates  # of gradients
    nu: optax.Updates  # of squared gradients
    nu_max: optax.Updates  # the largest nu so far


def amsgrad(
    learning_rate: optax.ScalarOrSchedule,
    b1: Any = 0.9,
    b2: Any = 0.999,
    eps: Any = 1e-8,
    eps_root: Any = 0.0,
    *,
    bias_correction_mu: bool = True,
    bias_correction_nu: bool = True,
    eps_hat: bool = False,
    weight_decay: optax.ScalarOrSchedule | None = None,
    mask: Any = None,
) -> optax.GradientTransformationExtraArgs:
    """AMSGrad.

    With g the gradient at step t = 1, 2, ..., for every coordinate::

        mu     = b1 mu + (1 - b1) g
        nu     = b2 nu + (1 - b2) g²
        nu_max = max(nu_max, nu)
        m      = mu / (1 - b1^t)            (mu without bias_correction_mu)
        v      = nu_max / (1 - b2^t)        (nu_max without bias_correction_nu)
        step   = learning_rate m / (sqrt(v + eps_root) + eps)

    eps_hat=True divides eps by sqrt(1 - b2^t), as in `adam`.

    Args:
        learning_rate: A number >= 0 or a schedule.
        b1: The share of `mu` kept at each step, in [0, 1).
        b2: The share of `nu` kept at each step, in [0, 1).
        eps: Added to the root, >= 0, in units of gradients; > 0 unless eps_root is.
        eps_root: Added under the root, >= 0, in units of squared gradients.
        bias_correction_mu: Whether to divide `mu` by the weight it has gathered so far.
        bias_correction_nu: Whether to do so with `nu_max`.
        eps_hat: Whether eps is added to the root of `nu_max` as it is, before its correction.
        weight_decay: A number >= 0 or a schedule, times the learning rate; None for no decay.
        mask: Which leaves decay: booleans in a prefix of the parameters' tree, or a function of
            the parameters that returns them; None for all.

    Raises:
        ValueError: If an argument is outside its domain.

    Departures: the largest nu is that of the raw means, corrected afterwards, as in torch, Keras
    and TensorFlow; optax takes the largest corrected mean, which holds on to the noise of the first
    steps (7 % of the parameters apart after 200 steps). The paper corrects no bias and has no eps.
    """
    direction = scale_by_amsgrad(
        b1,
        b2,
        eps,
        eps_root,
        bias_correction_mu=bias_correction_mu,
        bias_correction_nu=bias_correction_nu,
        eps_hat=eps_hat,
    )
    return descend(direction, learning_rate, weight_decay, mask)


def scale_by_amsgrad(
    b1: Any = 0.9,
    b2: Any = 0.999,
    eps: Any = 1e-8,
    eps_root: Any = 0.0,
    *,
    bias_correction_mu: bool = True,
    bias_correction_nu: bool = True,
    eps_hat: bool = False,
) -> optax.GradientTransformationExtraArgs:
    """The direction of `amsgrad`, without its learning rate."""
    _check.decay_rate(b1=b1, b2=b2)
    _check.some_eps(eps=eps, eps_root=eps_root)
    _check.flag(bias_correction_mu=bias_correction_mu, bias_correction_nu=bias_correction_nu)
    _check.flag(eps_hat=eps_hat)

    def init(params):
        zeros = (zeros_like(params) for _ in range(3))
        return AmsgradState(zero_count(), *zeros)

    def update(grads, state):
        t = increment(state.count)
        c1 = bias(b1, t) if bias_correction_mu else 1
        c2 = bias(b2, t) if bias_correction_nu else 1
        eps_t = eps / jnp.sqrt(c2) if eps_hat else eps

        def leaf(g, mu, nu, nu_max):
            g, flaw = squarable(g)
            mu = b1 * mu + (1 - b1) * g + flaw
            nu = b2 * nu + (1 - b2) * (g * g)
            nu_max = jnp.maximum(nu_max, nu)
            return mu / c1 / (jnp.sqrt(nu_max / c2 + eps_root) + eps_t), mu, nu, nu_max

        updates, mu, nu, nu_max = map_leaves(leaf, grads, state.mu, state.nu, state.nu_max)
        return updates, AmsgradState(t, mu, nu, nu_max)

    return transformation(init, update)
