"""RMSprop: the gradient over the root of a running mean of its square.

Tieleman and Hinton, "Lecture 6.5: rmsprop", Neural Networks for Machine Learning, 2012.
https://www.cs.toronto.edu/~tijmen/csc321/slides/lecture_slides_lec6.pdf
Centered: Graves, "Generating Sequences With Recurrent Neural Networks", 2013, equations 38-45.
https://arxiv.org/abs/1308.0850
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax

from optax_adaptive import _check
from optax_adaptive._core import (
    descend,
    full_like,
    map_leaves,
    transformation,
    zero_count,
    zeros_like,
)
from optax_adaptive._momentum import trace
from optax_adaptive._numerics import bias, increment, squarable


class RmspropState(NamedTuple):
    """The count of steps and the running mean, shaped like the parameters."""

    count: jax.Array  # int32, shape ()
    nu: optax.Updates  # of squared gradients


class CenteredRmspropState(NamedTuple):
    """The count of steps, running mean and running variance, shaped like the parameters."""

    count: jax.Array  # int32, shape ()
    mu: optax.Updates  # of gradients, already corrected with bias_correction
    variance: optax.Updates  # of gradients: the mean of g² less the square of mu


def rmsprop(
    learning_rate: optax.ScalarOrSchedule,
    decay: Any = 0.9,
    eps: Any = 1e-8,
    initial_scale: Any = 0.0,
    eps_in_sqrt: bool = True,
    centered: bool = False,
    momentum: Any = None,
    nesterov: bool = False,
    bias_correction: bool = False,
    *,
    weight_decay: optax.ScalarOrSchedule | None = None,
    mask: Any = None,
) -> optax.GradientTransformationExtraArgs:
    """RMSprop, plain, centered, with momentum.

    With g the gradient at step t = 1, 2, ..., for every coordinate::

        nu       = decay nu + (1 - decay) g²
        v        = nu / (1 - decay^t) if bias_correction else nu
        velocity = momentum velocity + learning_rate g / sqrt(v + eps)
        step     = velocity                 (nesterov: momentum velocity + the new term)

    eps_in_sqrt=False divides by sqrt(v) + eps. centered takes v - m² for v, m the running mean of
    the gradients, corrected as v is.

    Args:
        learning_rate: A number >= 0 or a schedule.
        decay: The share of the running means kept at each step, in [0, 1), > 0 if centered.
        eps: > 0, in units of squared gradients (of gradients if not eps_in_sqrt).
        initial_scale: What `nu` starts at, >= 0, in units of squared gradients.
        eps_in_sqrt: Whether eps stands under the root.
        centered: Whether to divide by the deviation from the mean gradient.
        momentum: In [0, 1), over the steps with their learning rate; None for none.
        nesterov: Whether the momentum looks one step ahead; needs `momentum`.
        bias_correction: Whether to divide the means by the weight they have gathered so far.
        weight_decay: A number >= 0 or a schedule, times the learning rate, outside the momentum;
            None for no decay.
        mask: Which leaves decay: booleans in a prefix of the parameters' tree, or a function of
            the parameters that returns them; None for all.

    Raises:
        ValueError: If an argument is outside its domain.

    Departures: as `optax.rmsprop` and Keras 3; the lecture has no eps, `torch.optim.RMSprop` has it
    outside the root and the learning rate outside the momentum. optax and torch compute v - m² as
    it stands, whose rounding turns negative: in float32 one of six constant gradients makes optax's
    step NaN within 400 steps. Here the same variance has a recurrence of its own, a sum of squares.
    """
    _check.flag(centered=centered)
    _check.momentum_pair(momentum, nesterov)
    scale = scale_by_centered_rmsprop if centered else scale_by_rmsprop
    direction = scale(decay, eps, initial_scale, eps_in_sqrt, bias_correction)
    velocity = None if momentum is None else trace(momentum, nesterov)
    return descend(direction, learning_rate, weight_decay, mask, velocity)


def scale_by_rmsprop(
    decay: Any = 0.9,
    eps: Any = 1e-8,
    initial_scale: Any = 0.0,
    eps_in_sqrt: bool = True,
    bias_correction: bool = False,
) -> optax.GradientTransformationExtraArgs:
    """The direction of `rmsprop`, without its learning rate and momentum."""
    _check_rmsprop(decay, eps, initial_scale, eps_in_sqrt, bias_correction)

    def init(params):
        return RmspropState(zero_count(), full_like(params, initial_scale))

    def update(grads, state):
        t = increment(state.count)
        weight = bias(decay, t) if bias_correction else 1

        def leaf(g, nu):
            g, flaw = squarable(g)
            nu = decay * nu + (1 - decay) * (g * g)
            return _over_root(g, nu / weight, eps, eps_in_sqrt) + flaw, nu

        updates, nu = map_leaves(leaf, grads, state.nu)
        return updates, RmspropState(t, nu)

    return transformation(init, update)


def scale_by_centered_rmsprop(
    decay: Any = 0.9,
    eps: Any = 1e-8,
    initial_scale: Any = 0.0,
    eps_in_sqrt: bool = True,
    bias_correction: bool = False,
) -> optax.GradientTransformationExtraArgs:
    """The direction of `rmsprop(centered=True)`, without its learning rate and momentum."""
    _check_rmsprop(decay, eps, initial_scale, eps_in_sqrt, bias_correction)
    _check.open_unit(decay=decay)

    def init(params):
        return CenteredRmspropState(
            zero_count(), zeros_like(params), full_like(params, initial_scale)
        )

    def update(grads, state):
        t = increment(state.count)
        weight = bias(decay, t) if bias_correction else 1
        gain = (1 - decay) / weight  # 1 at t = 1 with bias_correction: g is its own mean
        spread = jnp.where(t > 1, (1 - decay) / (1 - gain), 0) if bias_correction else gain / decay

        def leaf(g, mu, variance):
            g, flaw = squarable(g)
            mu = mu + gain * (g - mu)
            # nu = decay nu + (1 - decay) g² less mu², as a sum of squares. The textbook has
            # (1 - gain) (g - old mu) for (g - mu), but reading the old mu would keep a copy of it.
            variance = decay * variance + spread * (g - mu) ** 2
            return _over_root(g, variance / weight, eps, eps_in_sqrt) + flaw, mu, variance

        updates, mu, variance = map_leaves(leaf, grads, state.mu, state.variance)
        return updates, CenteredRmspropState(t, mu, variance)

    return transformation(init, update)


def _over_root(g, v, eps, eps_in_sqrt):
    return g * lax.rsqrt(v + eps) if eps_in_sqrt else g / (jnp.sqrt(v) + eps)


def _check_rmsprop(decay, eps, initial_scale, eps_in_sqrt, bias_correction):
    _check.decay_rate(decay=decay)
    _check.positive(eps=eps)
    _check.non_negative(initial_scale=initial_scale)
    _check.flag(eps_in_sqrt=eps_in_sqrt, bias_correction=bias_correction)
