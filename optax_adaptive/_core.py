"""What optax needs: an algorithm in plain arithmetic becomes an `optax.GradientTransformation`.

`transformation` owns every convention about arrays, `map_leaves` carries the recurrence of one
array over a tree, `descend` adds the learning rate and the weight decay.
"""

import functools
import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.core
import jax.numpy as jnp
import optax
from jax.experimental.shard_alike import shard_alike

from optax_adaptive import _check
from optax_adaptive._numerics import increment

# Arguments of `update` that are trees like the gradients, and what to call a leaf of one.
_LIKE_GRADIENTS = {"params": "parameter", "hessian_diagonal": "Hessian diagonal"}


def transformation(
    init: optax.TransformInitFn,
    update: Callable[..., tuple[Any, Any]],
    needs: tuple[str, ...] = (),
) -> optax.GradientTransformationExtraArgs:
    """An optax transformation from two functions of whole trees.

    Arithmetic in float32 at least; updates leave in the dtype of the gradients; state leaves in
    exactly the dtype and shape `init` gave it. The algorithm sees complex leaves as pairs of reals.
    Integer leaves do not train: their update is zero. Where a state within has `updates_are_exact`,
    updates of parameters below 32 bits leave in float32: rounded they would miss their mark.

    Args:
        init: params -> state, made with `zeros_like` and `full_like`.
        update: (grads, state, *, params, value, ...) -> (updates, state). Its keyword-only
            arguments say what else it takes; those without a default are required. `params` and
            `hessian_diagonal` are widened as the gradients are, `given_params` are the caller's.
            Where there are no leaves there is nothing to do, and it is not called.
        needs: Arguments that it cannot do without although they have a default.
    """
    scope, name = update.__qualname__.split(".")[0], _check.caller()
    takes, required, takes_all = keywords(update)
    required += needs

    def update_fn(
        updates: Any, state: Any, params: Any = None, **extra: Any
    ) -> tuple[optax.Updates, optax.OptState]:
        extra["params"] = params
        _check.given(name, {argument: extra.get(argument) for argument in required})
        try:
            trees = [k for k in _LIKE_GRADIENTS if extra.get(k) is not None]
            for k in trees:
                extra[k] = _with_gradient(updates, extra[k])
                _check.same_shapes("gradient", updates, _LIKE_GRADIENTS[k], extra[k])
            _check.trainable(updates, extra["params"])
            if not jax.tree.leaves(updates):
                return updates, state
            grads = jax.tree.map(widen, updates)
            given = extra.get("given_params", extra["params"])  # an outer one was given them
            extra["given_params"] = _with_gradient(updates, given)  # optax.masked cuts params only
            owners = updates if extra["params"] is None else extra["params"]
            extra |= {k: jax.tree.map(widen, extra[k]) for k in trees}
            extra = {k: v for k, v in extra.items() if takes_all or k in takes}
            with jax.named_scope(scope):
                directions, new_state = update(grads, state, **extra)
        except _check.MisfitError as misfit:
            raise ValueError(f"{name}.update: {misfit}.") from None

        exact = bool(_found(state, lambda x: getattr(x, "updates_are_exact", False)))

        def leave(u: jax.Array, g: Any, owner: Any) -> jax.Array:
            return u if exact and is_narrow(owner) else narrow(u, g)

        return (
            jax.tree.map(leave, directions, updates, owners),
            jax.tree.map(lambda new, old: cast(new, old.dtype), new_state, state),
        )

    update_fn.__qualname__ = f"{name}.update"  # for reports
    return optax.GradientTransformationExtraArgs(init, update_fn)


class Reporting(optax.GradientTransformationExtraArgs):
    """A transformation with `report(params)`: what it makes of every leaf, a table for people."""

    report: Callable[[optax.Params], Any]


def reporting(tx: optax.GradientTransformation, report: Callable[[optax.Params], Any]) -> Reporting:
    """`tx` with such a report."""
    made = Reporting(*tx)
    made.report = report
    return made


def keywords(function: Callable[..., Any]) -> tuple[list[str], list[str], bool]:
    """Its keyword-only arguments, those of them without a default, and whether it takes others."""
    arguments = inspect.signature(function).parameters.values()
    takes = [p.name for p in arguments if p.kind is p.KEYWORD_ONLY]
    required = [p.name for p in arguments if p.name in takes and p.default is p.empty]
    return takes, required, any(p.kind is p.VAR_KEYWORD for p in arguments)


def map_leaves(
    leaf: Callable[..., Any],
    tree: Any,
    *rest: Any,
    other: tuple[Any, ...] = (),
    static: Any = None,
    inline: bool = False,
) -> Any:
    """The recurrence of one array, for every leaf: as many trees as `leaf` returns values.

    Under a trace `leaf` is traced once per shape. It stays a function of its own in the program,
    which is lowered once, too; a leaf of one operation is lowered faster `inline`.

    Args:
        leaf: (x, *of rest, *of other) -> an array, or a tuple of them. Where a state is several
            arrays per parameter, they are a list. It must know scalars, too.
        tree: The gradients, or the parameters.
        rest: Trees with the shapes of `tree`.
        other: Trees with an entry of any shape, or a list of them, for every leaf of `tree`.
        static: None, or a tree with one hashable value for every leaf of `tree`: the first
            argument of `leaf`, not traced.
        inline: Whether to lower `leaf` in place.
    """
    for x in rest:
        _check.same_shapes("gradient", tree, "state", x)
    leaves, structure = jax.tree.flatten(tree)
    columns = [leaves, *map(jax.tree.leaves, rest)]
    columns += [_check.entries("gradient", tree, "state", x) for x in other]
    if static is not None:
        columns = [structure.flatten_up_to(static), *columns]
    if not leaves:  # only the number of results matters
        leaf = leaf if static is None else functools.partial(leaf, None)
        results = jax.eval_shape(leaf, *[jnp.zeros(())] * (1 + len(rest) + len(other)))
        return (tree,) * len(results) if isinstance(results, tuple) else tree
    if any(isinstance(x, jax.core.Tracer) for x in leaves):
        # Eager, it would compile a fresh closure every step.
        leaf = jax.jit(leaf, static_argnums=() if static is None else 0, inline=inline)
    results = [leaf(*row) for row in zip(*columns, strict=True)]
    if isinstance(results[0], tuple):
        return tuple(structure.unflatten(column) for column in zip(*results, strict=True))
    return structure.unflatten(results)


def full_like(params: Any, value: Any) -> Any:
    """Arrays full of `value`, one per parameter, of its shape and sharding, float32 at least."""

    def leaf(x: Any) -> jax.Array:
        x = x if isinstance(x, jax.ShapeDtypeStruct) else jnp.asarray(x)
        if jnp.issubdtype(x.dtype, jnp.complexfloating):
            x = widen(jnp.zeros_like(x))
        full = jnp.full_like(x, value, dtype=_wide_dtype(x.dtype))
        # Under jit nothing else ties the state's sharding to the parameters'.
        return shard_alike(x, full)[1] if isinstance(x, jax.core.Tracer) else full

    return jax.tree.map(leaf, params)


def zeros_like(params: Any) -> Any:
    """`full_like` of zeros."""
    return full_like(params, 0.0)


def zeros_of(reduce: Callable[[Any], Any], params: Any) -> Any:
    """Zeros in the shapes that `reduce`, a function of an array, makes of each parameter.

    It may return a list: several arrays per parameter. Nothing is computed: with parameters of any
    size only the zeros are allocated. Those in the parameter's shape have its sharding.
    """

    def leaf(x: Any) -> Any:
        full = jax.eval_shape(zeros_like, x)
        return jax.tree.map(
            lambda r: zeros_like(x) if r.shape == full.shape else jnp.zeros_like(r, dtype=r.dtype),
            jax.eval_shape(reduce, full),
        )

    return map_params(leaf, params)


def map_params(leaf: Callable[[Any], Any], params: Any) -> Any:
    """`leaf` of every parameter, where it may return several arrays.

    A Variable of Flax NNX is a node around one array, and nnx.Optimizer loses one around several:
    there every array is given a Variable of its own.
    """

    def node(x: Any) -> Any:
        arrays, around = jax.tree.flatten(x)
        if not arrays:
            return x
        return jax.tree.map(lambda made: around.unflatten([made]), leaf(*arrays))

    return jax.tree.map(node, params, is_leaf=is_variable)


def is_variable(x: Any) -> bool:
    """Whether this is a Variable of Flax NNX, which is not imported here."""
    return type(x).__module__.startswith("flax.") and hasattr(x, "get_metadata")


def scalar_like(params: Any, value: Any) -> jax.Array:
    """A scalar of the widest dtype that the parameters' own states have, float32 at least."""
    wide = jax.tree.leaves(jax.eval_shape(zeros_like, params))
    return jnp.asarray(value, jnp.result_type(jnp.float32, *wide))


def zero_count() -> jax.Array:
    """The count of steps before the first one: int32, shape ()."""
    return jnp.zeros((), jnp.int32)


class Others(NamedTuple):
    """Leaves that `descend` walks at another rate."""

    where: Callable[[Any], Any]  # updates -> a tree of booleans
    learning_rate: optax.ScalarOrSchedule
    weight_decay: optax.ScalarOrSchedule | None


class DescentState(NamedTuple):
    """What `descend` keeps beside its parts."""

    step: jax.Array  # count of steps made, int32, shape (): the argument of schedules
    direction: optax.OptState  # of the algorithm
    velocity: optax.OptState  # of the momentum behind the learning rate, where there is one


def descend(
    direction: optax.GradientTransformation,
    learning_rate: optax.ScalarOrSchedule,
    weight_decay: optax.ScalarOrSchedule | None = None,
    mask: Any = None,
    velocity: optax.GradientTransformation | None = None,
    others: Others | None = None,
) -> optax.GradientTransformationExtraArgs:
    """The optimizer that walks along `direction`: the one place for rate and decoupled decay.

    With u the direction and p the parameters, the update is::

        -learning_rate (u + weight_decay p)

    and with a `velocity`, a transformation T behind the learning rate::

        T(-learning_rate u) - learning_rate weight_decay p

    Schedules are evaluated at the count of steps made before this one: 0, 1, 2, ... The state is
    the same for constants and schedules, so a checkpoint survives a change of mind.

    Args:
        direction: The algorithm.
        learning_rate: A number >= 0 or a schedule.
        weight_decay: A number >= 0 or a schedule, times the learning rate as in AdamW; None for no
            decay (`update` then does not need the parameters).
        mask: Which leaves decay: a tree of booleans with the structure of the parameters or a
            prefix of it, or a function from the parameters to such a tree. None for all.
        velocity: None, or a transformation of the product of learning rate and direction.
        others: None, or the leaves that have a rate and a decay of their own.
    """
    _check.scheduled(learning_rate=learning_rate)
    needs = _check.decay(weight_decay, mask)
    if others is not None:
        needs += _check.decay(others.weight_decay, None)
    direction = optax.with_extra_args_support(direction)
    velocity = optax.with_extra_args_support(velocity or optax.identity())

    def init(params):
        return DescentState(zero_count(), direction.init(params), velocity.init(params))

    def update(grads, state, *, params=None, given_params=None, **extra):
        extra["given_params"] = given_params

        def scaled(u, rate):
            return map_leaves(lambda u: jnp.asarray(rate, u.dtype) * u, u, inline=True)

        def decayed(u, rate, weight_decay):
            weight_decay = at(weight_decay, state.step)
            shrink = None if weight_decay is None else rate * weight_decay
            return add_decay(u, shrink, mask, params, given_params)

        rate = -at(learning_rate, state.step)

        u, new_direction = direction.update(grads, state.direction, params, **extra)
        updates, new_velocity = velocity.update(scaled(u, rate), state.velocity, params, **extra)
        updates = decayed(updates, rate, weight_decay)
        if others is not None:
            rate = -at(others.learning_rate, state.step)
            elsewhere = decayed(scaled(u, rate), rate, others.weight_decay)
            updates = _choose(others.where(u), elsewhere, updates)
        return updates, DescentState(increment(state.step), new_direction, new_velocity)

    return transformation(init, update, needs)


def at(value: Any, step: jax.Array) -> Any:
    """A constant, or a schedule at `step`."""
    return value(step) if callable(value) else value


def add_decay(updates: Any, amount: Any, mask: Any, params: Any, given_params: Any) -> Any:
    """The updates plus `amount` times the parameters, where `mask` says so.

    `amount` is a scalar, one for each leaf, or None for none. `mask` is that of `descend`, and a
    function of `given_params`, the caller's own.
    """
    if amount is None:
        return updates
    amounts = jax.tree.broadcast(amount, updates)
    decayed = map_leaves(
        lambda u, p, amount: u + jnp.asarray(amount, u.dtype) * p, updates, params, other=(amounts,)
    )
    return _choose(mask(given_params) if callable(mask) else mask, decayed, updates)


def leaf_decays(updates: Any, amount: Any, mask: Any, given_params: Any) -> Any:
    """A scalar for every leaf: `amount` where `mask`, as for `add_decay`, says so; otherwise 0."""
    none = jax.tree.map(lambda u: jnp.zeros((), u.dtype), updates)
    if amount is None:
        return none
    here = jax.tree.map(lambda u: jnp.asarray(amount, u.dtype), updates)
    return _choose(mask(given_params) if callable(mask) else mask, here, none)


def branch(due: Any, then: Callable[..., Any], otherwise: Callable[..., Any], *args: Any) -> Any:
    """`lax.cond` under a trace; without one the branch itself, which leaves nothing compiled."""
    if isinstance(due, jax.core.Tracer):
        return jax.lax.cond(due, then, otherwise, *args)
    return (then if due else otherwise)(*args)


def find_states(state: Any, kind: type | tuple[type, ...]) -> list[Any]:
    """The states of one of these types in another state, however deep, but not inside of one found.

    In the order of `jax.tree.leaves`; that of a chain is from its first transformation to its last.
    """

    return _found(state, lambda x: isinstance(x, kind))


def _found(tree: Any, sought: Callable[[Any], bool]) -> list[Any]:
    return [x for x in jax.tree.leaves(tree, is_leaf=sought) if sought(x)]


def states_of(wrappers: str, state: Any, kind: type | tuple[type, ...]) -> list[Any]:
    """`find_states`, at least one; the wrappers that have such a state are named for people."""
    states = find_states(state, kind)
    if not states:
        raise ValueError(
            f"{_check.caller()}: state must be that of an optimizer with {wrappers} in it, "
            f"got {type(state).__name__}."
        )
    return states


def only_array(node: Any) -> jax.Array:
    """An array, or the one that a Variable of Flax NNX holds."""
    (x,) = jax.tree.leaves(node)
    return x


def is_absent(x: Any) -> bool:
    """Whether this stands for an array that a mask or a filter left out of a state."""
    return x is None or isinstance(x, optax.MaskedNode)


def replace_params(leaf: Callable[..., jax.Array], params: Any, tree: Any, *rest: Any) -> Any:
    """`leaf` of every parameter and of its arrays in `tree` and `rest`, in the parameter's dtype.

    These are trees of one state. Where a mask left a parameter out of them, or it does not train,
    it stays as it is.
    """

    def of_param(x: Any, p: Any, *others: Any) -> Any:
        if is_absent(x) or not trains(p):
            return p
        return narrow(leaf(widen(p), x, *others), p)

    return jax.tree.map(of_param, tree, params, *rest, is_leaf=is_absent)


def _with_gradient(updates: Any, params: Any) -> Any:
    """The parameters without those whose gradient a mask or a filter, as Equinox's, left out."""

    def leaf(g: Any, p: Any) -> Any:
        return g if is_absent(g) else p

    try:
        return jax.tree.map(leaf, updates, params, is_leaf=is_absent)
    except ValueError:  # another structure: the check says where
        return params


def _choose(mask: Any, here: Any, elsewhere: Any) -> Any:
    """The leaves of `here` where `mask`, a prefix tree of booleans, says so (None: everywhere)."""
    if mask is None:
        return here
    try:
        choice = jax.tree.broadcast(mask, here)
    except ValueError as error:
        raise _check.MisfitError(f"mask is no prefix of the parameters' tree: {error}") from None
    return jax.tree.map(lambda c, a, b: a if c else b, choice, here, elsewhere)


def trains(x: Any) -> bool:
    """Whether it is an array of floating or complex numbers."""
    return jnp.issubdtype(jnp.result_type(x), jnp.inexact)


def is_narrow(x: Any) -> bool:
    """Whether an array has less than 32 bits, too few to add small steps to it."""
    dtype = jnp.result_type(x)
    return jnp.issubdtype(dtype, jnp.floating) and jnp.finfo(dtype).bits < 32


def nearest(x: jax.Array, dtype: Any) -> jax.Array:
    """x as this narrower dtype rounds it, in its own. (XLA may take out a pair of casts.)"""
    info = jnp.finfo(dtype)
    return jax.lax.reduce_precision(x, info.nexp, info.nmant)


def rounded_off(x: jax.Array, dtype: Any) -> jax.Array:
    """What x loses when it is rounded to this dtype; 0 where it is not finite."""
    lost = x - nearest(x, dtype)
    return jnp.where(jnp.isfinite(lost), lost, 0)


def _wide_dtype(dtype: Any) -> Any:
    """The dtype of arithmetic and of state for real arrays of `dtype`."""
    is_wide = jnp.issubdtype(dtype, jnp.floating) and jnp.finfo(dtype).bits >= 32
    return dtype if is_wide else jnp.float32


def widen(x: Any) -> jax.Array:
    """An array as the algorithms see it: real, float32 at least; 0 where nothing trains."""
    x = x if hasattr(x, "dtype") else jnp.asarray(x)
    if not trains(x):
        return jnp.zeros(x.shape, jnp.float32)
    if jnp.issubdtype(x.dtype, jnp.complexfloating):
        return jnp.stack([jnp.real(x), jnp.imag(x)], axis=-1)
    return cast(x, _wide_dtype(x.dtype))


def narrow(update: jax.Array, grad: Any) -> jax.Array:
    """An update as the caller sees it: in the shape and dtype of its gradient."""
    grad = grad if hasattr(grad, "dtype") else jnp.asarray(grad)
    if grad.dtype == jax.dtypes.float0:
        return jnp.zeros(grad.shape, bool)  # what an integer or boolean parameter can add
    if not trains(grad):
        return jnp.zeros_like(grad)
    if jnp.issubdtype(grad.dtype, jnp.complexfloating):
        return jax.lax.complex(update[..., 0], update[..., 1]).astype(grad.dtype)
    return cast(update, grad.dtype)


def cast(x: Any, dtype: Any) -> jax.Array:
    """x in this dtype, and not weakly: state made of it would compile a second time."""
    strong = x.dtype == dtype and not getattr(x, "weak_type", False)
    return x if strong else jnp.asarray(x, dtype)
