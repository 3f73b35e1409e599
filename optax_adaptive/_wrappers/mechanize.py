"""Mechanic: any optimizer at the rate that would have paid so far.

Cutkosky, Defazio and Mehta, "Mechanic: A Learning Rate Tuner", NeurIPS 2023, algorithm 1.
https://arxiv.org/abs/2306.00144
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from optax_adaptive import _check
from optax_adaptive._core import map_leaves, scalar_like
from optax_adaptive._free import descend_freely, total


class MechanizeState(NamedTuple):
    """What the bets of several memories have won, and the state behind."""

    product_max: jax.Array  # the largest |h| that each remembers, shape (num_betas,)
    product_sum_sq: jax.Array  # of h², shape (num_betas,), as the next two
    reward: jax.Array  # what each has won
    scales: jax.Array  # the rate of each
    effective_lr: jax.Array  # of the last step: their sum, shape ()
    inner: optax.OptState  # of the wrapped transformation


def mechanize(
    tx: optax.GradientTransformation,
    *,
    weight_decay: Any = 1e-2,
    eps: Any = 1e-8,
    s_init: Any = 1e-6,
    num_betas: int = 6,
) -> optax.GradientTransformationExtraArgs:
    """`tx`, at a learning rate that is found.

    With g the gradient, p the parameters and p0 the first ones, u the update of `tx`, <., .> and
    |.| the inner product and norm over all leaves, n = num_betas and s the sum of all `scales`,
    for every beta of 0.9, 0.99, ..., 1 - 10^-n::

        offset         = (p - p0) / (s + eps)            (the sum of the updates so far)
        h              = -<g + weight_decay s |g| / |p| p, offset>
        reward         = beta reward + scales clip(h, -product_max, product_max)
        product_max    = max(beta product_max, |h| + eps)
        product_sum_sq = beta² product_sum_sq + h²
        wealth         = s_init / n product_max + max(0, reward)
        scales         = wealth / (sqrt(product_sum_sq) + eps)
        p              = p0 + s (offset + u)             (with the new s)

    Give `tx` the learning rate 1, as in `mechanize(adamw(1.0))`, or a schedule that begins or peaks
    there. All steps since the first one are scaled anew, every time. The rate is in the state:
    `optax.tree.get(state, "effective_lr")`.

    Args:
        tx: Any optimizer whose updates follow the size of neither gradient nor rate too closely;
            not LARS or LAMB.
        weight_decay: Drives the rate down while the parameters are large, >= 0; nothing decays by
            it directly, and a decay in `tx` is another one.
        eps: Added to the denominators, > 0, in units of h.
        s_init: The rate of the first step, > 0. Small: it grows fast.
        num_betas: How many memories bet, a whole number, known when the state is made.

    Raises:
        ValueError: If an argument is outside its domain, or `update` is not given the parameters.

    Departures: as optax.contrib.mechanize, by the authors, who clip h and keep debts in `reward`;
    their mechanic-pytorch 0.0.1 does neither, starts from a `product_max` of 1e-6, and takes for p
    in the decay where `tx` alone would have gone. In optax these few numbers are in the dtype of
    the parameters: in bfloat16 four of the six betas are 1. A step whose gradients or whose h are
    not finite is not made: `tx` is given gradients of 0 then, and its update is not used.
    """
    tx = _check.wrapped(tx)
    _check.non_negative(weight_decay=weight_decay)
    _check.positive(eps=eps, s_init=s_init)
    _check.whole(num_betas=num_betas)
    (size,) = _check.known("mechanize", num_betas=num_betas)

    def scales_of(product_max, product_sum_sq, reward):
        wealth = s_init / size * product_max + jnp.maximum(0, reward)
        return wealth / (jnp.sqrt(product_sum_sq) + eps)

    def init(params):
        # Each an array of its own, not one twice: states are donated.
        product_max, sum_sq, reward = jnp.zeros((3, size), scalar_like(params, 0).dtype)
        product_max = product_max + eps
        # As after a step with h = 0, which the first one has.
        scales = scales_of(product_max, sum_sq, reward)
        rate = jnp.sum(scales)
        return MechanizeState(product_max, sum_sq, reward, scales, rate, tx.init(params))

    def update(grads, state, *, moved, params, usable, learning_rate, **extra):
        del learning_rate  # 1
        sound = map_leaves(lambda g: jnp.where(usable, g, 0), grads)
        updates, inner = tx.update(sound, state.inner, params, **extra)

        def length(tree):
            return jnp.sqrt(total(jnp.multiply, tree, tree))

        s = state.effective_lr
        decay = weight_decay * s * length(grads) / (length(params) + eps)
        h = -total(lambda g, p, moved: (g + decay * p) * moved, grads, params, moved) / (s + eps)
        usable = usable & jnp.isfinite(h * h)

        betas = jnp.asarray([1 - 0.1**k for k in range(1, size + 1)], h.dtype)
        won = state.scales * jnp.clip(h, -state.product_max, state.product_max)
        product_max = jnp.maximum(betas * state.product_max, jnp.abs(h) + eps)
        product_sum_sq = betas**2 * state.product_sum_sq + h * h
        reward = betas * state.reward + won
        scales = scales_of(product_max, product_sum_sq, reward)
        rate = jnp.where(usable, jnp.sum(scales), jnp.nan)  # NaN: no step

        def step(moved, u):  # moved - rate (moved / (s + eps) + u)
            return (1 - rate / (s + eps)) * moved - rate * u

        def made(new, old):
            return jnp.where(usable, new, old)

        return map_leaves(step, moved, updates), MechanizeState(
            made(product_max, state.product_max),
            made(product_sum_sq, state.product_sum_sq),
            made(reward, state.reward),
            made(scales, state.scales),
            rate,
            inner,
        )

    return descend_freely(init, update, 1.0)
