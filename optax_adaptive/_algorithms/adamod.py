"""AdaMod: Adam, its rates held below a running mean of themselves.

Ding, Ren, Luo and Sun, "An Adaptive and Momental Bound Method for Stochastic Learning", arXiv 2019,
algorithm 1. https://arxiv.org/abs/1910.12249
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from optax_adaptive import _check
from optax_adaptive._core import descend, map_leaves, transformation, zero_count, zeros_like
from optax_adaptive._numerics import bias, increment, squarable


class AdamodState(NamedTuple):
    """The count of steps and the running means, shaped like the parameters."""

    count: jax.Array  # int32, shape ()
    mu: optax.Updates  # of gradients
    nu: optax.Updates  # of squared gradients
    rate: optax.Updates  # of Adam's rates, in units of the learning rate


def adamod(
    learning_rate: optax.ScalarOrSchedule,
    *,
    b1: Any = 0.9,
    b2: Any = 0.999,
    b3: Any = 0.999,
    eps: Any = 1e-8,
    weight_decay: optax.ScalarOrSchedule | None = None,
    mask: Any = None,
) -> optax.GradientTransformationExtraArgs:
    """AdaMod.

    With g the gradient at step t = 1, 2, ..., for every coordinate::

        mu   = b1 mu + (1 - b1) g
        nu   = b2 nu + (1 - b2) g²
        r    = sqrt(1 - b2^t) / (1 - b1^t) / (sqrt(nu) + eps)
        rate = b3 rate + (1 - b3) r
        step = learning_rate min(r, rate) mu

    The mean of rates starts at 0 and is not corrected: it warms the steps up.

    Args:
        learning_rate: A number >= 0 or a schedule; about the size of a step, once warm.
        b1: The share of `mu` kept at each step, in [0, 1).
        b2: The share of `nu` kept at each step, in [0, 1).
        b3: The share of `rate` kept at each step, in [0, 1); 0 is Adam.
        eps: Added to the root, > 0, in units of gradients. Where no gradient has come yet the rate
            is 1 / eps, and the memory of it bounds nothing for a while.
        weight_decay: A number >= 0 or a schedule, times the learning rate; None for no decay.
        mask: Which leaves decay: booleans in a prefix of the parameters' tree, or a function of
            the parameters that returns them; None for all.

    Raises:
        ValueError: If an argument is outside its domain.

    Departures: at a constant learning rate as the authors' code (`adamod` on PyPI). There, and in
    the paper, the mean is of rates times the learning rate, and so it averages a schedule, too: a
    rate that rises is held back and one that falls loosens the bound, both for 1 / (1 - b3) steps.
    Here bound and rate follow the schedule at once. The paper adds eps to the corrected root.
    """
    direction = scale_by_adamod(b1=b1, b2=b2, b3=b3, eps=eps)
    return descend(direction, learning_rate, weight_decay, mask)


def scale_by_adamod(
    *, b1: Any = 0.9, b2: Any = 0.999, b3: Any = 0.999, eps: Any = 1e-8
) -> optax.GradientTransformationExtraArgs:
    """The direction of `adamod`, without its learning rate."""
    _check.decay_rate(b1=b1, b2=b2, b3=b3)
    _check.positive(eps=eps)

    def init(params):
        zeros = (zeros_like(params) for _ in range(3))
        return AdamodState(zero_count(), *zeros)

    def update(grads, state):
        t = increment(state.count)
        correction = jnp.sqrt(bias(b2, t)) / bias(b1, t)

        def leaf(g, mu, nu, rate):
            g, flaw = squarable(g)
            mu = b1 * mu + (1 - b1) * g + flaw
            nu = b2 * nu + (1 - b2) * (g * g)
            rate = b3 * rate + (1 - b3) * correction / (jnp.sqrt(nu) + eps)
            # The same rate by a root of its own: XLA would store one that two results share.
            now = 1 / (jnp.sqrt(nu / correction**2) + eps / correction)
            return jnp.minimum(now, rate) * mu, mu, nu, rate

        updates, mu, nu, rate = map_leaves(leaf, grads, state.mu, state.nu, state.rate)
        return updates, AdamodState(t, mu, nu, rate)

    return transformation(init, update)
