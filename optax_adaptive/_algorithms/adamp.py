"""AdamP: Adam that does not lengthen weights whose length has no effect.

Heo, Chun, Oh, Han, Yun, Kim, Uh and Ha, "AdamP: Slowing Down the Slowdown for Momentum Optimizers
on Scale-invariant Weights", ICLR 2021, algorithm 2. https://arxiv.org/abs/2006.08217
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
from optax_adaptive._numerics import bias, increment, squarable


class AdampState(NamedTuple):
    """The count of steps and the running means, shaped like the parameters."""

    count: jax.Array  # int32, shape ()
    mu: optax.Updates  # of gradients
    nu: optax.Updates  # of squared gradients


def adamp(
    learning_rate: optax.ScalarOrSchedule,
    *,
    b1: Any = 0.9,
    b2: Any = 0.999,
    eps: Any = 1e-8,
    delta: Any = 0.1,
    wd_ratio: Any = 0.1,
    nesterov: bool = False,
    outputs_last: bool = True,
    weight_decay: optax.ScalarOrSchedule | None = None,
    mask: Any = None,
) -> optax.GradientTransformationExtraArgs:
    """AdamP.

    With g the gradient and p the parameters of one leaf at step t = 1, 2, ...::

        mu = b1 mu + (1 - b1) g
        nu = b2 nu + (1 - b2) g²
        m  = mu                                     (b1 mu + (1 - b1) g with nesterov)
        u  = m / (1 - b1^t) / (sqrt(nu / (1 - b2^t)) + eps)

    A loss that ignores the length of the weights of a neuron has a gradient at right angles to
    them. So it is taken to ignore it where |cos(g, p)| < delta / sqrt(n) for every neuron, n being
    its number of weights, or else for the n weights of the whole leaf at once. Then, with e = p /
    (|p| + eps) of each neuron, or else of the leaf::

        u     = u - e (e · u)
        share = wd_ratio                            (1 where the length has an effect)

    and in both cases::

        step = learning_rate (u + share weight_decay p)

    Leaves of less than two axes are never projected.

    Args:
        learning_rate: A number >= 0 or a schedule; about the size of a step.
        b1: The share of `mu` kept at each step, in [0, 1).
        b2: The share of `nu` kept at each step, in [0, 1).
        eps: Added to the root, > 0, in units of gradients, and to lengths of parameters; no length
            in the cosine is below it.
        delta: How far from a right angle counts as one, >= 0, in units of the cosine between random
            directions; 0 is Adam.
        wd_ratio: The share of the decay where the length has no effect, >= 0.
        nesterov: Whether the mean looks one step ahead.
        outputs_last: Whether the last axis of a kernel counts the neurons, as in Flax; or the
            first, as in torch. Of complex leaves the last axis is that of real and imaginary part.
        weight_decay: A number >= 0 or a schedule, times the learning rate; None for no decay.
        mask: Which leaves decay: booleans in a prefix of the parameters' tree, or a function of
            the parameters that returns them; None for all.

    Raises:
        ValueError: If an argument is outside its domain, or `update` is not given the parameters.

    Departures: with `outputs_last=False` as the authors' code (`adamp` on PyPI), which knows the
    layout of torch only. The algorithm of the paper is for one vector of weights; to try the
    neurons first and then the leaf is the code's.
    """
    direction = scale_by_adamp(
        b1=b1,
        b2=b2,
        eps=eps,
        delta=delta,
        wd_ratio=wd_ratio,
        nesterov=nesterov,
        outputs_last=outputs_last,
        weight_decay=weight_decay,
        mask=mask,
    )
    return descend(direction, learning_rate)


def scale_by_adamp(
    *,
    b1: Any = 0.9,
    b2: Any = 0.999,
    eps: Any = 1e-8,
    delta: Any = 0.1,
    wd_ratio: Any = 0.1,
    nesterov: bool = False,
    outputs_last: bool = True,
    weight_decay: optax.ScalarOrSchedule | None = None,
    mask: Any = None,
) -> optax.GradientTransformationExtraArgs:
    """The direction of `adamp`, decay included, without its learning rate."""
    _check.decay_rate(b1=b1, b2=b2)
    _check.positive(eps=eps)
    _check.non_negative(delta=delta, wd_ratio=wd_ratio)
    _check.flag(nesterov=nesterov, outputs_last=outputs_last)
    _check.decay(weight_decay, mask)

    def init(params):
        return AdampState(zero_count(), zeros_like(params), zeros_like(params))

    def update(grads, state, *, params, given_params=None):
        t = increment(state.count)
        c1, c2 = bias(b1, t), bias(b2, t)

        def radial(products, size):
            """Whether the loss ignores lengths, and which multiple of p is in u."""
            pp, gp, gg, pu = products
            lengths = jnp.maximum(jnp.sqrt(pp), eps) * jnp.maximum(jnp.sqrt(gg), eps)
            cosine = jnp.max(jnp.abs(gp / lengths), initial=0)
            length = jnp.sqrt(pp) + eps
            return cosine < delta / max(1, size) ** 0.5, pu / length / length  # not 0 by eps²

        def leaf(g, mu, nu, p):
            g, flaw = squarable(g)
            mu = b1 * mu + (1 - b1) * g + flaw
            nu = b2 * nu + (1 - b2) * (g * g)
            m = b1 * mu + (1 - b1) * g if nesterov else mu
            u = m / c1 / (jnp.sqrt(nu / c2) + eps)
            if p.ndim < 2:
                return u, mu, nu, jnp.ones_like(c1)
            axes = range(p.ndim)[:-1] if outputs_last else range(p.ndim)[1:]
            pairs = (p, p), (g, p), (g, g), (p, u)
            of_neurons = [jnp.sum(x * y, axes, keepdims=True) for x, y in pairs]
            of_leaf = [jnp.sum(x) for x in of_neurons]
            neurons_free, by_neuron = radial(of_neurons, p.size / max(1, of_neurons[0].size))
            leaf_free, by_leaf = radial(of_leaf, p.size)
            u = u - p * jnp.where(neurons_free, by_neuron, jnp.where(leaf_free, by_leaf, 0))
            return u, mu, nu, jnp.where(neurons_free | leaf_free, wd_ratio, 1)

        updates, mu, nu, share = map_leaves(leaf, grads, state.mu, state.nu, params)
        decay = at(weight_decay, state.count)
        part = map_leaves(lambda p, share: share * p, params, other=(share,))
        updates = add_decay(updates, decay, mask, part, given_params)
        return updates, AdampState(t, mu, nu)

    return transformation(init, update)
