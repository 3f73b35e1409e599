"""Bytes before anything is allocated: of parameters, gradients and state, on every device."""

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import jax
import optax
from jax.sharding import AbstractMesh, Mesh, NamedSharding, PartitionSpec, Sharding

from optax_adaptive import _check
from optax_adaptive._core import trains
from optax_adaptive._paths import Report, Shape, matching, names, table
from optax_adaptive._sharding import (
    Entry,
    a_mesh,
    abstract_state,
    cuts_of,
    entries,
    follow,
    in_shape,
    shapes_of,
    spec_of,
)

# The path of what belongs to no parameter, and the group of parameters of no pattern.
NOBODYS, OTHERS = "(no parameter)", "(others)"
_SCALARS = "counts, scalars"
_TOTALS = ("parameters", "gradients", "state", "total")
_UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")


class Row(NamedTuple):
    """One array."""

    kind: str  # parameters, gradients or state
    field: str  # of the state; "" elsewhere
    path: str  # of the parameter that it belongs to, or NOBODYS
    group: str  # of that
    shape: Shape
    dtype: str
    bytes: int
    device_bytes: int | None  # those that one device holds; None where nobody said how arrays lie


class Plan:
    """The bytes of a training; `str` is a table.

    Attributes:
        rows: One for each array: kind, field, path, group, shape, dtype, bytes, device_bytes.
        count: How many parameters train.
        parameters, gradients, state, total: Bytes.
        per_parameter: Bytes of state for each parameter that trains.
        by_field, by_dtype, by_group: Bytes of state, dicts.
        device: None where nobody said how arrays lie; otherwise what one device holds, a `Plan`.
    """

    def __init__(self, rows: Iterable[Row], count: int):
        self.rows, self.count = tuple(rows), count
        self.parameters = self._sum("parameters")
        self.gradients = self._sum("gradients")
        self.state = self._sum("state")
        self.total = self.parameters + self.gradients + self.state
        self.per_parameter = self.state / count if count else 0.0
        self.by_field = self._sums(lambda row: row.field)
        self.by_dtype = self._sums(lambda row: row.dtype)
        self.by_group = self._sums(lambda row: row.group)

    @property
    def device(self) -> "Plan | None":
        held = [row.device_bytes for row in self.rows]
        known = [
            row._replace(bytes=x) for row, x in zip(self.rows, held, strict=True) if x is not None
        ]
        return Plan(known, self.count) if held and len(known) == len(held) else None

    def __str__(self) -> str:
        columns = [self] if (device := self.device) is None else [self, device]

        def line(name: str, found: list[int]) -> list[str]:
            each = f"{found[0] / self.count:.2f} B" if self.count else ""
            return [name, human(found[0]), each, *map(human, found[1:])]

        rows = [["", "bytes", "per parameter", *["on one device"] * (len(columns) - 1)]]
        for name in _TOTALS:
            rows.append(line(name, [getattr(of, name) for of in columns]))
        for by, sums in (
            ("field", [_fields(of) for of in columns]),
            ("dtype", [of.by_dtype for of in columns]),
            ("group", [of.by_group for of in columns]),
        ):
            rows += [[f"state by {by}", *[""] * (1 + len(columns))]] if sums[0] else []
            for name in sorted(sums[0], key=_last):
                rows.append(line(f"  {name}", [of[name] for of in sums]))
        return table(rows)

    __repr__ = __str__

    def _sum(self, kind: str) -> int:
        return sum(row.bytes for row in self.rows if row.kind == kind)

    def _sums(self, key: Callable[[Row], str]) -> dict[str, int]:
        sums: dict[str, int] = {}
        for row in self.rows:
            if row.kind == "state":
                sums[key(row)] = sums.get(key(row), 0) + row.bytes
        return sums


def _side_by_side(plans: Mapping[str, Plan]) -> list[list[str]]:
    """The rows of a table with a column for every alternative."""
    fields = [_fields(of) for of in plans.values()]
    devices = [of.device for of in plans.values()]
    rows = [["", *plans]]

    def add(name: str, found: Iterable[Any]) -> None:
        rows.append([name, *("" if x is None else human(x) for x in found)])

    for name in _TOTALS:
        add(name, (getattr(of, name) for of in plans.values()))
        if name == "state":
            every = dict.fromkeys(field for of in fields for field in of)
            for field in sorted(every, key=_last):
                add(f"  {field}", (of.get(field) for of in fields))
    rows.append(["state per parameter", *(f"{of.per_parameter:.2f} B" for of in plans.values())])
    if None not in devices:
        rows.append(["on one device", *[""] * len(plans)])
        for name in _TOTALS:
            add(f"  {name}", (getattr(held, name) for held in devices))
    return rows


def plan(
    tx: optax.GradientTransformation | Mapping[str, optax.GradientTransformation],
    params: optax.Params,
    mesh: Mesh | AbstractMesh | None = None,
    shardings: Any = None,
    *,
    groups: int | Mapping[Any, str] | None = None,
) -> Any:
    """How many bytes parameters, gradients and the state of `tx` take, before they are allocated.

    Parameters may be shapes, as of `jax.eval_shape(model.init, ...)`: seconds and no memory for a
    model of any size. The numbers are those of the arrays that `tx.init(params)` makes, exactly;
    gradients are counted once, in the dtype of the parameters. Activations, and what a compiled
    step needs on the way, are not in it: `compiled.memory_analysis()` has these.

    Args:
        tx: Any transformation; or several by their names, as {"AdamW": adamw(1e-3), ...}.
        params: The parameters: arrays or `jax.ShapeDtypeStruct`.
        mesh: Of the specs in `shardings`; a `jax.sharding.AbstractMesh` needs no devices.
        shardings: None, and arrays lie as the parameters say, if any has a `NamedSharding`. Or a
            tree of shardings, or of `PartitionSpec`, like the parameters, which arrays in the shape
            of a parameter follow while others are on every device; or like the state, as
            `state_shardings` makes it (of several, such trees by the same names), beside which the
            parameters lie as they say, on every device if they do not.
        groups: What `by_group` sums over: the first so many keys of a path (None for 1), or a dict
            from patterns to names, shell-style on the path of the parameter ("*" matches slashes,
            too), or compiled regular expressions.

    Returns:
        A `Plan`; of several a mapping from their names to one, whose `str` has a column for each.

    Raises:
        ValueError: If an argument is not what it should be, a pattern matches nothing, or a
            sharding does not fit its array.
    """
    if not isinstance(tx, Mapping) or not tx:
        return _plan(tx, params, mesh, shardings, groups)
    each = isinstance(shardings, Mapping) and shardings.keys() == tx.keys()
    plans = {
        name: _plan(one, params, mesh, shardings[name] if each else shardings, groups)
        for name, one in tx.items()
    }
    return Report(plans, _side_by_side(plans))


def human(size: int) -> str:
    """Bytes in the unit that people read."""
    power = min(max(size.bit_length() - 1, 0) // 10, len(_UNITS) - 1)
    return f"{size / 1024**power:.{min(power, 1)}f} {_UNITS[power]}"


def _plan(tx: Any, params: Any, mesh: Any, shardings: Any, groups: Any) -> Plan:
    tx = _check.wrapped(tx)
    leaves = jax.tree.leaves_with_path(jax.tree.map(in_shape, params))
    shapes = shapes_of(params)
    state = abstract_state(tx, params)
    arrays = entries(state, shapes)
    where = _placed(params, state, arrays, mesh, shardings)
    paths = dict(zip(shapes, names(params), strict=True))
    group = _groups(paths.values(), groups)

    def row(kind: str, field: str, owner: Any, x: Any, at: Sharding | None) -> Row:
        shape, dtype = x.shape, x.dtype
        path = NOBODYS if owner is None else paths[owner]
        held = None if where is None else math.prod(_held(kind, path, shape, at)) * dtype.itemsize
        size = math.prod(shape) * dtype.itemsize
        return Row(kind, field, path, group.get(path, path), shape, dtype.name, size, held)

    own, of_state = where or ([None] * len(leaves), [None] * len(arrays))
    rows = []
    for kind in ("parameters", "gradients"):
        for (path, p), at in zip(leaves, own, strict=True):
            if kind == "parameters" or trains(p):
                rows.append(row(kind, "", path, p, at))
    count = sum(p.size for _, p in leaves if trains(p))
    for entry, at in zip(arrays, of_state, strict=True):
        rows.append(row("state", entry.field, entry.owner, entry.array, at))
    return Plan(rows, count)


def _placed(
    params: Any, state: Any, arrays: list[Entry], mesh: Any, shardings: Any
) -> tuple[list[Any], list[Any]] | None:
    """How the parameters lie and how the arrays of the state, None for an array on every device.

    None where nobody said.
    """
    own = [getattr(p, "sharding", None) for p in jax.tree.leaves(params)]
    own = [at if isinstance(at, NamedSharding) else None for at in own]
    who = _check.caller()
    if mesh is not None:
        a_mesh(mesh)
        if shardings is None:
            raise ValueError(f"{who}: mesh does nothing without shardings.")
    if shardings is None:
        return (own, _followed(params, arrays, own)) if any(own) else None

    def leaf(x: Any) -> bool:
        return isinstance(x, (Sharding, PartitionSpec))

    def paths(tree: Any) -> list[Any]:
        return [path for path, _ in jax.tree.leaves_with_path(tree, is_leaf=leaf)]

    def sharding(path: Any, x: Any) -> Sharding:
        at = f"{who}: shardings at {_check.keystr(path)}"
        if isinstance(x, PartitionSpec):
            if mesh is None:
                raise ValueError(f"{at} is a PartitionSpec, which needs mesh.")
            return NamedSharding(mesh, x)
        if not isinstance(x, Sharding):
            raise ValueError(f"{at} must be a jax.sharding.Sharding or a PartitionSpec, got {x!r}.")
        return x

    found = [sharding(*at) for at in jax.tree.leaves_with_path(shardings, is_leaf=leaf)]
    if paths(shardings) == paths(state):
        return own, found
    if paths(shardings) != paths(params):
        raise ValueError(
            f"{who}: shardings must be a tree like the parameters or like the state of tx, got "
            f"{jax.tree.structure(shardings, is_leaf=leaf)}."
        )
    return found, _followed(params, arrays, found)


def _followed(params: Any, arrays: list[Entry], own: list[Any]) -> list[Any]:
    """How the arrays of a state lie that follow their parameters."""
    shapes = shapes_of(params)
    where = dict(zip(shapes, own, strict=True))
    cuts = {
        path: cuts_of(path, shapes[path], at.spec, at.mesh)
        for path, at in where.items()
        if isinstance(at, NamedSharding)
    }

    def placed(entry: Entry) -> Any:
        at = where.get(entry.owner)
        if not isinstance(at, NamedSharding):
            return at if entry.array.shape == shapes.get(entry.owner) else None
        found = follow(entry, shapes, cuts, at.mesh)
        return None if found is None else NamedSharding(at.mesh, spec_of(found[0]))

    return [placed(entry) for entry in arrays]


def _held(kind: str, path: str, shape: Shape, at: Sharding | None) -> Shape:
    """The shape of what one device holds."""
    try:
        return shape if at is None else at.shard_shape(shape)
    except ValueError as error:
        raise ValueError(
            f"{_check.caller()}: {kind} of {path or 'the root'} of shape {shape} do not fit their "
            f"sharding: {error}"
        ) from None


def _groups(paths: Iterable[str], groups: Any) -> dict[str, str]:
    """The group of every path of a parameter."""
    who = _check.caller()
    if isinstance(groups, Mapping):
        found = matching(who, "groups", groups, paths)
        for path, patterns in found.items():
            if len({groups[p] for p in patterns}) > 1:
                raise ValueError(f"{who}: {path} is in several groups, by {patterns}.")
        return {path: groups[some[0]] if some else OTHERS for path, some in found.items()}
    if groups is None:
        groups = 1
    _check.whole(groups=groups)
    return {path: "/".join(path.split("/")[: int(groups)]) or "(the root)" for path in paths}


def _fields(of: Plan) -> dict[str, int]:
    """Bytes by field, those of all fields that hold nothing but scalars in one."""
    arrays = {row.field for row in of.rows if row.kind == "state" and row.shape}
    sums: dict[str, int] = {}
    for field, size in of.by_field.items():
        name = field if field in arrays else _SCALARS
        sums[name] = sums.get(name, 0) + size
    return sums


def _last(name: str) -> bool:
    return name in (_SCALARS, NOBODYS)
