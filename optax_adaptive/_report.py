"""What the state of an optimizer has to tell: numbers for a logger, tables for people."""

from typing import Any

import jax
import jax.core
import optax

from optax_adaptive import _check
from optax_adaptive._core import find_states, only_array
from optax_adaptive._free import FreeDescentState
from optax_adaptive._paths import names
from optax_adaptive._wrappers.guard import GuardState
from optax_adaptive._wrappers.monitor import COLUMNS, MonitorState
from optax_adaptive._wrappers.tunable import TunableState, hyperparams

# Of the state of `guard`.
_COUNTS = ("finite", "nonfinite", "skipped", "clipped", "in_a_row", "norm")


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
        ValueError: If there is nothing of the kind, or two `tunable` have a name in common.
    """
    found: dict[str, Any] = {}
    for which, s in _numbered(state, MonitorState):
        for leaf, row in _rows(s):
            found |= {f"{which}{column}{leaf}": row[..., k] for k, column in enumerate(COLUMNS)}
    for which, s in _numbered(state, GuardState):
        counts = {name: getattr(s, name) for name in _COUNTS}
        found |= {f"{which}guard/{name}": only_array(x) for name, x in counts.items()}
    if find_states(state, TunableState):
        found |= {f"hyperparams/{name}": x for name, x in hyperparams(state).items()}
    for which, s in _numbered(state, FreeDescentState):
        told = {name: getattr(s.direction, name, None) for name in ("effective_lr", "distance")}
        one = {name: x for name, x in told.items() if len(jax.tree.leaves(x)) == 1}
        found |= {f"{which}{name}": only_array(x) for name, x in one.items()}
    if not found:
        raise ValueError(
            f"{_check.caller()}: state must be that of an optimizer with monitor, guard or tunable "
            f"in it, or of one that finds one rate for all, got {type(state).__name__}."
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
        ValueError: As `scalars`, or if the state is traced, or of several optimizers by `jax.vmap`.
        ModuleNotFoundError: If rich is not installed.
    """
    numbers = scalars(state)
    if not all(isinstance(x, (int, float)) for x in numbers.values()):
        raise ValueError(
            f"{_check.caller()}: state must be that of one optimizer, and not traced (of those "
            "that jax.vmap made take one, as jax.tree.map(lambda x: x[0], state))."
        )
    try:
        from rich.box import SIMPLE  # noqa: PLC0415  nothing else needs it
        from rich.console import Console  # noqa: PLC0415
        from rich.table import Table  # noqa: PLC0415
    except ModuleNotFoundError:
        raise ModuleNotFoundError("report needs the package rich: pip install rich") from None

    console = Console()
    for which, s in _numbered(state, MonitorState):
        measured = int(only_array(s.measured))
        title = f"update {measured} of {int(only_array(s.calls))}" if measured else "no update yet"
        table = Table("leaf", title=title, box=SIMPLE, padding=(0, 1, 0, 0))
        for column in COLUMNS:
            table.add_column(column.replace("_", "\n"), justify="right")
        for leaf, _ in _rows(s):
            cells = (f"{numbers.pop(f'{which}{column}{leaf}'):.2g}" for column in COLUMNS)
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
    return [("", only_array(state.total)), *rows]
