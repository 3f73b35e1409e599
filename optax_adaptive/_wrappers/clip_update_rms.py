"""Update clipping: no leaf's step is larger than a given root mean square.

Shazeer and Stern, "Adafactor: Adaptive Learning Rates with Sublinear Memory Cost", ICML 2018,
section 6. https://arxiv.org/abs/1804.04235
"""

from typing import Any

import jax.numpy as jnp
import optax

from optax_adaptive import _check
from optax_adaptive._core import map_leaves, transformation
from optax_adaptive._numerics import rms


def clip_update_rms(
    tx: optax.GradientTransformation, max_rms: Any = 1.0
) -> optax.GradientTransformationExtraArgs:
    """The updates of `tx`, those of a leaf scaled down together where they are too large.

    With u the update of `tx`, for every leaf::

        update = u / max(1, rms(u) / max_rms)

    where rms is the root of the mean of squares over the leaf. The state is that of `tx`.

    Args:
        tx: Any transformation.
        max_rms: The largest root mean square, > 0, in units of the updates of `tx`: of parameters
            for an optimizer, of learning rates for a direction as `scale_by_adam()`, where the
            paper takes 1.

    Raises:
        ValueError: If an argument is outside its domain.

    Departures: StableAdamW measures the gradient over the root of the second moment, not the
    update, which its momentum has smoothed: that is `stable_adamw`. Without momentum, around
    `scale_by_adam(b1=0)`, both are one.
    """
    tx = _check.wrapped(tx)
    _check.positive(max_rms=max_rms)

    def update(grads, state, *, params=None, **extra):
        updates, state = tx.update(grads, state, params, **extra)
        return map_leaves(lambda u: u / jnp.maximum(1, rms(u) / max_rms), updates), state

    return transformation(tx.init, update)
