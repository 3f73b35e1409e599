"""AdaDelta: the step in units of the parameters, from a running mean of its own square.

Zeiler, "ADADELTA: An Adaptive Learning Rate Method", 2012. https://arxiv.org/abs/1212.5701
"""

from typing import Any, NamedTuple

import jax.numpy as jnp
import optax

from optax_adaptive import _check
from optax_adaptive._core import descend, map_leaves, transformation, zeros_like
from optax_adaptive._numerics import squarable


class AdadeltaState(NamedTuple):
    """The running means, shaped like the parameters."""

    nu: optax.Updates  # of squared gradients
    delta: optax.Updates  # of squared steps, before the learning rate


def adadelta(
    learning_rate: optax.ScalarOrSchedule = 1.0,
    rho: Any = 0.9,
    eps: Any = 1e-6,
    *,
    weight_decay: optax.ScalarOrSchedule | None = None,
    mask: Any = None,
) -> optax.GradientTransformationExtraArgs:
    """AdaDelta.

    With g the gradient, for every coordinate::

        nu    = rho nu + (1 - rho) g²
        u     = g sqrt(delta + eps) / sqrt(nu + eps)
        delta = rho delta + (1 - rho) u²
        step  = learning_rate u

    Args:
        learning_rate: A number >= 0 or a schedule. The paper has none, which is 1.
        rho: The share of the running means kept at each step, in (0, 1).
        eps: > 0; how fast the first steps are: the very first is sqrt(eps / (1 - rho)) at most.
        weight_decay: A number >= 0 or a schedule, times the learning rate; None for no decay.
        mask: Which leaves decay: booleans in a prefix of the parameters' tree, or a function of
            the parameters that returns them; None for all.

    Raises:
        ValueError: If an argument is outside its domain.

    Departures: the paper's rho is 0.95; 0.9 is that of `optax.adadelta` and `torch.optim.Adadelta`.
    `optax.adadelta` without a learning rate ascends, adds its weight decay to the gradient and
    calls the mask weight_decay_mask; here decay is decoupled as everywhere. Keras' learning rate is
    0.001 by default, a thousand times slower than the paper.
    """
    return descend(scale_by_adadelta(rho, eps), learning_rate, weight_decay, mask)


def scale_by_adadelta(rho: Any = 0.9, eps: Any = 1e-6) -> optax.GradientTransformationExtraArgs:
    """The direction of `adadelta`, without its learning rate."""
    _check.open_unit(rho=rho)
    _check.positive(eps=eps)

    def init(params):
        return AdadeltaState(zeros_like(params), zeros_like(params))

    def update(grads, state):
        def leaf(g, nu, delta):
            g, flaw = squarable(g)
            q = (1 - rho) * (g * g)
            nu = rho * nu + q
            delta = rho * delta + q / (nu + eps) * (delta + eps)
            # g sqrt((delta + eps) / (nu + eps)) of the old delta, solved for the new one: reading
            # the old one would keep a copy of it.
            u = g * jnp.sqrt((delta + rho * eps) / (rho * (nu + eps) + q))
            return u + flaw, nu, delta

        updates, nu, delta = map_leaves(leaf, grads, state.nu, state.delta)
        return updates, AdadeltaState(nu, delta)

    return transformation(init, update)
