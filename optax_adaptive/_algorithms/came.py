"""CAME: Adafactor with momentum, which goes slower where its steps disagree with it.

Luo, Ren, Zheng, Jiang, Jiang and You, "CAME: Confidence-guided Adaptive Memory Efficient
Optimization", ACL 2023, algorithm 2. https://arxiv.org/abs/2307.02047
"""

from typing import Any, NamedTuple

import jax.numpy as jnp
import optax
from jax import lax

from optax_adaptive import _check
from optax_adaptive._core import descend, map_leaves, transformation, zeros_like, zeros_of
from optax_adaptive._numerics import over_factored_root, rms, squarable


class CameState(NamedTuple):
    """The running means; of `nu` or the factors, 0 for what is not kept."""

    mu: optax.Updates  # of scaled gradients, shaped like the parameters
    nu: optax.Updates  # of squared gradients, shaped like the parameters that are not factored
    nu_row: optax.Updates  # of means of squared gradients along the last axis, of length 1 here
    nu_col: optax.Updates  # the same along the last axis but one
    residual_row: optax.Updates  # of squared distances from mu, factored like nu
    residual_col: optax.Updates


def came(
    learning_rate: optax.ScalarOrSchedule,
    *,
    b1: Any = 0.9,
    b2: Any = 0.999,
    b3: Any = 0.9999,
    eps: Any = 1e-30,
    eps_residual: Any = 1e-16,
    clipping_threshold: Any = 1.0,
    weight_decay: optax.ScalarOrSchedule | None = None,
    mask: Any = None,
) -> optax.GradientTransformationExtraArgs:
    """CAME.

    With g the gradient of one leaf, and row and col the means along its last axis and along the
    last but one::

        nu_row       = b2 nu_row + (1 - b2) row(g² + eps)
        nu_col       = b2 nu_col + (1 - b2) col(g² + eps)
        u            = g / sqrt(nu_row nu_col / col(nu_row))
        u            = u / max(1, rms(u) / clipping_threshold)
        mu           = b1 mu + (1 - b1) u
        residual_row = b3 residual_row + (1 - b3) row((u - mu)² + eps_residual)
        residual_col = b3 residual_col + (1 - b3) col((u - mu)² + eps_residual)
        step         = learning_rate mu / sqrt(residual_row residual_col / col(residual_row))

    where rms is the root of the mean of squares over the leaf. Vectors and numbers have a mean for
    every coordinate, and no residual::

        nu           = b2 nu + (1 - b2) (g² + eps)
        u            = g / sqrt(nu), bounded as above
        step         = learning_rate mu

    Args:
        learning_rate: A number >= 0 or a schedule. The steps of matrices are about
            (1 - b1) / b1 / sqrt(1 - b3) times as large at first, which is 11 times.
        b1: The share of `mu` kept at each step, in [0, 1).
        b2: The share of `nu` and its factors kept at each step, in [0, 1).
        b3: The share of the residuals kept at each step, in [0, 1).
        eps: Added to the squares, > 0, in units of squared gradients.
        eps_residual: Added to the squared residuals, > 0, without unit; steps are at most
            about 1 / sqrt(eps_residual) times the learning rate.
        clipping_threshold: The largest rms(u), > 0.
        weight_decay: A number >= 0 or a schedule, times the learning rate; None for no decay.
        mask: Which leaves decay: booleans in a prefix of the parameters' tree, or a function of
            the parameters that returns them; None for all.

    Raises:
        ValueError: If an argument is outside its domain.

    Departures: as the authors' code (https://github.com/yangluo7/CAME, came-pytorch 0.1.3). The
    paper says nothing of vectors. In the authors' code a row that was always zero beside gradients
    of 1e8 makes the steps of the leaf NaN in float32.
    """
    direction = scale_by_came(
        b1=b1,
        b2=b2,
        b3=b3,
        eps=eps,
        eps_residual=eps_residual,
        clipping_threshold=clipping_threshold,
    )
    return descend(direction, learning_rate, weight_decay, mask)


def scale_by_came(
    *,
    b1: Any = 0.9,
    b2: Any = 0.999,
    b3: Any = 0.9999,
    eps: Any = 1e-30,
    eps_residual: Any = 1e-16,
    clipping_threshold: Any = 1.0,
) -> optax.GradientTransformationExtraArgs:
    """The direction of `came`, without its learning rate."""
    _check.decay_rate(b1=b1, b2=b2, b3=b3)
    _check.positive(eps=eps, eps_residual=eps_residual, clipping_threshold=clipping_threshold)

    def init(params):
        def full(x):
            return jnp.sum(x) if _is_factored(x) else x

        parts = (full, _row, _col, _row, _col)
        return CameState(zeros_like(params), *(zeros_of(part, params) for part in parts))

    def update(grads, state):
        def leaf(g, mu, nu, nu_row, nu_col, residual_row, residual_col):
            g, flaw = squarable(g)
            square = g * g + eps
            if _is_factored(g):
                nu_row = b2 * nu_row + (1 - b2) * _row(square)
                nu_col = b2 * nu_col + (1 - b2) * _col(square)
                # It may be huge, where the product of factors is far below the square.
                u, _ = squarable(over_factored_root(g, nu_row, nu_col, -2))
            else:
                nu = b2 * nu + (1 - b2) * square
                u = g * lax.rsqrt(nu)
            u = u / jnp.maximum(1, rms(u) / clipping_threshold)
            direction = mu = b1 * mu + (1 - b1) * u + flaw
            if _is_factored(g):
                square = (u - mu) ** 2 + eps_residual
                residual_row = b3 * residual_row + (1 - b3) * _row(square)
                residual_col = b3 * residual_col + (1 - b3) * _col(square)
                direction = over_factored_root(mu, residual_row, residual_col, -2)
            return direction, mu, nu, nu_row, nu_col, residual_row, residual_col

        updates, *means = map_leaves(leaf, grads, state.mu, other=state[1:])
        return updates, CameState(*means)

    return transformation(init, update)


def _is_factored(x):
    return x.ndim > 1 and x.size > 0


def _row(x):
    return jnp.mean(x, -1, keepdims=True) if _is_factored(x) else jnp.sum(x)


def _col(x):
    return jnp.mean(x, -2, keepdims=True) if _is_factored(x) else jnp.sum(x)
