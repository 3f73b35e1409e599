"""Keras 2: the classes of `tf.keras.optimizers.legacy`, which were `tf.keras.optimizers` to 2.10.

Names, defaults and trajectories are those of tf_keras 2.21.0 (https://github.com/keras-team/tf-keras).
They differ from Keras 3 where eps stands, in NAdam's momentum, and in `decay`: the rate is
learning_rate / (1 + decay step). TensorFlow keeps their numbers in float32, and so they are rounded
here: that shows in float64 only.

Besides their own arguments all take those of `Options`; `clipvalue` comes before `clipnorm` or
`global_clipnorm`. They know no weight decay. `learning_rate` may be a schedule of `compat.keras`.
"""

from typing import Any, TypedDict, Unpack

import optax

from optax_adaptive import _check
from optax_adaptive._algorithms.adadelta import scale_by_adadelta
from optax_adaptive._algorithms.adagrad import scale_by_adagrad
from optax_adaptive._algorithms.adam import scale_by_adam
from optax_adaptive._algorithms.adamax import scale_by_adamax
from optax_adaptive._algorithms.amsgrad import scale_by_amsgrad
from optax_adaptive._algorithms.nadam import scale_by_nadam
from optax_adaptive._algorithms.rmsprop import scale_by_centered_rmsprop, scale_by_rmsprop
from optax_adaptive._core import descend
from optax_adaptive.compat._parts import (
    chain,
    check_betas,
    clip,
    over_time,
    refuse,
    rounded,
    spell_out,
    velocity,
)


class Options(TypedDict, total=False):
    """What every optimizer of this module takes besides its own arguments, by keyword."""

    decay: Any  # >= 0: the rate is learning_rate / (1 + decay step)
    clipvalue: Any  # > 0: the largest entry of any gradient
    clipnorm: Any  # > 0: the largest norm of the gradient of any one array
    global_clipnorm: Any  # > 0: the largest norm of all gradients together


def SGD(
    learning_rate: optax.ScalarOrSchedule = 0.01,
    momentum: Any = 0.0,
    nesterov: bool = False,
    **options: Unpack[Options],
) -> optax.GradientTransformationExtraArgs:
    """`tf.keras.optimizers.legacy.SGD`: as `compat.keras.SGD`.

    Args and errors as for `compat.keras.SGD`.
    """
    behind = velocity(rounded(momentum), nesterov)
    return _optimizer(optax.identity(), learning_rate, options, behind)


def Adagrad(
    learning_rate: optax.ScalarOrSchedule = 0.001,
    initial_accumulator_value: Any = 0.1,
    epsilon: Any = 1e-7,
    **options: Unpack[Options],
) -> optax.GradientTransformationExtraArgs:
    """`tf.keras.optimizers.legacy.Adagrad`: epsilon outside the root, unlike Keras 3.

    Args and errors as for `compat.keras.Adagrad`; epsilon in units of gradients.
    """
    _check.non_negative(epsilon=epsilon)
    direction = scale_by_adagrad(initial_accumulator_value, epsilon, eps_in_sqrt=False)
    return _optimizer(direction, learning_rate, options)


def Adadelta(
    learning_rate: optax.ScalarOrSchedule = 0.001,
    rho: Any = 0.95,
    epsilon: Any = 1e-7,
    **options: Unpack[Options],
) -> optax.GradientTransformationExtraArgs:
    """`tf.keras.optimizers.legacy.Adadelta`: as `compat.keras.Adadelta`.

    Args and errors as for `compat.keras.Adadelta`.
    """
    _check.positive(epsilon=epsilon)
    return _optimizer(scale_by_adadelta(rounded(rho), epsilon), learning_rate, options)


def RMSprop(
    learning_rate: optax.ScalarOrSchedule = 0.001,
    rho: Any = 0.9,
    momentum: Any = 0.0,
    epsilon: Any = 1e-7,
    centered: bool = False,
    **options: Unpack[Options],
) -> optax.GradientTransformationExtraArgs:
    """`tf.keras.optimizers.legacy.RMSprop`: epsilon outside the root, under it with momentum.

    Args and errors as for `compat.keras.RMSprop`.
    """
    _check.flag(centered=centered)
    _check.decay_rate(rho=rho)
    _check.positive(epsilon=epsilon)
    scale = scale_by_centered_rmsprop if centered else scale_by_rmsprop
    if not isinstance(momentum, (int, float)):
        raise ValueError(
            f"{_check.caller()}: momentum must be known, because it moves epsilon "
            '(optax.inject_hyperparams needs static_args="momentum").'
        )
    direction = scale(rounded(rho), epsilon, eps_in_sqrt=momentum != 0)
    return _optimizer(direction, learning_rate, options, velocity(rounded(momentum)))


def Adam(
    learning_rate: optax.ScalarOrSchedule = 0.001,
    beta_1: Any = 0.9,
    beta_2: Any = 0.999,
    epsilon: Any = 1e-7,
    amsgrad: bool = False,
    **options: Unpack[Options],
) -> optax.GradientTransformationExtraArgs:
    """`tf.keras.optimizers.legacy.Adam`: as `compat.keras.Adam`.

    Args and errors as for `compat.keras.Adam`.
    """
    b1, b2 = _betas(beta_1, beta_2, epsilon)
    _check.flag(amsgrad=amsgrad)
    scale = scale_by_amsgrad if amsgrad else scale_by_adam
    return _optimizer(scale(b1, b2, epsilon, eps_hat=True), learning_rate, options)


def Adamax(
    learning_rate: optax.ScalarOrSchedule = 0.001,
    beta_1: Any = 0.9,
    beta_2: Any = 0.999,
    epsilon: Any = 1e-7,
    **options: Unpack[Options],
) -> optax.GradientTransformationExtraArgs:
    """`tf.keras.optimizers.legacy.Adamax`: as `compat.keras.Adamax`.

    Args and errors as for `Adam`.
    """
    b1, b2 = _betas(beta_1, beta_2, epsilon)
    return _optimizer(scale_by_adamax(b1, b2, epsilon, eps_in_max=False), learning_rate, options)


def Nadam(
    learning_rate: optax.ScalarOrSchedule = 0.001,
    beta_1: Any = 0.9,
    beta_2: Any = 0.999,
    epsilon: Any = 1e-7,
    *,
    schedule_decay: Any = 0.004,
    **options: Unpack[Options],
) -> optax.GradientTransformationExtraArgs:
    """`tf.keras.optimizers.legacy.Nadam`: `optax_adaptive.nadam` with Dozat's momentum.

    Args and errors as for `Adam`, and:

    Args:
        schedule_decay: How fast the momentum grows from beta_1 / 2 to beta_1, >= 0. `get_config`
            calls it `decay`; a decay of the rate this optimizer does not know.
    """
    if "decay" in options:
        raise TypeError("Nadam: decay is not taken: what get_config calls so is schedule_decay.")
    b1, b2 = _betas(beta_1, beta_2, epsilon)
    direction = scale_by_nadam(b1, b2, epsilon, momentum_decay=schedule_decay)
    return _optimizer(direction, learning_rate, options)


def _betas(beta_1: Any, beta_2: Any, epsilon: Any) -> tuple[Any, Any]:
    check_betas(beta_1, beta_2, epsilon)
    return rounded(beta_1), rounded(beta_2)


def _optimizer(
    direction: optax.GradientTransformation,
    learning_rate: Any,
    options: Any,
    behind: optax.GradientTransformation | None = None,
) -> optax.GradientTransformationExtraArgs:
    """The optimizer along a direction, with the options that all have in common."""
    refuse(
        {k: v for k, v in options.items() if k not in _DEFAULTS},
        lr="it is learning_rate",
        weight_decay="these classes know none; optax.chain can add it",
        name="nothing here has one",
    )
    decay = options.get("decay", 0.0)
    _check.non_negative(decay=decay)
    _check.scheduled(learning_rate=learning_rate)
    direction = chain(
        clip(clipvalue=options.get("clipvalue")),
        clip(options.get("clipnorm"), global_clipnorm=options.get("global_clipnorm")),
        direction,
    )
    rate = over_time(rounded(learning_rate), rounded(decay))
    return descend(direction, rate, velocity=behind)


_DEFAULTS = {"decay": 0.0, "clipvalue": None, "clipnorm": None, "global_clipnorm": None}
spell_out((SGD, Adagrad, Adadelta, RMSprop, Adam, Adamax), _DEFAULTS)
spell_out((Nadam,), {name: x for name, x in _DEFAULTS.items() if name != "decay"})
