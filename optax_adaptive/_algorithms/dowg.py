"""DoWG: distance over gradients, each of which is weighted by the distance at its time.

Khaled, Mishchenko and Jin, "DoWG Unleashed: An Efficient Universal Parameter-Free Gradient Descent
Method", NeurIPS 2023, algorithm 1. https://arxiv.org/abs/2305.16284
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from optax_adaptive import _check
from optax_adaptive._core import map_leaves, scalar_like
from optax_adaptive._free import descend_freely, total


class DowgState(NamedTuple):
    """Three scalars."""

    sum_sq: jax.Array  # of gradients times the distance, shape ()
    distance: jax.Array  # the largest from the first parameters, shape ()
    effective_lr: jax.Array  # of the last step, learning rate included, shape ()


def dowg(
    learning_rate: optax.ScalarOrSchedule = 1.0,
    init_estim_sq_dist: Any = None,
    eps: Any = 1e-4,
    weight_decay: optax.ScalarOrSchedule | None = None,
    mask: Any = None,
) -> optax.GradientTransformationExtraArgs:
    """DoWG.

    With g the gradient, p the parameters, p0 the first ones and |.| the norm over all leaves::

        distance = max(distance, |p - p0|)
        sum_sq   = sum_sq + distance² |g|²
        step     = learning_rate distance² / (sqrt(sum_sq) + eps) g

    Late gradients weigh more than in `dog`, so that the rate grows again where the gradients of
    the way were large. `distance` and `effective_lr` are in the state:
    `optax.tree.get(state, "distance")`. Where `optax.partition` makes groups, each has its own.

    Args:
        learning_rate: A number >= 0 or a schedule, a multiple of what the method finds.
        init_estim_sq_dist: The square of the first distance, > 0; None for `eps`. Small: it can
            only grow.
        eps: Added to the root, > 0, in units of gradients times parameters.
        weight_decay: A number >= 0 or a schedule, times the rate of the step; None for no decay.
        mask: Which leaves decay: booleans in a prefix of the parameters' tree, or a function of
            the parameters that returns them; None for all.

    Raises:
        ValueError: If an argument is outside its domain, or `update` is not given the parameters.

    Departures: as optax.contrib.dowg; the paper has no eps. There the weight decay is that of
    `optax.chain(optax.add_decayed_weights(...), dowg())`, the scalars have the dtype of the
    parameters, and p0 is what `init` saw. A first gradient of zeros is no step here, and one that
    is not finite stops the step, not the training. The package dowg of PyPI, by others than the
    authors, has another default: its first squared distance and its eps are both 1 - eps, and its
    steps are of gradients clipped to 1/2.
    """
    _check.positive(eps=eps)
    if init_estim_sq_dist is None:
        init_estim_sq_dist = eps
    else:
        _check.positive(init_estim_sq_dist=init_estim_sq_dist)

    def init(params):
        first = init_estim_sq_dist**0.5
        return DowgState(*(scalar_like(params, x) for x in (0.0, first, 0.0)))

    def update(grads, state, *, learning_rate, moved):
        distance = jnp.maximum(state.distance, jnp.sqrt(total(lambda x: x * x, moved)))
        sum_sq = state.sum_sq + distance**2 * total(lambda g: g * g, grads)
        rate = learning_rate * distance**2 / (jnp.sqrt(sum_sq) + eps)
        # Before there is a gradient the rate is too large for a decay: no step is made.
        rate = jnp.where(sum_sq > 0, rate, jnp.nan)
        return map_leaves(lambda g: rate * g, grads), DowgState(sum_sq, distance, rate)

    return descend_freely(init, update, learning_rate, weight_decay, mask)
