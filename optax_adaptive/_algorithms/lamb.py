"""LAMB: Adam whose steps are as long as the parameters of their layer.

You, Li, Reddi, Hseu, Kumar, Bhojanapalli, Song, Demmel, Keutzer and Hsieh, "Large Batch
Optimization for Deep Learning: Training BERT in 76 minutes", ICLR 2020, algorithm 2.
https://arxiv.org/abs/1904.00962
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
from optax_adaptive._numerics import bias, increment, norm, squarable


class LambState(NamedTuple):
    """The count of steps and the running means, shaped like the parameters."""

    count: jax.Array  # int32, shape ()
    mu: optax.Updates  # of gradients
    nu: optax.Updates  # of squared gradients


def lamb(
    learning_rate: optax.ScalarOrSchedule,
    b1: Any = 0.9,
    b2: Any = 0.999,
    eps: Any = 1e-6,
    eps_root: Any = 0.0,
    *,
    weight_decay: optax.ScalarOrSchedule | None = None,
    mask: Any = None,
) -> optax.GradientTransformationExtraArgs:
    """LAMB.

    With g the gradient and p the parameters of one leaf at step t = 1, 2, ...::

        mu   = b1 mu + (1 - b1) g
        nu   = b2 nu + (1 - b2) g²
        u    = mu / (1 - b1^t) / (sqrt(nu / (1 - b2^t) + eps_root) + eps) + weight_decay p
        step = learning_rate |p| / |u| u            (learning_rate u where |p| or |u| is 0)

    where |.| is the root of the sum of squares over the leaf.

    Args:
        learning_rate: A number >= 0 or a schedule: the length of a step, in lengths of the
            parameters of the leaf.
        b1: The share of `mu` kept at each step, in [0, 1).
        b2: The share of `nu` kept at each step, in [0, 1).
        eps: Added to the root, >= 0, in units of gradients; > 0 unless eps_root is.
        eps_root: Added under the root, >= 0, in units of squared gradients.
        weight_decay: A number >= 0 or a schedule; part of u, so it turns the step and does not
            lengthen it. None for no decay.
        mask: Which leaves decay: booleans in a prefix of the parameters' tree, or a function of
            the parameters that returns them; None for all.

    Raises:
        ValueError: If an argument is outside its domain, or `update` is not given the parameters.

    Departures: as `optax.lamb`. The paper bounds |p| by a function phi; as in optax it is the
    identity here. Bias and norm leaves take part, as in the paper; to leave them out use
    `optax.partition`.
    """
    direction = scale_by_lamb(b1, b2, eps, eps_root, weight_decay=weight_decay, mask=mask)
    return descend(direction, learning_rate)


def scale_by_lamb(
    b1: Any = 0.9,
    b2: Any = 0.999,
    eps: Any = 1e-6,
    eps_root: Any = 0.0,
    *,
    weight_decay: optax.ScalarOrSchedule | None = None,
    mask: Any = None,
) -> optax.GradientTransformationExtraArgs:
    """The direction of `lamb`, without its learning rate."""
    _check.decay_rate(b1=b1, b2=b2)
    _check.some_eps(eps=eps, eps_root=eps_root)
    _check.decay(weight_decay, mask)

    def init(params):
        return LambState(zero_count(), zeros_like(params), zeros_like(params))

    def update(grads, state, *, params, given_params=None):
        t = increment(state.count)
        c1, c2 = bias(b1, t), bias(b2, t)

        def leaf(g, mu, nu):
            g, flaw = squarable(g)
            mu = b1 * mu + (1 - b1) * g + flaw
            nu = b2 * nu + (1 - b2) * (g * g)
            return mu / c1 / (jnp.sqrt(nu / c2 + eps_root) + eps), mu, nu

        def trust(u, p):
            length, target = norm(u), norm(p)
            return u * jnp.where((length > 0) & (target > 0), target / length, 1)

        updates, mu, nu = map_leaves(leaf, grads, state.mu, state.nu)
        decay = at(weight_decay, state.count)
        updates = add_decay(updates, decay, mask, params, given_params)
        return map_leaves(trust, updates, params), LambState(t, mu, nu)

    return transformation(init, update)
