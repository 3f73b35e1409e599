"""Cautious: a coordinate steps only where its step and its gradient agree.

Liang, Chen, Liu and Liu, "Cautious Optimizers: Improving Training with One Line of Code", 2024,
algorithm 1. https://arxiv.org/abs/2411.16085
"""

import jax.numpy as jnp
import optax

from optax_adaptive import _check
from optax_adaptive._core import map_leaves, transformation


def cautious(
    tx: optax.GradientTransformation, *, descends: bool = True
) -> optax.GradientTransformationExtraArgs:
    """The updates of `tx` where they go downhill, and 0 elsewhere.

    With g the gradient and u the update of `tx`, for every leaf::

        keep   = 1 where u g < 0, else 0            (u g > 0 unless `descends`)
        update = u keep / max(mean(keep), 1e-3)

    The division keeps the length of the step about what it was. The state is that of `tx`.

    Args:
        tx: Any optimizer, or any direction with `descends=False`.
        descends: Whether updates of `tx` are added to the parameters, as those of an optimizer;
            False for a direction, as `scale_by_adam()`, which points along the gradient.

    Raises:
        ValueError: If an argument is no transformation, or no boolean.

    Departures: as the authors' code (https://github.com/kyleliang919/C-Optim). It compares the
    gradient with the mean of gradients; with Adam, Lion and their like that is the sign of u. Its
    weight decay takes place everywhere; that of a wrapped `adamw` is part of u. To decay as it
    does, wrap the direction, and let `descend(cautious(scale_by_adam(), descends=False), 1e-3,
    weight_decay=0.1)` decay behind it. The paper divides by (sum(keep) + 1) / size.
    """
    tx = _check.wrapped(tx)
    _check.flag(descends=descends)

    def update(grads, state, *, params=None, **extra):
        def leaf(g, u):
            downhill = -1 if descends else 1
            keep = jnp.where(jnp.sign(u) * jnp.sign(g) == downhill, 1.0, 0.0)
            # A product, where a choice would swallow a NaN.
            return u * (keep / jnp.maximum(jnp.sum(keep) / max(1, keep.size), 1e-3))

        updates, state = tx.update(grads, state, params, **extra)
        return map_leaves(leaf, grads, updates), state

    return transformation(tx.init, update)
