"""What the methods without a learning rate share: the distance they came, and steps they skip."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from optax_adaptive import _check
from optax_adaptive._core import (
    add_decay,
    at,
    is_narrow,
    keywords,
    leaf_decays,
    map_leaves,
    rounded_off,
    transformation,
    zero_count,
    zeros_of,
)
from optax_adaptive._numerics import increment, largest_squarable


class FreeDescentState(NamedTuple):
    """What `descend_freely` keeps beside the state of the algorithm."""

    step: jax.Array  # count of updates, int32, shape (): the argument of schedules
    direction: optax.OptState  # of the algorithm
    params0: Any  # the parameters of the first update, where the algorithm measures from them


def descend_freely(
    init: optax.TransformInitFn,
    update: Callable[..., tuple[Any, Any]],
    learning_rate: optax.ScalarOrSchedule,
    weight_decay: optax.ScalarOrSchedule | None = None,
    mask: Any = None,
    *,
    coupled: bool = False,
    together: bool = True,
    sample: Callable[[jax.Array], jax.Array] = lambda x: x,
) -> optax.GradientTransformationExtraArgs:
    """The optimizer that finds its own rate, of which `learning_rate` is a multiple.

    With u the step of the algorithm, its rate included, and p the parameters, the update is::

        -u - effective_lr weight_decay p

    A step is not made where a gradient is not finite or above 2**51 (float32), the loss is not
    finite, or a scalar of the new state is not, as the estimate 0 / 0 while all gradients have been
    zero: the scalars stay as they were, and the update is 0 times the gradient: 0, or NaN where the
    gradient is not finite. One wild gradient would otherwise spoil an estimate that only grows.
    Algorithms are told by `usable`, so that nothing in the state is NaN, ever.

    Parameters below 32 bits are too coarse to show the first steps. What rounding takes from a step
    is taken from `params0` too, so that the distance from it is the sum of the steps.

    Args:
        init: params -> the state of the algorithm, a NamedTuple. Its scalars are `scalar_like`;
            `effective_lr`, a scalar or one for each leaf, is the rate of the last step.
        update: (grads, state, *, learning_rate, usable, moved, params, value, ...) -> (step,
            state). It takes those it names. `learning_rate` is a scalar, `usable` whether gradients
            and loss are as above, `moved` the distance of the parameters from those of the first
            update. Where it names `weight_decay` it decays by itself, and is given a scalar for
            every leaf. Others are needed if they have no default.
        learning_rate: A number >= 0 or a schedule.
        weight_decay: As for `descend`.
        mask: As for `descend`.
        coupled: Whether weight_decay p is added to the gradients instead, because the algorithm
            finds the parameters anew from the first ones: a decay would be undone, and rounding is.
        together: Whether all leaves act together, so that one gradient stops the step of all.
            Otherwise the state may have scalars of every leaf, trees like the parameters, which
            stop the step of their leaf where they are not finite.
        sample: Which coordinates of an array `moved` holds.
    """
    _check.scheduled(learning_rate=learning_rate)
    needs = _check.decay(weight_decay, mask)
    takes, required, takes_all = keywords(update)
    measures = "moved" in takes
    given = {"learning_rate", "usable", "moved", "weight_decay"}
    needs += tuple(sorted(set(required) - given)) + (("params",) if measures else ())

    def init_fn(params):
        params0 = zeros_of(sample, params) if measures else optax.EmptyState()
        return FreeDescentState(zero_count(), init(params), params0)

    def update_fn(grads, state, *, params=None, given_params=None, value=None, **extra):
        dtype = jnp.result_type(*jax.tree.leaves(grads))
        decay, params0 = at(weight_decay, state.step), state.params0
        extra |= {"params": params, "given_params": given_params}
        extra["learning_rate"] = jnp.asarray(at(learning_rate, state.step), dtype)
        if value is not None:
            extra["value"] = jnp.asarray(value, dtype)
        if measures:
            # Not those that `init` saw: weights may be loaded after it.
            sampled, first = map_leaves(sample, params), state.step == 0
            params0 = map_leaves(lambda p, p0: jnp.where(first, p, p0), sampled, params0)
            # p - p0 XLA would keep in an array; what ends in one operand it computes twice instead.
            extra["moved"] = map_leaves(lambda p, p0: -(p0 - p), sampled, params0)
        if coupled:
            grads = add_decay(grads, decay, mask, params, given_params)
        if "weight_decay" in takes:
            extra["weight_decay"] = leaf_decays(grads, decay, mask, given_params)
        loss = extra.get("value", jnp.zeros((), dtype))
        extra["usable"] = usable = _usable(loss, grads if together else ())

        taken = {k: v for k, v in extra.items() if takes_all or k in takes}
        steps, direction = update(grads, state.direction, **taken)
        made, direction = _made(direction, state.direction, usable, grads, together)
        if decay is not None and not coupled and "weight_decay" not in takes:
            amount = jax.tree.map(lambda rate: rate * decay, direction.effective_lr)
            steps = add_decay(steps, amount, mask, params, given_params)

        def leaf(u, g, made):
            return jnp.where(made, -u, 0 * g + 0 * loss)

        steps = map_leaves(leaf, steps, grads, other=(made,))
        if measures and not coupled:
            params0 = _less_the_lost(params0, steps, params, given_params, sample)
        return steps, FreeDescentState(increment(state.step), direction, params0)

    return transformation(init_fn, update_fn, needs)


def _usable(value: jax.Array, grads: Any) -> jax.Array:
    """Whether the loss is finite, and every gradient, and its square."""

    def leaf(g: jax.Array) -> jax.Array:
        return jnp.max(jnp.abs(g), initial=0) <= largest_squarable(g.dtype)

    return _all(jnp.isfinite(value), *jax.tree.leaves(map_leaves(leaf, grads)))


def _all(*conditions: jax.Array) -> jax.Array:
    return functools.reduce(jnp.logical_and, conditions)


def _made(new: Any, old: Any, usable: jax.Array, grads: Any, together: bool) -> tuple[Any, Any]:
    """Whether the step of each leaf is made, and the new state, its scalars old where it is not."""
    structure = jax.tree.structure(grads)

    def of_leaves(x: Any) -> bool:
        return jax.tree.structure(x) == structure and all(s.ndim == 0 for s in jax.tree.leaves(x))

    fields = new._asdict()
    scalars = {k: x for k, x in fields.items() if isinstance(x, jax.Array) and x.ndim == 0}
    trees = {k: x for k, x in fields.items() if not together and k not in scalars and of_leaves(x)}

    everywhere = _all(usable, *map(jnp.isfinite, scalars.values()))
    made = jax.tree.map(
        lambda _, *own: _all(everywhere, *map(jnp.isfinite, own)), grads, *trees.values()
    )
    kept = {k: jnp.where(everywhere, x, getattr(old, k)) for k, x in scalars.items()}
    kept |= {k: jax.tree.map(jnp.where, made, x, getattr(old, k)) for k, x in trees.items()}
    return made, new._replace(**kept)


def total(leaf: Callable[..., jax.Array], tree: Any, *rest: Any) -> jax.Array:
    """The sum over all coordinates of `leaf`, a function of arrays of one shape."""
    sums = map_leaves(lambda *x: jnp.sum(leaf(*x)), tree, *rest)
    return sum(jax.tree.leaves(sums), start=jnp.zeros((), jnp.float32))


def _less_the_lost(
    params0: Any, steps: Any, params: Any, given_params: Any, sample: Callable[..., jax.Array]
) -> Any:
    """`params0`, less what the parameters lose of the steps when they are rounded."""

    def leaf(p0: jax.Array, u: jax.Array, p: jax.Array, given: Any) -> jax.Array:
        if not is_narrow(given):
            return p0
        return p0 - sample(rounded_off(p + u, jnp.result_type(given)))

    return jax.tree.map(leaf, params0, steps, params, given_params)
