"""AdaBelief: Adam whose steps are long where the gradient is what its mean foretold.

Zhuang, Tang, Ding, Tatikonda, Dvornek, Papademetris and Duncan, "AdaBelief Optimizer: Adapting
Stepsizes by the Belief in Observed Gradients", NeurIPS 2020, algorithm 2.
https://arxiv.org/abs/2010.07468
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from optax_adaptive import _check
from optax_adaptive._core import descend, map_leaves, transformation, zero_count, zeros_like
from optax_adaptive._numerics import bias, increment, squarable


class AdabeliefState(NamedTuple):
    """The count of steps and the running means, shaped like the parameters."""

    count: jax.Array  # int32, shape ()
    mu: optax.Updates  # of gradients
    nu: optax.Updates  # of squared distances of the gradients from mu


def adabelief(
    learning_rate: optax.ScalarOrSchedule,
    b1: Any = 0.9,
    b2: Any = 0.999,
    eps: Any = 1e-16,
    eps_root: Any = 1e-16,
    *,
    nesterov: bool = False,
    weight_decay: optax.ScalarOrSchedule | None = None,
    mask: Any = None,
) -> optax.GradientTransformationExtraArgs:
    """AdaBelief.

    With g the gradient at step t = 1, 2, ..., for every coordinate::

        mu   = b1 mu + (1 - b1) g
        nu   = b2 nu + (1 - b2) (g - mu)² + eps_root
        m    = mu / (1 - b1^t)
        v    = nu / (1 - b2^t)
        step = learning_rate m / (sqrt(v) + eps)

    and with nesterov::

        m    = b1 mu / (1 - b1^(t+1)) + (1 - b1) g / (1 - b1^t)

    Args:
        learning_rate: A number >= 0 or a schedule; the size of a step while the gradients are
            noise. The steadier they are, the longer the steps: a gradient that never changes ends
            at steps of learning_rate |g| sqrt((1 - b2) / eps_root).
        b1: The share of `mu` kept at each step, in [0, 1); at 0 nothing is ever unexpected.
        b2: The share of `nu` kept at each step, in [0, 1).
        eps: Added to the root, >= 0, in units of gradients; > 0 unless eps_root is.
        eps_root: Added to `nu` at each step, >= 0, in units of squared gradients: what it adds up
            to is eps_root / (1 - b2). The authors advise 1e-16 where Adam is better than SGD
            (transformers), and 1e-8 where SGD is better (convolutional networks).
        nesterov: Whether the mean looks one step ahead, as in `nadam`.
        weight_decay: A number >= 0 or a schedule, times the learning rate; None for no decay.
        mask: Which leaves decay: booleans in a prefix of the parameters' tree, or a function of
            the parameters that returns them; None for all.

    Raises:
        ValueError: If an argument is outside its domain.

    Departures: as the paper and `optax.adabelief`. The authors' code
    (https://github.com/juntang-zhuang/Adabelief-Optimizer) has one eps for both, and by default
    rectifies the steps as `radam` does; here and in optax it is `rectify=False`. Of its variants
    `amsgrad` needs another state, and weight decay in the gradient is
    `optax.chain(optax.add_decayed_weights(c), adabelief(...))`.
    """
    direction = scale_by_adabelief(b1, b2, eps, eps_root, nesterov=nesterov)
    return descend(direction, learning_rate, weight_decay, mask)


def scale_by_adabelief(
    b1: Any = 0.9,
    b2: Any = 0.999,
    eps: Any = 1e-16,
    eps_root: Any = 1e-16,
    *,
    nesterov: bool = False,
) -> optax.GradientTransformationExtraArgs:
    """The direction of `adabelief`, without learning rate and decay: `optax.scale_by_belief`."""
    _check.decay_rate(b1=b1, b2=b2)
    _check.some_eps(eps=eps, eps_root=eps_root)
    _check.flag(nesterov=nesterov)

    def init(params):
        return AdabeliefState(zero_count(), zeros_like(params), zeros_like(params))

    def update(grads, state):
        t = increment(state.count)
        c1, c1_next, c2 = bias(b1, t), bias(b1, increment(t)), bias(b2, t)

        def leaf(g, mu, nu):
            g, flaw = squarable(g)
            mu = b1 * mu + (1 - b1) * g + flaw
            # eps_root not as the last term: XLA would add it twice, and keep the sum before it.
            nu = b2 * nu + ((1 - b2) * ((g - mu) * (g - mu)) + eps_root)
            m = b1 * mu / c1_next + (1 - b1) * g / c1 if nesterov else mu / c1
            return m / (jnp.sqrt(nu / c2) + eps), mu, nu

        updates, mu, nu = map_leaves(leaf, grads, state.mu, state.nu)
        return updates, AdabeliefState(t, mu, nu)

    return transformation(init, update)
