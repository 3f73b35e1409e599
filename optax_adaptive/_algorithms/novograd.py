"""NovoGrad: momentum of gradients that are divided by the norm of their layer.

Ginsburg, Castonguay, Hrinchuk, Kuchaiev, Lavrukhin, Leary, Li, Nguyen, Zhang and Cohen, "Stochastic
Gradient Methods with Layer-wise Adaptive Moments for Training of Deep Networks", arXiv 2019,
algorithm 1. https://arxiv.org/abs/1905.11286
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
    zeros_of,
)
from optax_adaptive._numerics import increment, squarable, square


class NovogradState(NamedTuple):
    """The count of steps, a decaying sum shaped like the parameters, and a mean per leaf."""

    count: jax.Array  # int32, shape ()
    trace: optax.Updates  # of gradients over the norm of their leaf, and of the decay
    nu: optax.Updates  # of squared norms of gradients, one number for every leaf


def novograd(
    learning_rate: optax.ScalarOrSchedule,
    b1: Any = 0.9,
    b2: Any = 0.25,
    eps: Any = 1e-6,
    eps_root: Any = 0.0,
    *,
    weight_decay: optax.ScalarOrSchedule | None = None,
    mask: Any = None,
) -> optax.GradientTransformationExtraArgs:
    """NovoGrad.

    With g the gradient and p the parameters of one leaf at step t = 1, 2, ...::

        nu    = b2 nu + (1 - b2) |g|²               (t = 1: |g|²)
        trace = b1 trace + g / (sqrt(nu + eps_root) + eps) + weight_decay p
        step  = learning_rate trace

    where |.| is the root of the sum of squares over the leaf.

    Args:
        learning_rate: A number >= 0 or a schedule; a steady gradient makes steps of length
            learning_rate / (1 - b1) for the leaf as a whole.
        b1: The share of `trace` kept at each step, in [0, 1).
        b2: The share of `nu` kept at each step, in [0, 1).
        eps: Added to the root, >= 0, in units of norms of gradients; > 0 unless eps_root is.
        eps_root: Added under the root, >= 0, in units of squared norms of gradients.
        weight_decay: A number >= 0 or a schedule, beside the gradient and within the trace: it ends
            up 1 / (1 - b1) as strong as in `adamw`. None for no decay.
        mask: Which leaves decay: booleans in a prefix of the parameters' tree, or a function of
            the parameters that returns them; None for all.

    Raises:
        ValueError: If an argument is outside its domain.

    Departures: as the paper and `optax.novograd`, where `weight_decay` is 0 by default and may be
    positional, and the parameters must be given even so. The authors' release has b1 = 0.95 and
    b2 = 0.98, other releases an option to weigh what enters the trace by 1 - b1: a learning rate
    smaller by that factor, and with it the decay.
    """
    direction = scale_by_novograd(b1, b2, eps, eps_root, weight_decay=weight_decay, mask=mask)
    return descend(direction, learning_rate)


def scale_by_novograd(
    b1: Any = 0.9,
    b2: Any = 0.25,
    eps: Any = 1e-6,
    eps_root: Any = 0.0,
    *,
    weight_decay: optax.ScalarOrSchedule | None = None,
    mask: Any = None,
) -> optax.GradientTransformationExtraArgs:
    """The direction of `novograd`, without its learning rate."""
    _check.decay_rate(b1=b1, b2=b2)
    _check.some_eps(eps=eps, eps_root=eps_root)
    needs = _check.decay(weight_decay, mask)

    def init(params):
        return NovogradState(zero_count(), zeros_like(params), zeros_of(jnp.sum, params))

    def update(grads, state, *, params=None, given_params=None):
        t = increment(state.count)
        kept = jnp.where(t > 1, b2, 0)

        def leaf(g, trace, nu):
            nu = kept * nu + (1 - kept) * jnp.sum(square(g))
            g, flaw = squarable(g)
            return b1 * trace + g / (jnp.sqrt(nu + eps_root) + eps) + flaw, nu

        trace, nu = map_leaves(leaf, grads, state.trace, other=(state.nu,))
        decay = at(weight_decay, state.count)
        trace = add_decay(trace, decay, mask, params, given_params)
        return trace, NovogradState(t, trace, nu)

    return transformation(init, update, needs)
