"""TensorFlow 1: the optimizers of `tf.compat.v1.train`.

Names, defaults and trajectories are those of TensorFlow 2.21
(https://www.tensorflow.org/api_docs/python/tf/compat/v1/train). TensorFlow keeps their numbers in
float32, and so they are rounded here: that shows in float64 only. Its Adam also keeps the powers of
beta1 and beta2 in float32, which is not copied: the first steps differ by 1e-5.

`learning_rate` may be a schedule. `use_locking` and `name` have no meaning here.
"""

from typing import Any

import optax

from optax_adaptive import _check
from optax_adaptive._algorithms.adadelta import scale_by_adadelta
from optax_adaptive._algorithms.adagrad import scale_by_adagrad
from optax_adaptive._algorithms.adam import scale_by_adam
from optax_adaptive._algorithms.rmsprop import scale_by_centered_rmsprop, scale_by_rmsprop
from optax_adaptive._core import descend
from optax_adaptive._momentum import trace
from optax_adaptive.compat._parts import rounded, velocity


def GradientDescentOptimizer(
    learning_rate: optax.ScalarOrSchedule,
) -> optax.GradientTransformationExtraArgs:
    """`tf.train.GradientDescentOptimizer`.

    Args:
        learning_rate: A number >= 0 or a schedule.

    Raises:
        ValueError: If an argument is outside its domain.
    """
    return descend(optax.identity(), rounded(learning_rate))


def MomentumOptimizer(
    learning_rate: optax.ScalarOrSchedule, momentum: Any, *, use_nesterov: bool = False
) -> optax.GradientTransformationExtraArgs:
    """`tf.train.MomentumOptimizer`: the rate outside the momentum, as `optax_adaptive.sgd`.

    Args:
        learning_rate: A number >= 0 or a schedule.
        momentum: In [0, 1).
        use_nesterov: Whether the momentum looks one step ahead.

    Raises:
        ValueError: If an argument is outside its domain.
    """
    _check.decay_rate(momentum=momentum)
    _check.flag(use_nesterov=use_nesterov)
    return descend(trace(rounded(momentum), use_nesterov), rounded(learning_rate))


def AdagradOptimizer(
    learning_rate: optax.ScalarOrSchedule, initial_accumulator_value: Any = 0.1
) -> optax.GradientTransformationExtraArgs:
    """`tf.train.AdagradOptimizer`: `optax_adaptive.adagrad` without eps.

    Args:
        learning_rate: A number >= 0 or a schedule.
        initial_accumulator_value: What the sum of squares starts at, > 0.

    Raises:
        ValueError: If an argument is outside its domain.
    """
    _check.positive(initial_accumulator_value=initial_accumulator_value)
    return descend(scale_by_adagrad(initial_accumulator_value, 0.0), rounded(learning_rate))


def AdadeltaOptimizer(
    learning_rate: optax.ScalarOrSchedule = 0.001, rho: Any = 0.95, epsilon: Any = 1e-8
) -> optax.GradientTransformationExtraArgs:
    """`tf.train.AdadeltaOptimizer`: `optax_adaptive.adadelta`, by default 1000 times slower.

    Args:
        learning_rate: A number >= 0 or a schedule; 1.0 for the paper.
        rho: The share of the running means kept at each step, in (0, 1).
        epsilon: > 0.

    Raises:
        ValueError: If an argument is outside its domain.
    """
    _check.positive(epsilon=epsilon)
    return descend(scale_by_adadelta(rounded(rho), rounded(epsilon)), rounded(learning_rate))


def RMSPropOptimizer(
    learning_rate: optax.ScalarOrSchedule,
    decay: Any = 0.9,
    momentum: Any = 0.0,
    epsilon: Any = 1e-10,
    *,
    centered: bool = False,
) -> optax.GradientTransformationExtraArgs:
    """`tf.train.RMSPropOptimizer`: `optax_adaptive.rmsprop` whose mean of squares starts at 1.

    So the first steps are small, and there is no bias to correct.

    Args:
        learning_rate: A number >= 0 or a schedule.
        decay: The share of the running means kept at each step, in [0, 1), > 0 if centered.
        momentum: In [0, 1), over the steps with their learning rate; 0 for none.
        epsilon: > 0, under the root, in units of squared gradients.
        centered: Whether to divide by the deviation from the mean gradient.

    Raises:
        ValueError: If an argument is outside its domain.
    """
    _check.flag(centered=centered)
    _check.decay_rate(decay=decay)
    _check.positive(epsilon=epsilon)
    scale = scale_by_centered_rmsprop if centered else scale_by_rmsprop
    direction = scale(rounded(decay), rounded(epsilon), initial_scale=1.0)
    return descend(direction, rounded(learning_rate), velocity=velocity(rounded(momentum)))


def AdamOptimizer(
    learning_rate: optax.ScalarOrSchedule = 0.001,
    beta1: Any = 0.9,
    beta2: Any = 0.999,
    epsilon: Any = 1e-8,
) -> optax.GradientTransformationExtraArgs:
    """`tf.train.AdamOptimizer`: `optax_adaptive.adam` with eps_hat=True.

    Args:
        learning_rate: A number >= 0 or a schedule.
        beta1: The share of the mean of gradients kept at each step, in [0, 1).
        beta2: That of the mean of their squares, in [0, 1).
        epsilon: > 0, in units of gradients, added to the root of the mean as it is.

    Raises:
        ValueError: If an argument is outside its domain.
    """
    _check.decay_rate(beta1=beta1, beta2=beta2)
    _check.positive(epsilon=epsilon)
    direction = scale_by_adam(rounded(beta1), rounded(beta2), rounded(epsilon), eps_hat=True)
    return descend(direction, rounded(learning_rate))
