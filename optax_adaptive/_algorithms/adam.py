"""Adam: a running mean of the gradients over the root of a running mean of their squares.

Adam: Kingma and Ba, "Adam: A Method for Stochastic Optimization", ICLR 2015.
https://arxiv.org/abs/1412.6980
AdamW: Loshchilov and Hutter, "Decoupled Weight Decay Regularization", ICLR 2019.
https://arxiv.org/abs/1711.05101
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from optax_adaptive import _check
from optax_adaptive._core import descend, map_leaves, transformation, zero_count, zeros_like
from optax_adaptive._numerics import bias, increment, squarable


class AdamState(NamedTuple):
    """The count of steps and the running means, shaped like the parameters."""

    count: jax.Array  # int32, shape ()
    mu: optax.Updates  # of gradients
    nu: optax.Updates  # of squared gradients


def adam(
    learning_rate: optax.ScalarOrSchedule,
    b1: Any = 0.9,
    b2: Any = 0.999,
    eps: Any = 1e-8,
    eps_root: Any = 0.0,
    *,
    nesterov: bool = False,
    eps_hat: bool = False,
    weight_decay: optax.ScalarOrSchedule | None = None,
    mask: Any = None,
) -> optax.GradientTransformationExtraArgs:
    """Adam.

    With g the gradient at step t = 1, 2, ..., for every coordinate::

        mu   = b1 mu + (1 - b1) g
        nu   = b2 nu + (1 - b2) g²
        m    = mu / (1 - b1^t)
        v    = nu / (1 - b2^t)
        step = learning_rate m / (sqrt(v + eps_root) + eps)

    and with nesterov::

        m    = b1 mu / (1 - b1^(t+1)) + (1 - b1) g / (1 - b1^t)

    eps_hat=True divides eps by sqrt(1 - b2^t), as if it were added to the root of nu as it is: 31
    times as large at the first step.

    Args:
        learning_rate: A number >= 0 or a schedule; about the size of a step.
        b1: The share of `mu` kept at each step, in [0, 1).
        b2: The share of `nu` kept at each step, in [0, 1).
        eps: Added to the root, >= 0, in units of gradients; > 0 unless eps_root is.
        eps_root: Added under the root, >= 0, in units of squared gradients.
        nesterov: Whether the mean looks one step ahead: `nadam`.
        eps_hat: Whether eps is added to the root of `nu` before its correction: the faster form at
            the end of the paper's section 2, with what it calls epsilon hat.
        weight_decay: A number >= 0 or a schedule, times the learning rate, beside the gradient and
            not in it: AdamW. None for no decay.
        mask: Which leaves decay: booleans in a prefix of the parameters' tree, or a function of
            the parameters that returns them; None for all.

    Raises:
        ValueError: If an argument is outside its domain.

    Departures: as the paper, `optax.adam` and `torch.optim.Adam`; without `mu_dtype`: the means are
    float32 at least, and `with_state_dtype` stores them in fewer bits. optax computes 1 - b^t in
    float32 as it stands and is off by 1e-5 in the first steps. Keras and TensorFlow have
    eps_hat=True.
    """
    direction = scale_by_adam(b1, b2, eps, eps_root, nesterov=nesterov, eps_hat=eps_hat)
    return descend(direction, learning_rate, weight_decay, mask)


def adamw(
    learning_rate: optax.ScalarOrSchedule,
    b1: Any = 0.9,
    b2: Any = 0.999,
    eps: Any = 1e-8,
    eps_root: Any = 0.0,
    *,
    weight_decay: optax.ScalarOrSchedule | None = 1e-4,
    mask: Any = None,
    nesterov: bool = False,
    eps_hat: bool = False,
) -> optax.GradientTransformationExtraArgs:
    """AdamW: `adam` with decoupled weight decay, 1e-4 times the learning rate by default.

    With p the parameters and the step of `adam`, for every coordinate::

        step = learning_rate (m / (sqrt(v + eps_root) + eps) + weight_decay p)

    Args and errors as for `adam`.

    Departures: as `optax.adamw` (there `weight_decay` and `mask` may be positional, behind
    `mu_dtype`). `torch.optim.AdamW` decays by 0.01 by default, Keras by 0.004; the paper does not
    multiply the decay by the learning rate, only by its schedule.
    """
    direction = scale_by_adam(b1, b2, eps, eps_root, nesterov=nesterov, eps_hat=eps_hat)
    return descend(direction, learning_rate, weight_decay, mask)


def scale_by_adam(
    b1: Any = 0.9,
    b2: Any = 0.999,
    eps: Any = 1e-8,
    eps_root: Any = 0.0,
    *,
    nesterov: bool = False,
    eps_hat: bool = False,
) -> optax.GradientTransformationExtraArgs:
    """The direction of `adam` and `adamw`, without learning rate and decay."""
    _check.decay_rate(b1=b1, b2=b2)
    _check.some_eps(eps=eps, eps_root=eps_root)
    _check.flag(nesterov=nesterov, eps_hat=eps_hat)

    def init(params):
        return AdamState(zero_count(), zeros_like(params), zeros_like(params))

    def update(grads, state):
        t = increment(state.count)
        c1, c1_next, c2 = bias(b1, t), bias(b1, increment(t)), bias(b2, t)
        eps_t = eps / jnp.sqrt(c2) if eps_hat else eps

        def leaf(g, mu, nu):
            g, flaw = squarable(g)
            mu = b1 * mu + (1 - b1) * g + flaw
            nu = b2 * nu + (1 - b2) * (g * g)
            m = b1 * mu / c1_next + (1 - b1) * g / c1 if nesterov else mu / c1
            return m / (jnp.sqrt(nu / c2 + eps_root) + eps_t), mu, nu

        updates, mu, nu = map_leaves(leaf, grads, state.mu, state.nu)
        return updates, AdamState(t, mu, nu)

    return transformation(init, update)
