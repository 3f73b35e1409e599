"""How the tests run an optimizer on fixed gradients."""

import jax
import jax.numpy as jnp
import numpy as np
from jax import enable_x64

__all__ = ["deviation", "enable_x64", "trajectory"]


def trajectory(tx, start, gradients, dtype="float32", l2=0.0):
    """The parameters after each step, in float64: updates are summed outside, without rounding.

    Gradients are given in `dtype`, parameters in float32 at least. 64 bits are on only for float64:
    elsewhere scalars must do with float32, as they do for users.
    """
    wide = jnp.promote_types(dtype, "float32")
    path = []
    with enable_x64(dtype == "float64"):
        p = np.asarray(start, "float64")
        state, update = tx.init(jnp.asarray(p, wide)), jax.jit(tx.update)
        for g in gradients:
            updates, state = update(jnp.asarray(g + l2 * p, dtype), state, jnp.asarray(p, wide))
            p = p + np.asarray(updates, "float64")
            path.append(p)
    return np.array(path)


def deviation(ours, theirs, start):
    """Largest distance of two trajectories, per coordinate, over the way the second one went.

    Relative to the way and not to the parameter, because a parameter hides small steps.
    """
    ours, theirs = np.asarray(ours, np.float64), np.asarray(theirs, np.float64)
    distance = np.abs(ours - theirs).max(axis=0)
    way = np.abs(theirs - np.asarray(start)).max(axis=0)
    still = (distance == 0) & (way == 0)
    with np.errstate(divide="ignore"):
        return float(np.where(still, 0.0, distance / np.where(still, 1.0, way)).max())
