"""QHAdam: Adam whose two means are each averaged with the gradient of the moment.

Ma and Yarats, "Quasi-hyperbolic momentum and Adam for deep learning", ICLR 2019.
https://arxiv.org/abs/1810.06801
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from optax_adaptive import _check
from optax_adaptive._core import descend, map_leaves, transformation, zero_count, zeros_like
from optax_adaptive._numerics import bias, increment, squarable


class QhadamState(NamedTuple):
    """The count of steps and the running means, shaped like the parameters."""

    count: jax.Array  # int32, shape ()
    mu: optax.Updates  # of gradients
    nu: optax.Updates  # of squared gradients


def qhadam(
    learning_rate: optax.ScalarOrSchedule,
    *,
    b1: Any = 0.995,
    b2: Any = 0.999,
    v1: Any = 0.7,
    v2: Any = 1.0,
    eps: Any = 1e-8,
    weight_decay: optax.ScalarOrSchedule | None = None,
    mask: Any = None,
) -> optax.GradientTransformationExtraArgs:
    """QHAdam.

    With g the gradient at step t = 1, 2, ..., for every coordinate::

        mu   = b1 mu + (1 - b1) g
        nu   = b2 nu + (1 - b2) g²
        m    = v1 mu / (1 - b1^t) + (1 - v1) g
        v    = v2 nu / (1 - b2^t) + (1 - v2) g²
        step = learning_rate m / (sqrt(v) + eps)

    With v1 = v2 = 1 this is Adam, with v1 = b1 and v2 = 1 almost NAdam, with v1 = 0 and v2 = 1
    RMSprop with a corrected mean.

    Args:
        learning_rate: A number >= 0 or a schedule; about the size of a step.
        b1: The share of `mu` kept at each step, in [0, 1).
        b2: The share of `nu` kept at each step, in [0, 1).
        v1: The weight of `mu` against the gradient, in [0, 1]: nu1 in the paper.
        v2: The weight of `nu` against the squared gradient, in [0, 1]: nu2 in the paper.
        eps: Added to the root, > 0, in units of gradients.
        weight_decay: A number >= 0 or a schedule, times the learning rate; None for no decay.
        mask: Which leaves decay: booleans in a prefix of the parameters' tree, or a function of
            the parameters that returns them; None for all.

    Raises:
        ValueError: If an argument is outside its domain.

    Departures: as the paper and the authors' code (https://github.com/facebookresearch/qhoptim),
    except that its defaults, b1 = 0.9 and v1 = v2 = 1, are plain Adam; those here are the ones its
    documentation starts from. Its weight decay is added to the gradient unless told to decouple it.
    """
    direction = scale_by_qhadam(b1=b1, b2=b2, v1=v1, v2=v2, eps=eps)
    return descend(direction, learning_rate, weight_decay, mask)


def scale_by_qhadam(
    *, b1: Any = 0.995, b2: Any = 0.999, v1: Any = 0.7, v2: Any = 1.0, eps: Any = 1e-8
) -> optax.GradientTransformationExtraArgs:
    """The direction of `qhadam`, without learning rate and decay."""
    _check.decay_rate(b1=b1, b2=b2)
    _check.share(v1=v1, v2=v2)
    _check.positive(eps=eps)

    def init(params):
        return QhadamState(zero_count(), zeros_like(params), zeros_like(params))

    def update(grads, state):
        t = increment(state.count)
        c1, c2 = bias(b1, t), bias(b2, t)

        def leaf(g, mu, nu):
            g, flaw = squarable(g)
            mu = b1 * mu + (1 - b1) * g + flaw
            nu = b2 * nu + (1 - b2) * (g * g)
            m = v1 * mu / c1 + (1 - v1) * g
            v = v2 * nu / c2 + (1 - v2) * (g * g)
            return m / (jnp.sqrt(v) + eps), mu, nu

        updates, mu, nu = map_leaves(leaf, grads, state.mu, state.nu)
        return updates, QhadamState(t, mu, nu)

    return transformation(init, update)
