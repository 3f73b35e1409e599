"""StableAdamW: AdamW, slower in the leaves whose gradients surprise their second moments.

Wortsman, Dettmers, Zettlemoyer, Morcos, Farhadi and Schmidt, "Stable and low-precision training for
large-scale vision-language models", NeurIPS 2023, algorithm 2. https://arxiv.org/abs/2304.13013
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
    map_leaves,
    transformation,
    zero_count,
    zeros_like,
)
from optax_adaptive._numerics import bias, increment, rms, squarable


class StableAdamwState(NamedTuple):
    """The count of steps and the running means, shaped like the parameters."""

    count: jax.Array  # int32, shape ()
    mu: optax.Updates  # of gradients
    nu: optax.Updates  # of squared gradients


def stable_adamw(
    learning_rate: optax.ScalarOrSchedule,
    *,
    b1: Any = 0.9,
    b2: Any = 0.99,
    eps: Any = 1e-8,
    clipping_threshold: Any = 1.0,
    weight_decay: optax.ScalarOrSchedule | None = 0.01,
    mask: Any = None,
) -> optax.GradientTransformationExtraArgs:
    """StableAdamW.

    With g the gradient and p the parameters of one leaf at step t = 1, 2, ...::

        mu    = b1 mu + (1 - b1) g
        nu    = b2 nu + (1 - b2) g²
        m     = mu / (1 - b1^t)
        v     = nu / (1 - b2^t)
        slow  = max(1, rms(g / max(sqrt(v), eps)) / clipping_threshold)
        step  = learning_rate / slow (m / (sqrt(v) + eps) + weight_decay p)

    where rms is the root of the mean of squares over the leaf. It is about 1 as long as gradients
    are of the size that the second moment expects, and grows when they outgrow it, which is what
    comes before a spike of the loss. It takes the place of clipping the gradients.

    Args:
        learning_rate: A number >= 0 or a schedule; about the size of a step.
        b1: The share of `mu` kept at each step, in [0, 1).
        b2: The share of `nu` kept at each step, in [0, 1).
        eps: Added to the root, > 0, in units of gradients.
        clipping_threshold: The largest rms that does not slow the leaf down, > 0.
        weight_decay: A number >= 0 or a schedule, times the learning rate, and as slow; None for no
            decay.
        mask: Which leaves decay: booleans in a prefix of the parameters' tree, or a function of
            the parameters that returns them; None for all.

    Raises:
        ValueError: If an argument is outside its domain, or `update` is not given the parameters
            for a decay.

    Departures: as the paper, whose corrected shares b1 and b2 are the corrections of m and v above,
    and as optimi and pytorch_optimizer, whose default weight_decay this is; the authors decay by
    0.2, for CLIP. In the authors' code the decay does not slow down. eps is the authors'; optimi
    has 1e-6.
    """
    direction = scale_by_stable_adamw(
        b1, b2, eps, clipping_threshold, weight_decay=weight_decay, mask=mask
    )
    return descend(direction, learning_rate)


def scale_by_stable_adamw(
    b1: Any = 0.9,
    b2: Any = 0.99,
    eps: Any = 1e-8,
    clipping_threshold: Any = 1.0,
    *,
    weight_decay: optax.ScalarOrSchedule | None = 0.01,
    mask: Any = None,
) -> optax.GradientTransformationExtraArgs:
    """The direction of `stable_adamw`, without its learning rate."""
    _check.decay_rate(b1=b1, b2=b2)
    _check.positive(eps=eps, clipping_threshold=clipping_threshold)
    needs = _check.decay(weight_decay, mask)

    def init(params):
        return StableAdamwState(zero_count(), zeros_like(params), zeros_like(params))

    def update(grads, state, *, params=None, given_params=None):
        t = increment(state.count)
        c1, c2 = bias(b1, t), bias(b2, t)
        root_c2 = jnp.sqrt(c2)

        def leaf(g, mu, nu):
            held, flaw = squarable(g)
            mu = b1 * mu + (1 - b1) * held + flaw
            nu = b2 * nu + (1 - b2) * (held * held)
            # Neither `held` nor sqrt(nu / c2): what is read twice would become an array. A giant
            # g only slows its leaf down the more.
            surprise = root_c2 * rms(g / jnp.maximum(jnp.sqrt(nu), root_c2 * eps))
            slow = jnp.maximum(1, surprise / clipping_threshold)
            return mu / c1 / (jnp.sqrt(nu / c2) + eps), slow, mu, nu

        updates, slow, mu, nu = map_leaves(leaf, grads, state.mu, state.nu)
        decay = at(weight_decay, state.count)
        updates = add_decay(updates, decay, mask, params, given_params)
        updates = map_leaves(lambda u, slow: u / slow, updates, other=(slow,))
        return updates, StableAdamwState(t, mu, nu)

    return transformation(init, update, needs)
