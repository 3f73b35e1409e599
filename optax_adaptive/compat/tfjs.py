"""TensorFlow.js: the optimizers of `tf.train`.

`tf.train.adam(0.001)` is `compat.tfjs.adam(0.001)`: the same arguments in the same order, written
in Python's way. Trajectories are those of @tensorflow/tfjs 4.22.0
(https://js.tensorflow.org/api/latest/#Training-Optimizers). `learning_rate` may be a schedule;
`epsilon` None is that of its backends, 1e-7.
"""

from typing import Any

import jax.numpy as jnp
import optax
from jax import lax

from optax_adaptive import _check
from optax_adaptive._algorithms.adagrad import scale_by_adagrad
from optax_adaptive._algorithms.adam import scale_by_adam
from optax_adaptive._algorithms.adamax import scale_by_adamax
from optax_adaptive._algorithms.rmsprop import scale_by_centered_rmsprop, scale_by_rmsprop
from optax_adaptive._core import descend, map_leaves, transformation
from optax_adaptive._momentum import trace
from optax_adaptive._numerics import squarable
from optax_adaptive.compat._parts import over_time, velocity


def sgd(learning_rate: optax.ScalarOrSchedule) -> optax.GradientTransformationExtraArgs:
    """`tf.train.sgd`.

    Args:
        learning_rate: A number >= 0 or a schedule.

    Raises:
        ValueError: If an argument is outside its domain.
    """
    return descend(optax.identity(), learning_rate)


def momentum(
    learning_rate: optax.ScalarOrSchedule, momentum: Any, use_nesterov: bool = False
) -> optax.GradientTransformationExtraArgs:
    """`tf.train.momentum`: the rate outside the momentum, as `optax_adaptive.sgd`.

    Args:
        learning_rate: A number >= 0 or a schedule.
        momentum: In [0, 1).
        use_nesterov: Whether the momentum looks one step ahead.

    Raises:
        ValueError: If an argument is outside its domain.
    """
    _check.decay_rate(momentum=momentum)
    _check.flag(use_nesterov=use_nesterov)
    return descend(trace(momentum, use_nesterov), learning_rate)


def adagrad(
    learning_rate: optax.ScalarOrSchedule, initial_accumulator_value: Any = 0.1
) -> optax.GradientTransformationExtraArgs:
    """`tf.train.adagrad`: `optax_adaptive.adagrad`.

    Args:
        learning_rate: A number >= 0 or a schedule.
        initial_accumulator_value: What the sum of squares starts at, >= 0.

    Raises:
        ValueError: If an argument is outside its domain.
    """
    return descend(scale_by_adagrad(initial_accumulator_value, 1e-7), learning_rate)


def adadelta(
    learning_rate: optax.ScalarOrSchedule = 0.001, rho: Any = 0.95, epsilon: Any = None
) -> optax.GradientTransformationExtraArgs:
    """`tf.train.adadelta`, which is gradient descent.

    It divides by the mean of squares before g, where the paper divides by the one with g::

        u     = g sqrt(delta + epsilon) / sqrt(nu + epsilon)
        nu    = rho nu + (1 - rho) g²
        delta = rho delta + (1 - rho) u²
        p     = p - learning_rate u

    Both means start at 0, so u = g at the first step; then they are equal, so u = g at the second,
    and for ever: rho and epsilon do nothing. With a learning rate of 1.0, that of the paper and of
    the string 'adadelta' there, it diverges where gradient descent does. For the paper's rule take
    `optax_adaptive.adadelta`.

    Args:
        learning_rate: A number >= 0 or a schedule.
        rho: In (0, 1).
        epsilon: > 0; None for 1e-7.

    Raises:
        ValueError: If an argument is outside its domain.
    """
    _check.open_unit(rho=rho)
    _epsilon(epsilon)
    return descend(optax.identity(), learning_rate)


def rmsprop(
    learning_rate: optax.ScalarOrSchedule,
    decay: Any = 0.9,
    momentum: Any = 0.0,
    epsilon: Any = None,
    centered: bool = False,
) -> optax.GradientTransformationExtraArgs:
    """`tf.train.rmsprop`: `optax_adaptive.rmsprop`; centered, it subtracts epsilon under the root.

    Args:
        learning_rate: A number >= 0 or a schedule.
        decay: The share of the running means kept at each step, in [0, 1), > 0 if centered.
        momentum: In [0, 1), over the steps with their learning rate; 0 for none.
        epsilon: > 0, in units of squared gradients; None for 1e-7.
        centered: Whether to divide by the deviation from the mean gradient.

    Raises:
        ValueError: If an argument is outside its domain.

    Departures: centered, TensorFlow.js divides by the root of the variance less epsilon. Its steps
    grow without bound where the variance comes down to epsilon, and are NaN below, as at the first
    zero gradient. Here the root is at least that of epsilon.
    """
    _check.flag(centered=centered)
    _check.decay_rate(decay=decay)
    eps = _epsilon(epsilon)
    direction = _less_epsilon(decay, eps) if centered else scale_by_rmsprop(decay, eps)
    return descend(direction, learning_rate, velocity=velocity(momentum))


def adam(
    learning_rate: optax.ScalarOrSchedule = 0.001,
    beta1: Any = 0.9,
    beta2: Any = 0.999,
    epsilon: Any = None,
) -> optax.GradientTransformationExtraArgs:
    """`tf.train.adam`: `optax_adaptive.adam`.

    Args:
        learning_rate: A number >= 0 or a schedule.
        beta1: The share of the mean of gradients kept at each step, in [0, 1).
        beta2: That of the mean of their squares, in [0, 1).
        epsilon: > 0, in units of gradients; None for 1e-7.

    Raises:
        ValueError: If an argument is outside its domain.
    """
    _check.decay_rate(beta1=beta1, beta2=beta2)
    return descend(scale_by_adam(beta1, beta2, _epsilon(epsilon)), learning_rate)


def adamax(
    learning_rate: optax.ScalarOrSchedule = 0.002,
    beta1: Any = 0.9,
    beta2: Any = 0.999,
    epsilon: Any = None,
    decay: Any = 0.0,
) -> optax.GradientTransformationExtraArgs:
    """`tf.train.adamax`: `optax_adaptive.adamax` with eps_in_max=False.

    Args and errors as for `adam`, and:

    Args:
        decay: >= 0: the rate is learning_rate / (1 + decay step).
    """
    _check.decay_rate(beta1=beta1, beta2=beta2)
    _check.non_negative(decay=decay)
    _check.scheduled(learning_rate=learning_rate)
    direction = scale_by_adamax(beta1, beta2, _epsilon(epsilon), eps_in_max=False)
    return descend(direction, over_time(learning_rate, decay))


def _epsilon(epsilon: Any) -> Any:
    if epsilon is None:
        return 1e-7
    _check.positive(epsilon=epsilon)
    return epsilon


def _less_epsilon(decay: Any, eps: Any) -> optax.GradientTransformationExtraArgs:
    """The centered direction over the root of its variance less eps."""
    centered = scale_by_centered_rmsprop(decay, eps)

    def update(grads, state):
        _, state = centered.update(grads, state)
        variance = state.variance  # pyright: ignore[reportAttributeAccessIssue]

        def leaf(g, variance):
            g, flaw = squarable(g)
            return g * lax.rsqrt(jnp.maximum(variance - eps, eps)) + flaw

        return map_leaves(leaf, grads, variance), state

    return transformation(centered.init, update)
