"""Monitor: what the steps of an optimizer are like, leaf by leaf, measured where they are made."""

from typing import Any, NamedTuple

import jax
import jax.core
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax
from jax.sharding import PartitionSpec

from optax_adaptive import _check
from optax_adaptive._codes import is_codes, squared_error
from optax_adaptive._core import (
    find_states,
    is_narrow,
    map_leaves,
    nearest,
    transformation,
    zero_count,
    zeros_of,
)
from optax_adaptive._free import FreeDescentState
from optax_adaptive._numerics import increment
from optax_adaptive._paths import field_and_owner, names
from optax_adaptive._wrappers.guard import GuardState
from optax_adaptive._wrappers.tunable import TunableState, hyperparams

# What a row of numbers holds.
_COLUMNS = (
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
# Of the state of `guard`.
_COUNTS = ("finite", "nonfinite", "skipped", "clipped", "in_a_row", "norm")
_QUANTILES = (0.05, 0.5, 0.95)
# Coordinates of a leaf that stand for all of them where each would cost.
_SAMPLE = 512
_STEPS = np.sqrt([2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31])  # for each axis one


class MonitorState(NamedTuple):
    """The last measurement, a row of numbers for every leaf, and the state behind."""

    calls: jax.Array  # count of updates, int32, shape ()
    measured: jax.Array  # the one that was measured last, from 1 on; 0 for none; int32, shape ()
    rows: Any  # in the tree of the parameters, float32, one number for each of _COLUMNS
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
    table, `scalars(state)` is a flat dict for a logger. Put it outermost, but for `guard`.

    Args:
        tx: Any transformation.
        every: Which updates are measured, a whole number >= 1: the first, and each that comes so
            many later. Others cost next to nothing under `jax.jit`.

    Raises:
        ValueError: If `every` is outside its domain, or `update` is not given the parameters.
    """
    tx = _check.wrapped(tx)
    _check.whole(every=every)

    def init(params):
        rows = zeros_of(lambda x: jnp.zeros(len(_COLUMNS)), params)
        total = jnp.zeros(len(_COLUMNS))
        return MonitorState(zero_count(), zero_count(), rows, total, tx.init(params))

    def update(grads, state, *, params, given_params=None, **extra):
        extra["given_params"] = given_params
        updates, inner = tx.update(grads, state.inner, params, **extra)
        calls = increment(state.calls)
        due = state.calls % jnp.asarray(every, calls.dtype) == 0

        def measure(grads, updates, params, inner):
            return _measured(grads, updates, params, given_params, inner)

        def wait(*_):
            return state.rows, state.total

        parts = (grads, updates, params, inner)
        if isinstance(due, jax.core.Tracer) and not (isinstance(every, int) and every == 1):
            rows, total = lax.cond(due, measure, wait, *parts)
        else:
            rows, total = measure(*parts) if isinstance(due, jax.core.Tracer) or due else wait()
        measured = jnp.where(due, calls, state.measured)
        return updates, MonitorState(calls, measured, rows, total, inner)

    return transformation(init, update)


def scalars(state: optax.OptState) -> dict[str, Any]:
    """What the state of an optimizer has to tell, in numbers, for any logger.

    Of `monitor`, its columns in total and for every leaf: "update_rms", "update_rms/dense/kernel".
    Of `guard`, its counts: "guard/skipped", ... Of `tunable`, its numbers: "hyperparams/b1", ... Of
    what finds its own rate, that: "effective_lr", and "distance" where it has one.

    Args:
        state: Of any optimizer with one or more of these in it: in chains, groups, wrappers.

    Returns:
        A flat dict of Python floats, or of arrays while they are traced.

    Where there are several of a kind, as in groups, "0/", "1/", ... stand before the names.

    Raises:
        ValueError: If there is nothing of the kind.
    """
    found: dict[str, Any] = {}
    for which, s in _numbered(state, MonitorState):
        for leaf, row in _rows(s):
            found |= {f"{which}{column}{leaf}": row[..., k] for k, column in enumerate(_COLUMNS)}
    for which, s in _numbered(state, GuardState):
        counts = {name: getattr(s, name) for name in _COUNTS}
        found |= {f"{which}guard/{name}": _array(x) for name, x in counts.items()}
    if find_states(state, TunableState):
        found |= {f"hyperparams/{name}": x for name, x in hyperparams(state).items()}
    for which, s in _numbered(state, FreeDescentState):
        told = {name: getattr(s.direction, name, None) for name in ("effective_lr", "distance")}
        one = {name: x for name, x in told.items() if len(jax.tree.leaves(x)) == 1}
        found |= {f"{which}{name}": _array(x) for name, x in one.items()}
    if not found:
        raise ValueError(
            f"{_check.caller()}: state must be that of an optimizer with monitor, guard or tunable "
            f"in it, or of one that finds its own rate, got {type(state).__name__}."
        )
    if any(isinstance(x, jax.core.Tracer) for x in found.values()):
        return found
    return {name: x.item() if x.ndim == 0 else x for name, x in jax.device_get(found).items()}


def report(state: optax.OptState) -> None:
    """Prints what `monitor` measured last, a row for every leaf, and what `scalars` tells else.

    It needs the package rich.

    Args:
        state: As for `scalars`.

    Raises:
        ValueError: As `scalars`.
        ModuleNotFoundError: If rich is not installed.
    """
    numbers = scalars(state)
    try:
        from rich.box import SIMPLE  # noqa: PLC0415  nothing else needs it
        from rich.console import Console  # noqa: PLC0415
        from rich.table import Table  # noqa: PLC0415
    except ModuleNotFoundError:
        raise ModuleNotFoundError("report needs the package rich: pip install rich") from None

    console = Console()
    for which, s in _numbered(state, MonitorState):
        measured = int(_array(s.measured))
        title = f"update {measured} of {int(_array(s.calls))}" if measured else "no update yet"
        table = Table("leaf", title=title, box=SIMPLE, padding=(0, 1, 0, 0))
        for column in _COLUMNS:
            table.add_column(column.replace("_", "\n"), justify="right")
        for leaf, _ in _rows(s):
            cells = (f"{numbers.pop(f'{which}{column}{leaf}'):.2g}" for column in _COLUMNS)
            table.add_row(leaf[1:] or ("(the root)" if leaf else "all"), *cells)
        # Wider than the screen it is still whole.
        needed = console.measure(table, options=console.options.update(max_width=10_000)).maximum
        Console(width=max(console.width, needed)).print(table)
    if numbers:
        table = Table("what", "value")
        for name, value in numbers.items():
            table.add_row(name, f"{value:.6g}")
        console.print(table)


def _numbered(state: Any, kind: type) -> list[tuple[str, Any]]:
    """The states of this kind, each with what to put before its names."""
    found = find_states(state, kind)
    return [(f"{i}/" if len(found) > 1 else "", s) for i, s in enumerate(found)]


def _rows(state: MonitorState) -> list[tuple[str, jax.Array]]:
    """The rows with what to put behind a column: that of all leaves first, then each."""
    leaves = (f"/{name}" for name in names(state.rows))
    rows = zip(leaves, jax.tree.leaves(state.rows), strict=True)
    return [("", _array(state.total)), *rows]


def _array(node: Any) -> jax.Array:
    """An array, or the one that a Variable of Flax NNX holds."""
    (x,) = jax.tree.leaves(node)
    return x


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

    start = jnp.full(len(_QUANTILES), -1), jnp.full(len(_QUANTILES), 0x7F800)
    _, found = lax.fori_loop(0, 20, narrower, start)
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
    if any(axis is not None for axis in jax.typeof(x).sharding.spec):
        return x.at[places].get(out_sharding=PartitionSpec(None))
    return x[places]
