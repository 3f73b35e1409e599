"""AdaBound: Adam, its rates clipped into a band that closes on the rate of SGD.

Luo, Xiong, Liu and Sun, "Adaptive Gradient Methods with Dynamic Bound of Learning Rate", ICLR 2019,
algorithms 2 (AdaBound) and 3 (AMSBound). https://openreview.net/forum?id=Bkg3g2R9FX
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from optax_adaptive import _check
from optax_adaptive._core import descend, map_leaves, transformation, zero_count, zeros_like
from optax_adaptive._numerics import bias, increment, squarable


class AdaboundState(NamedTuple):
    """The count of steps and the running means, shaped like the parameters."""

    count: jax.Array  # int32, shape ()
    mu: optax.Updates  # of gradients
    nu: optax.Updates  # of squared gradients


class AmsboundState(NamedTuple):
    """The count of steps and the running means, shaped like the parameters."""

    count: jax.Array  # int32, shape ()
    mu: optax.Updates  # of gradients
    nu: optax.Updates  # of squared gradients
    nu_max: optax.Updates  # the largest nu so far


def adabound(
    learning_rate: optax.ScalarOrSchedule = 1e-3,
    *,
    b1: Any = 0.9,
    b2: Any = 0.999,
    final_lr: Any = 0.1,
    gamma: Any = 1e-3,
    eps: Any = 1e-8,
    base_lr: Any = None,
    weight_decay: optax.ScalarOrSchedule | None = None,
    mask: Any = None,
) -> optax.GradientTransformationExtraArgs:
    """AdaBound.

    With g the gradient at step t = 1, 2, ..., for every coordinate::

        mu    = b1 mu + (1 - b1) g
        nu    = b2 nu + (1 - b2) g²
        rate  = learning_rate sqrt(1 - b2^t) / (1 - b1^t) / (sqrt(nu) + eps)
        final = final_lr learning_rate / base_lr
        step  = clip(rate, final (1 - 1 / (gamma t + 1)), final (1 + 1 / (gamma t))) mu

    Args:
        learning_rate: A number >= 0 or a schedule; about the size of the first steps.
        b1: The share of `mu` kept at each step, in [0, 1).
        b2: The share of `nu` kept at each step, in [0, 1).
        final_lr: The rate of the SGD with momentum it ends as, > 0, when the learning rate is
            `base_lr`; a schedule moves the band along with it.
        gamma: How fast the band closes, in (0, 1): after 1 / gamma steps it is [1/2, 2] final.
        eps: Added to the root, > 0, in units of gradients.
        base_lr: The learning rate `final_lr` belongs to, > 0; None for that at step 0. A schedule
            that starts at 0 needs it.
        weight_decay: A number >= 0 or a schedule, times the learning rate; None for no decay.
        mask: Which leaves decay: booleans in a prefix of the parameters' tree, or a function of
            the parameters that returns them; None for all.

    Raises:
        ValueError: If an argument is outside its domain.

    Departures: as the authors' code (https://github.com/Luolc/AdaBound), except that its weight
    decay is added to the gradient: `optax.chain(optax.add_decayed_weights(c), adabound())`. The
    paper has neither the bias correction nor eps, and divides the rate by sqrt(t). Under
    `optax.inject_hyperparams` the learning rate has no step 0: without `base_lr` the band stays.
    """
    direction = scale_by_adabound(
        b1=b1, b2=b2, final_rate=end_of_band(final_lr, learning_rate, base_lr), gamma=gamma, eps=eps
    )
    return descend(direction, learning_rate, weight_decay, mask)


def amsbound(
    learning_rate: optax.ScalarOrSchedule = 1e-3,
    *,
    b1: Any = 0.9,
    b2: Any = 0.999,
    final_lr: Any = 0.1,
    gamma: Any = 1e-3,
    eps: Any = 1e-8,
    base_lr: Any = None,
    weight_decay: optax.ScalarOrSchedule | None = None,
    mask: Any = None,
) -> optax.GradientTransformationExtraArgs:
    """AMSBound: `adabound` with the largest nu so far in place of nu.

    Args, errors and departures as for `adabound`.
    """
    direction = scale_by_amsbound(
        b1=b1, b2=b2, final_rate=end_of_band(final_lr, learning_rate, base_lr), gamma=gamma, eps=eps
    )
    return descend(direction, learning_rate, weight_decay, mask)


def scale_by_adabound(
    *, b1: Any = 0.9, b2: Any = 0.999, final_rate: Any = 100.0, gamma: Any = 1e-3, eps: Any = 1e-8
) -> optax.GradientTransformationExtraArgs:
    """The direction of `adabound`, without its learning rate; `final_rate` is in units of it."""
    _check_adabound(b1, b2, final_rate, gamma, eps)

    def init(params):
        return AdaboundState(zero_count(), zeros_like(params), zeros_like(params))

    def update(grads, state):
        t = increment(state.count)
        correction = jnp.sqrt(bias(b2, t)) / bias(b1, t)
        lower, upper = _band(final_rate, gamma, t)

        def leaf(g, mu, nu):
            g, flaw = squarable(g)
            mu = b1 * mu + (1 - b1) * g + flaw
            nu = b2 * nu + (1 - b2) * (g * g)
            rate = jnp.clip(correction / (jnp.sqrt(nu) + eps), lower, upper)
            return rate * mu, mu, nu

        updates, mu, nu = map_leaves(leaf, grads, state.mu, state.nu)
        return updates, AdaboundState(t, mu, nu)

    return transformation(init, update)


def scale_by_amsbound(
    *, b1: Any = 0.9, b2: Any = 0.999, final_rate: Any = 100.0, gamma: Any = 1e-3, eps: Any = 1e-8
) -> optax.GradientTransformationExtraArgs:
    """The direction of `amsbound`, without its learning rate; `final_rate` is in units of it."""
    _check_adabound(b1, b2, final_rate, gamma, eps)

    def init(params):
        zeros = (zeros_like(params) for _ in range(3))
        return AmsboundState(zero_count(), *zeros)

    def update(grads, state):
        t = increment(state.count)
        correction = jnp.sqrt(bias(b2, t)) / bias(b1, t)
        lower, upper = _band(final_rate, gamma, t)

        def leaf(g, mu, nu, nu_max):
            g, flaw = squarable(g)
            mu = b1 * mu + (1 - b1) * g + flaw
            nu = b2 * nu + (1 - b2) * (g * g)
            nu_max = jnp.maximum(nu_max, nu)
            rate = jnp.clip(correction / (jnp.sqrt(nu_max) + eps), lower, upper)
            return rate * mu, mu, nu, nu_max

        updates, mu, nu, nu_max = map_leaves(leaf, grads, state.mu, state.nu, state.nu_max)
        return updates, AmsboundState(t, mu, nu, nu_max)

    return transformation(init, update)


def _band(final, gamma, t):
    """The least and the largest rate at step t."""
    x = gamma * t
    return final * x / (x + 1), final * (x + 1) / x


def end_of_band(final_lr, learning_rate, base_lr):
    """The end of the band in units of the learning rate."""
    _check.positive(final_lr=final_lr)
    _check.scheduled(learning_rate=learning_rate)
    if base_lr is not None:
        _check.positive(base_lr=base_lr)
        return final_lr / base_lr
    start = learning_rate(0) if callable(learning_rate) else learning_rate
    _check.positive_start(learning_rate=start)
    return final_lr / start


def _check_adabound(b1, b2, final_rate, gamma, eps):
    _check.decay_rate(b1=b1, b2=b2)
    _check.open_unit(gamma=gamma)
    _check.positive(final_rate=final_rate, eps=eps)
