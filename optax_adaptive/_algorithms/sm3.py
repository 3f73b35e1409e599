"""SM3: AdaGrad that keeps of a matrix of sums only the largest of each row and each column.

Anil, Gupta, Koren and Singer, "Memory-Efficient Adaptive Optimization", NeurIPS 2019, algorithm
SM3-II. https://arxiv.org/abs/1901.11150
"""

import functools
from typing import Any, NamedTuple

import jax.numpy as jnp
import optax
from jax import lax

from optax_adaptive import _check
from optax_adaptive._core import descend, map_leaves, transformation, zeros_like, zeros_of
from optax_adaptive._numerics import squarable


class Sm3State(NamedTuple):
    """The running mean, shaped like the parameters, and what bounds the sums of squares."""

    mu: optax.Updates  # of scaled gradients; 0 without momentum
    sum_sq_max: optax.Updates  # a list per leaf: along each axis, the largest bound of each slice


def sm3(
    learning_rate: optax.ScalarOrSchedule,
    momentum: Any = 0.9,
    *,
    eps: Any = 1e-8,
    weight_decay: optax.ScalarOrSchedule | None = None,
    mask: Any = None,
) -> optax.GradientTransformationExtraArgs:
    """SM3.

    With g the gradient, for every coordinate, and a slice the coordinates that share an index with
    it on one axis (the row and the column of a matrix)::

        sum_sq     = min over the slices of the coordinate (sum_sq_max) + g²
        sum_sq_max = max over the slice (sum_sq), for every slice
        mu         = momentum mu + (1 - momentum) g / sqrt(sum_sq + eps)    (0 where sum_sq is 0)
        step       = learning_rate mu

    sum_sq is at least the sum of g² so far. For vectors and numbers it is that sum, as in AdaGrad.

    Args:
        learning_rate: A number >= 0 or a schedule; about the size of the first steps.
        momentum: The share of `mu` kept at each step, in [0, 1); None for none, which saves an
            array of the size of the parameters.
        eps: Added under the root, >= 0, in units of squared gradients.
        weight_decay: A number >= 0 or a schedule, times the learning rate; None for no decay.
        mask: Which leaves decay: booleans in a prefix of the parameters' tree, or a function of
            the parameters that returns them; None for all.

    Raises:
        ValueError: If an argument is outside its domain.

    Departures: as the paper and the authors' code with eps=0, and as `optax.sm3`, which has this
    eps without naming it, cannot do without momentum, and fails on parameters of shape ().
    """
    return descend(scale_by_sm3(momentum, eps=eps), learning_rate, weight_decay, mask)


def scale_by_sm3(momentum: Any = 0.9, *, eps: Any = 1e-8) -> optax.GradientTransformationExtraArgs:
    """The direction of `sm3`, without its learning rate."""
    _check.momentum_pair(momentum, nesterov=False)
    _check.non_negative(eps=eps)

    def init(params):
        mu = zeros_of(jnp.sum, params) if momentum is None else zeros_like(params)
        return Sm3State(mu, zeros_of(_maxima, params))

    def update(grads, state):
        def bound(_, maxima):
            return functools.reduce(jnp.minimum, maxima)

        def leaf(g, bound, mu):
            g, flaw = squarable(g)
            sum_sq = bound + g * g
            u = g * jnp.where(sum_sq > 0, lax.rsqrt(sum_sq + eps), 0) + flaw
            if momentum is not None:
                u = mu = momentum * mu + (1 - momentum) * u
            return u, mu, _maxima(sum_sq)

        bounds = map_leaves(bound, grads, other=(state.sum_sq_max,))
        updates, mu, maxima = map_leaves(leaf, grads, bounds, other=(state.mu,))
        return updates, Sm3State(mu, maxima)

    return transformation(init, update)


def _maxima(x):
    """Along every axis, the largest entry of each slice: arrays that broadcast to that of x."""
    axes = range(max(1, x.ndim))  # a number is a vector of one
    others = [tuple(a for a in range(x.ndim) if a != axis) for axis in axes]
    return [jnp.max(x, other, keepdims=True, initial=0) for other in others]
