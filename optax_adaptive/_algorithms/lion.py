"""Lion: steps of one size, their signs those of a mean of the gradients.

Chen, Liang, Huang, Real, Wang, Pham, Dong, Luong, Hsieh, Lu and Le, "Symbolic Discovery of
Optimization Algorithms", NeurIPS 2023, algorithm 2. https://arxiv.org/abs/2302.06675
"""

from typing import Any, NamedTuple

import jax.numpy as jnp
import optax

from optax_adaptive import _check
from optax_adaptive._core import descend, map_leaves, transformation, zeros_like


class LionState(NamedTuple):
    """The running mean, shaped like the parameters."""

    mu: optax.Updates  # of gradients


def lion(
    learning_rate: optax.ScalarOrSchedule,
    b1: Any = 0.9,
    b2: Any = 0.99,
    *,
    weight_decay: optax.ScalarOrSchedule | None = 1e-3,
    mask: Any = None,
) -> optax.GradientTransformationExtraArgs:
    """Lion.

    With g the gradient and p the parameters, for every coordinate::

        step = learning_rate (sign(b1 mu + (1 - b1) g) + weight_decay p)
        mu   = b2 mu + (1 - b2) g

    Args:
        learning_rate: A number >= 0 or a schedule: the size of every step. The authors advise a
            third to a tenth of AdamW's, with as much more weight decay.
        b1: The share of `mu` in the sign, in [0, 1).
        b2: The share of `mu` kept at each step, in (0, 1).
        weight_decay: A number >= 0 or a schedule, times the learning rate; None for no decay.
        mask: Which leaves decay: booleans in a prefix of the parameters' tree, or a function of
            the parameters that returns them; None for all.

    Raises:
        ValueError: If an argument is outside its domain.

    Departures: as the paper and `optax.lion`; the sign is taken of the same sum written with the
    new `mu`, so that the old one can be overwritten. An infinite gradient makes the step NaN, where
    sign(Inf) = 1 would hide it.
    """
    return descend(scale_by_lion(b1, b2), learning_rate, weight_decay, mask)


def scale_by_lion(b1: Any = 0.9, b2: Any = 0.99) -> optax.GradientTransformationExtraArgs:
    """The direction of `lion`, without learning rate and decay."""
    _check.decay_rate(b1=b1)
    _check.open_unit(b2=b2)

    def init(params):
        return LionState(zeros_like(params))

    def update(grads, state):
        # b1 mu + (1 - b1) g, where mu = (new mu - (1 - b2) g) / b2.
        share, share_of_g = b1 / b2, 1 - b1 / b2

        def leaf(g, mu):
            mu = b2 * mu + (1 - b2) * g
            return jnp.sign(share * mu + share_of_g * g) + 0 * g, mu

        updates, mu = map_leaves(leaf, grads, state.mu)
        return updates, LionState(mu)

    return transformation(init, update)
