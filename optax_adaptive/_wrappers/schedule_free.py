"""Schedule-Free: an average of the iterates in the place of a schedule that ends at 0.

Defazio, Yang, Mehta, Mishchenko, Khaled and Cutkosky, "The Road Less Scheduled", NeurIPS 2024,
algorithm 1. https://arxiv.org/abs/2405.15682
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from optax_adaptive import _check
from optax_adaptive._core import (
    add_decay,
    at,
    descend,
    find_states,
    is_narrow,
    map_leaves,
    map_params,
    narrow,
    replace_params,
    rounded_off,
    scalar_like,
    transformation,
    zero_count,
    zeros_like,
)
from optax_adaptive._free import FreeDescentState
from optax_adaptive._numerics import bias, finite, increment, rectifier, squarable


class ScheduleFreeState(NamedTuple):
    """How far the iterate z of the wrapped optimizer is from the parameters y."""

    seen: jax.Array  # count of steps, int32, shape ()
    b1: jax.Array  # share of the average in the parameters, shape (), as those that follow
    weight_sum: jax.Array  # of the iterates so far
    max_lr: jax.Array  # the largest rate so far
    effective_lr: jax.Array  # the rate of the last step
    kept: jax.Array  # 1 - c of the last step
    offset: optax.Updates  # (z - y) / kept
    residual: Any  # [what rounding took from y] for parameters below 32 bits, [] for others
    inner: optax.OptState  # of the wrapped transformation


def schedule_free(
    tx: optax.GradientTransformation,
    learning_rate: optax.ScalarOrSchedule = 1.0,
    *,
    b1: Any = 0.9,
    weight_lr_power: Any = 2.0,
    r: Any = 0.0,
    weight_decay: optax.ScalarOrSchedule | None = None,
    mask: Any = None,
) -> optax.GradientTransformationExtraArgs:
    """`tx`, Schedule-Free: no schedule but a warm-up, and no end of training known in advance.

    With u the update that tx makes of the gradient at y, t = 1, 2, ..., and x = y = z the first
    parameters::

        z = z + u - learning_rate weight_decay y
        w = t^r (largest learning_rate so far)^weight_lr_power
        c = w / (sum of all w)
        x = (1 - c) x + c z
        y = (1 - b1) z + b1 x

    The parameters that are trained are y. Those to evaluate, to export and to measure the
    statistics of batch norm at are x: `schedule_free_eval_params(state, params)`. Momentum is b1's
    affair: switch off that of tx. Around an optimizer that estimates its distance (`prodigy`,
    `dog`, ...) the rate is multiplied by it, so that the tiny first steps do not count.

    Args:
        tx: Any optimizer, with its learning rate. It is given the parameters z, and so its own
            decay is one at z.
        learning_rate: That of tx, the same number >= 0 or schedule. Without a decay only the
            weights depend on it, which are the same for every constant.
        b1: The share of the average in y, in (0, 1).
        weight_lr_power: How an average weighs the steps of a warm-up, >= 0.
        r: Later steps weigh more by t^r, >= 0.
        weight_decay: A number >= 0 or a schedule, times the learning rate, at y, which the authors
            recommend; None for no decay.
        mask: Which leaves decay: booleans in a prefix of the parameters' tree, or a function of
            the parameters that returns them; None for all.

    Raises:
        ValueError: If an argument is outside its domain, or `update` is not given the parameters.

    Departures: equal to the authors' schedulefree 1.4.1, whose `weight_decay_at_y` is
    `weight_decay`. In `optax.contrib.schedule_free` tx is given the parameters y, and it and the
    weights read a schedule one step apart. Both keep z; here it is a multiple of z - y, in which
    steps far below the rounding of the parameters survive::

        offset = (1 - last c) offset + b1 u
        y      = y + (1 - b1) u + c offset
        x      = y - (1 - b1) / b1 (1 - c) offset

    What rounding takes from parameters below 32 bits is kept and given back, so that they follow
    the exact y, and x is exact.
    """
    tx = _check.wrapped(tx)
    _check.decay(weight_decay, mask)
    _check.scheduled(learning_rate=learning_rate)
    _check.open_unit(b1=b1)
    _check.non_negative(weight_lr_power=weight_lr_power, r=r)

    def init(params):
        residual = map_params(lambda p: [zeros_like(p)] if is_narrow(p) else [], params)
        zeros = [scalar_like(params, 0.0) for _ in range(4)]
        trees = (zeros_like(params), residual, tx.init(params))
        return ScheduleFreeState._make((zero_count(), scalar_like(params, b1), *zeros, *trees))

    def update(grads, state, *, params, given_params=None, **extra):
        def iterate(y, offset, residual):
            return y + sum(residual) + state.kept * offset

        z = jax.tree.map(iterate, params, state.offset, state.residual)
        given_z = jax.tree.map(lambda z, p: z if is_narrow(p) else narrow(z, p), z, given_params)
        updates, inner = tx.update(grads, state.inner, z, given_params=given_z, **extra)
        t = increment(state.seen)
        rate = at(learning_rate, state.seen) * _distance(inner)
        rate = jnp.asarray(rate, state.max_lr.dtype)
        decay = at(weight_decay, state.seen)
        amount = None if decay is None else -rate * decay
        updates = add_decay(updates, amount, mask, params, given_params)
        max_lr = jnp.maximum(state.max_lr, rate)
        weight = jnp.asarray(t, rate.dtype) ** r * max_lr**weight_lr_power
        weight_sum = state.weight_sum + weight
        c = jnp.where(weight_sum > 0, weight / weight_sum, 0)

        def leaf(dtype, u, y, offset, residual):
            offset = state.kept * offset + b1 * jnp.where(jnp.isfinite(u), u, 0)
            step = (1 - b1) * u + c * offset
            if residual:
                step = step + residual[0]
                residual = [rounded_off(y + step, dtype)]
            return step, offset, residual

        dtypes = jax.tree.map(jnp.result_type, given_params)
        steps, offset, residual = map_leaves(
            leaf, updates, params, state.offset, other=(state.residual,), static=dtypes
        )
        scalars = (jnp.asarray(b1, rate.dtype), weight_sum, max_lr, rate, 1 - c)
        return steps, ScheduleFreeState(t, *scalars, offset, residual, inner)

    return transformation(init, update)


def schedule_free_eval_params(state: optax.OptState, params: optax.Params) -> Any:
    """The averages x, to evaluate and to export, in the place of the trained parameters y.

    Args:
        state: That of `schedule_free`, or of anything that holds it: chains, masks, partitions.
        params: The trained parameters. Leaves that no Schedule-Free optimizer has are returned.

    Returns:
        A tree like `params`, of the same dtypes.

    Raises:
        ValueError: If no Schedule-Free optimizer has this state.
    """
    found = find_states(state, ScheduleFreeState)
    if not found:
        raise ValueError(
            "schedule_free_eval_params: state must hold that of a Schedule-Free optimizer, got "
            f"{type(state).__name__}."
        )
    for own in found:
        share = (1 - own.b1) / own.b1 * own.kept

        def leaf(y: Any, offset: Any, residual: Any, share: Any = share) -> Any:
            return y + sum(residual) - share * offset

        params = replace_params(leaf, params, own.offset, own.residual)
    return params


def schedule_free_sgd(
    learning_rate: optax.ScalarOrSchedule = 1.0,
    warmup_steps: Any = None,
    b1: Any = 0.9,
    weight_decay: optax.ScalarOrSchedule | None = None,
    weight_lr_power: Any = 2.0,
    *,
    r: Any = 0.0,
    mask: Any = None,
) -> optax.GradientTransformationExtraArgs:
    """SGD, Schedule-Free.

    `schedule_free` around SGD: with g the gradient at the parameters y, and t = 1, 2, ...::

        rate = learning_rate min(1, t / warmup_steps)
        z    = z - rate (g + weight_decay y)

    and x and y as there. Evaluate at `schedule_free_eval_params(state, params)`.

    Args:
        learning_rate: A number >= 0 or a schedule, which the method makes superfluous.
        warmup_steps: The steps of a linear warm-up, a whole number >= 1; None for none.
        b1: The share of the average in the parameters, in (0, 1).
        weight_decay: A number >= 0 or a schedule, times the rate, at y; None for no decay.
        weight_lr_power: How the average weighs the steps of the warm-up, >= 0.
        r: Later steps weigh more by t^r, >= 0.
        mask: Which leaves decay: booleans in a prefix of the parameters' tree, or a function of
            the parameters that returns them; None for all.

    Raises:
        ValueError: If an argument is outside its domain, or `update` is not given the parameters.

    Departures: as the authors' SGDScheduleFree; optax.contrib.schedule_free_sgd makes the first
    step of a warm-up at the rate 0, and weighs it by that of the second.
    """
    rate = _warmed_up(learning_rate, warmup_steps)
    tx = descend(optax.identity(), rate)
    return schedule_free(
        tx,
        rate,
        b1=b1,
        weight_lr_power=weight_lr_power,
        r=r,
        weight_decay=weight_decay,
        mask=mask,
    )


def schedule_free_adamw(
    learning_rate: optax.ScalarOrSchedule = 0.0025,
    warmup_steps: Any = None,
    b1: Any = 0.9,
    b2: Any = 0.999,
    eps: Any = 1e-8,
    weight_decay: optax.ScalarOrSchedule | None = None,
    weight_lr_power: Any = 2.0,
    *,
    r: Any = 0.0,
    mask: Any = None,
) -> optax.GradientTransformationExtraArgs:
    """AdamW, Schedule-Free: the state of AdamW, and no schedule.

    `schedule_free` around Adam without momentum: with g the gradient at the parameters y, and
    t = 1, 2, ..., for every coordinate::

        nu   = b2 nu + (1 - b2) g²
        rate = learning_rate min(1, t / warmup_steps)
        z    = z - rate (g / (sqrt(nu / (1 - b2^t)) + eps) + weight_decay y)

    and x and y as there. Evaluate at `schedule_free_eval_params(state, params)`. The authors advise
    a warm-up, a rate up to ten times AdamW's, and b1 up to 0.98 for long runs.

    Args:
        learning_rate: A number >= 0 or a schedule, which the method makes superfluous.
        warmup_steps: The steps of a linear warm-up, a whole number >= 1; None for none.
        b1: The share of the average in the parameters, in (0, 1).
        b2: The share of `nu` kept at each step, in [0, 1).
        eps: Added to the root, > 0, in units of gradients.
        weight_decay: A number >= 0 or a schedule, times the rate, at y; None for no decay.
        weight_lr_power: How the average weighs the steps of the warm-up, >= 0.
        r: Later steps weigh more by t^r, >= 0.
        mask: Which leaves decay: booleans in a prefix of the parameters' tree, or a function of
            the parameters that returns them; None for all.

    Raises:
        ValueError: If an argument is outside its domain, or `update` is not given the parameters.

    Departures: as the authors' AdamWScheduleFree; optax.contrib.schedule_free_adamw makes the first
    step of a warm-up at the rate 0, and weighs it by that of the second. Keras weighs all equally.
    """
    rate = _warmed_up(learning_rate, warmup_steps)
    tx = descend(_over_root(b2, eps), rate)
    return schedule_free(
        tx,
        rate,
        b1=b1,
        weight_lr_power=weight_lr_power,
        r=r,
        weight_decay=weight_decay,
        mask=mask,
    )


def schedule_free_radam(
    learning_rate: optax.ScalarOrSchedule = 0.0025,
    *,
    b1: Any = 0.9,
    b2: Any = 0.999,
    eps: Any = 1e-8,
    weight_decay: optax.ScalarOrSchedule | None = None,
    weight_lr_power: Any = 2.0,
    r: Any = 0.0,
    silent_sgd_phase: bool = True,
    mask: Any = None,
) -> optax.GradientTransformationExtraArgs:
    """RAdam, Schedule-Free: its rectification is the warm-up.

    As `schedule_free_adamw`, with the rectification of `radam` in the rate. As long as nu has seen
    too few gradients (rho_t <= 4), the first 5 steps at b2 = 0.999, no step is made, or one of SGD.

    Args:
        learning_rate: A number >= 0 or a schedule, which the method makes superfluous.
        b1: The share of the average in the parameters, in (0, 1).
        b2: The share of `nu` kept at each step, in (0, 1).
        eps: Added to the root, > 0, in units of gradients.
        weight_decay: A number >= 0 or a schedule, times the rate, at y; None for no decay.
        weight_lr_power: How the average weighs the rectified first steps, >= 0.
        r: Later steps weigh more by t^r, >= 0.
        silent_sgd_phase: Whether no step is made as long as nu has seen too few gradients; a step
            of SGD otherwise, of `learning_rate` times the gradient.
        mask: Which leaves decay: booleans in a prefix of the parameters' tree, or a function of
            the parameters that returns them; None for all.

    Raises:
        ValueError: If an argument is outside its domain, or `update` is not given the parameters.

    Departures: as the authors' RAdamScheduleFree, whose rho_t is exact here in float32, too.
    """
    _check.scheduled(learning_rate=learning_rate)
    _check.open_unit(b2=b2)
    _check.flag(silent_sgd_phase=silent_sgd_phase)

    def rate(step):
        enough, factor = rectifier(b2, step + 1, 4.0)
        return at(learning_rate, step) * jnp.where(enough, factor, 0.0 if silent_sgd_phase else 1.0)

    tx = descend(_over_root(b2, eps, rectifies=True), rate)
    return schedule_free(
        tx,
        rate,
        b1=b1,
        weight_lr_power=weight_lr_power,
        r=r,
        weight_decay=weight_decay,
        mask=mask,
    )


class RootState(NamedTuple):
    """The count of steps and the mean of squared gradients, shaped like the parameters."""

    count: jax.Array  # int32, shape ()
    nu: optax.Updates  # of squared gradients


def _over_root(b2: Any, eps: Any, *, rectifies: bool = False) -> optax.GradientTransformation:
    """Adam's direction without momentum, or the gradient while RAdam would not trust the root."""
    _check.decay_rate(b2=b2)
    _check.positive(eps=eps)

    def init(params):
        return RootState(zero_count(), zeros_like(params))

    def update(grads, state):
        t = increment(state.count)
        c2 = bias(b2, t)
        trusted = rectifier(b2, t, 4.0)[0] if rectifies else True

        def leaf(g, nu):
            held, flaw = squarable(g)
            kept = finite(g)
            nu = b2 * nu + (1 - b2) * (kept * kept)
            return jnp.where(trusted, held / (jnp.sqrt(nu / c2) + eps), held) + flaw, nu

        updates, nu = map_leaves(leaf, grads, state.nu)
        return updates, RootState(t, nu)

    return transformation(init, update)


def _warmed_up(learning_rate: Any, warmup_steps: Any) -> Any:
    """The rate, times (step + 1) / warmup_steps before it is reached."""
    _check.scheduled(learning_rate=learning_rate)
    if warmup_steps is None:
        return learning_rate
    _check.whole(warmup_steps=warmup_steps)

    def rate(step):
        return at(learning_rate, step) * jnp.minimum(jnp.asarray(step + 1, float) / warmup_steps, 1)

    return rate


def _distance(state: Any) -> Any:
    """The distance that an optimizer inside estimates, if there is one."""
    found = [s.direction for s in find_states(state, FreeDescentState)]
    distances = [getattr(direction, "distance", 1.0) for direction in found]
    return distances[0] if len(distances) == 1 and jnp.ndim(distances[0]) == 0 else 1.0
