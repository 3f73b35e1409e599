"""Leaves by their names: paths, patterns of paths, reports, and which parameter an array is of.

A path is the keys from the root down, joined by slashes: "params/Dense_0/kernel", "" for a tree
that is one leaf. A pattern is shell-style ("*" matches slashes, too), or a compiled regular
expression of the whole path.
"""

import re
from collections import Counter
from collections.abc import Container, Iterable, Iterator, Mapping
from fnmatch import fnmatchcase
from typing import Any

import jax
import jax.numpy as jnp
from jax.tree_util import GetAttrKey

from optax_adaptive._codes import PositiveCodes, SignedCodes

Shape = tuple[int, ...]

# The arrays that codes of one array are.
_PARTS = {*SignedCodes._fields, *PositiveCodes._fields}


def named_shapes(tree: Any) -> list[tuple[str, Shape]]:
    """The path and the shape, as the algorithms see it, of every leaf."""

    def shape(x: Any) -> Shape:
        x = x if hasattr(x, "dtype") else jnp.asarray(x)
        return (*x.shape, *([2] if jnp.issubdtype(x.dtype, jnp.complexfloating) else []))

    return list(zip(names(tree), map(shape, jax.tree.leaves(tree)), strict=True))


def names(tree: Any) -> list[str]:
    """The path of every leaf."""
    paths = [path for path, _ in jax.tree.leaves_with_path(tree)]
    siblings = Counter(path[:-1] for path in paths)

    def named(path: Any) -> str:
        # The boxes that Flax keeps parameters in; "value" is also a name in attention.
        if len(path) > 1 and path[-1] == GetAttrKey("value") and siblings[path[:-1]] == 1:
            path = path[:-1]
        return jax.tree_util.keystr(path, simple=True, separator="/")

    return [named(path) for path in paths]


def matches(pattern: str | re.Pattern[str], path: str) -> bool:
    """Whether a path is of this pattern."""
    if isinstance(pattern, re.Pattern):
        return pattern.fullmatch(path) is not None
    return pattern == path or fnmatchcase(path, pattern)


def matching(
    who: str, what: str, patterns: Mapping[Any, Any], paths: Iterable[str]
) -> dict[str, list[Any]]:
    """The patterns of every path. A pattern of none is an error: it is misspelt, or outlived."""
    found = {path: [p for p in patterns if matches(p, path)] for path in paths}
    lost = [p for p in patterns if not any(p in some for some in found.values())]
    if lost and found:
        there = "\n".join(f"  {shown(path)}" for path in found)
        raise ValueError(f"{who}: no leaf matches {what}[{lost[0]!r}]; there are\n{there}")
    return found


def shown(path: str) -> str:
    """A path, for people."""
    return path or "(the root)"


def table(rows: Iterable[Iterable[str]]) -> str:
    """Rows of cells as indented lines, in columns."""
    rows = [list(row) for row in rows]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ("  ".join(x.ljust(w) for x, w in zip(row, widths, strict=True)) for row in rows)
    return "\n".join(f"  {line.rstrip()}" for line in lines)


class Report(Mapping[str, Any]):
    """What is decided, about every leaf by its path; `str` is a table."""

    def __init__(self, decided: Mapping[str, Any], rows: Iterable[Iterable[str]], foot: str = ""):
        self._decided, self._text = dict(decided), table(rows) + foot

    def __getitem__(self, path: str) -> Any:
        return self._decided[path]

    def __iter__(self) -> Iterator[str]:
        return iter(self._decided)

    def __len__(self) -> int:
        return len(self._decided)

    def __str__(self) -> str:
        return self._text

    __repr__ = __str__


def field_and_owner(path: Any, params: Container[Any]) -> tuple[str, Any]:
    """The field of a state that an array is in, and the path of the parameter it belongs to.

    The path of a parameter follows that of its field: `inner.direction.nu` and then `['w']`. What
    belongs to no parameter has None for one. Paths are those of `jax.tree.leaves_with_path`; give
    the parameters' as a set.
    """
    keys = tuple(key for key in path if not _is_part(key))
    spans = ((i, j) for i in range(len(keys)) for j in range(len(keys), i, -1))
    found = [(i, keys[i:j]) for i, j in spans if keys[i:j] in params]
    nothing = (len(keys), () if () in params else None)  # one array alone has no keys of its own
    start, owner = max(found, key=lambda x: len(x[1]), default=nothing)
    fields = [key.name for key in keys[:start] if isinstance(key, GetAttrKey)]
    return fields[-1] if fields else "", owner


def in_codes(path: Any) -> bool:
    """Whether this is the path of codes, or of the scales of their blocks."""
    return any(map(_is_part, path))


def _is_part(key: Any) -> bool:
    return getattr(key, "name", None) in _PARTS
