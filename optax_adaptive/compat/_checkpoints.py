"""Checkpoints of other frameworks: named arrays become trees like the parameters, and states."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from optax_adaptive import _check
from optax_adaptive._algorithms.nadam import NadamState
from optax_adaptive._algorithms.rmsprop import CenteredRmspropState
from optax_adaptive._core import widen

# The type of a state -> what another framework calls its fields; None for what it does not have.
Table = Mapping[type, Mapping[str, str | None]]

# A function that the user wrote: arrays by their names -> the tree of parameters.
ToTree = Callable[[dict[str, np.ndarray]], Any]

_LEAF = jax.tree.structure(0)


class Layout:
    """How arrays of another framework, by their names, make the tree of parameters."""

    def __init__(self, shapes: Mapping[str, tuple[int, ...] | None], to_tree: ToTree):
        """`shapes` of all names, in their order; None where nobody knows."""
        self.to_tree = to_tree
        self.shapes = _guessed(shapes, to_tree)

    def tree(self, arrays: Mapping[str, np.ndarray]) -> Any:
        """The tree of some arrays, and zeros for the others."""
        zeros = {name: _full(shape, 0) for name, shape in self.shapes.items()}
        return self.to_tree({**zeros, **arrays})

    def numbers(self, what: str, by_name: Mapping[str, int]) -> Any:
        """A tree of one number for every leaf, which all arrays it is made of must share."""
        who = _check.caller()

        def one(path, leaf):
            least, largest = np.min(leaf, initial=np.inf), np.max(leaf, initial=0)
            if least < largest:
                raise ValueError(
                    f"{who}: {_check.keystr(path)} is made of several arrays with different {what}."
                )
            return int(largest)

        arrays = {name: _full(self.shapes[name], number) for name, number in by_name.items()}
        return jax.tree.map_with_path(one, self.tree(arrays))


def walk(state: Any, table: Table, visit: Callable[[Any, Mapping[str, str | None]], Any]) -> Any:
    """The state with every part whose type is in `table` replaced by visit(it, its fields).

    Its other fields are walked, too. An array that is in no such part is an error.
    """
    who = _check.caller()

    def within(holder: str) -> Callable[[Any], Any]:
        def step(part: Any) -> Any:
            fields = table.get(type(part))
            if fields is not None:
                part = visit(part, fields)
                rest = {name: getattr(part, name) for name in part._fields if name not in fields}
                return part._replace(**{name: step(x) for name, x in rest.items()})
            if jax.tree.structure(part) == _LEAF:
                raise ValueError(
                    f"{who}: the optimizer keeps a {holder}, which has no counterpart there."
                )
            inner = within(type(part).__name__ if hasattr(part, "_fields") else holder)
            return jax.tree.map(inner, part, is_leaf=lambda x: x is not part)

        return step

    return within(type(state).__name__)(state)


def refill(
    state: Any,
    table: Table,
    params: Any,
    numbers: Mapping[str, Any],
    trees: Mapping[str, Any],
    present: Any,
) -> Any:
    """The state with what `numbers` and `trees` have by the names of the other framework.

    Trees are like the parameters, and used where `present`, another one, is not 0.
    """

    def visit(part, fields):
        new = {}
        for ours, name in fields.items():
            if name in numbers:
                new[ours] = _scalar(numbers[name], getattr(part, ours))
            elif name in trees:
                new[ours] = _place(getattr(part, ours), params, trees[name], present)
        return _from_raw(part._replace(**new))

    return walk(state, table, visit)


def names_in(state: Any, table: Table) -> tuple[set[type], set[str]]:
    """The types of the parts of a state, and what the other framework calls their fields."""
    types, names = set(), set()

    def visit(part, fields):
        types.add(type(part))
        names.update(name for name in fields.values() if name is not None)
        return part

    walk(state, table, visit)
    return types, names


def _from_raw(state: Any) -> Any:
    """A state of ours whose fields were given the moments that others keep in their place."""
    if isinstance(state, CenteredRmspropState):  # the mean of squares
        return state._replace(variance=_of_both(_less_square, state.variance, state.mu))
    if isinstance(state, NadamState):  # the product of momenta
        return state._replace(momentum_gap=1 - state.momentum_gap)
    return state


def to_raw(state: Any) -> Any:
    """The inverse of `_from_raw`."""
    if isinstance(state, CenteredRmspropState):
        return state._replace(variance=_of_both(_plus_square, state.variance, state.mu))
    return _from_raw(state)


def merged(tree: Any, other: Any) -> Any:
    """A tree with the leaves of another one where it has None."""
    return jax.tree.map(lambda a, b: b if a is None else a, tree, other, is_leaf=_is_absent)


def spread(field: Any, params: Any) -> Any:
    """A field of a state in the shape of the parameters' tree, None where a mask left them out."""

    def leaf(x, p):
        return jax.tree.map(lambda _: None, p) if _is_absent(x) else x

    return jax.tree.map(leaf, field, params, is_leaf=_is_absent)


def filled(tree: Any, params: Any) -> tuple[Any, Any]:
    """Arrays like the parameters, zeros where a tree has None; and ones where it has an array."""

    def leaf(x, p):
        if x is None:
            return np.zeros(np.shape(p))
        return np.asarray(jax.lax.complex(x[..., 0], x[..., 1]) if jnp.iscomplexobj(p) else x)

    def has(x, p):
        return np.full(np.shape(p), float(x is not None))

    def like(f):
        return jax.tree.map(f, tree, params, is_leaf=_is_absent)

    return like(leaf), like(has)


def array(x: Any) -> np.ndarray:
    """An array of any framework as NumPy's; a tensor of torch may be bfloat16, or on a device."""
    if hasattr(x, "detach"):
        x = x.detach().cpu()
        x = x.float() if "bfloat16" in str(x.dtype) else x
    return np.asarray(x)


def only(what: str, by_name: Mapping[str, Any]) -> float:
    """The number that all names share."""
    numbers = {name: float(array(x)) for name, x in by_name.items()}
    if len(set(numbers.values())) > 1:
        shown = listed(f"{name} {number:g}" for name, number in numbers.items())
        raise ValueError(
            f"{_check.caller()}: {what} must be the same for all parameters, got {shown}."
        )
    return next(iter(numbers.values()))


def names_and_shapes(names: Any) -> tuple[list[str], dict[str, tuple[int, ...] | None]]:
    """The names in order, and their shapes, known where `names` maps them to arrays."""
    known = isinstance(names, Mapping)
    ordered = list(names)
    twice = sorted({name for name in ordered if ordered.count(name) > 1})
    if twice:
        raise ValueError(f"{_check.caller()}: names has {listed(twice)} more than once.")
    return ordered, {n: tuple(np.shape(names[n])) if known else None for n in ordered}


def listed(items: Iterable[Any]) -> str:
    """The first ten of them, and how many more there are."""
    items = [str(item) for item in items]
    more = f" and {len(items) - 10} more" if len(items) > 10 else ""
    return ", ".join(items[:10]) + more


def _place(field: Any, params: Any, tree: Any, present: Any) -> Any:
    """A field of a state with the leaves of `tree` where they are `present`."""
    who = _check.caller()

    def leaf(path, old, param, new, has):
        if _is_absent(old) or not has:
            return old
        if np.shape(new) != np.shape(param):
            raise _check.MisfitError(
                f"{who}: to_tree gives {_check.keystr(path)} the shape {np.shape(new)}; "
                f"its parameter has {np.shape(param)}."
            )
        new = widen(jnp.asarray(new)) if np.iscomplexobj(new) else new
        return jax.device_put(np.asarray(new, old.dtype), old.sharding)

    try:
        return jax.tree.map_with_path(leaf, field, params, tree, present, is_leaf=_is_absent)
    except _check.MisfitError as misfit:
        raise ValueError(str(misfit)) from None
    except ValueError as error:
        raise ValueError(f"{who}: to_tree makes another tree than params: {error}") from None


def _scalar(value: Any, old: jax.Array) -> jax.Array:
    """A number in the place of a scalar of a state."""
    return jax.device_put(np.asarray(value, old.dtype), old.sharding)


def _is_absent(x: Any) -> bool:
    return x is None or isinstance(x, optax.MaskedNode)


def _of_both(leaf: Callable[[Any, Any], Any], tree: Any, other: Any) -> Any:
    return jax.tree.map(
        lambda a, b: a if _is_absent(a) else leaf(a, b), tree, other, is_leaf=_is_absent
    )


def _less_square(nu, mu):
    return jnp.maximum(nu - mu * mu, 0)


def _plus_square(variance, mu):
    return variance + mu * mu


class _Watched(dict):
    """A dict that remembers what was asked for last."""

    asked: Any = None

    def __getitem__(self, key: Any) -> Any:
        self.asked = key
        return super().__getitem__(key)


def _full(shape: tuple[int, ...], number: float) -> np.ndarray:
    """An array full of a number, without the memory of one."""
    return np.broadcast_to(np.float32(number), shape)


def _guessed(
    shapes: Mapping[str, tuple[int, ...] | None], to_tree: ToTree
) -> dict[str, tuple[int, ...]]:
    """These shapes; one entry, in as many axes as `to_tree` bears, where nobody knows them.

    A frozen parameter has no state, and what to_tree makes of it is not used; only, it must not
    fail at a transposition.
    """
    axes = {name: 1 for name, shape in shapes.items() if shape is None}
    while True:
        known = {n: (1,) * axes[n] if s is None else s for n, s in shapes.items()}
        if not axes:
            return known
        watched = _Watched({name: _full(shape, 0) for name, shape in known.items()})
        try:
            to_tree(watched)
            return known
        except Exception as error:
            last = watched.asked
            if axes.get(last, 6) > 5:
                raise ValueError(
                    f"{_check.caller()}: {listed(axes)} have no state, which would tell their "
                    "shapes: let names map all names to arrays of their shapes (to_tree failed: "
                    f"{error})."
                ) from None
            axes[last] += 1
