"""DAdapt: SGD, AdaGrad and Adam whose rate is a lower bound of the distance to the solution.

Defazio and Mishchenko, "Learning-Rate-Free Learning by D-Adaptation", ICML 2023.
https://arxiv.org/abs/2301.07733
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from optax_adaptive import _check
from optax_adaptive._core import full_like, map_leaves, scalar_like, zero_count, zeros_like
from optax_adaptive._free import descend_freely, total
from optax_adaptive._numerics import bias, finite, increment


class DadaptSgdState(NamedTuple):
    """The sum of gradients and the velocity, shaped like the parameters, and the estimate."""

    grad_sum: optax.Updates  # of rate g
    trace: optax.Updates  # of rate g
    first_norm: jax.Array  # of the first gradient that was not zero, shape (), as all that follow
    numerator: jax.Array  # of the estimate
    distance: jax.Array  # d
    effective_lr: jax.Array  # of the last step: d times learning rate over first_norm


def dadapt_sgd(
    learning_rate: optax.ScalarOrSchedule = 1.0,
    *,
    momentum: Any = 0.0,
    d0: Any = 1e-6,
    growth_rate: Any = None,
    weight_decay: optax.ScalarOrSchedule | None = None,
    mask: Any = None,
) -> optax.GradientTransformationExtraArgs:
    """SGD with D-Adaptation.

    With g the gradient, d = d0 at first, and <., .> and |.| the inner product and the norm over all
    leaves::

        first_norm = |g|                                    (of the first g alone)
        rate       = d learning_rate / first_norm
        numerator  = numerator + rate <g, grad_sum>
        grad_sum   = grad_sum + rate g
        d_hat      = 2 numerator / |grad_sum|
        d          = max(d, min(d_hat, growth_rate d))

    and for every coordinate::

        trace = momentum trace + rate g
        step  = (1 - momentum) trace

    This is gradient descent, with momentum as a mean. The rate is that of nonsmooth functions, the
    distance over the size of a gradient: on a quadratic it may be too large for the steepest
    direction. Then take a momentum of 0.9, or a learning rate below 1. `distance` and
    `effective_lr` are in the state: `optax.tree.get(state, "distance")`.

    Args:
        learning_rate: A number >= 0 or a schedule, a multiple of what the method finds. While it is
            0 the estimate stays.
        momentum: The share of `trace` kept at each step, in [0, 1).
        d0: The first estimate, > 0. Small: it can only grow.
        growth_rate: The most by which d is multiplied in a step, > 1; None for no bound.
            1.02 makes a warm-up.
        weight_decay: A number >= 0 or a schedule, times the rate of the step; None for no decay.
        mask: Which leaves decay: booleans in a prefix of the parameters' tree, or a function of
            the parameters that returns them; None for all.

    Raises:
        ValueError: If an argument is outside its domain.

    Departures: as `DAdaptSGD` of the authors' dadaptation 3.2, which writes the same steps as dual
    averaging: towards p0 - grad_sum, by the share 1 - momentum of the way. Its `weight_decay` is
    `optax.chain(optax.add_decayed_weights(...), dadapt_sgd())` but for the first norm, which there
    leaves the decay out (the line that should add it has no effect). It fails on a first gradient
    of zeros and on the rate 0; here the first is no step. A gradient that is not finite
    stops the step, not the training.
    """
    _check.decay_rate(momentum=momentum)
    _check.positive(d0=d0)
    growth_rate = _growth(growth_rate)

    def init(params):
        scalars = (scalar_like(params, x) for x in (0.0, 0.0, d0, 0.0))
        return DadaptSgdState(zeros_like(params), zeros_like(params), *scalars)

    def update(grads, state, *, learning_rate, usable):
        d = state.distance
        norm = jnp.sqrt(total(jnp.multiply, grads, grads))
        first_norm = jnp.where(state.first_norm > 0, state.first_norm, norm)
        product = total(jnp.multiply, grads, state.grad_sum)
        # The sum in it is read before the array that it is of is overwritten.
        rate = d * learning_rate / first_norm + 0 * product
        numerator = state.numerator + rate * product

        def sums(g, grad_sum, trace):
            u = jnp.where(usable, finite(rate * g), 0)  # the rate is 0 / 0 before the first g
            return grad_sum + u, momentum * trace + u

        grad_sum, trace = map_leaves(sums, grads, state.grad_sum, state.trace)
        d_hat = 2 * numerator / jnp.sqrt(total(jnp.multiply, grad_sum, grad_sum))
        distance = _grown(d, d_hat, growth_rate, learning_rate)
        new = DadaptSgdState(grad_sum, trace, first_norm, numerator, distance, rate)
        return map_leaves(lambda trace: (1 - momentum) * trace, trace), new

    return descend_freely(init, update, learning_rate, weight_decay, mask)


class DadaptAdagradState(NamedTuple):
    """The sums over all gradients, shaped like the parameters, and the estimate."""

    sum_sq: optax.Updates  # of g²
    grad_sum: optax.Updates  # of rate g
    steps_sq: jax.Array  # sum of rate² |g|², the norm weighted, shape (), as all that follow
    distance: jax.Array  # d
    effective_lr: jax.Array  # of the last step: d times learning rate


def dadapt_adagrad(
    learning_rate: optax.ScalarOrSchedule = 1.0,
    *,
    momentum: Any = 0.0,
    eps: Any = 1e-6,
    d0: Any = 1e-6,
    growth_rate: Any = None,
    weight_decay: optax.ScalarOrSchedule | None = None,
    mask: Any = None,
) -> optax.GradientTransformationExtraArgs:
    """AdaGrad with D-Adaptation.

    With g the gradient, p the parameters and p0 the first ones, d = d0 and sum_sq = 1e-6 at first,
    for every coordinate::

        rate     = d learning_rate
        sum_sq   = sum_sq + g²
        grad_sum = grad_sum + rate g
        root     = sqrt(sum_sq) + eps
        step     = (1 - momentum) (p - p0 + grad_sum / root)

    so that p = p0 - grad_sum / root without momentum, and with sums over all coordinates of all
    leaves::

        steps_sq = steps_sq + sum of (rate g)² / root
        d_hat    = (sum of grad_sum² / root - steps_sq) / sum of |grad_sum|
        d        = max(d, min(d_hat, growth_rate d))

    The authors advise SGD or Adam instead where there is no reason for AdaGrad: here d grows
    slowly. `distance` and `effective_lr` are in the state: `optax.tree.get(state, "distance")`.

    Args:
        learning_rate: A number >= 0 or a schedule, a multiple of what the method finds. While it is
            0 the estimate stays.
        momentum: The share of the way to the next point that is left out, in [0, 1).
        eps: Added to the root, > 0, in units of gradients.
        d0: The first estimate, > 0. Small: it can only grow.
        growth_rate: The most by which d is multiplied in a step, > 1; None for no bound.
        weight_decay: A number >= 0 or a schedule, added to the gradients times the parameters: a
            decay of the parameters themselves would be undone by the next step. None for no decay.
        mask: Which leaves decay: booleans in a prefix of the parameters' tree, or a function of
            the parameters that returns them; None for all.

    Raises:
        ValueError: If an argument is outside its domain, or `update` is not given the parameters.

    Departures: as `DAdaptAdaGrad` of the authors' dadaptation 3.2, for dense gradients. It updates
    the two sums over coordinates by their differences; here they are summed anew at every step,
    which is the same to rounding. A gradient that is not finite stops
    the step, not the training.
    """
    _check.decay_rate(momentum=momentum)
    _check.positive(eps=eps, d0=d0)
    growth_rate = _growth(growth_rate)

    def init(params):
        scalars = (scalar_like(params, x) for x in (0.0, d0, 0.0))
        return DadaptAdagradState(full_like(params, 1e-6), zeros_like(params), *scalars)

    def update(grads, state, *, learning_rate, usable, moved):
        d = state.distance
        rate = d * learning_rate

        def share(g, sum_sq):
            return _over_root(g * g, sum_sq + g * g, eps, 0.5)

        norm_sq = total(share, grads, state.sum_sq)

        def sums(g, sum_sq, grad_sum):
            # The sum is read before its array is overwritten.
            g = jnp.where(usable, g + 0 * norm_sq, 0)
            return sum_sq + g * g, grad_sum + rate * g

        def weighted(grad_sum, sum_sq):
            return _over_root(grad_sum * grad_sum, sum_sq, eps, 2)

        sum_sq, grad_sum = map_leaves(sums, grads, state.sum_sq, state.grad_sum)
        steps_sq = state.steps_sq + rate * rate * norm_sq
        surplus = total(weighted, grad_sum, sum_sq) - steps_sq
        d_hat = surplus / total(jnp.abs, grad_sum)  # 0 / 0 until there is a gradient
        distance = _grown(d, d_hat, growth_rate, learning_rate)

        def step(moved, grad_sum, sum_sq):
            return (1 - momentum) * (moved + _over_root(grad_sum, sum_sq, eps))

        new = DadaptAdagradState(sum_sq, grad_sum, steps_sq, distance, rate)
        return map_leaves(step, moved, grad_sum, sum_sq), new

    return descend_freely(init, update, learning_rate, weight_decay, mask, coupled=True)


class DadaptAdamState(NamedTuple):
    """The running means, shaped like the parameters, and the estimate of the distance."""

    count: jax.Array  # of steps since the first gradient that was not zero, int32, shape ()
    mu: optax.Updates  # mean of rate g
    nu: optax.Updates  # mean of g²
    grad_sum: optax.Updates  # mean of rate g, a longer one
    numerator: jax.Array  # of the estimate, shape (), as all that follow
    distance: jax.Array  # d
    effective_lr: jax.Array  # of the last step: d times learning rate and correction


def dadapt_adam(
    learning_rate: optax.ScalarOrSchedule = 1.0,
    *,
    b1: Any = 0.9,
    b2: Any = 0.999,
    eps: Any = 1e-8,
    d0: Any = 1e-6,
    growth_rate: Any = None,
    use_bias_correction: bool = False,
    weight_decay: optax.ScalarOrSchedule | None = None,
    mask: Any = None,
) -> optax.GradientTransformationExtraArgs:
    """Adam with D-Adaptation.

    With g the gradient at step t = 1, 2, ..., d = d0 at first, b3 = sqrt(b2), and
    c = sqrt(1 - b2^t) / (1 - b1^t) with bias correction and 1 without, for every coordinate::

        rate      = d learning_rate c
        numerator = b3 numerator + (1 - b3) rate <g, grad_sum / (sqrt(nu) + eps)>
        mu        = b1 mu + (1 - b1) rate g
        nu        = b2 nu + (1 - b2) g²
        grad_sum  = b3 grad_sum + (1 - b3) rate g
        step      = mu / (sqrt(nu) + eps)

    and with <., .> and |.| the inner product and the sum of absolute values over all leaves::

        d_hat     = numerator / ((1 - b3) |grad_sum|)
        d         = max(d, min(d_hat, growth_rate d))

    The first steps are tiny; d grows within a few hundred to the size that Adam's rate should have.
    `distance` and `effective_lr` are in the state: `optax.tree.get(state, "distance")`. Where
    `optax.partition` makes groups, each has its own d.

    Args:
        learning_rate: A number >= 0 or a schedule, a multiple of what the method finds. While it is
            0 the estimate stays.
        b1: The share of `mu` kept at each step, in [0, 1).
        b2: The share of `nu` kept at each step, in [0, 1).
        eps: Added to the root, > 0, in units of gradients.
        d0: The first estimate, > 0. Small: it can only grow.
        growth_rate: The most by which d is multiplied in a step, > 1; None for no bound.
            1.02 makes a warm-up.
        use_bias_correction: Whether the rate has the correction c.
        weight_decay: A number >= 0 or a schedule, times the rate of the step; None for no decay.
        mask: Which leaves decay: booleans in a prefix of the parameters' tree, or a function of
            the parameters that returns them; None for all.

    Raises:
        ValueError: If an argument is outside its domain.

    Departures: as `DAdaptAdam` of the authors' dadaptation 3.2, which decays as here with
    `decouple=True`, and without it as `optax.chain(optax.add_decayed_weights(...), dadapt_adam())`;
    its `layer_scale` is not taken. Where the rate comes to 0 its parameters move on, by the last
    `mu` at every step; here `mu` fades. optax.contrib.dadapt_adamw always corrects the bias, and is
    NaN for ever after a first gradient of zeros. A gradient that is not finite stops the step, not
    the training.
    """
    _check.decay_rate(b1=b1, b2=b2)
    _check.positive(eps=eps, d0=d0)
    _check.flag(use_bias_correction=use_bias_correction)
    growth_rate = _growth(growth_rate)
    b3 = b2**0.5

    def init(params):
        arrays = (zeros_like(params) for _ in range(3))
        scalars = (scalar_like(params, x) for x in (0.0, d0, 0.0))
        return DadaptAdamState(zero_count(), *arrays, *scalars)

    def update(grads, state, *, learning_rate, usable):
        t, d = increment(state.count), state.distance
        correction = jnp.sqrt(bias(b2, t)) / bias(b1, t) if use_bias_correction else 1.0
        rate = d * learning_rate * correction

        def along(g, grad_sum, nu):
            return g * _over_root(grad_sum, nu, eps, 2)

        product = total(along, grads, state.grad_sum, state.nu)
        numerator = b3 * state.numerator + (1 - b3) * rate * product

        def means(g, mu, nu, grad_sum):
            # None at the rate 0. The sum is read before its arrays are overwritten.
            g = jnp.where(usable & (learning_rate > 0), g + 0 * product, 0)
            mu = b1 * mu + (1 - b1) * rate * g
            grad_sum = b3 * grad_sum + (1 - b3) * rate * g
            return mu, b2 * nu + (1 - b2) * (g * g), grad_sum

        mu, nu, grad_sum = map_leaves(means, grads, state.mu, state.nu, state.grad_sum)
        d_hat = numerator / ((1 - b3) * total(jnp.abs, grad_sum))  # 0 / 0 until there is a gradient
        distance = _grown(d, d_hat, growth_rate, learning_rate)
        steps = map_leaves(lambda mu, nu: _over_root(mu, nu, eps), mu, nu)
        return steps, DadaptAdamState(t, mu, nu, grad_sum, numerator, distance, rate)

    return descend_freely(init, update, learning_rate, weight_decay, mask)


def _growth(growth_rate: Any) -> Any:
    """The bound on the growth of the estimate, checked."""
    if growth_rate is None:
        return jnp.inf
    _check.above_one(growth_rate=growth_rate)
    return growth_rate


def _grown(d: jax.Array, d_hat: jax.Array, growth_rate: Any, learning_rate: jax.Array) -> jax.Array:
    """The larger estimate, within its bound, which at the rate 0 is d; NaN where d_hat is."""
    bound = jnp.where(learning_rate > 0, growth_rate, 1.0)
    return jnp.maximum(d, jnp.minimum(d_hat, d * bound))


def _over_root(x: jax.Array, x_sq: jax.Array, eps: Any, k: float = 1) -> jax.Array:
    """x / (sqrt(x_sq) + eps), with a power of two that cancels exactly.

    XLA on CPU makes an array of a root, even of eps, that two loops share. With another k each has
    its own.
    """
    return k * x / (jnp.sqrt(k * k * x_sq) + k * eps)
