"""Adafactor: RMSprop that keeps of a matrix of squares only the means of its rows and columns.

Shazeer and Stern, "Adafactor: Adaptive Learning Rates with Sublinear Memory Cost", ICML 2018,
algorithms 4 and 5. https://arxiv.org/abs/1804.04235
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax

from optax_adaptive import _check
from optax_adaptive._core import descend, map_leaves, transformation, zero_count, zeros_of
from optax_adaptive._momentum import trace
from optax_adaptive._numerics import increment, over_factored_root, rms, squarable


class AdafactorState(NamedTuple):
    """The count of steps and the running means; of `nu` or its factors, 0 for what is not kept."""

    count: jax.Array  # int32, shape ()
    nu: optax.Updates  # of squared gradients, shaped like the parameters that are not factored
    nu_row: optax.Updates  # of means of squared gradients along the longest axis, of length 1 here
    nu_col: optax.Updates  # the same along the second longest


def adafactor(
    learning_rate: optax.ScalarOrSchedule,
    min_dim_size_to_factor: int = 128,
    decay_rate: Any = 0.8,
    decay_offset: Any = 0,
    multiply_by_parameter_scale: bool = True,
    clipping_threshold: Any = 1.0,
    momentum: Any = None,
    *,
    eps: Any = 1e-30,
    factored: bool = True,
    weight_decay: optax.ScalarOrSchedule | None = None,
    mask: Any = None,
) -> optax.GradientTransformationExtraArgs:
    """Adafactor.

    With g the gradient and p the parameters of one leaf at step t = 1, 2, ..., and mean_1 and
    mean_2 the means along its longest and its second longest axis::

        new      = max(t - decay_offset, 1)^-decay_rate
        nu_row   = (1 - new) nu_row + new mean_1(g² + eps)
        nu_col   = (1 - new) nu_col + new mean_2(g² + eps)
        nu       = nu_row nu_col / mean_2(nu_row)
        u        = g / sqrt(nu)
        u        = u / max(1, rms(u) / clipping_threshold)
        velocity = momentum velocity + (1 - momentum) learning_rate max(rms(p), 1e-3) u
        step     = velocity

    where rms is the root of the mean of squares over the leaf. A leaf whose second longest axis is
    shorter than min_dim_size_to_factor has a mean for every coordinate::

        nu       = (1 - new) nu + new (g² + eps)

    Args:
        learning_rate: A number >= 0 or a schedule: the size of a step in sizes of the parameters
            of the leaf, and absolute if not multiply_by_parameter_scale.
        min_dim_size_to_factor: The least length of the two longest axes that makes a leaf
            factored, a whole number >= 1, known when the state is made.
        decay_rate: How fast the weight of a new gradient falls with the steps, > 0: at 1 the means
            are those of all gradients so far, below that they forget.
        decay_offset: How many steps the weight stays 1 before it falls, >= 0: the first step of
            fine-tuning, where the count comes from a checkpoint.
        multiply_by_parameter_scale: Whether steps are relative to the parameters.
        clipping_threshold: The largest rms(u), > 0; None for no bound.
        momentum: In [0, 1), over the steps with their learning rate; None for none, which saves an
            array of the size of the parameters.
        eps: Added to the squares, > 0, in units of squared gradients.
        factored: Whether any leaf is factored.
        weight_decay: A number >= 0 or a schedule, times the learning rate, outside the momentum and
            not relative to the parameters' scale; None for no decay.
        mask: Which leaves decay: booleans in a prefix of the parameters' tree, or a function of
            the parameters that returns them; None for all.

    Raises:
        ValueError: If an argument is outside its domain, or `update` is not given the parameters.

    Departures: as `optax.adafactor`, except that its `weight_decay_rate` is multiplied by nothing,
    not even the learning rate: `optax.chain(adafactor(...), optax.add_decayed_weights(-c))` does
    that. In float32 a row that was always zero beside gradients of 1e5 makes optax's steps NaN; so
    are its first decay_offset steps, unless the count comes from a checkpoint; and it takes the
    power of t in float32 even for float64. The paper has no momentum, and the schedule
    min(0.01, 1 / sqrt(t)) for a learning rate. torch and Keras bound the learning rate by
    1 / sqrt(t) and factor the last two axes of any size; torch compares eps with nu instead of
    adding it.
    """
    direction = scale_by_adafactor(
        min_dim_size_to_factor,
        decay_rate,
        decay_offset,
        multiply_by_parameter_scale,
        clipping_threshold,
        eps=eps,
        factored=factored,
    )
    _check.momentum_pair(momentum, nesterov=False)
    velocity = None if momentum is None else trace(momentum, average=True)
    return descend(direction, learning_rate, weight_decay, mask, velocity)


def scale_by_adafactor(
    min_dim_size_to_factor: int = 128,
    decay_rate: Any = 0.8,
    decay_offset: Any = 0,
    multiply_by_parameter_scale: bool = True,
    clipping_threshold: Any = 1.0,
    *,
    eps: Any = 1e-30,
    factored: bool = True,
) -> optax.GradientTransformationExtraArgs:
    """The direction of `adafactor`, without its learning rate and momentum."""
    _check.whole(min_dim_size_to_factor=min_dim_size_to_factor)
    _check.non_negative(decay_offset=decay_offset)
    _check.positive(decay_rate=decay_rate, eps=eps)
    if clipping_threshold is not None:
        _check.positive(clipping_threshold=clipping_threshold)
    _check.flag(multiply_by_parameter_scale=multiply_by_parameter_scale, factored=factored)
    name = _check.caller()

    def init(params):
        (least,) = _check.known(name, min_dim_size_to_factor=min_dim_size_to_factor)

        def is_factored(x):
            return factored and x.ndim > 1 and x.shape[_second(x)] >= least

        def full(x):
            return jnp.sum(x) if is_factored(x) else x

        def row(x):
            return jnp.sum(x, _longest(x), keepdims=True) if is_factored(x) else jnp.sum(x)

        def col(x):
            return jnp.sum(x, _second(x), keepdims=True) if is_factored(x) else jnp.sum(x)

        return AdafactorState(zero_count(), *(zeros_of(part, params) for part in (full, row, col)))

    def update(grads, state, *, params):
        t = increment(state.count)
        new = jnp.maximum(t - decay_offset, 1.0) ** -decay_rate

        def leaf(g, p, nu, row, col):
            g, flaw = squarable(g)
            square = g * g + eps
            if row.ndim:
                row = (1 - new) * row + new * jnp.mean(square, _longest(g), keepdims=True)
                col = (1 - new) * col + new * jnp.mean(square, _second(g), keepdims=True)
                # It may be huge, where the product of factors is far below the square.
                u, _ = squarable(over_factored_root(g, row, col, _second(g)))
            else:
                nu = (1 - new) * nu + new * square
                u = g * lax.rsqrt(nu)
            if clipping_threshold is not None:
                u = u / jnp.maximum(1, rms(u) / clipping_threshold)
            if multiply_by_parameter_scale:
                u = u * jnp.maximum(rms(p), 1e-3)
            return u + flaw, nu, row, col

        means = (state.nu, state.nu_row, state.nu_col)
        updates, *means = map_leaves(leaf, grads, params, other=means)
        return updates, AdafactorState(t, *means)

    return transformation(init, update)


def _longest(x):
    return sorted(range(x.ndim), key=x.shape.__getitem__)[-1]


def _second(x):
    return sorted(range(x.ndim), key=x.shape.__getitem__)[-2]
