"""Monitor: what the steps of an optimizer are like, leaf by leaf, measured where they are made."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax
from jax.sharding import NamedSharding, PartitionSpec

from optax_adaptive import _check
from optax_adaptive._codes import is_codes, squared_error
from optax_adaptive._core import (
    branch,
    is_narrow,
    map_leaves,
    nearest,
    transformation,
    zero_count,
    zeros_of,
)
from optax_adaptive._numerics import increment
from optax_adaptive._paths import field_and_owner

# What a row of numbers holds.
COLUMNS = (
    "grad_norm",
    "param_rms",
    "update_rms",
    "update_ratio",
    "effective_lr_05",
    "effective_lr_50",
    "effective_lr_95",
    "rounded_away",
    "state_error",
)
_QUANTILES = (0.05, 0.5, 0.95)
# Coordinates of a leaf that stand for all of them where each would cost.
_SAMPLE = 512
_STEPS = np.sqrt([n for n in range(2, 320) if all(n % k for k in range(2, n))])  # one an axis


class MonitorState(NamedTuple):
    """The last measurement, a row of numbers for every leaf, and the state behind."""

    calls: jax.Array  # count of updates, int32, shape ()
    measured: jax.Array  # the one that was measured last, from 1 on; 0 for none; int32, shape ()
    rows: Any  # in the tree of the parameters, float32, one number for each of COLUMNS
    total: jax.Array  # the same of all leaves together
    inner: optax.OptState  # of the wrapped transformation


def monitor(
    tx: optax.GradientTransformation, *, every: Any = 1
) -> optax.GradientTransformationExtraArgs:
    """`tx`, whose steps are measured, for every leaf and in total.

    With g the gradients, u the updates and p the parameters of a leaf, n of them::

        grad_norm        |g|
        param_rms        |p| / sqrt(n)
        update_rms       |u| / sqrt(n)
        update_ratio     |u| / |p|
        effective_lr_..  5, 50 and 95 % quantiles of |u| / |g|
        rounded_away     the share of the coordinates, where u is not 0, at which p + u is p in the
                         dtype of the parameter
        state_error      how far the codes of `with_quantized_state` are off, as a share of what
                         they stand for: expected between codes, a root of a mean of squares

    Quantiles and shares are those of up to 512 coordinates of each leaf, evenly spread.

    Updates are those of `tx`, and nothing is read back from a device. `report(state)` prints a
    table, `scalars(state)` is a flat dict for a logger. Only `guard` and `accumulate` go around it.

    Args:
        tx: Any transformation.
        every: Which updates are measured, a whole number >= 1: the first, and each that comes so
            many later. At others nothing is computed; but what the measurement would read, XLA on
            CPU keeps at every step.

    Raises:
        ValueError: If `every` is outside its domain, or `update` is not given the parameters.
    """
    tx = _check.wrapped(tx)
    _check.whole(every=every)

    def init(params):
        total = jnp.zeros(len(COLUMNS), jnp.float32)
        rows = zeros_of(lambda x: total, params)
        return MonitorState(zero_count(), zero_count(), rows, total, tx.init(params))

    def update(grads, state, *, params, given_params=None, **extra):
        extra["given_params"] = given_params
        updates, inner = tx.update(grads, state.inner, params, **extra)
        calls = increment(state.calls)
        always = isinstance(every, int) and every == 1
        due = always or state.calls % jnp.asarray(every, calls.dtype) == 0

        def measure(grads, updates, params, inner):
            return _measured(grads, updates, params, given_params, inner)

        def wait(*_):
            return state.rows, state.total

        rows, total = branch(due, measure, wait, grads, updates, params, inner)
        measured = jnp.where(due, calls, state.measured)
        return updates, MonitorState(calls, measured, rows, total, inner)

    return transformation(init, update)


def _measured(
    grads: Any, updates: Any, params: Any, given_params: Any, inner: Any
) -> tuple[Any, jax.Array]:
    """The rows of all leaves, and of all together."""

    def leaf(dtype: Any, g: jax.Array, u: jax.Array, p: jax.Array, error: jax.Array) -> Any:
        sums = [jnp.sum(x * x) for x in (g, p, u)]
        sums = jnp.stack([*sums, jnp.asarray(g.size, p.dtype), *error])
        g, u, p = map(_sample, (g, u, p))
        there = nearest(p + u, dtype) if is_narrow(jnp.zeros((), dtype)) else p + u
        stays = jnp.where(u == 0, jnp.nan, there == p)
        rates = jnp.abs(u) / jnp.abs(g)
        sample = jnp.stack([rates, stays, jnp.full_like(rates, sums[3] / max(1, g.size))])
        return sums, jnp.pad(sample, ((0, 0), (0, _SAMPLE - g.size))).astype(jnp.float32)

    dtypes = jax.tree.map(jnp.result_type, given_params)
    errors = _errors(inner, grads)
    found = map_leaves(leaf, grads, updates, params, other=(errors,), static=dtypes)
    sums, samples = (jnp.stack(jax.tree.leaves(x)) for x in found)
    rows = jax.vmap(_row)(sums, samples)  # of all leaves at once: quick to compile
    total = _row(jnp.sum(sums, 0), jnp.swapaxes(samples, 0, 1).reshape(3, -1))
    return jax.tree.unflatten(jax.tree.structure(grads), list(rows)), total


def _row(sums: jax.Array, sample: jax.Array) -> jax.Array:
    """The columns, from sums over all coordinates and from a weighted sample of them."""
    g, p, u, n, error, fields = sums
    rates, stays, weights = sample
    moving = jnp.sum(jnp.where(jnp.isnan(stays), 0, weights))
    stays = jnp.sum(jnp.where(stays == 1, weights, 0))
    columns = [
        jnp.sqrt(g),
        jnp.sqrt(p / jnp.maximum(n, 1)),
        jnp.sqrt(u / jnp.maximum(n, 1)),
        jnp.where(u == 0, 0, jnp.sqrt(u / p)),
        *_quantiles(rates, weights),
        jnp.where(moving == 0, 0, stays / moving),
        jnp.sqrt(error / jnp.maximum(fields, 1)),
    ]
    return jnp.stack(columns).astype(jnp.float32)


def _quantiles(x: jax.Array, weights: jax.Array) -> list[jax.Array]:
    """The quantiles of positive numbers, to 1 / 2,000 of themselves; NaN if none is finite.

    By bisection of the bits: XLA takes a second to compile the sort of one leaf.
    """
    weights = jnp.where(jnp.isfinite(x), weights, 0)
    bits = lax.bitcast_convert_type(jnp.where(jnp.isfinite(x), x, 0), jnp.int32) >> 12
    total = jnp.sum(weights)

    def narrower(_: Any, bounds: Any) -> Any:
        low, high = bounds  # it is above low, and not above high
        middle = (low + high) >> 1
        below = jnp.sum(jnp.where(bits <= middle[:, None], weights, 0), axis=1)
        enough = below >= jnp.asarray(_QUANTILES) * total
        return jnp.where(enough, low, middle), jnp.where(enough, middle, high)

    start = [jnp.full(len(_QUANTILES), bound, jnp.int32) for bound in (-1, 0x7F800)]
    _, found = lax.fori_loop(0, 20, narrower, tuple(start))
    # The middle of the numbers with these bits; 0 itself where they are none.
    found = jnp.where(found > 0, (found << 12) + (1 << 11), 0)
    return list(jnp.where(total > 0, lax.bitcast_convert_type(found, jnp.float32), jnp.nan))


def _errors(inner: Any, params: Any) -> Any:
    """For every parameter the relative squared errors of its codes, added up, and how many."""
    paths = [path for path, _ in jax.tree.leaves_with_path(params)]
    sums = dict.fromkeys(paths, jnp.zeros(2))
    for path, x in jax.tree.leaves_with_path(inner, is_leaf=is_codes):
        owner = field_and_owner(path, sums)[1] if is_codes(x) else None
        if owner is not None:
            error, squares = squared_error(x)
            relative = error / jnp.maximum(squares, jnp.finfo(squares.dtype).tiny)
            sums[owner] = sums[owner] + jnp.stack([relative, jnp.ones_like(relative)])
    return jax.tree.unflatten(jax.tree.structure(params), [sums[path] for path in paths])


def _sample(x: jax.Array) -> jax.Array:
    """Up to `_SAMPLE` numbers of an array, evenly spread: at multiples of irrational steps."""
    if not x.shape:
        return x.reshape(1)
    if x.size <= _SAMPLE:
        places = np.unravel_index(np.arange(x.size), x.shape)
    else:
        k = np.arange(_SAMPLE) + 0.5
        places = tuple(
            np.floor(n * (k * step % 1)).astype(int)
            for n, step in zip(x.shape, _STEPS, strict=False)
        )
    sharding = jax.typeof(x).sharding
    if any(axis is not None for axis in sharding.spec):
        everywhere = NamedSharding(sharding.mesh, PartitionSpec(None))
        return x.at[places].get(out_sharding=everywhere)
    return x[places]
