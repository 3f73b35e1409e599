"""What users need: hyperparameters in their domains, gradients that fit, errors that say so.

A refusal is one sentence: who (the function the user called), which argument or leaf, which
value, what is allowed. Values that are traced (under `jax.jit`, `jax.vmap` or
`optax.inject_hyperparams`) have no value yet and pass; their dtype is checked all the same.
"""

import itertools
import math
import re
import sys
from collections.abc import Callable, Mapping
from types import FrameType
from typing import Any

import jax
import jax.core
import jax.numpy as jnp
import numpy as np
import optax

_PACKAGE = __name__.split(".")[0]


def caller() -> str:
    """The name of the outermost function of this package on the stack: what the user called.

    Not of this package, here, are the functions that their module says CALL_FOR_THE_USER: what they
    call is what the user asked for.
    """

    def ours(frame: FrameType) -> bool:
        inside = frame.f_globals.get("__name__", "").split(".")[0] == _PACKAGE
        return inside and frame.f_code.co_name not in frame.f_globals.get("CALL_FOR_THE_USER", ())

    frame, name = sys._getframe(1), ""
    while frame is not None and ours(frame):
        frame, name = frame.f_back, frame.f_code.co_name
    return name


def _scalar(name: str, value: Any, domain: str) -> float | None:
    """The value of a hyperparameter, None while it is traced."""

    def refuse(found: str) -> ValueError:
        return ValueError(f"{caller()}: {name} must be {domain}, got {found}.")

    if isinstance(value, bool) or not isinstance(
        value, (int, float, jax.Array, np.generic, np.ndarray)
    ):
        raise refuse(repr(value))
    if isinstance(value, (int, float)):
        return float(value)
    dtype = value.dtype
    if value.shape:
        raise refuse(f"an array of shape {value.shape}")
    if not (jnp.issubdtype(dtype, jnp.floating) or jnp.issubdtype(dtype, jnp.integer)):
        raise refuse(f"a scalar of dtype {dtype}")
    if jnp.issubdtype(dtype, jnp.floating) and jnp.finfo(dtype).bits < 32:
        # In bfloat16 b2 = 0.999 is 1, and every step is NaN.
        raise refuse(
            f"a scalar of dtype {dtype}, which is too coarse; make it float32 "
            "(optax.inject_hyperparams takes hyperparam_dtype=jnp.float32)"
        )
    return None if isinstance(value, jax.core.Tracer) else float(value)


def _domain(domain: str, holds: Callable[[float], bool]) -> Callable[..., None]:
    def check(**hyperparameters: Any) -> None:
        for name, given in hyperparameters.items():
            value = _scalar(name, given, domain)
            if value is not None and not holds(value):
                raise ValueError(f"{caller()}: {name} must be {domain}, got {value:g}.")

    return check


def _or_schedule(check: Callable[..., None]) -> Callable[..., None]:
    """The check of a number, for those that may be functions of the count of steps instead."""

    def check_numbers(**hyperparameters: Any) -> None:
        check(**{name: x for name, x in hyperparameters.items() if not callable(x)})

    return check_numbers


decay_rate = _domain("a number in [0, 1)", lambda x: 0 <= x < 1)
share = _domain("a number in [0, 1]", lambda x: 0 <= x <= 1)
positive_share = _domain("a number in (0, 1]", lambda x: 0 < x <= 1)
open_unit = _domain("a number in (0, 1)", lambda x: 0 < x < 1)
up_to_half = _domain("a number in [0, 1/2]", lambda x: 0 <= x <= 0.5)
non_negative = _domain("a finite number >= 0", lambda x: 0 <= x < math.inf)
positive = _domain("a finite number > 0", lambda x: 0 < x < math.inf)
above_one = _domain("a finite number > 1", lambda x: 1 < x < math.inf)
finite = _domain("a finite number", math.isfinite)
count = _domain("a whole number >= 0", lambda x: 0 <= x < math.inf and x % 1 == 0)
whole = _domain("a whole number >= 1", lambda x: 1 <= x < math.inf and x % 1 == 0)
at_least_sixteen = _domain("a whole number >= 16", lambda x: 16 <= x < math.inf and x % 1 == 0)
at_least_one = _domain("a finite number >= 1", lambda x: 1 <= x < math.inf)
at_least_four = _domain("a finite number >= 4", lambda x: 4 <= x < math.inf)
positive_start = _domain("> 0 at step 0, or base_lr given", lambda x: 0 < x < math.inf)
scheduled = _or_schedule(_domain("a finite number >= 0 or a schedule", lambda x: 0 <= x < math.inf))
scheduled_decay_rate = _or_schedule(
    _domain("a schedule or a number in [0, 1)", lambda x: 0 <= x < 1)
)


def rising(**hyperparameters: Any) -> None:
    """Numbers, each above the one before."""
    known = {k: x for k, x in hyperparameters.items() if not isinstance(x, jax.core.Tracer)}
    for (low, x), (high, y) in itertools.pairwise(known.items()):
        if x >= y:
            raise ValueError(f"{caller()}: {low} must be below {high}, {y:g}, got {x:g}.")


def threes(**hyperparameters: Any) -> list[tuple[Any, Any, Any]]:
    """Tuples of three numbers: one, or one for each of several iterations."""
    domain = "a tuple of three finite numbers, or a tuple of such"
    ((name, given),) = hyperparameters.items()

    def refuse() -> ValueError:
        return ValueError(f"{caller()}: {name} must be {domain}, got {given!r}.")

    if not isinstance(given, (tuple, list)) or not given:
        raise refuse()
    rows = given if isinstance(given[0], (tuple, list)) else (given,)
    if not all(isinstance(row, (tuple, list)) and len(row) == 3 for row in rows):
        raise refuse()
    for x in (x for row in rows for x in row):
        value = _scalar(name, x, domain)
        if value is not None and not math.isfinite(value):
            raise refuse()
    return [tuple(row) for row in rows]


def one_of(*values: Any, **hyperparameters: Any) -> None:
    """Names or numbers of variants: they choose a formula, so they cannot be traced."""
    for name, given in hyperparameters.items():
        if type(given) is not type(values[0]) or given not in values:
            allowed = ", ".join(map(repr, values))
            raise ValueError(f"{caller()}: {name} must be one of {allowed}, got {given!r}.")


def known(who: str, **hyperparameters: Any) -> list[int]:
    """The values of numbers that shapes depend on, so that they cannot be traced."""
    for name, value in hyperparameters.items():
        if isinstance(value, jax.core.Tracer):
            raise ValueError(
                f"{who}: {name} must be known when the state is made, got a traced value "
                f'(tunable needs fixed="{name}", optax.inject_hyperparams static_args="{name}").'
            )
    return [int(value) for value in hyperparameters.values()]


def flag(**hyperparameters: Any) -> None:
    """Booleans: they choose a formula, so they cannot be traced."""
    for name, given in hyperparameters.items():
        if not isinstance(given, bool):
            raise ValueError(f"{caller()}: {name} must be True or False, got {given!r}.")


def wrapped(tx: Any) -> optax.GradientTransformationExtraArgs:
    """What a wrapper is put around: a transformation, not its constructor."""
    if not isinstance(tx, optax.GradientTransformation):
        raise ValueError(
            f"{caller()}: tx must be an optax.GradientTransformation, as adam(1e-3) is, got {tx!r}."
        )
    return optax.with_extra_args_support(tx)


def patterns(what: str, given: Any) -> None:
    """Patterns of paths."""
    for pattern in given:
        regex = isinstance(pattern, re.Pattern) and isinstance(pattern.pattern, str)
        if not (isinstance(pattern, str) or regex):
            raise ValueError(
                f'{caller()}: {what} must be strings, as "*/bias", or compiled regular '
                f"expressions, got {pattern!r}."
            )


def axes(**hyperparameters: Any) -> None:
    """Mappings from the number of axes of a leaf to some of these axes."""
    for name, given in hyperparameters.items():
        if not isinstance(given, Mapping) or not all(
            isinstance(ndim, int)
            and isinstance(chosen, tuple)
            and all(axis in range(ndim) for axis in chosen)
            and len(set(chosen)) == len(chosen)
            for ndim, chosen in given.items()
        ):
            found = dict(given) if isinstance(given, Mapping) else given
            raise ValueError(
                f"{caller()}: {name} must be a mapping from a number of axes to a tuple of them, "
                f"counted from 0, such as {{4: (0, 1)}}, got {found!r}."
            )


def momentum_pair(momentum: Any, nesterov: Any) -> None:
    """A momentum in [0, 1) or None for none, and whether it looks ahead, which needs one."""
    flag(nesterov=nesterov)
    if momentum is not None:
        decay_rate(momentum=momentum)
    elif nesterov:
        raise ValueError(f"{caller()}: nesterov needs momentum, a number in [0, 1).")


def decay(weight_decay: Any, mask: Any) -> tuple[str, ...]:
    """A weight decay or None for none, and the mask of `descend`, which needs one.

    Returns what `update` then needs beside gradients.

    The mask is a tree of booleans. One boolean alone is what a function becomes that optax calls as
    if it were a schedule; nothing would decay, and nobody would know.
    """
    if weight_decay is not None:
        scheduled(weight_decay=weight_decay)
    elif mask is not None:
        raise ValueError(f"{caller()}: mask does nothing without weight_decay.")
    needs = () if weight_decay is None else ("params",)
    if callable(mask):
        return needs
    must = "must be a tree of True and False, or a function that returns one"
    bad = [leaf for leaf in jax.tree.leaves(mask) if not isinstance(leaf, (bool, np.bool_))]
    if isinstance(mask, (bool, np.bool_)) or bad:
        found = repr(bad[0]) if bad else f"{mask} alone"
        raise ValueError(
            f"{caller()}: mask {must}, got {found} "
            '(optax.inject_hyperparams needs static_args="mask").'
        )
    return needs


def some_eps(**hyperparameters: Any) -> None:
    """At least one of several terms that keep a denominator from 0 is positive."""
    non_negative(**hyperparameters)
    if all(_scalar(name, given, "") == 0 for name, given in hyperparameters.items()):
        raise ValueError(
            f"{caller()}: {' and '.join(hyperparameters)} must not all be 0: where a gradient has "
            "always been zero, the step would be 0 / 0."
        )


def given(name: str, arguments: Mapping[str, Any]) -> None:
    """Extra arguments of `update` that this optimizer cannot do without."""
    for argument, value in arguments.items():
        if value is None:
            raise ValueError(
                f"{name}.update needs {argument}: call update(grads, state, params) "
                f"with the parameters."
                if argument == "params"
                else f"{name}.update needs {argument}: call "
                f"update(grads, state, params, {argument}=...)."
            )


class MisfitError(ValueError):
    """Two trees that must have the same structure and shapes do not; says where."""


def same_shapes(what: str, tree: Any, other_what: str, other: Any) -> None:
    """Two trees, each with what to call a leaf of it, agree in structure and in every shape."""
    leaves, structure = jax.tree.flatten(tree)
    other_leaves, other_structure = jax.tree.flatten(other)
    if structure == other_structure and all(
        jnp.shape(x) == jnp.shape(y) for x, y in zip(leaves, other_leaves, strict=True)
    ):
        return
    shapes, other_shapes = (
        {keystr(path): jnp.shape(x) for path, x in jax.tree.leaves_with_path(t)}
        for t in (tree, other)
    )
    for path in shapes | other_shapes:
        if path not in other_shapes:
            raise MisfitError(f"{what} at {path} has no {other_what}")
        if path not in shapes:
            raise MisfitError(f"{other_what} at {path} has no {what}")
        if shapes[path] != other_shapes[path]:
            raise MisfitError(
                f"{what} at {path} has shape {shapes[path]}, its {other_what} {other_shapes[path]}"
            )
    raise MisfitError(f"{what} has the structure {structure}, {other_what} {other_structure}")


def entries(what: str, tree: Any, other_what: str, other: Any) -> list[Any]:
    """The entry, of whatever kind, for every leaf of a tree in another one that has no others."""
    try:
        return jax.tree.structure(tree).flatten_up_to(other)
    except ValueError as error:
        paths, other_paths = (
            [path for path, _ in jax.tree.leaves_with_path(t)] for t in (tree, other)
        )
        for path in paths:
            if all(p[: len(path)] != path for p in other_paths):
                raise MisfitError(f"{what} at {keystr(path)} has no {other_what}") from None
        for path in (p[:n] for p in other_paths for n in range(1, len(p) + 1)):
            if all(p[: len(path)] != path[: len(p)] for p in paths):
                raise MisfitError(f"{other_what} at {keystr(path)} has no {what}") from None
        raise MisfitError(f"{other_what} has another structure: {error}") from None


def trainable(updates: Any, params: Any) -> None:
    """No gradient is an integer, unless its parameter is one too and so does not train."""
    owners = [0.0] * len(jax.tree.leaves(updates)) if params is None else jax.tree.leaves(params)
    for (path, g), owner in zip(jax.tree.leaves_with_path(updates), owners, strict=True):
        dtype = jnp.result_type(g)
        if dtype == jax.dtypes.float0 or jnp.issubdtype(dtype, jnp.inexact):
            continue
        if jnp.issubdtype(jnp.result_type(owner), jnp.inexact):
            raise MisfitError(
                f"gradient at {keystr(path)} has dtype {dtype}; gradients are floating or complex "
                "(integers only for integer parameters, and then `params` must be given)"
            )


def keystr(path: Any) -> str:
    """The path of a leaf, in words."""
    return jax.tree_util.keystr(path) or "the root"
