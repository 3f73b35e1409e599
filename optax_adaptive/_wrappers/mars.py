"""MARS: gradients corrected by their change since the last step, to shrink their variance.

Yuan, Liu, Wu, Zhou and Gu, "MARS: Unleashing the Power of Variance Reduction for Training Large
Models", 2024, algorithms 1 and 2. https://arxiv.org/abs/2411.10438
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from optax_adaptive import _check
from optax_adaptive._core import map_leaves, transformation, zero_count, zeros_like
from optax_adaptive._numerics import increment, norm


class MarsState(NamedTuple):
    """The gradients of the last step, shaped like the parameters, and the state behind."""

    seen: jax.Array  # count of gradients seen, int32, shape ()
    last_grads: optax.Updates  # of the step before
    inner: optax.OptState  # of the wrapped transformation


def mars(
    tx: optax.GradientTransformation,
    *,
    gamma: Any = 0.025,
    b1: Any = 0.95,
    max_norm: Any = 1.0,
) -> optax.GradientTransformationExtraArgs:
    """`tx`, given gradients of less variance.

    With g the gradient of one leaf at step t = 1, 2, ... and tx the wrapped transformation::

        c      = g + gamma b1 / (1 - b1) (g - last_grads)      (c = g at step 1)
        update = tx(c / max(1, |c| / max_norm))

    where |.| is the root of the sum of squares over the leaf. The authors train
    `mars(adamw(3e-3, b1=0.95, b2=0.99))` and `mars(lion(...))`.

    Args:
        tx: Any transformation.
        gamma: The strength of the correction, >= 0.
        b1: That of `tx`, in [0, 1): how long its mean of gradients remembers.
        max_norm: The largest norm of a corrected gradient, > 0.

    Raises:
        ValueError: If an argument is outside its domain.

    Departures: the approximate form, which the authors train with: both gradients of the difference
    come from their own batches. As the paper, and timm, it starts without a correction, where the
    authors' code (https://github.com/AGI-Arena/MARS) takes 0 for the gradient before the first. It
    leaves vectors to plain AdamW; here all leaves are corrected, and `optax.partition` leaves out.
    """
    tx = _check.wrapped(tx)
    _check.non_negative(gamma=gamma)
    _check.decay_rate(b1=b1)
    _check.positive(max_norm=max_norm)

    def init(params):
        return MarsState(zero_count(), zeros_like(params), tx.init(params))

    def update(grads, state, *, params=None, **extra):
        strength = jnp.where(state.seen > 0, gamma * b1 / (1 - b1), 0)

        def leaf(g, last):
            c = g + strength * (g - last)
            return c / jnp.maximum(1, norm(c) / max_norm)

        corrected = map_leaves(leaf, grads, state.last_grads)
        updates, inner = tx.update(corrected, state.inner, params, **extra)
        return updates, MarsState(increment(state.seen), grads, inner)

    return transformation(init, update)
