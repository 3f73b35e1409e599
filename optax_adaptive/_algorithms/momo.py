"""MoMo: momentum whose step ends where its model of the loss reaches a lower bound.

Schaipp, Ohana, Eickenberg, Defazio and Gower, "MoMo: Momentum Models for Adaptive Learning Rates",
ICML 2024. https://arxiv.org/abs/2305.07583
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from optax_adaptive import _check
from optax_adaptive._core import map_leaves, scalar_like, zero_count, zeros_like
from optax_adaptive._free import descend_freely, total
from optax_adaptive._numerics import bias, increment


class MomoState(NamedTuple):
    """The model of the loss: means of values and gradients, and the bound."""

    count: jax.Array  # of steps since the first gradient that was not zero, int32, shape ()
    mu: optax.Updates  # mean of g
    value_mean: jax.Array  # shape (), as all that follow
    product_mean: jax.Array  # of <g, p>
    lowest: jax.Array  # the lower bound of the loss
    effective_lr: jax.Array  # of the last step: tau


class MomoAdamState(NamedTuple):
    """As `MomoState`, with the mean of squares."""

    count: jax.Array  # of steps since the first gradient that was not zero, int32, shape ()
    mu: optax.Updates  # mean of g
    nu: optax.Updates  # mean of g²
    value_mean: jax.Array  # shape (), as all that follow
    product_mean: jax.Array  # of <g, p>
    lowest: jax.Array  # the lower bound of the loss
    effective_lr: jax.Array  # of the last step: tau


def momo(
    learning_rate: optax.ScalarOrSchedule = 1.0,
    beta: Any = 0.9,
    lower_bound: Any = 0.0,
    weight_decay: optax.ScalarOrSchedule | None = None,
    adapt_lower_bound: bool = False,
    *,
    bias_correction: bool = False,
    mask: Any = None,
) -> optax.GradientTransformationExtraArgs:
    """MoMo: SGD with momentum that adapts its rate.

    With f the loss, which `update` is given as `value`, g the gradient at step t = 1, 2, ..., p the
    parameters and <., .> and |.| the inner product and norm over all leaves, means that start at
    the first f, g and <g, p>, and c = 1::

        value_mean   = beta value_mean + (1 - beta) f
        mu           = beta mu + (1 - beta) g
        product_mean = beta product_mean + (1 - beta) <g, p>
        model        = value_mean - product_mean + <mu, p>
        tau          = min(learning_rate / c, max(0, model - c lowest) / |mu|²)
        p            = p - tau mu

    The model is the mean of the past tangents of the loss, at p; tau is the rate at which a step
    along mu takes it down to the bound, `lowest`. With weight decay p - tau mu is divided by
    s = 1 + learning_rate weight_decay, and tau takes the model of that to the bound: in <mu, p> and
    |mu|² the leaves that decay are divided by s, too. With `bias_correction` means start at 0, and
    c = 1 - beta^t. Steps are as long as the learning rate until the loss nears the bound: choose
    one that is rather too large, and read `effective_lr`, which is tau:
    `optax.tree.get(state, "effective_lr")`.

    Args:
        learning_rate: A number >= 0 or a schedule: the largest rate.
        beta: The share of the means kept at each step, in [0, 1).
        lower_bound: What the loss cannot fall below, a finite number in units of the loss; 0 is
            right for most.
        weight_decay: A number >= 0 or a schedule, times the learning rate (not times tau).
        adapt_lower_bound: Whether to estimate the lowest loss; `lower_bound` then is a bound of the
            estimate, `lowest`::

                lowest = max(lower_bound, model / 2c)  where model < c lowest, before the step
                lowest = max(lower_bound, (model - tau |mu|² / 2) / c)         after it

            with the model that has the leaves that decay divided by s first, and as it stands then.
        bias_correction: Whether the means start at 0 and are corrected. The first steps are then
            not made of the first gradient mostly.
        mask: Which leaves decay: booleans in a prefix of the parameters' tree, or a function of
            the parameters that returns them; None for all.

    Raises:
        ValueError: If an argument is outside its domain, or `update` is not given the parameters
            and `value`.

    Departures: as the authors' momo-opt 0.1.0, which has no mask. optax.contrib.momo does not
    divide tau mu by s, though its tau is for the step that does; it has no `bias_correction`, and
    makes no step where |mu|² is below 2e-16. In both a first gradient of zeros enters the means and
    counts as the first; here it is as if it had not been. A gradient or a loss that is not finite
    enters nothing; the update is then NaN where the gradient is not finite, or everywhere.
    """
    _check.decay_rate(beta=beta)
    _check.finite(lower_bound=lower_bound)
    _check.flag(adapt_lower_bound=adapt_lower_bound, bias_correction=bias_correction)

    def init(params):
        scalars = (scalar_like(params, x) for x in (0.0, 0.0, lower_bound, 0.0))
        return MomoState(zero_count(), zeros_like(params), *scalars)

    def update(grads, state, *, learning_rate, weight_decay, params, value, usable):
        t = increment(state.count)
        keep = beta if bias_correction else jnp.where(state.count > 0, beta, 0)
        weight = bias(beta, t) if bias_correction else 1.0

        def mean(g, mu):
            return jnp.where(usable, keep * mu + (1 - keep) * g, mu)

        mu = map_leaves(mean, grads, state.mu)
        value_mean = keep * state.value_mean + (1 - keep) * value
        product = total(jnp.multiply, grads, params)
        product_mean = keep * state.product_mean + (1 - keep) * product

        shrink = map_leaves(lambda decay: 1 / (1 + learning_rate * decay), weight_decay)
        tau, lowest = _to_the_bound(
            value_mean - product_mean,
            map_leaves(lambda mu, p: jnp.sum(mu * p), mu, params),
            map_leaves(lambda mu: jnp.sum(mu * mu), mu),
            shrink,
            learning_rate,
            weight,
            lower_bound,
            state.lowest if adapt_lower_bound else None,
        )

        def step(mu, p, shrink, decay):
            return shrink * (tau * mu + learning_rate * decay * p)

        steps = map_leaves(step, mu, params, other=(shrink, weight_decay))
        return steps, MomoState(t, mu, value_mean, product_mean, lowest, tau)

    return descend_freely(init, update, learning_rate, weight_decay, mask)


def momo_adam(
    learning_rate: optax.ScalarOrSchedule = 1e-2,
    b1: Any = 0.9,
    b2: Any = 0.999,
    eps: Any = 1e-8,
    lower_bound: Any = 0.0,
    weight_decay: optax.ScalarOrSchedule | None = None,
    adapt_lower_bound: bool = False,
    *,
    mask: Any = None,
) -> optax.GradientTransformationExtraArgs:
    """MoMo-Adam: Adam that adapts its rate.

    As `momo` with `bias_correction`, its means with b1, but for::

        nu    = b2 nu + (1 - b2) g²
        scale = sqrt(nu / (1 - b2^t)) + eps
        p     = p - tau mu / scale

    and <mu, mu / scale> in place of |mu|². Far from the bound it is `adamw`.

    Args:
        learning_rate: A number >= 0 or a schedule: the largest rate. tau, the rate of the mean
            before its correction, is at most learning_rate / (1 - b1^t).
        b1: The share of the means kept at each step, in [0, 1).
        b2: The share of `nu` kept at each step, in [0, 1).
        eps: Added to the root, > 0, in units of gradients.
        lower_bound: What the loss cannot fall below, a finite number in units of the loss; 0 is
            right for most.
        weight_decay: A number >= 0 or a schedule, times the learning rate (not times tau).
        adapt_lower_bound: Whether to estimate the lowest loss; `lower_bound` then is a bound of the
            estimate, `lowest`.
        mask: Which leaves decay: booleans in a prefix of the parameters' tree, or a function of
            the parameters that returns them; None for all.

    Raises:
        ValueError: If an argument is outside its domain, or `update` is not given the parameters
            and `value`.

    Departures: those of `momo`, of the authors' `MomoAdam` and of optax.contrib.momo_adam. The
    authors' `divide=False`, AdamW's decay beside a rate for another one, is not offered.
    """
    _check.decay_rate(b1=b1, b2=b2)
    _check.positive(eps=eps)
    _check.finite(lower_bound=lower_bound)
    _check.flag(adapt_lower_bound=adapt_lower_bound)

    def init(params):
        scalars = (scalar_like(params, x) for x in (0.0, 0.0, lower_bound, 0.0))
        return MomoAdamState(zero_count(), zeros_like(params), zeros_like(params), *scalars)

    def update(grads, state, *, learning_rate, weight_decay, params, value, usable):
        t = increment(state.count)
        weight, root = bias(b1, t), jnp.sqrt(bias(b2, t))

        def means(g, mu, nu):
            new = b1 * mu + (1 - b1) * g, b2 * nu + (1 - b2) * g**2
            return jnp.where(usable, new[0], mu), jnp.where(usable, new[1], nu)

        # The scale, written in two ways: of one XLA would keep an array.
        def square(mu, nu):
            return jnp.sum(mu * mu / (jnp.sqrt(nu) + eps * root)) * root

        mu, nu = map_leaves(means, grads, state.mu, state.nu)
        value_mean = b1 * state.value_mean + (1 - b1) * value
        product = total(jnp.multiply, grads, params)
        product_mean = b1 * state.product_mean + (1 - b1) * product

        shrink = map_leaves(lambda decay: 1 / (1 + learning_rate * decay), weight_decay)
        tau, lowest = _to_the_bound(
            value_mean - product_mean,
            map_leaves(lambda mu, p: jnp.sum(mu * p), mu, params),
            map_leaves(square, mu, nu),
            shrink,
            learning_rate,
            weight,
            lower_bound,
            state.lowest if adapt_lower_bound else None,
        )

        def step(mu, nu, p, shrink, decay):
            direction = mu / (jnp.sqrt(nu / root**2) + eps)
            return shrink * (tau * direction + learning_rate * decay * p)

        steps = map_leaves(step, mu, nu, params, other=(shrink, weight_decay))
        return steps, MomoAdamState(t, mu, nu, value_mean, product_mean, lowest, tau)

    return descend_freely(init, update, learning_rate, weight_decay, mask)


def _to_the_bound(offset, products, squares, shrink, learning_rate, weight, lower_bound, lowest):
    """The rate, and the bound after the step: `lower_bound`, or the estimate where `lowest` is one.

    `products`, `squares` and `shrink` are the scalars <mu, p>, <mu, mu / scale> and 1 / s of every
    leaf, `offset` the model less its <mu, p>, `weight` the total weight of its means.
    """
    level = offset + total(jnp.multiply, shrink, products)
    slope = total(jnp.multiply, shrink, squares)
    bound = lower_bound
    if lowest is not None:
        reset = jnp.maximum(lower_bound, level / (2 * weight))
        bound = jnp.where(level < weight * lowest, reset, lowest)
    reach = jnp.maximum(0, level - weight * bound) / slope
    # Where there is no gradient there is no step, and NaN says so.
    tau = jnp.where(slope > 0, jnp.minimum(learning_rate / weight, reach), jnp.nan)
    if lowest is not None:
        here = offset + total(jnp.asarray, products)
        left = (here - tau / 2 * total(jnp.asarray, squares)) / weight
        bound = jnp.maximum(lower_bound, left)
    return tau, jnp.asarray(bound)
