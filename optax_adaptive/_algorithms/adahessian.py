"""AdaHessian: Adam whose second moment is of the Hessian's diagonal, not of the gradient.

Yao, Gholami, Shen, Mustafa, Keutzer and Mahoney, "ADAHESSIAN: An Adaptive Second Order Optimizer
for Machine Learning", AAAI 2021, algorithm 1. https://arxiv.org/abs/2006.00719
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from optax_adaptive import _check
from optax_adaptive._core import descend, map_leaves, transformation, zero_count, zeros_like
from optax_adaptive._numerics import bias, increment, squarable

# Kernels of two-dimensional convolutions: height, width, inputs, outputs.
_KERNELS: Mapping[int, tuple[int, ...]] = MappingProxyType({4: (0, 1)})


class AdahessianState(NamedTuple):
    """The count of steps and the running means, shaped like the parameters."""

    count: jax.Array  # int32, shape ()
    mu: optax.Updates  # of gradients
    nu: optax.Updates  # of squared, averaged Hessian diagonals


def adahessian(
    learning_rate: optax.ScalarOrSchedule,
    *,
    b1: Any = 0.9,
    b2: Any = 0.999,
    eps: Any = 1e-4,
    hessian_power: Any = 1.0,
    averaged_axes: Mapping[int, tuple[int, ...]] = _KERNELS,
    weight_decay: optax.ScalarOrSchedule | None = None,
    mask: Any = None,
) -> optax.GradientTransformationExtraArgs:
    """AdaHessian.

    `update` needs an estimate of the diagonal of the Hessian, a tree like the gradients, which
    `hutchinson` makes for the price of about two more::

        loss_and_curvature = oa.hutchinson(loss_fn)
        loss, grads, diagonal = loss_and_curvature(key, params, batch)
        updates, state = optimizer.update(grads, state, params, hessian_diagonal=diagonal)

    Every step needs another key. To save time a diagonal may be given to several steps.

    With g the gradient, h the estimate and p the parameters at step t = 1, 2, ..., for every
    coordinate::

        h    = mean of |h| over the averaged axes
        mu   = b1 mu + (1 - b1) g
        nu   = b2 nu + (1 - b2) h²
        m    = mu / (1 - b1^t)
        v    = nu / (1 - b2^t)
        step = learning_rate (m / (sqrt(v)^hessian_power + eps) + weight_decay p)

    Args:
        learning_rate: A number >= 0 or a schedule; in steps of Newton's method where hessian_power
            is 1. The authors train with 0.15.
        b1: The share of `mu` kept at each step, in [0, 1).
        b2: The share of `nu` kept at each step, in [0, 1).
        eps: Added to the root, > 0, in units of curvature to the power of hessian_power.
        hessian_power: How much of the curvature counts, in [0, 1]: 1 for all of it, 0 for none,
            which leaves momentum.
        averaged_axes: A mapping from the number of axes of a leaf to those over which the estimate
            is averaged, because one probe is a noisy estimate. By default {4: (0, 1)}, the height
            and width of kernels of Flax, Haiku and Keras; for Equinox, whose kernels end with them,
            {4: (2, 3)}; {2: (0,), 4: (0, 1)} averages over the inputs of dense layers, too; {} does
            not average. Complex leaves have one axis more here, the last one, of length 2.
        weight_decay: A number >= 0 or a schedule, times the learning rate; None for no decay.
        mask: Which leaves decay: booleans in a prefix of the parameters' tree, or a function of
            the parameters that returns them; None for all.

    Raises:
        ValueError: If an argument is outside its domain, or `update` is not given
            `hessian_diagonal`.

    Departures: as the authors' code for images. The paper averages the estimates with their signs,
    all of the authors' code their sizes, as here. The authors' other programs also average over the
    inputs of dense layers, along one-dimensional convolutions, or over blocks of consecutive
    numbers: the first two are `averaged_axes`, the third is not here. By default leaves of three
    axes are left alone, because in JAX they are heads of attention more often than convolutions.
    torch_optimizer has hessian_power = 0.5 by default, timm and pytorch_optimizer have another eps
    and do not average by default.
    """
    direction = scale_by_adahessian(b1, b2, eps, hessian_power, averaged_axes)
    return descend(direction, learning_rate, weight_decay, mask)


def scale_by_adahessian(
    b1: Any = 0.9,
    b2: Any = 0.999,
    eps: Any = 1e-4,
    hessian_power: Any = 1.0,
    averaged_axes: Mapping[int, tuple[int, ...]] = _KERNELS,
) -> optax.GradientTransformationExtraArgs:
    """The direction of `adahessian`, without learning rate and decay."""
    _check.decay_rate(b1=b1, b2=b2)
    _check.positive(eps=eps)
    _check.share(hessian_power=hessian_power)
    _check.axes(averaged_axes=averaged_axes)

    def init(params):
        return AdahessianState(zero_count(), zeros_like(params), zeros_like(params))

    def update(grads, state, *, hessian_diagonal):
        t = increment(state.count)
        c1, c2 = bias(b1, t), bias(b2, t)

        def leaf(g, h, mu, nu):
            h, flaw = squarable(h)
            h = jnp.mean(jnp.abs(h), averaged_axes.get(h.ndim, ()), keepdims=True)
            mu = b1 * mu + (1 - b1) * g + flaw
            nu = b2 * nu + (1 - b2) * (h * h)
            return mu / c1 / (jnp.sqrt(nu / c2) ** hessian_power + eps), mu, nu

        updates, mu, nu = map_leaves(leaf, grads, hessian_diagonal, state.mu, state.nu)
        return updates, AdahessianState(t, mu, nu)

    return transformation(init, update)
