"""Which leaf plays which part in a model, told by its path, its shape and the user.

An algorithm has roles of its own; its default rule picks one from the part that `part` reads off
the names, and what the user says comes first.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax

from optax_adaptive import _check
from optax_adaptive._paths import Report, Shape, matches, matching, named_shapes, shown, table


class Form(NamedTuple):
    """The leaves that can play a role."""

    shape: str  # what they look like, for people
    fits: Callable[[Shape, int], bool]  # the int is that of "heads:8", and 1 where none is given
    counts: bool = False  # whether such a number may follow the name


class Rule(NamedTuple):
    """The roles of one algorithm, and the one it gives where nobody said which."""

    forms: Mapping[str, Form]
    default: Callable[[str | None, str, Shape], str | None]  # (part, path, shape) -> role


class Row(NamedTuple):
    """What is decided about one leaf."""

    path: str
    shape: Shape
    role: str | None  # None where it is not clear
    why: str


class Roles(Report):
    """The role of every leaf by its path, None where it must be given; `str` is a table."""

    def __init__(self, rows: list[Row]):
        cells = [(shown(row.path), str(row.shape), row.role or "?", row.why) for row in rows]
        head = ("path", "shape", "role", "why")
        super().__init__({row.path: row.role for row in rows}, [head, *cells])


def assigner(roles: Any, rule: Rule) -> Callable[[Any], Any]:
    """The function from a tree of arrays to the tree of their roles.

    Args:
        roles: None; a dict from patterns, shell-style on the path ("*" matches slashes, too), to
            roles; or a function (path, shape) -> a role, or None for the default.
        rule: Of the algorithm.

    Raises:
        ValueError: When called, too, if a leaf is unclear, two patterns contradict each other, one
            matches nothing, or a role does not fit the shape of its leaf.
    """
    name = _check.caller()
    _acceptable(name, roles, rule)

    def assign(tree: Any) -> Any:
        rows = _rows(name, tree, roles, rule)
        unclear = [row for row in rows if row.role is None]
        if unclear:
            many = "these leaves play" if len(unclear) > 1 else "this leaf plays"
            lines = [(shown(row.path), str(row.shape), row.why) for row in unclear]
            given = ", ".join(f'"{row.path}": ...' for row in unclear)
            raise ValueError(
                f"{name}: which role {many} is not clear:\n{table(lines)}\n"
                f"Say it, by path or pattern: roles={{{given}}}\nwith\n{_described(rule)}"
            )
        return jax.tree.unflatten(jax.tree.structure(tree), [row.role for row in rows])

    return assign


def players(assign: Callable[[Any], Any], role: str) -> Callable[[Any], Any]:
    """The function from a tree of arrays to the tree of booleans: who plays `role`."""
    return lambda tree: jax.tree.map(lambda played: played == role, assign(tree))


def report(tree: Any, roles: Any, rule: Rule) -> Roles:
    """What `assigner` decides, without its refusal of unclear leaves."""
    name = _check.caller()
    _acceptable(name, roles, rule)
    return Roles(_rows(name, tree, roles, rule))


def number(role: str) -> int:
    """The number behind the name of a role; 1 where there is none."""
    return int(role.partition(":")[2] or 1)


def part(path: str, shape: Shape) -> tuple[str | None, str]:
    """The part that a leaf plays by its name, None for a mystery, and what gave it away.

    One of vector, bias, norm, embedding, head; query, value, projection (of attention: queries and
    keys, values, outputs); mlp (in a block of a deep model); linear (anywhere: it may be a head).
    """
    keys = path.split("/")
    words = [words_of(key) for key in keys]
    if "bias" in words[-1]:
        return "bias", "named bias"
    if len(shape) < 2:
        return "vector", "less than two axes"
    if any(word in _GAIN for word in words[-1]):
        return "norm", "named norm"

    found = set()
    in_block = in_attention = False
    for key, some in zip(keys, words, strict=True):
        found |= evidence(some, in_block, in_attention)
        in_attention |= any(word.endswith(_ATTENTION) for word in some[-1:])
        in_block |= key.isdigit() or any(word.endswith(_BLOCK) for word in some)
    if len(found) > 1:
        found.discard("linear")
    why = f"named {' and '.join(sorted(found))}" if found else "no name says"
    return found.pop() if len(found) == 1 else None, why


def words_of(key: str) -> list[str]:
    """The words of one key of a path, in small letters."""
    return [word.lower() for word in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+", key)]


def names_block(words: list[str]) -> bool:
    """Whether a key of these words is that of a block of a deep model, or of all of them."""
    return words == ["h"] or (bool(words) and words[-1].endswith(_BLOCK))


def evidence(words: list[str], in_block: bool = False, in_attention: bool = False) -> set[str]:
    """What one key of a path, inside of those before it, says of its leaves."""
    named = set(words)
    projection = _projection(named, in_attention)
    says = {
        "embedding": named & _EMBEDDING or any(word.startswith("embed") for word in words),
        "norm": any(word.endswith(("norm", "ln")) for word in words),
        "head": (named & _HEAD and "multi" not in named)
        or any(word.startswith("unembed") for word in words)
        or ("output" in named and not projection and not in_block),
        "mlp": "hidden" in named
        or ("proj" in named and named & _GATED)
        or words == ["c", "fc"]
        or (in_block and named & _MLP),
        "linear": named & (_MLP | {"dense", "linear"}),
    }
    return {what for what, it_does in says.items() if it_does} | set(filter(None, [projection]))


_EMBEDDING = {"emb", "embd", "wte", "wpe", "tok", "token", "tokens", "vocab", "pos", "position"}
_HEAD = {"head", "heads", "logits", "classifier", "readout"}
_GAIN = {"scale", "gain", "gamma", "beta", "norm", "ln"}
_GATED = {"up", "down", "gate"}
_MLP = {"mlp", "ff", "ffn", "feedforward", "forward", "fc", "intermediate"}
_ATTENTION = ("attn", "attention", "mha")
_BLOCK = ("block", "blocks", "layer", "layers")
_PROJECTIONS = {
    "query": {"q", "k", "wq", "wk", "query", "key", "qk", "qkv", "wqkv", "kv", "wkv"},
    "value": {"v", "wv", "value"},
    "projection": {"o", "wo", "out", "output", "proj", "dense"},
}


def _projection(words: set[str], in_attention: bool) -> str | None:
    """Which projection of attention a key names; elsewhere than there "value" can be a critic."""
    if words == {"c", "attn"}:
        return "query"
    certain = words & {"wq", "wk", "wv", "wo", "qkv", "wqkv"} or (
        "proj" in words and words & {"q", "k", "v", "o"}
    )
    if certain or in_attention:
        return next((which for which, its in _PROJECTIONS.items() if words & its), None)
    return None


def _acceptable(name: str, roles: Any, rule: Rule) -> None:
    if roles is None or callable(roles):
        return
    if not isinstance(roles, Mapping):
        raise ValueError(
            f"{name}: roles must be None, a dict from patterns to roles, or a function "
            f"(path, shape) -> role, got {roles!r}."
        )
    for pattern, role in roles.items():
        _known(name, f"roles[{pattern!r}]", role, rule)


def _known(name: str, where: str, role: Any, rule: Rule) -> None:
    kind, _, count = role.partition(":") if isinstance(role, str) else ("", "", "")
    if kind not in rule.forms or (count and not (rule.forms[kind].counts and count.isdecimal())):
        raise ValueError(f"{name}: {where} must be one of\n{_described(rule)}\ngot {role!r}.")


def _rows(name: str, tree: Any, roles: Any, rule: Rule) -> list[Row]:
    leaves = named_shapes(tree)
    if isinstance(roles, Mapping) and leaves:
        found = matching(name, "roles", roles, [path for path, _ in leaves])
        twice = [
            (path, ", ".join(f"{p!r}: {roles[p]!r}" for p in patterns))
            for path, patterns in found.items()
            if len({roles[p] for p in patterns}) > 1
        ]
        if twice:
            raise ValueError(f"{name}: roles contradict each other at\n{table(twice)}")
    return [_row(name, path, shape, roles, rule) for path, shape in leaves]


def _row(name: str, path: str, shape: Shape, roles: Any, rule: Rule) -> Row:
    role, why = None, ""
    if isinstance(roles, Mapping):
        for pattern in (p for p in roles if matches(p, path)):
            role, why = roles[pattern], f"roles[{pattern!r}]"
    elif roles is not None:
        role, why = roles(path, shape), "roles(path, shape)"
        if role is not None:
            _known(name, f"roles({path!r}, {shape})", role, rule)
    if role is None:
        played, why = part(path, shape)
        return Row(path, shape, rule.default(played, path, shape), why)
    form = rule.forms[role.partition(":")[0]]
    if not form.fits(shape, number(role)):
        raise ValueError(
            f'{name}: a leaf of role "{role}" is {form.shape}; {path or "the root"} has shape '
            f"{shape} (by {why})."
        )
    return Row(path, shape, role, why)


def _described(rule: Rule) -> str:
    return table([(f'"{name}{":N" * f.counts}"', f.shape) for name, f in rule.forms.items()])
