"""Guard: steps that would spoil a run are not made, and are counted.

Norms against their running mean, clipped in the mean, too: Kumar, Owen, Chowdhury and Güra, "ZClip:
Adaptive Spike Mitigation for LLM Pre-Training", 2025. https://arxiv.org/abs/2504.02507
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.experimental import checkify

from optax_adaptive import _check
from optax_adaptive._core import map_leaves, only_array, states_of, transformation, zero_count
from optax_adaptive._free import total
from optax_adaptive._numerics import bias, increment


class GuardState(NamedTuple):
    """What happened so far, and the state behind."""

    finite: jax.Array  # count of finite gradients, int32, shape ()
    nonfinite: jax.Array  # count of those that were not, int32, shape ()
    skipped: jax.Array  # count of steps not made, int32, shape ()
    clipped: jax.Array  # count of gradients made smaller, int32, shape ()
    in_a_row: jax.Array  # steps not made since the last one that was, int32, shape ()
    norm: jax.Array  # of the last gradient, float32 at least, shape ()
    norm_mean: jax.Array  # decaying sum of norms, float32 at least, shape ()
    inner: optax.OptState  # of the wrapped transformation


def guard(
    tx: optax.GradientTransformation,
    *,
    skip_above: Any = None,
    clip_above: Any = None,
    decay: Any = 0.99,
    warmup: Any = 100,
    check_updates: bool = False,
    max_skips: Any = None,
) -> optax.GradientTransformationExtraArgs:
    """`tx`, without the steps of gradients that are not finite, or far larger than usual.

    With g the gradient at step t and |g| its norm over all leaves::

        usual     = norm_mean / (1 - decay^finite)           over the finite gradients before t
        skip      if |g|, or the loss `value`, is not finite
                  if |g| > skip_above usual
        g         = g clip_above usual / |g|      if |g| > clip_above usual
        norm_mean = decay norm_mean + (1 - decay) min(|g|, clip_above usual, skip_above usual)

    |g| is not finite where a coordinate is NaN or Inf, nor above 1.8e19, whose square is Inf. A
    step that is skipped has updates of zero and leaves the state of `tx` as it was, bit for bit: no
    schedule goes on, no mean moves. So one bad batch costs one batch. A spike enters the mean as
    the limit that it broke: where gradients grew for good, the mean follows and they pass.

    Put it outermost, around wrappers too. `optax.tree.get(state, "skipped")`, `nonfinite`,
    `clipped`, `in_a_row` and `norm` tell what happened; `check_guard(state, ...)` raises.

    Args:
        tx: Any transformation.
        skip_above: How many times the usual norm a gradient may have before its step is skipped,
            > 1; None for any.
        clip_above: How many times the usual norm a gradient may have before it is made smaller,
            > 1 and below `skip_above`; None for any.
        decay: The share of the mean kept at each step, in [0, 1).
        warmup: How many finite gradients there must have been before one is judged, >= 1.
        check_updates: Whether the updates must be finite, too. Gradients that are finite give
            finite updates in this library; what else is in `tx` may not. New and old state then
            exist side by side.
        max_skips: None, or after how many skipped steps in a row `update` raises, >= 1. What is
            compiled must then go through `jax.experimental.checkify`; JAX refuses it otherwise.

    Raises:
        ValueError: If an argument is outside its domain.
        JaxRuntimeError: With max_skips, as above: at once without `jax.jit`, and with it when the
            error of checkify is thrown.

    Departures: ZClip measures by standard deviations, and begins with the variance of 25 steps; a
    multiple of the mean says the same of small noise and of large. `optax.apply_if_finite` looks at
    updates only, and after `max_consecutive_errors` lets them pass.
    """
    tx = _check.wrapped(tx)
    limits = {"clip_above": clip_above, "skip_above": skip_above}
    limits = {name: x for name, x in limits.items() if x is not None}
    _check.above_one(**limits)
    _check.rising(**limits)
    lowest = next(iter(limits.values()), None)
    _check.decay_rate(decay=decay)
    _check.whole(warmup=warmup)
    _check.flag(check_updates=check_updates)
    if max_skips is not None:
        _check.whole(max_skips=max_skips)

    def init(params):
        # Each an array of its own: a state is donated.
        return GuardState(
            finite=zero_count(),
            nonfinite=zero_count(),
            skipped=zero_count(),
            clipped=zero_count(),
            in_a_row=zero_count(),
            norm=jnp.zeros(()),
            norm_mean=jnp.zeros(()),
            inner=tx.init(params),
        )

    def update(grads, state, *, params=None, value=None, **extra):
        if value is not None:
            extra["value"] = value
        norm = _norm(grads)
        good = jnp.isfinite(norm) & jnp.isfinite(0.0 if value is None else value)

        usual = state.norm_mean / bias(decay, jnp.maximum(state.finite, 1))
        judged = (state.finite >= warmup) & (usual > 0)

        def broken(limit):
            return judged & (norm > limit * usual) if limit is not None else jnp.zeros((), bool)

        spike, clip = broken(skip_above), broken(clip_above)
        if clip_above is not None:
            # One product, which every reader of g computes for itself; a choice would be kept.
            shrink = jnp.where(clip, clip_above * usual / norm, 1)
            grads = map_leaves(lambda g: jnp.asarray(shrink, g.dtype) * g, grads, inline=True)

        updates, inner = tx.update(grads, state.inner, params, **extra)
        made = good & ~spike
        if check_updates:
            whole = jnp.isfinite(_norm(updates))
            made, good = made & whole, good & whole
        updates, inner = jax.tree.map(
            lambda new, old: jnp.where(made, new, old),
            (updates, inner),
            (jax.tree.map(jnp.zeros_like, updates), state.inner),
        )

        def count(happened, so_far):
            return jnp.where(happened, increment(so_far), so_far)

        in_a_row = jnp.where(made, 0, increment(state.in_a_row))
        if max_skips is not None:
            checkify.check(
                in_a_row < max_skips,
                "guard: {n} steps in a row were skipped; the norm of the last gradient was {norm}.",
                n=in_a_row,
                norm=norm,
            )
        enters = norm if lowest is None else jnp.where(broken(lowest), lowest * usual, norm)
        mean = decay * state.norm_mean + (1 - decay) * enters
        return updates, GuardState(
            finite=count(good, state.finite),
            nonfinite=count(~good, state.nonfinite),
            skipped=count(~made, state.skipped),
            clipped=count(clip & made, state.clipped),
            in_a_row=in_a_row,
            norm=norm,
            norm_mean=jnp.where(good, mean, state.norm_mean),
            inner=inner,
        )

    return transformation(init, update)


def check_guard(state: optax.OptState, max_skips: int) -> None:
    """Raises if the last steps were all skipped: a look from the host, now and then.

    It waits for the state. Call it where the loop waits anyway, as where the loss is printed.

    Args:
        state: Of any optimizer with `guard` in it: in chains, groups, wrappers.
        max_skips: How many skipped steps in a row are too many, >= 1.

    Raises:
        FloatingPointError: If so many, or more, were skipped.
        ValueError: If nothing in the state is guarded, or max_skips is outside its domain.
    """
    _check.whole(max_skips=max_skips)
    for s in jax.device_get(states_of("guard", state, GuardState)):
        in_a_row, skipped, nonfinite, norm = map(
            only_array, (s.in_a_row, s.skipped, s.nonfinite, s.norm)
        )
        if in_a_row.max() >= max_skips:
            raise FloatingPointError(
                f"check_guard: {in_a_row} steps in a row were skipped, {skipped} in all, "
                f"{nonfinite} of them as not finite; the norm of the last gradient was {norm}."
            )


def _norm(tree: Any) -> jax.Array:
    """The root of the sum of squares of all leaves: not finite, if a leaf is not."""
    return jnp.sqrt(total(lambda x: x * x, tree))
