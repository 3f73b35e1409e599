"""Prodigy: Adam whose rate is an estimate of the distance to the solution.

Mishchenko and Defazio, "Prodigy: An Expeditiously Adaptive Parameter-Free Learner", ICML 2024,
algorithm 4. https://arxiv.org/abs/2306.06101
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from optax_adaptive import _check
from optax_adaptive._core import map_leaves, scalar_like, zero_count, zeros_like, zeros_of
from optax_adaptive._free import descend_freely, total
from optax_adaptive._numerics import bias, increment


class ProdigyState(NamedTuple):
    """The running means, shaped like the parameters, and the estimate of the distance."""

    count: jax.Array  # of steps since the first gradient that was not zero, int32, shape ()
    mu: optax.Updates  # mean of d g
    nu: optax.Updates  # mean of d² g²
    grad_sum: optax.Updates  # weighted, of every slice_p-th coordinate
    numerator: jax.Array  # of the estimate, shape (), as all that follow
    distance: jax.Array  # d
    distance_max: jax.Array  # the largest estimate, which growth_rate may hold back
    effective_lr: jax.Array  # of the last step: d times learning rate and correction


def prodigy(
    learning_rate: optax.ScalarOrSchedule = 1.0,
    *,
    b1: Any = 0.9,
    b2: Any = 0.999,
    b3: Any = None,
    eps: Any = 1e-8,
    d0: Any = 1e-6,
    d_coef: Any = 1.0,
    growth_rate: Any = None,
    use_bias_correction: bool = False,
    safeguard_warmup: bool = False,
    slice_p: int | None = None,
    weight_decay: optax.ScalarOrSchedule | None = None,
    mask: Any = None,
) -> optax.GradientTransformationExtraArgs:
    """Prodigy.

    With g the gradient at step t = 1, 2, ..., p the parameters and p0 the first ones, d = d0 at
    first, c = sqrt(1 - b2^t) / (1 - b1^t) with bias correction and 1 without, for every
    coordinate::

        rate      = d learning_rate c
        mu        = b1 mu + (1 - b1) d g
        nu        = b2 nu + (1 - b2) d² g²
        grad_sum  = b3 grad_sum + d / d0 rate g

    and with <., .> and |.| the inner product and the sum of absolute values over all leaves::

        numerator = b3 numerator + d / d0 rate <g, p0 - p>
        d_hat     = d_coef numerator / |grad_sum|
        d         = max(d, d_hat)
        step      = rate mu / (sqrt(nu) + d eps)

    The first steps are tiny; d grows within a few hundred to the size that Adam's rate should have.
    Leave the learning rate at 1, or give a schedule that starts there and ends at 0: cosine decay
    is what the authors train with. `distance` and `effective_lr` are in the state:
    `optax.tree.get(state, "distance")`. Where `optax.partition` makes groups, each has its own d.

    Args:
        learning_rate: A number >= 0 or a schedule, a multiple of what the method finds.
        b1: The share of `mu` kept at each step, in [0, 1).
        b2: The share of `nu` kept at each step, in [0, 1).
        b3: The share of the sums kept at each step, in [0, 1); None for the root of b2.
        eps: Added to the root, > 0, in units of gradients.
        d0: The first estimate, > 0. Small: it can only grow.
        d_coef: A multiple of the estimate, > 0; what to tune, if anything, from 0.5 to 2.
        growth_rate: The most by which d is multiplied in a step, > 1; None for no bound.
            1.02 makes a warm-up.
        use_bias_correction: Whether the steps have the correction c.
        safeguard_warmup: Whether `grad_sum` leaves the learning rate out, which during a warm-up
            keeps the estimate from growing too fast.
        slice_p: The estimate is made of every slice_p-th coordinate of each array, a whole number,
            known when the state is made; None for all. 11 takes the state from 4 to 2.2 words per
            parameter.
        weight_decay: A number >= 0 or a schedule, times the rate of the step; None for no decay.
        mask: Which leaves decay: booleans in a prefix of the parameters' tree, or a function of
            the parameters that returns them; None for all.

    Raises:
        ValueError: If an argument is outside its domain, or `update` is not given the parameters.

    Departures: as the authors' prodigyopt 1.1.2, whose `decouple=False` is
    `optax.chain(optax.add_decayed_weights(...), prodigy())`, but for b1 = 0, where theirs
    multiplies g by the new d. optax.contrib.prodigy always corrects the bias, calls d0 estim_lr0
    and d_coef estim_lr_coef, takes b1 and b2 as a tuple, and is NaN for ever after a first gradient
    of zeros. A gradient that is not finite, or above 2**51, stops the step, not the training.
    """
    _check.decay_rate(b1=b1, b2=b2)
    _check.positive(eps=eps, d0=d0, d_coef=d_coef)
    _check.flag(use_bias_correction=use_bias_correction, safeguard_warmup=safeguard_warmup)
    if slice_p is not None:
        _check.whole(slice_p=slice_p)
    if b3 is None:
        b3 = b2**0.5
    if growth_rate is None:
        growth_rate = jnp.inf
    else:
        _check.above_one(growth_rate=growth_rate)
    _check.decay_rate(b3=b3)
    name = _check.caller()

    def sample(x):
        if slice_p is None:
            return x
        (every,) = _check.known(name, slice_p=slice_p)
        return x.reshape(-1)[::every]

    def init(params):
        return ProdigyState(
            zero_count(),
            zeros_like(params),
            zeros_like(params),
            zeros_of(sample, params),
            *(scalar_like(params, x) for x in (0.0, d0, d0, 0.0)),
        )

    def update(grads, state, *, learning_rate, usable, moved):
        t, d = increment(state.count), state.distance
        correction = jnp.sqrt(bias(b2, t)) / bias(b1, t) if use_bias_correction else 1.0
        rate = d * learning_rate * correction
        weight = d / d0 * (d if safeguard_warmup else rate)

        def means(g, mu, nu):
            g = jnp.where(usable, d * g, 0)
            return b1 * mu + (1 - b1) * g, b2 * nu + (1 - b2) * (g * g)

        def gathered(g, grad_sum):
            return b3 * grad_sum + jnp.where(usable, weight * g, 0)

        mu, nu = map_leaves(means, grads, state.mu, state.nu)
        sampled = map_leaves(sample, grads)
        grad_sum = map_leaves(gathered, sampled, state.grad_sum)
        product = total(jnp.multiply, sampled, moved)
        numerator = b3 * state.numerator - d / d0 * rate * product
        d_hat = d_coef * numerator / total(jnp.abs, grad_sum)  # 0 / 0 until there is a gradient

        distance_max = jnp.maximum(state.distance_max, d_hat)
        at_start = jnp.where(d == d0, jnp.maximum(d, d_hat), d)
        distance = jnp.minimum(distance_max, at_start * growth_rate)

        def step(mu, nu):
            return rate * mu / (jnp.sqrt(nu) + distance * eps)

        new = ProdigyState(t, mu, nu, grad_sum, numerator, distance, distance_max, rate)
        return map_leaves(step, mu, nu), new

    return descend_freely(init, update, learning_rate, weight_decay, mask, sample=sample)
