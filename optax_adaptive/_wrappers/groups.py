"""Groups: leaves by their paths, each group with an optimizer of its own."""

import functools
import inspect
import math
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import optax

from optax_adaptive import _check
from optax_adaptive._core import Reporting, is_variable, reporting, transformation, zeros_like
from optax_adaptive._paths import Report, matching, named_shapes, shown, table


class GroupsState(NamedTuple):
    """The states of the groups."""

    groups: tuple[optax.OptState, ...]  # in the order of the patterns, that of the default last


class Group(NamedTuple):
    """What is done with the leaves of one pattern."""

    pattern: Any  # "default" for the leaves of none
    words: str  # what they are given, for people
    tx: optax.GradientTransformationExtraArgs


def by_path(groups: Mapping[Any, Any], default: Any = None) -> Reporting:
    """Groups of parameters, told by their paths, each with an optimizer of its own.

    For example::

        tx = by_path(
            {
                "*/bias": {"weight_decay": 0.0},          # as the default, but for this argument
                "head/*": adam(1e-2),                     # an optimizer of its own
                re.compile(r"encoder/.*kernel"): "frozen",
            },
            default=functools.partial(adamw, 1e-3, weight_decay=0.1),
        )
        print(tx.report(params))                          # who went where

    A path is the keys from the root down, as "params/Dense_0/kernel". A string is a shell-style
    pattern of the whole path, in which "*" matches slashes, too; a compiled regular expression must
    match the whole path. A leaf that no pattern matches is of the default. Every leaf is of one
    group: what is not clear is an error, in `init`, and in `report`.

    Each optimizer sees its own leaves only, and `optax.MaskedNode` in the place of others: norms
    and estimates of distances are those of the group, functions that are masks are given its
    parameters. What else comes to `update` is cut down to the group where it is a tree like the
    gradients (`hessian_diagonal`), and handed on as it is otherwise (`value`).

    The update of what is "frozen" is 0, also where its gradient is not finite, and it has no state.
    Under `jax.jit` its gradient is not even computed, where nothing else needs it.

    `report(params)` is a mapping from paths to patterns, "default" where none matches, whose `str`
    is a table of leaves and groups. Shapes instead of parameters (`jax.eval_shape`) will do.

    Args:
        groups: A dict from patterns to what their leaves are given: a transformation; a dict of
            arguments that replace or join those of the default; or "frozen".
        default: What all other leaves are given: a transformation; "frozen"; a constructor, or
            functools.partial of one, which is what dicts of arguments need. None: no leaf may be
            left.

    Returns:
        A transformation with `report(params)`. Its state is a `GroupsState`.

    Raises:
        ValueError: If a group is none of these, or an argument is not the constructor's; in `init`
            and in `report`, if a leaf matches several patterns, or none without a default, or a
            pattern matches no leaf.

    Departures: `optax.partition` takes a tree of labels, or a function that makes one, and hands
    all arguments on as they are. Here, as in every wrapper, optimizers see float32 at least. Where
    one of them rounds parameters by itself, as `kahan`, the updates of all parameters below 32 bits
    leave in float32; around all groups it does the same, and one is enough.
    """
    who = _check.caller()
    if not isinstance(groups, Mapping):
        raise ValueError(f"{who}: groups must be a dict from patterns of paths, got {groups!r}.")
    _check.patterns("the keys of groups", groups)
    kinds = [
        Group(pattern, *_given(who, f"groups[{pattern!r}]", given, default))
        for pattern, given in groups.items()
    ]
    patterns = {group.pattern: i for i, group in enumerate(kinds)}
    if default is not None:
        kinds.append(Group("default", *_given(who, "default", default, default)))

    def assign(tree: Any) -> list[int]:
        """The group of every leaf, by number."""
        leaves = named_shapes(tree)
        found = matching(who, "groups", patterns, [path for path, _ in leaves])
        twice = [(shown(p), ", ".join(map(repr, its))) for p, its in found.items() if len(its) > 1]
        if twice:
            raise ValueError(f"{who}: more than one pattern matches\n{table(twice)}")
        lost = [(shown(path), str(shape)) for path, shape in leaves if not found[path]]
        if lost and default is None:
            raise ValueError(
                f"{who}: no pattern matches\n{table(lost)}\nand there is no default for them: an "
                'optimizer, or "frozen".'
            )
        return [patterns[found[path][0]] if found[path] else len(patterns) for path, _ in leaves]

    def init(params):
        member, structure = assign(params), jax.tree.structure(params, is_leaf=_is_node)
        return GroupsState(
            tuple(
                group.tx.init(_cut(structure, member, i, params)) for i, group in enumerate(kinds)
            )
        )

    def update(grads, state, *, params=None, **extra):
        member, structure = assign(grads), jax.tree.structure(grads, is_leaf=_is_node)
        extra["params"], whole = params, jax.tree.structure(grads)
        trees = [k for k, x in extra.items() if jax.tree.structure(x) == whole]
        nodes, states = structure.flatten_up_to(grads), list(state.groups)
        for i in sorted(set(member)):
            cut = functools.partial(_cut, structure, member, i)
            own = extra | {k: cut(extra[k]) for k in trees}
            updates, states[i] = kinds[i].tx.update(cut(grads), states[i], **own)
            made = structure.flatten_up_to(updates)
            nodes = [new if m == i else x for m, new, x in zip(member, made, nodes, strict=True)]
        return structure.unflatten(nodes), GroupsState(tuple(states))

    def report(params: optax.Params) -> Report:
        """Who is in which group: path -> pattern, or "default"; `str` is a table."""
        member, leaves = assign(params), named_shapes(params)
        own = [kinds[i] for i in member]
        cells = [
            (shown(path), str(shape), _shown(group.pattern), group.words)
            for (path, shape), group in zip(leaves, own, strict=True)
        ]
        sizes = Counter()
        for i, (_, shape) in zip(member, leaves, strict=True):
            sizes[i] += math.prod(shape)
        sums = [
            (_shown(group.pattern), str(member.count(i)), f"{sizes[i]:,}")
            for i, group in enumerate(kinds)
        ]
        return Report(
            {path: group.pattern for (path, _), group in zip(leaves, own, strict=True)},
            [("path", "shape", "group", "given"), *cells],
            "\n\n" + table([("group", "leaves", "parameters"), *sums]),
        )

    return reporting(transformation(init, update), report)


def _is_node(x: Any) -> bool:
    """Whether this is cut out whole: a Variable of Flax NNX with the one array in it."""
    return is_variable(x) and len(jax.tree.leaves(x)) == 1


def _cut(structure: Any, member: list[int], i: int, tree: Any) -> Any:
    """The leaves of one group; none in the place of others."""
    nodes = structure.flatten_up_to(tree)
    return structure.unflatten(
        [x if m == i else optax.MaskedNode() for m, x in zip(member, nodes, strict=True)]
    )


def _still(updates: Any, state: Any, params: Any = None, **extra: Any) -> tuple[Any, Any]:
    del params, extra
    return zeros_like(updates), state


_FROZEN = optax.GradientTransformationExtraArgs(lambda params: optax.EmptyState(), _still)


def _given(
    who: str, where: str, given: Any, default: Any
) -> tuple[str, optax.GradientTransformationExtraArgs]:
    """What a group is given, in words, and the transformation that it is."""
    if isinstance(given, str) and given == "frozen":
        return "frozen", _FROZEN
    if isinstance(given, optax.GradientTransformation):
        name = getattr(given.update, "__qualname__", "a transformation").partition(".")[0]
        return f"{name}(...)", optax.with_extra_args_support(given)
    if isinstance(given, Mapping) and given is not default:
        if not callable(default):
            raise ValueError(
                f"{who}: {where} are arguments for default, which must be a constructor or "
                f"functools.partial of one then, got {default!r}."
            )
        return _constructed(who, where, default, dict(given))
    if callable(given) and given is default:
        return _constructed(who, where, default, {})
    forms = 'a transformation, as adam(1e-3) is, "frozen"'
    forms += ", or a constructor" if where == "default" else ", or a dict of arguments for default"
    raise ValueError(f"{who}: {where} must be {forms}, got {given!r}.")


def _constructed(
    who: str, where: str, make: Callable[..., Any], arguments: dict[str, Any]
) -> tuple[str, optax.GradientTransformationExtraArgs]:
    """What a constructor makes of further arguments."""
    inner, first, keywords = make, (), {}
    if isinstance(make, functools.partial):
        inner, first, keywords = make.func, make.args, make.keywords
    name = getattr(inner, "__name__", repr(inner))
    parameters = inspect.signature(inner).parameters.values()
    takes = [p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    takes_all = any(p.kind is p.VAR_KEYWORD for p in parameters)
    for argument in keywords | arguments:
        if argument in takes[: len(first)]:
            raise ValueError(
                f"{who}: {where} gives {name} an argument {argument!r} that default gives by "
                f"position; give it by name there: functools.partial({name}, {argument}=...)."
            )
        if argument not in takes and not takes_all:
            raise ValueError(
                f"{who}: {where} gives {name} an argument {argument!r}; it takes "
                f"{', '.join(takes)}."
            )
    for p in inspect.signature(make).parameters.values():
        if p.default is p.empty and p.name in takes and p.name not in arguments:
            raise ValueError(f"{who}: {where} gives {name} no argument {p.name!r}, which it needs.")
    try:
        tx = make(**arguments)
    except ValueError as error:
        raise ValueError(f"{who}: {where}: {str(error).removeprefix(f'{who}: ')}") from error
    if not isinstance(tx, optax.GradientTransformation):
        raise ValueError(f"{who}: default must make an optax.GradientTransformation, got {tx!r}.")
    words = [*map(_shown, first), *(f"{k}={_shown(v)}" for k, v in (keywords | arguments).items())]
    return f"{name}({', '.join(words)})", optax.with_extra_args_support(tx)


def _shown(x: Any) -> str:
    """A pattern or an argument, for people."""
    return x if isinstance(x, str) else getattr(x, "__name__", None) or repr(x)
