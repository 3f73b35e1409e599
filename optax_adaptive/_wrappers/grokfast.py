"""Grokfast: the slow part of the gradients amplified, by a mean over the past.

Lee, Kang, Kim and Lee, "Grokfast: Accelerated Grokking by Amplifying Slow Gradients", 2024,
algorithms 1 (`grokfast_ma`) and 2 (`grokfast`). https://arxiv.org/abs/2405.20233
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax

from optax_adaptive import _check
from optax_adaptive._core import map_leaves, transformation, zero_count, zeros_like
from optax_adaptive._numerics import increment


class GrokfastState(NamedTuple):
    """The slow gradients, shaped like the parameters, and the state behind."""

    seen: jax.Array  # count of gradients seen, int32, shape ()
    slow: optax.Updates  # running mean of gradients
    inner: optax.OptState  # of the wrapped transformation


class GrokfastMaState(NamedTuple):
    """The last gradients, stacked in front of the parameters' axes, and the state behind."""

    seen: jax.Array  # count of gradients seen, int32, shape ()
    last_grads: optax.Updates  # the last `window` ones, in a ring
    inner: optax.OptState  # of the wrapped transformation


def grokfast(
    tx: optax.GradientTransformation, *, alpha: Any = 0.98, lamb: Any = 2.0
) -> optax.GradientTransformationExtraArgs:
    """`tx`, given gradients whose running mean is amplified.

    With g the gradient and tx the wrapped transformation, for every coordinate::

        slow   = alpha slow + (1 - alpha) g            (slow = g at the first step)
        update = tx(g + lamb slow)

    Args:
        tx: Any transformation.
        alpha: The share of `slow` kept at each step, in [0, 1).
        lamb: How much of `slow` is added, >= 0.

    Raises:
        ValueError: If an argument is outside its domain.

    Departures: as `gradfilter_ema` of the authors' code (https://github.com/ironjr/grokfast).
    """
    tx = _check.wrapped(tx)
    _check.decay_rate(alpha=alpha)
    _check.non_negative(lamb=lamb)

    def init(params):
        return GrokfastState(zero_count(), zeros_like(params), tx.init(params))

    def update(grads, state, *, params=None, **extra):
        keep = jnp.where(state.seen > 0, alpha, 0)

        def leaf(g, slow):
            slow = keep * slow + (1 - keep) * g
            return g + lamb * slow, slow

        amplified, slow = map_leaves(leaf, grads, state.slow)
        updates, inner = tx.update(amplified, state.inner, params, **extra)
        return updates, GrokfastState(increment(state.seen), slow, inner)

    return transformation(init, update)


def grokfast_ma(
    tx: optax.GradientTransformation,
    *,
    window: int = 100,
    lamb: Any = 5.0,
    warmup: bool = True,
) -> optax.GradientTransformationExtraArgs:
    """`tx`, given gradients to which the mean of the last `window` ones is added.

    With g the gradient and tx the wrapped transformation, for every coordinate::

        update = tx(g + lamb mean(the last `window` gradients, g included))

    The state holds `window` gradients: that many times the memory of the parameters.

    Args:
        tx: Any transformation.
        window: How many gradients the mean is of, an integer >= 1.
        lamb: How much of the mean is added, >= 0.
        warmup: Whether to add nothing until `window` gradients have been seen; otherwise the mean
            is of those seen.

    Raises:
        ValueError: If an argument is outside its domain.

    Departures: as `gradfilter_ma` of the authors' code (https://github.com/ironjr/grokfast) with
    its `filter_type="mean"`; its sum is the mean with `lamb` times the window.
    """
    tx = _check.wrapped(tx)
    _check.whole(window=window)
    (window,) = _check.known("grokfast_ma", window=window)
    _check.non_negative(lamb=lamb)
    _check.flag(warmup=warmup)

    def init(params):
        def ring(zeros):
            return jnp.repeat(zeros[None], window, axis=0)

        return GrokfastMaState(zero_count(), map_leaves(ring, zeros_like(params)), tx.init(params))

    def update(grads, state, *, params=None, **extra):
        seen = increment(state.seen)
        gathered = jnp.minimum(seen, window)
        share = jnp.where(gathered == window, lamb, 0) if warmup else lamb

        def leaf(g, last):
            last = lax.dynamic_update_index_in_dim(last, g, state.seen % window, 0)
            return g + share * (jnp.sum(last, axis=0) / gathered), last

        amplified, last_grads = map_leaves(leaf, grads, other=(state.last_grads,))
        updates, inner = tx.update(amplified, state.inner, params, **extra)
        return updates, GrokfastMaState(seen, last_grads, inner)

    return transformation(init, update)
