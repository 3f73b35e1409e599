"""Tunable: the numbers of any constructor in its state, to be read and set while training."""

import functools
import inspect
import math
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple, get_args

import jax
import jax.core
import jax.numpy as jnp
import numpy as np
import optax

from optax_adaptive import _check
from optax_adaptive._core import at, find_states, only_array, states_of, zero_count
from optax_adaptive._numerics import increment

# What these construct speaks of itself in its errors.
CALL_FOR_THE_USER = ("construct", "made")

# Numbers that only `init` reads: to set them would do nothing.
_STARTS = re.compile(r".*\.(init\w*|d0|s_init)|cocob\.eps")
_SCHEDULES = set(get_args(optax.ScalarOrSchedule))
# Annotations, which `from __future__ import annotations` makes strings.
_WHOLE = (int, int | None, "int", "int | None", "Optional[int]")
_FINITE = ("a finite number", math.isfinite)
# What these names mean everywhere, behind any prefix. Of others a state cannot know more.
_DOMAINS = {
    **dict.fromkeys(("b1", "b2", "b3", "rho"), ("a number in [0, 1)", lambda x: 0 <= x < 1)),
    **dict.fromkeys(
        ("learning_rate", "weight_decay", "eps", "eps_root"),
        ("a finite number >= 0", lambda x: 0 <= x < math.inf),
    ),
}


class TunableState(NamedTuple):
    """The numbers by name, whose they are, and the state behind."""

    count: jax.Array  # of steps, int32, shape (): the argument of schedules
    hyperparams: dict[str, jax.Array]  # of the last step, or of step 0; float32, shape ()
    constructed: jax.Array  # what constants and schedules said of them, float32, by sorted name
    is_set: jax.Array  # whether they were set since, bool, by sorted name
    inner: optax.OptState  # of the transformation


def tunable(
    factory: Callable[..., optax.GradientTransformation],
    *,
    prefix: str = "",
    fixed: Sequence[str] = (),
) -> Callable[..., optax.GradientTransformationExtraArgs]:
    """A constructor whose numbers are kept in the state, where they can be read and set.

    ::

        tx = tunable(adamw)(learning_rate=schedule, weight_decay=0.1)
        hyperparams(state)["learning_rate"]                      # of the last step
        state = set_hyperparams(state, learning_rate=1e-4)       # from the next step on

    Every argument that is a number, also by default, has its place, and so has one that is a
    schedule: float32, whatever the dtype of the parameters, under its own name. Setting it compiles
    nothing anew, and states of several values can be stepped by one `jax.vmap`.

    A number that was set holds until `set_hyperparams` is given None for it. All others are those
    of the constructor: of a constant that was changed in the program, the new value counts after a
    checkpoint is restored. The state is the same for constants and schedules.

    Args:
        factory: A constructor, of this library, of optax, or your own: its arguments by name.
        prefix: Put before the names, to tell two of them in one optimizer apart: "head_".
        fixed: Arguments that stay as they are, by name. Those annotated as `int` do anyway: they
            decide on shapes. So do starting values, which only `init` reads: `d0`, `s_init`, those
            whose names begin with "init", and the `eps` of `cocob`.

    Returns:
        The constructor. Functions among its arguments are schedules where `factory` says so by the
        annotation `optax.ScalarOrSchedule`, or says nothing at all; others stay as they are.

    Raises:
        ValueError: If an argument is outside its domain, or names nothing.

    Departures: `optax.inject_hyperparams` keeps numbers in the dtype of the parameters, in which
    0.999 is 1 for bfloat16; takes a mask for a schedule; has another state for schedules than for
    constants; overwrites in silence what was set where there is a schedule; and ignores in silence
    the constants of the program once a checkpoint is restored. `adabound` and `amsbound` find no
    `base_lr` there.
    """
    if not callable(factory):
        raise ValueError(
            f"tunable: factory must be a constructor, as adamw is, not what it makes, "
            f"got {factory!r}."
        )
    if not isinstance(prefix, str):
        raise ValueError(f"tunable: prefix must be a string, got {prefix!r}.")
    try:
        signature = inspect.signature(factory)
    except ValueError:
        raise ValueError(
            f"tunable: factory must name its arguments; {factory!r} does not."
        ) from None
    fixed = (fixed,) if isinstance(fixed, str) else tuple(fixed)
    takes_all = any(p.kind is p.VAR_KEYWORD for p in signature.parameters.values())
    for name in fixed:
        if name not in signature.parameters and not takes_all:
            raise ValueError(
                f"tunable: fixed names {name!r}, which is no argument of {_name(factory)}; they "
                f"are {', '.join(signature.parameters)}."
            )

    @functools.wraps(factory)
    def construct(*args: Any, **kwargs: Any) -> optax.GradientTransformationExtraArgs:
        arguments = _arguments(signature, args, kwargs)
        tx = factory(**arguments)  # refuses what is outside its domain
        if not isinstance(tx, optax.GradientTransformation):
            raise ValueError(
                f"tunable: factory must make an optax.GradientTransformation, "
                f"{_name(factory)} made {tx!r}."
            )
        if arguments.get("base_lr", 0) is None and "learning_rate" in arguments:
            # The rate at step 0, which cannot be told once it is a number that may change.
            arguments["base_lr"] = at(arguments["learning_rate"], zero_count())
        numbers = {
            prefix + name: value
            for name, value in sorted(arguments.items())
            if name not in fixed
            and not _STARTS.fullmatch(f"{_name(factory)}.{name}")
            and _is_tuned(value, signature.parameters.get(name))
        }

        def stacked(values: Iterable[Any]) -> jax.Array:
            return jnp.array([jnp.asarray(x, jnp.float32) for x in values], jnp.float32)

        def of_step(count: jax.Array) -> jax.Array:
            return stacked(at(x, count) for x in numbers.values())

        def by_name(values: jax.Array) -> dict[str, jax.Array]:
            return {name: values[i] for i, name in enumerate(numbers)}

        def made(values: dict[str, jax.Array]) -> optax.GradientTransformationExtraArgs:
            tuned = {name.removeprefix(prefix): x for name, x in values.items()}
            return optax.with_extra_args_support(factory(**arguments | tuned))

        def init(params: optax.Params) -> TunableState:
            first = of_step(zero_count())
            none = jnp.zeros(len(numbers), bool)
            # A part that is left out where a number is 0 is there where it may change.
            inner = made(by_name(first)).init(params)
            return TunableState(zero_count(), by_name(first), first, none, inner)

        def update(
            updates: optax.Updates, state: Any, params: Any = None, **extra: Any
        ) -> tuple[optax.Updates, TunableState]:
            if state.hyperparams.keys() != numbers.keys():
                raise ValueError(
                    f"{_name(factory)}.update: the state has the hyperparameters "
                    f"{', '.join(state.hyperparams)}; this optimizer has {', '.join(numbers)}."
                )
            last = stacked(state.hyperparams[name] for name in numbers)
            # A value that was written into the state without `set_hyperparams` is meant, too.
            is_set = state.is_set | ((last != state.constructed) & ~jnp.isnan(last))
            constructed = of_step(state.count)
            values = by_name(jnp.where(is_set, last, constructed))
            updates, inner = made(values).update(updates, state.inner, params, **extra)
            return updates, TunableState(increment(state.count), values, constructed, is_set, inner)

        return optax.GradientTransformationExtraArgs(init, update)

    return construct


def hyperparams(state: optax.OptState) -> dict[str, jax.Array]:
    """The numbers of the last step by name, wherever they are in the state of the optimizer.

    Those of a schedule are what it said at that step; before the first step, what it says at 0.

    Args:
        state: Of any optimizer with `tunable` in it: in chains, groups, wrappers.

    Returns:
        A dict of float32 scalars, or of one for each of the states that `jax.vmap` made.

    Raises:
        ValueError: If nothing in the state is tunable, or two of them have one name.
    """
    found: dict[str, jax.Array] = {}
    for s in _all_within(states_of("tunable", state, TunableState)):
        for name, value in s.hyperparams.items():
            if name in found:
                raise ValueError(
                    f"{_check.caller()}: {name} is there twice; give one tunable a prefix of its "
                    f'own, as tunable(adamw, prefix="head_").'
                )
            found[name] = only_array(value)
    return found


def set_hyperparams(state: optax.OptState, **values: Any) -> optax.OptState:
    """The state with other numbers, from the next step on.

    Args:
        state: Of any optimizer with `tunable` in it: in chains, groups, wrappers.
        **values: By name: numbers, or arrays of one for each of the states that `jax.vmap` made;
            None for what the constructor says. They may be traced.

    Returns:
        A new state. The old one stays as it is.

    Raises:
        ValueError: If nothing in the state is tunable, a name is not there or is there twice, or a
            value is outside its domain.
    """
    there = hyperparams(state)
    for name, value in values.items():
        if name not in there:
            raise ValueError(
                f"set_hyperparams: {name} is not there; the state has {', '.join(there)}."
            )
        if value is not None:
            _check_value(name, value, there[name])

    def leaf(s: Any) -> Any:
        if not isinstance(s, TunableState):
            return s
        is_set, numbers = only_array(s.is_set), dict(s.hyperparams)
        for i, name in enumerate(sorted(numbers)):
            if name in values:
                given, constructed = values[name], only_array(s.constructed)[..., i]
                value = constructed if given is None else jnp.asarray(given, jnp.float32)
                value = jnp.broadcast_to(value, constructed.shape)
                numbers[name] = _replaced(numbers[name], value)
                is_set = is_set.at[..., i].set(given is not None)
        inner = jax.tree.map(leaf, s.inner, is_leaf=_is_state)
        return s._replace(hyperparams=numbers, is_set=_replaced(s.is_set, is_set), inner=inner)

    return jax.tree.map(leaf, state, is_leaf=_is_state)


def _is_state(x: Any) -> bool:
    return isinstance(x, TunableState)


def _all_within(states: list[Any]) -> list[Any]:
    """These states, and those within them."""
    return [x for s in states for x in (s, *_all_within(find_states(s.inner, TunableState)))]


def _replaced(node: Any, x: jax.Array) -> Any:
    return jax.tree.unflatten(jax.tree.structure(node), [x])


def _check_value(name: str, value: Any, there: jax.Array) -> None:
    """Numbers, as many as there are, in the domain that this name has everywhere."""
    base = next((known for known in _DOMAINS if re.fullmatch(rf"(.*_)?{known}", name)), None)
    domain, holds = _DOMAINS.get(base or "", _FINITE)
    must = f"set_hyperparams: {name} must be {domain}"
    given = value if isinstance(value, jax.Array) else np.asarray(value)
    if not _is_real(given.dtype):
        raise ValueError(f"{must}, got {value!r}.")
    if given.shape not in ((), there.shape):
        raise ValueError(f"{must}, got an array of shape {given.shape}, where it is {there.shape}.")
    if isinstance(given, jax.core.Tracer):
        return
    with np.errstate(over="ignore"):  # as it is kept: 1 - 1e-9 is 1
        kept = np.asarray(given, np.float64).astype(np.float32)
    for x in kept.ravel():
        if not holds(x):
            raise ValueError(f"{must}, got {x:g}.")


def _arguments(signature: inspect.Signature, args: Any, kwargs: Any) -> dict[str, Any]:
    """All arguments by name, also those left at their default."""
    bound = signature.bind(*args, **kwargs)
    bound.apply_defaults()
    arguments: dict[str, Any] = {}
    for name, value in bound.arguments.items():
        kind = signature.parameters[name].kind
        if kind is inspect.Parameter.VAR_KEYWORD:
            arguments |= value
        elif kind in (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.POSITIONAL_ONLY):
            raise ValueError(f"tunable: factory must take {name} by name.")
        else:
            arguments[name] = value
    return arguments


def _is_tuned(value: Any, parameter: inspect.Parameter | None) -> bool:
    """Whether this argument is a number that may change while training, or a schedule of one."""
    says = parameter.annotation if parameter else inspect.Parameter.empty
    if says in _WHOLE:
        return False
    if callable(value):
        schedules = says is inspect.Parameter.empty or "Schedule" in str(says)
        return schedules or set(get_args(says)) >= _SCHEDULES
    if isinstance(value, (np.generic, np.ndarray, jax.Array)):
        return not value.shape and _is_real(value.dtype)  # a random key is an array, too
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _is_real(dtype: Any) -> bool:
    return jnp.issubdtype(dtype, jnp.integer) or jnp.issubdtype(dtype, jnp.floating)


def _name(factory: Any) -> str:
    function = factory.func if isinstance(factory, functools.partial) else factory
    return getattr(function, "__name__", repr(function))
