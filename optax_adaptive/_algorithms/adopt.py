"""ADOPT: Adam whose gradients are scaled by the squares before them, and only then averaged.

Taniguchi, Harada, Minegishi, Oshima, Jeong, Nagahara, Iiyama, Suzuki, Iwasawa and Matsuo, "ADOPT:
Modified Adam Can Converge with Any β2 with the Optimal Rate", NeurIPS 2024.
https://arxiv.org/abs/2411.02853
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from optax_adaptive import _check
from optax_adaptive._core import at, descend, map_leaves, transformation, zero_count, zeros_like
from optax_adaptive._numerics import increment, squarable


class AdoptState(NamedTuple):
    """The count of steps and the running means, shaped like the parameters."""

    count: jax.Array  # int32, shape ()
    mu: optax.Updates  # of gradients over the root of the nu before them
    nu: optax.Updates  # of squared gradients


def _fourth_root(step):
    return step**0.25


def adopt(
    learning_rate: optax.ScalarOrSchedule,
    b1: Any = 0.9,
    b2: Any = 0.9999,
    eps: Any = 1e-6,
    *,
    nesterov: bool = False,
    use_clipping: bool = True,
    clip_value_fn: optax.ScalarOrSchedule = _fourth_root,
    weight_decay: optax.ScalarOrSchedule | None = None,
    mask: Any = None,
) -> optax.GradientTransformationExtraArgs:
    """ADOPT.

    The first gradient g only starts nu = g². With g the gradient at step t = 1, 2, ... after it,
    for every coordinate::

        u    = clip(g / max(sqrt(nu), eps), -c(t), c(t))
        mu   = b1 mu + (1 - b1) u
        nu   = b2 nu + (1 - b2) g²
        step = learning_rate mu

    so that no gradient is scaled by its own square; and with nesterov::

        step = learning_rate (b1 mu + (1 - b1) u)

    Args:
        learning_rate: A number >= 0 or a schedule; about the size of a step.
        b1: The share of `mu` kept at each step, in [0, 1).
        b2: The share of `nu` kept at each step, in [0, 1).
        eps: The least root, > 0, in units of gradients.
        nesterov: Whether the mean looks one step ahead.
        use_clipping: Whether u is clipped.
        clip_value_fn: c, a schedule or a number >= 0: the largest |u|. Its argument is the count of
            steps made before this one, which is t.
        weight_decay: A number >= 0 or a schedule, times the learning rate, at the first step too;
            None for no decay.
        mask: Which leaves decay: booleans in a prefix of the parameters' tree, or a function of
            the parameters that returns them; None for all.

    Raises:
        ValueError: If an argument is outside its domain.

    Departures: as `optax.contrib.adopt` and the authors' code
    (https://github.com/iShohei220/adopt), which has no `nesterov` and adds its weight decay to the
    gradient unless told to decouple it; then it leaves the first step out. Without `mu_dtype`. A
    `clip_value_fn` is a schedule for `optax.inject_hyperparams` too, under which optax calls the
    number that it becomes.
    """
    direction = scale_by_adopt(
        b1, b2, eps, nesterov=nesterov, use_clipping=use_clipping, clip_value_fn=clip_value_fn
    )
    return descend(direction, learning_rate, weight_decay, mask)


def scale_by_adopt(
    b1: Any = 0.9,
    b2: Any = 0.9999,
    eps: Any = 1e-6,
    *,
    nesterov: bool = False,
    use_clipping: bool = True,
    clip_value_fn: optax.ScalarOrSchedule = _fourth_root,
) -> optax.GradientTransformationExtraArgs:
    """The direction of `adopt`, without learning rate and decay."""
    _check.decay_rate(b1=b1, b2=b2)
    _check.positive(eps=eps)
    _check.flag(nesterov=nesterov, use_clipping=use_clipping)
    _check.scheduled(clip_value_fn=clip_value_fn)

    def init(params):
        return AdoptState(zero_count(), zeros_like(params), zeros_like(params))

    def update(grads, state):
        first = state.count == 0
        kept1, new1 = jnp.where(first, 1, b1), jnp.where(first, 0, 1 - b1)
        kept2, new2 = jnp.where(first, 0, b2), jnp.where(first, 1, 1 - b2)
        bound = at(clip_value_fn, state.count)

        def leaf(g, mu, nu):
            g, flaw = squarable(g)
            u = g / jnp.maximum(jnp.sqrt(nu), eps)
            u = jnp.clip(u, -bound, bound) if use_clipping else u
            mu = kept1 * mu + new1 * u + flaw
            # 0 * mu: only after mu has read nu may nu be overwritten, or XLA keeps a copy.
            nu = kept2 * nu + new2 * (g * g) + 0 * mu
            return kept1 * mu + new1 * u if nesterov else mu, mu, nu

        updates, mu, nu = map_leaves(leaf, grads, state.mu, state.nu)
        return updates, AdoptState(increment(state.count), mu, nu)

    return transformation(init, update)
