"""The learning-rate schedules of Keras: functions of the count of steps, 0 at the first one.

Each is a class of `keras.optimizers.schedules` (Keras 3.15.1,
https://keras.io/api/optimizers/learning_rate_schedules/), called with the same arguments, and gives
an optax schedule.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax.numpy as jnp

from optax_adaptive import _check

Schedule = Callable[[Any], Any]


def ExponentialDecay(
    initial_learning_rate: Any, decay_steps: Any, decay_rate: Any, staircase: bool = False
) -> Schedule:
    """initial_learning_rate decay_rate^(step / decay_steps).

    Args:
        initial_learning_rate: The rate at step 0, >= 0.
        decay_steps: After how many steps the rate is decay_rate times as large, > 0.
        decay_rate: >= 0.
        staircase: Whether to round step / decay_steps down.

    Raises:
        ValueError: If an argument is outside its domain.
    """
    progress = _progress(initial_learning_rate, decay_steps, staircase)
    _check.non_negative(decay_rate=decay_rate)
    return lambda step: initial_learning_rate * decay_rate ** progress(step)


def InverseTimeDecay(
    initial_learning_rate: Any, decay_steps: Any, decay_rate: Any, staircase: bool = False
) -> Schedule:
    """initial_learning_rate / (1 + decay_rate step / decay_steps).

    Args and errors as for `ExponentialDecay`.
    """
    progress = _progress(initial_learning_rate, decay_steps, staircase)
    _check.non_negative(decay_rate=decay_rate)
    return lambda step: initial_learning_rate / (1 + decay_rate * progress(step))


def PiecewiseConstantDecay(boundaries: Sequence[Any], values: Sequence[Any]) -> Schedule:
    """values[0] up to and with step boundaries[0], values[1] up to boundaries[1], and so on.

    Args:
        boundaries: Steps, in ascending order.
        values: Rates, >= 0, one more than boundaries.

    Raises:
        ValueError: If an argument is outside its domain.
    """
    if len(values) != len(boundaries) + 1:
        raise ValueError(
            "PiecewiseConstantDecay: values must be one more than boundaries, got "
            f"{len(values)} and {len(boundaries)}."
        )
    if list(boundaries) != sorted(boundaries):
        raise ValueError(f"PiecewiseConstantDecay: boundaries must ascend, got {list(boundaries)}.")
    _check.non_negative(**{f"values[{i}]": x for i, x in enumerate(values)})

    def schedule(step):
        passed = jnp.sum(step > jnp.asarray(boundaries))
        return jnp.asarray(values, float)[passed]

    return schedule


def PolynomialDecay(
    initial_learning_rate: Any,
    decay_steps: Any,
    end_learning_rate: Any = 0.0001,
    power: Any = 1.0,
    cycle: bool = False,
) -> Schedule:
    """From initial_learning_rate to end_learning_rate, as (1 - step / decay_steps)^power.

    Args:
        initial_learning_rate: The rate at step 0, >= 0.
        decay_steps: After how many steps the end is reached, > 0.
        end_learning_rate: The rate then, >= 0.
        power: > 0.
        cycle: Whether to go on from there to a multiple of decay_steps instead of staying.

    Raises:
        ValueError: If an argument is outside its domain.
    """
    _check.positive(decay_steps=decay_steps, power=power)
    _check.non_negative(
        initial_learning_rate=initial_learning_rate, end_learning_rate=end_learning_rate
    )
    _check.flag(cycle=cycle)

    def schedule(step):
        progress = _floating(step) / decay_steps
        if cycle:
            progress = progress / jnp.maximum(-(-step // decay_steps), 1)
        left = 1 - jnp.minimum(progress, 1)
        return end_learning_rate + (initial_learning_rate - end_learning_rate) * left**power

    return schedule


def CosineDecay(
    initial_learning_rate: Any,
    decay_steps: Any,
    alpha: Any = 0.0,
    *,
    warmup_target: Any = None,
    warmup_steps: Any = 0,
) -> Schedule:
    """Half a cosine from initial_learning_rate to alpha times as much, or a warm-up before it.

    Args:
        initial_learning_rate: The rate at step 0, >= 0.
        decay_steps: The length of the cosine, > 0; without the warm-up.
        alpha: The share of the rate that is left, >= 0.
        warmup_target: The rate to climb to in a straight line, >= 0, from which the cosine starts;
            None for no warm-up.
        warmup_steps: The length of the warm-up, >= 0.

    Raises:
        ValueError: If an argument is outside its domain.
    """
    _check.positive(decay_steps=decay_steps)
    _check.non_negative(
        initial_learning_rate=initial_learning_rate, alpha=alpha, warmup_steps=warmup_steps
    )
    if warmup_target is not None:
        _check.non_negative(warmup_target=warmup_target)
    elif warmup_steps != 0:
        raise ValueError("CosineDecay: warmup_steps do nothing without a warmup_target.")
    top = initial_learning_rate if warmup_target is None else warmup_target

    def schedule(step):
        step = _floating(step)
        progress = jnp.clip((step - warmup_steps) / decay_steps, 0, 1)
        decayed = top * ((1 - alpha) * _half_a_cosine(progress) + alpha)
        climbing = initial_learning_rate + (top - initial_learning_rate) * (
            step / max(warmup_steps, 1)
        )
        return jnp.where(step < warmup_steps, climbing, decayed)

    return schedule


def CosineDecayRestarts(
    initial_learning_rate: Any,
    first_decay_steps: Any,
    t_mul: Any = 2.0,
    m_mul: Any = 1.0,
    alpha: Any = 0.0,
) -> Schedule:
    """Half cosines, each t_mul times as long and m_mul times as high as the one before.

    Args:
        initial_learning_rate: The rate at step 0, >= 0.
        first_decay_steps: The length of the first cosine, > 0.
        t_mul: >= 1, known when the schedule is made.
        m_mul: >= 0.
        alpha: The share of initial_learning_rate that is left, >= 0.

    Raises:
        ValueError: If an argument is outside its domain.
    """
    _check.positive(first_decay_steps=first_decay_steps)
    _check.at_least_one(t_mul=t_mul)
    _check.non_negative(initial_learning_rate=initial_learning_rate, m_mul=m_mul, alpha=alpha)

    def begin(restart):  # 1 + t_mul + ... + t_mul^(restart - 1)
        return (t_mul**restart - 1) / (t_mul - 1)

    def schedule(step):
        passed = _floating(step) / first_decay_steps  # in lengths of the first one
        if t_mul == 1:
            restarts = _floating(step // first_decay_steps)
            progress = passed - restarts
        else:
            restarts = jnp.round(jnp.log1p(passed * (t_mul - 1)) / math.log(t_mul))
            # The logarithm is rounded: near a restart it may be on either side.
            restarts = restarts - (begin(restarts) > passed)
            progress = (passed - begin(restarts)) / t_mul**restarts
        decayed = (1 - alpha) * m_mul**restarts * _half_a_cosine(progress) + alpha
        return initial_learning_rate * decayed

    return schedule


def _progress(initial_learning_rate: Any, decay_steps: Any, staircase: Any) -> Schedule:
    _check.non_negative(initial_learning_rate=initial_learning_rate)
    _check.positive(decay_steps=decay_steps)
    _check.flag(staircase=staircase)

    def progress(step):
        # Not the floor of the quotient, which XLA makes of the reciprocal of decay_steps.
        return _floating(step // decay_steps) if staircase else _floating(step) / decay_steps

    return progress


def _floating(step: Any) -> Any:
    """The count of steps: an int32 divided by an integer is a float32 even where x64 is enabled."""
    return jnp.asarray(step, float)


def _half_a_cosine(progress: Any) -> Any:
    """From 1 to 0."""
    return 0.5 * (1 + jnp.cos(math.pi * progress))
