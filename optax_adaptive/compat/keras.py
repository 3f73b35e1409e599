"""Keras 3: its optimizers and schedules, AdaBound of keras-adabound, and their checkpoints.

`compat.keras.Adam(learning_rate=1e-3, weight_decay=0.004)` is the line of a Keras script. Names,
defaults and trajectories are those of Keras 3.15.1 (https://keras.io/api/optimizers/);
`learning_rate` may be a schedule of this module, or any function of the count of steps.
`from_config` takes what `optimizer.get_config()` gave. For Keras 2 see `compat.keras_legacy`.

Besides their own arguments all take those of `Options`. At every step the gradients are averaged
(`gradient_accumulation_steps`), then clipped, the parameters p shrink by
learning_rate weight_decay p, the rule is applied, and the averages of the parameters follow.
"""

import re
from collections.abc import Mapping
from typing import Any, TypedDict, Unpack

import optax

from optax_adaptive import _check
from optax_adaptive._algorithms.adabound import (
    end_of_band,
    scale_by_adabound,
    scale_by_amsbound,
)
from optax_adaptive._algorithms.adadelta import scale_by_adadelta
from optax_adaptive._algorithms.adagrad import scale_by_adagrad
from optax_adaptive._algorithms.adam import scale_by_adam
from optax_adaptive._algorithms.adamax import scale_by_adamax
from optax_adaptive._algorithms.amsgrad import scale_by_amsgrad
from optax_adaptive._algorithms.nadam import scale_by_nadam
from optax_adaptive._algorithms.rmsprop import (
    scale_by_centered_rmsprop,
    scale_by_rmsprop,
)
from optax_adaptive._core import descend
from optax_adaptive._wrappers.accumulate import accumulate
from optax_adaptive._wrappers.averaging import exponential_averaging
from optax_adaptive.compat._keras_schedules import (
    CosineDecay,
    CosineDecayRestarts,
    ExponentialDecay,
    InverseTimeDecay,
    PiecewiseConstantDecay,
    PolynomialDecay,
    Schedule,
)
from optax_adaptive.compat._keras_state import import_state
from optax_adaptive.compat._parts import (
    chain,
    check_betas,
    clip,
    coupled,
    over_time,
    refuse,
    rounded,
    spell_out,
    velocity,
)

__all__ = [
    "SGD",
    "AdaBound",
    "Adadelta",
    "Adagrad",
    "Adam",
    "AdamW",
    "Adamax",
    "CosineDecay",
    "CosineDecayRestarts",
    "ExponentialDecay",
    "InverseTimeDecay",
    "Nadam",
    "Options",
    "PiecewiseConstantDecay",
    "PolynomialDecay",
    "RMSprop",
    "from_config",
    "import_state",
]


class Options(TypedDict, total=False):
    """What every optimizer of this module takes besides its own arguments, by keyword."""

    weight_decay: Any  # >= 0 or a schedule, times the learning rate; None for none
    mask: Any  # which leaves decay, in place of exclude_from_weight_decay: as in `descend`
    clipnorm: Any  # > 0: the largest norm of the gradient of any one array
    clipvalue: Any  # > 0: the largest entry of any gradient
    global_clipnorm: Any  # > 0: the largest norm of all gradients together
    use_ema: bool  # whether to keep a moving average of the parameters: `averaged_params`
    ema_momentum: Any  # the share of it kept at each step, in [0, 1]; 0.99
    ema_overwrite_frequency: int | None  # after how many steps the parameters become the average
    gradient_accumulation_steps: int | None  # >= 2: how many gradients make one step


def SGD(
    learning_rate: optax.ScalarOrSchedule = 0.01,
    momentum: Any = 0.0,
    nesterov: bool = False,
    **options: Unpack[Options],
) -> optax.GradientTransformationExtraArgs:
    """`keras.optimizers.SGD`: the rate inside the velocity.

    For every coordinate::

        v = momentum v - learning_rate g
        p = p + v                              (nesterov: momentum v - learning_rate g)

    Args:
        learning_rate: A number >= 0 or a schedule.
        momentum: In [0, 1); 0 for none.
        nesterov: Whether the momentum looks one step ahead; without momentum it does nothing.
        options: `Options`.

    Raises:
        ValueError: If an argument is outside its domain.
    """
    direction = optax.identity()
    return _optimizer(direction, learning_rate, options, velocity(momentum, nesterov))


def Adagrad(
    learning_rate: optax.ScalarOrSchedule = 0.001,
    initial_accumulator_value: Any = 0.1,
    epsilon: Any = 1e-7,
    **options: Unpack[Options],
) -> optax.GradientTransformationExtraArgs:
    """`keras.optimizers.Adagrad`: `optax_adaptive.adagrad`.

    Args:
        learning_rate: A number >= 0 or a schedule.
        initial_accumulator_value: What the sum of squares starts at, >= 0.
        epsilon: >= 0, under the root, in units of squared gradients.
        options: `Options`.

    Raises:
        ValueError: If an argument is outside its domain.
    """
    _check.non_negative(epsilon=epsilon)
    direction = scale_by_adagrad(initial_accumulator_value, epsilon)
    return _optimizer(direction, learning_rate, options)


def Adadelta(
    learning_rate: optax.ScalarOrSchedule = 0.001,
    rho: Any = 0.95,
    epsilon: Any = 1e-7,
    **options: Unpack[Options],
) -> optax.GradientTransformationExtraArgs:
    """`keras.optimizers.Adadelta`: `optax_adaptive.adadelta`, a thousand times slower by default.

    The paper has no learning rate: its steps are those of learning_rate=1.0.

    Args:
        learning_rate: A number >= 0 or a schedule.
        rho: The share of the running means kept at each step, in (0, 1).
        epsilon: > 0.
        options: `Options`.

    Raises:
        ValueError: If an argument is outside its domain.
    """
    _check.positive(epsilon=epsilon)
    return _optimizer(scale_by_adadelta(rho, epsilon), learning_rate, options)


def RMSprop(
    learning_rate: optax.ScalarOrSchedule = 0.001,
    rho: Any = 0.9,
    momentum: Any = 0.0,
    epsilon: Any = 1e-7,
    centered: bool = False,
    **options: Unpack[Options],
) -> optax.GradientTransformationExtraArgs:
    """`keras.optimizers.RMSprop`: `optax_adaptive.rmsprop`, the rate inside the momentum.

    Args:
        learning_rate: A number >= 0 or a schedule.
        rho: The share of the running means kept at each step, in [0, 1), > 0 if centered.
        momentum: In [0, 1); 0 for none.
        epsilon: > 0, under the root, in units of squared gradients.
        centered: Whether to divide by the deviation from the mean gradient.
        options: `Options`.

    Raises:
        ValueError: If an argument is outside its domain.
    """
    _check.flag(centered=centered)
    _check.decay_rate(rho=rho)
    _check.positive(epsilon=epsilon)
    scale = scale_by_centered_rmsprop if centered else scale_by_rmsprop
    return _optimizer(scale(rho, epsilon), learning_rate, options, velocity(momentum))


def Adam(
    learning_rate: optax.ScalarOrSchedule = 0.001,
    beta_1: Any = 0.9,
    beta_2: Any = 0.999,
    epsilon: Any = 1e-7,
    amsgrad: bool = False,
    **options: Unpack[Options],
) -> optax.GradientTransformationExtraArgs:
    """`keras.optimizers.Adam`: `optax_adaptive.adam`, or `amsgrad`, with eps_hat=True.

    Args:
        learning_rate: A number >= 0 or a schedule.
        beta_1: The share of the mean of gradients kept at each step, in [0, 1).
        beta_2: That of the mean of their squares, in [0, 1).
        epsilon: > 0, in units of gradients, added to the root of the mean as it is.
        amsgrad: Whether to divide by the largest mean of squares so far.
        options: `Options`.

    Raises:
        ValueError: If an argument is outside its domain.
    """
    check_betas(beta_1, beta_2, epsilon)
    _check.flag(amsgrad=amsgrad)
    scale = scale_by_amsgrad if amsgrad else scale_by_adam
    return _optimizer(scale(beta_1, beta_2, epsilon, eps_hat=True), learning_rate, options)


def AdamW(
    learning_rate: optax.ScalarOrSchedule = 0.001,
    weight_decay: Any = 0.004,
    beta_1: Any = 0.9,
    beta_2: Any = 0.999,
    epsilon: Any = 1e-7,
    amsgrad: bool = False,
    **options: Any,
) -> optax.GradientTransformationExtraArgs:
    """`keras.optimizers.AdamW`: `Adam` that decays by 0.004 by default.

    Args and errors as for `Adam`.
    """
    numbers = (learning_rate, beta_1, beta_2, epsilon)
    return Adam(*numbers, amsgrad, weight_decay=weight_decay, **options)


def Adamax(
    learning_rate: optax.ScalarOrSchedule = 0.001,
    beta_1: Any = 0.9,
    beta_2: Any = 0.999,
    epsilon: Any = 1e-7,
    **options: Unpack[Options],
) -> optax.GradientTransformationExtraArgs:
    """`keras.optimizers.Adamax`: `optax_adaptive.adamax` with eps_in_max=False.

    Args and errors as for `Adam`.
    """
    check_betas(beta_1, beta_2, epsilon)
    direction = scale_by_adamax(beta_1, beta_2, epsilon, eps_in_max=False)
    return _optimizer(direction, learning_rate, options)


def Nadam(
    learning_rate: optax.ScalarOrSchedule = 0.001,
    beta_1: Any = 0.9,
    beta_2: Any = 0.999,
    epsilon: Any = 1e-7,
    **options: Unpack[Options],
) -> optax.GradientTransformationExtraArgs:
    """`keras.optimizers.Nadam`: `optax_adaptive.nadam` with momentum_decay=1, 250 times Dozat's.

    Args and errors as for `Adam`; epsilon is added after the correction.
    """
    check_betas(beta_1, beta_2, epsilon)
    direction = scale_by_nadam(beta_1, beta_2, epsilon, momentum_decay=1.0)
    return _optimizer(direction, learning_rate, options)


def AdaBound(
    learning_rate: optax.ScalarOrSchedule = 0.001,
    base_lr: Any = None,
    final_lr: Any = 0.1,
    beta_1: Any = 0.9,
    beta_2: Any = 0.999,
    gamma: Any = 0.001,
    epsilon: Any = 1e-8,
    weight_decay: Any = 0.0,
    amsgrad: bool = False,
    *,
    decay: Any = 0.0,
    **others: Any,
) -> optax.GradientTransformationExtraArgs:
    """AdaBound of keras-adabound: `optax_adaptive.adabound`, or `amsbound`, with coupled decay.

    Args:
        learning_rate: A number >= 0 or a schedule, which moves the band along with it.
        base_lr: The rate that `final_lr` belongs to, > 0; None for that at step 0.
        final_lr: The rate of the SGD it ends as, > 0, when the learning rate is `base_lr`.
        beta_1: The share of the mean of gradients kept at each step, in [0, 1).
        beta_2: That of the mean of their squares, in [0, 1).
        gamma: How fast the band closes, in (0, 1).
        epsilon: > 0, in units of gradients.
        weight_decay: >= 0, times the parameters, added to the gradient.
        amsgrad: Whether to divide by the largest mean of squares so far: AMSBound.
        decay: >= 0: the rate is learning_rate / (1 + decay step).

    Raises:
        ValueError: If an argument is outside its domain.

    Departures: keras-adabound 0.6.0 (https://github.com/CyberZHG/keras-adabound) is an optimizer of
    Keras 2, and keeps its hyperparameters in float32, as is done here. There weight_decay may be a
    schedule.
    """
    refuse(others, lr="it is learning_rate")
    check_betas(beta_1, beta_2, epsilon)
    _check.flag(amsgrad=amsgrad)
    _check.non_negative(decay=decay, weight_decay=weight_decay)
    numbers = (beta_1, beta_2, learning_rate, final_lr, gamma, base_lr)
    b1, b2, learning_rate, final_lr, gamma, base_lr = map(rounded, numbers)
    scale = scale_by_amsbound if amsgrad else scale_by_adabound
    final_rate = end_of_band(final_lr, learning_rate, base_lr)
    direction = scale(b1=b1, b2=b2, final_rate=final_rate, gamma=gamma, eps=epsilon)
    direction = chain(coupled(rounded(weight_decay)), direction)
    return descend(direction, over_time(learning_rate, rounded(decay)))


def _optimizer(
    direction: optax.GradientTransformation,
    learning_rate: Any,
    options: Any,
    behind: optax.GradientTransformation | None = None,
) -> optax.GradientTransformationExtraArgs:
    """The optimizer along a direction, with the options that all have in common."""
    given: dict[str, Any] = {**_DEFAULTS, **options}
    refuse({k: v for k, v in given.items() if k not in _DEFAULTS}, **_HINTS)
    every, overwrite = given["gradient_accumulation_steps"], given["ema_overwrite_frequency"]
    _check.flag(use_ema=given["use_ema"])
    _check.share(ema_momentum=given["ema_momentum"])
    whole = {"gradient_accumulation_steps": every, "ema_overwrite_frequency": overwrite}
    _check.whole(**{name: x for name, x in whole.items() if x is not None})

    clipped = clip(*(given[k] for k in ("clipnorm", "clipvalue", "global_clipnorm")))
    rate: Any = learning_rate
    if every is not None and callable(learning_rate):  # Keras counts gradients, not steps
        rate = lambda step: learning_rate(every * step + every - 1)  # noqa: E731
    tx = descend(chain(clipped, direction), rate, given["weight_decay"], given["mask"], behind)
    if every is not None:
        tx = accumulate(tx, every=every)
    if not given["use_ema"]:
        if overwrite is not None:
            raise ValueError(f"{_check.caller()}: ema_overwrite_frequency needs use_ema=True.")
        return tx
    if every is not None and overwrite is not None:
        raise ValueError(
            f"{_check.caller()}: ema_overwrite_frequency is not offered together with "
            "gradient_accumulation_steps, where Keras overwrites after every gradient of a round."
        )
    return exponential_averaging(
        tx, decay=given["ema_momentum"], start=every or 1, overwrite_every=overwrite
    )


_DEFAULTS = {
    "weight_decay": None,
    "mask": None,
    "clipnorm": None,
    "clipvalue": None,
    "global_clipnorm": None,
    "use_ema": False,
    "ema_momentum": 0.99,
    "ema_overwrite_frequency": None,
    "gradient_accumulation_steps": None,
}
_HINTS = {
    "lr": "it is learning_rate",
    "decay": "Keras 3 ignores it; learning_rate=InverseTimeDecay(rate, 1, decay) does the same",
    "loss_scale_factor": "scale the loss, and the gradients back with optax.scale",
    "name": "nothing here has one",
    "schedule_decay": "it is of Keras 2: compat.keras_legacy.Nadam",
}


def from_config(config: Mapping[str, Any], **changes: Any) -> optax.GradientTransformationExtraArgs:
    """The optimizer that `keras.optimizers.Optimizer.get_config()` describes.

    Args:
        config: What get_config gave, whose `name` tells the class; or, where the optimizer was
            given a name of its own, what `keras.optimizers.serialize(optimizer)` gives.
        changes: Arguments to replace.

    Returns:
        An optimizer of this module.

    Raises:
        ValueError: If the class is not known, or an option that is not offered is in use.
    """
    kind = config["class_name"] if "class_name" in config else config.get("name")
    options = dict(config["config"] if "class_name" in config else config)
    # Keras calls the second one in a process adam_1.
    plain = re.sub(r"_\d+$", "", str(kind))
    make = {_plain(f.__name__): f for f in _CONSTRUCTORS}.get(_plain(plain))
    if make is None:
        known = ", ".join(f.__name__ for f in _CONSTRUCTORS)
        raise ValueError(
            f"from_config: {kind!r} is none of {known}; where that is a name of its own, give what "
            "keras.optimizers.serialize makes of the optimizer."
        )
    options.pop("name", None)
    if options.get("loss_scale_factor", 0) is None:
        del options["loss_scale_factor"]
    if not options.get("use_ema"):
        options.pop("ema_overwrite_frequency", None)
    rate = options.get("learning_rate")
    if isinstance(rate, Mapping) and "learning_rate" not in changes:
        options["learning_rate"] = _schedule(rate)
    return make(**options | changes)


_CONSTRUCTORS = (SGD, Adagrad, Adadelta, RMSprop, Adam, AdamW, Adamax, Nadam, AdaBound)
_SCHEDULES = (
    *(ExponentialDecay, InverseTimeDecay, PiecewiseConstantDecay),
    *(PolynomialDecay, CosineDecay, CosineDecayRestarts),
)


spell_out([make for make in _CONSTRUCTORS if make is not AdaBound], _DEFAULTS)
spell_out([AdaBound], {})


def _plain(name: str) -> str:
    return name.replace("_", "").lower()


def _schedule(config: Mapping[str, Any]) -> Schedule:
    """The schedule that Keras has serialized."""
    make = {f.__name__: f for f in _SCHEDULES}.get(str(config.get("class_name")))
    if make is None:
        known = ", ".join(f.__name__ for f in _SCHEDULES)
        raise ValueError(
            f"from_config: the schedule must be one of {known}, got {config.get('class_name')!r}; "
            "give learning_rate, a function of the step."
        )
    return make(**{name: x for name, x in config["config"].items() if name != "name"})
