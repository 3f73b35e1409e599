"""PyTorch: the constructors of `torch.optim` and of the adabound package, and their checkpoints.

`compat.torch.AdamW(lr=3e-4, betas=(0.9, 0.95))` is the line of a PyTorch script without its first
argument: the parameters come with `init` and `update`. Names, defaults and trajectories are those
of torch 2.13.0 (https://docs.pytorch.org/docs/stable/optim.html) and adabound 0.0.5
(https://github.com/Luolc/AdaBound); `lr` may also be a schedule, a function of the count of steps.
What only chooses among implementations of one rule (`foreach`, `fused`, `capturable`,
`differentiable`) is an error: leave it out.

In all of them, with g the gradient and p the parameters::

    g = -g                    (maximize)
    g = g + weight_decay p    (where the decay is not decoupled)
"""

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
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
from optax_adaptive._algorithms.radam import scale_by_radam
from optax_adaptive._algorithms.rmsprop import (
    scale_by_centered_rmsprop,
    scale_by_rmsprop,
)
from optax_adaptive._core import descend
from optax_adaptive.compat._checkpoints import (
    Layout,
    ToTree,
    array,
    listed,
    names_and_shapes,
)
from optax_adaptive.compat._parts import (
    chain,
    coupled,
    is_zero,
    over_time,
    plus_params,
    refuse,
    spell_out,
    velocity,
)
from optax_adaptive.compat._torch_state import entries_of, export_state, import_state

__all__ = [
    "SGD",
    "AdaBound",
    "AdaBoundW",
    "Adadelta",
    "Adagrad",
    "Adam",
    "AdamW",
    "Adamax",
    "NAdam",
    "RAdam",
    "RMSprop",
    "export_state",
    "from_state_dict",
    "import_state",
]


def SGD(
    lr: optax.ScalarOrSchedule = 1e-3,
    momentum: Any = 0,
    dampening: Any = 0,
    weight_decay: Any = 0,
    nesterov: bool = False,
    *,
    maximize: bool = False,
    **others: Any,
) -> optax.GradientTransformationExtraArgs:
    """`torch.optim.SGD`.

    For every coordinate::

        b = g                                   at the first step
            momentum b + (1 - dampening) g      afterwards
        p = p - lr b                            (nesterov: lr (g + momentum b))

    Args:
        lr: A number >= 0 or a schedule.
        momentum: In [0, 1); 0 for none.
        dampening: In [0, 1], from the second step on; 0 with nesterov, nothing without momentum.
        weight_decay: >= 0, added to the gradient.
        nesterov: Whether the momentum looks one step ahead; needs `momentum`.
        maximize: Whether to ascend.

    Raises:
        ValueError: If an argument is outside its domain.
    """
    _check.share(dampening=dampening)
    momenta = velocity(momentum, nesterov)
    damps = isinstance(dampening, (int, float)) and dampening != 0  # a traced 0 is none
    if nesterov and (momenta is None or damps):
        raise ValueError("SGD: nesterov needs a momentum, and no dampening.")
    damped = None
    if momenta is not None and not is_zero(dampening):
        damped = optax.scale_by_schedule(
            lambda step: jnp.where((step == 0) | (momentum == 0), 1, 1 - dampening)
        )
    return _optimizer([damped, momenta], lr, weight_decay, maximize, others)


def Adagrad(
    lr: optax.ScalarOrSchedule = 1e-2,
    lr_decay: Any = 0,
    weight_decay: Any = 0,
    initial_accumulator_value: Any = 0,
    eps: Any = 1e-10,
    *,
    maximize: bool = False,
    **others: Any,
) -> optax.GradientTransformationExtraArgs:
    """`torch.optim.Adagrad`.

    At step t = 1, 2, ..., for every coordinate::

        sum = sum + g²
        p   = p - lr / (1 + (t - 1) lr_decay) g / (sqrt(sum) + eps)

    Args:
        lr: A number >= 0 or a schedule.
        lr_decay: >= 0, how fast the rate falls besides.
        weight_decay: >= 0, added to the gradient.
        initial_accumulator_value: What `sum` starts at, >= 0.
        eps: >= 0, in units of gradients.
        maximize: Whether to ascend.

    Raises:
        ValueError: If an argument is outside its domain.
    """
    _check.non_negative(lr_decay=lr_decay)
    direction = scale_by_adagrad(initial_accumulator_value, eps, eps_in_sqrt=False)
    return _optimizer([direction], lr, weight_decay, maximize, others, lr_decay=lr_decay)


def Adadelta(
    lr: optax.ScalarOrSchedule = 1.0,
    rho: Any = 0.9,
    eps: Any = 1e-6,
    weight_decay: Any = 0,
    *,
    maximize: bool = False,
    **others: Any,
) -> optax.GradientTransformationExtraArgs:
    """`torch.optim.Adadelta`: `optax_adaptive.adadelta` with coupled weight decay.

    Args:
        lr: A number >= 0 or a schedule.
        rho: The share of the running means kept at each step, in (0, 1).
        eps: > 0.
        weight_decay: >= 0, added to the gradient.
        maximize: Whether to ascend.

    Raises:
        ValueError: If an argument is outside its domain.
    """
    return _optimizer([scale_by_adadelta(rho, eps)], lr, weight_decay, maximize, others)


def RMSprop(
    lr: optax.ScalarOrSchedule = 1e-2,
    alpha: Any = 0.99,
    eps: Any = 1e-8,
    weight_decay: Any = 0,
    momentum: Any = 0,
    centered: bool = False,
    *,
    maximize: bool = False,
    **others: Any,
) -> optax.GradientTransformationExtraArgs:
    """`torch.optim.RMSprop`: eps outside the root, the rate outside the momentum.

    For every coordinate::

        v = alpha v + (1 - alpha) g²
        m = alpha m + (1 - alpha) g                  (centered)
        b = momentum b + g / (sqrt(v) + eps)         (centered: sqrt(v - m²))
        p = p - lr b

    Args:
        lr: A number >= 0 or a schedule.
        alpha: The share of the running means kept at each step, in [0, 1), > 0 if centered.
        eps: > 0, in units of gradients.
        weight_decay: >= 0, added to the gradient.
        momentum: In [0, 1); 0 for none.
        centered: Whether to divide by the deviation from the mean gradient.
        maximize: Whether to ascend.

    Raises:
        ValueError: If an argument is outside its domain.

    Departures: v - m² as a sum of squares. In float32 torch's is negative by rounding near a
    constant gradient, and its steps NaN.
    """
    _check.flag(centered=centered)
    _check.decay_rate(alpha=alpha)
    scale = scale_by_centered_rmsprop if centered else scale_by_rmsprop
    direction = [scale(alpha, eps, eps_in_sqrt=False), velocity(momentum)]
    return _optimizer(direction, lr, weight_decay, maximize, others)


def Adam(
    lr: optax.ScalarOrSchedule = 1e-3,
    betas: tuple[Any, Any] = (0.9, 0.999),
    eps: Any = 1e-8,
    weight_decay: Any = 0,
    amsgrad: bool = False,
    *,
    maximize: bool = False,
    decoupled_weight_decay: bool = False,
    **others: Any,
) -> optax.GradientTransformationExtraArgs:
    """`torch.optim.Adam`: `optax_adaptive.adam`, or `amsgrad`, with coupled weight decay.

    Args:
        lr: A number >= 0 or a schedule.
        betas: The shares of the two running means kept at each step, each in [0, 1).
        eps: > 0, in units of gradients.
        weight_decay: >= 0, added to the gradient.
        amsgrad: Whether to divide by the largest mean of squares so far.
        maximize: Whether to ascend.
        decoupled_weight_decay: Whether p shrinks by lr weight_decay p instead: `AdamW`.

    Raises:
        ValueError: If an argument is outside its domain.
    """
    return _optimizer(
        [_adam(betas, eps, amsgrad)], lr, weight_decay, maximize, others, decoupled_weight_decay
    )


def AdamW(
    lr: optax.ScalarOrSchedule = 1e-3,
    betas: tuple[Any, Any] = (0.9, 0.999),
    eps: Any = 1e-8,
    weight_decay: Any = 1e-2,
    amsgrad: bool = False,
    *,
    maximize: bool = False,
    **others: Any,
) -> optax.GradientTransformationExtraArgs:
    """`torch.optim.AdamW`: `Adam(decoupled_weight_decay=True)`, by 0.01 by default.

    Args and errors as for `Adam`.
    """
    return _optimizer([_adam(betas, eps, amsgrad)], lr, weight_decay, maximize, others, True)


def Adamax(
    lr: optax.ScalarOrSchedule = 2e-3,
    betas: tuple[Any, Any] = (0.9, 0.999),
    eps: Any = 1e-8,
    weight_decay: Any = 0,
    *,
    maximize: bool = False,
    **others: Any,
) -> optax.GradientTransformationExtraArgs:
    """`torch.optim.Adamax`: `optax_adaptive.adamax` with coupled weight decay.

    Args and errors as for `Adam`.
    """
    b1, b2 = _pair(betas)
    return _optimizer([scale_by_adamax(b1, b2, eps)], lr, weight_decay, maximize, others)


def NAdam(
    lr: optax.ScalarOrSchedule = 2e-3,
    betas: tuple[Any, Any] = (0.9, 0.999),
    eps: Any = 1e-8,
    weight_decay: Any = 0,
    momentum_decay: Any = 4e-3,
    decoupled_weight_decay: bool = False,
    *,
    maximize: bool = False,
    **others: Any,
) -> optax.GradientTransformationExtraArgs:
    """`torch.optim.NAdam`: `optax_adaptive.nadam` with Dozat's schedule of the momentum.

    Args and errors as for `Adam`, and:

    Args:
        momentum_decay: How fast the momentum grows from half of betas[0] to all of it, >= 0.
    """
    b1, b2 = _pair(betas)
    direction = scale_by_nadam(b1, b2, eps, momentum_decay=momentum_decay)
    decoupled = decoupled_weight_decay
    return _optimizer([direction], lr, weight_decay, maximize, others, decoupled)


def RAdam(
    lr: optax.ScalarOrSchedule = 1e-3,
    betas: tuple[Any, Any] = (0.9, 0.999),
    eps: Any = 1e-8,
    weight_decay: Any = 0,
    decoupled_weight_decay: bool = False,
    *,
    maximize: bool = False,
    **others: Any,
) -> optax.GradientTransformationExtraArgs:
    """`torch.optim.RAdam`: `optax_adaptive.radam` with eps_hat=True and coupled weight decay.

    Args and errors as for `Adam`; betas[1] in (0, 1).
    """
    b1, b2 = _pair(betas)
    direction = scale_by_radam(b1, b2, eps, eps_hat=True)
    decoupled = decoupled_weight_decay
    return _optimizer([direction], lr, weight_decay, maximize, others, decoupled)


def AdaBound(
    lr: optax.ScalarOrSchedule = 1e-3,
    betas: tuple[Any, Any] = (0.9, 0.999),
    final_lr: Any = 0.1,
    gamma: Any = 1e-3,
    eps: Any = 1e-8,
    weight_decay: Any = 0,
    amsbound: bool = False,
    *,
    base_lr: Any = None,
    **others: Any,
) -> optax.GradientTransformationExtraArgs:
    """`adabound.AdaBound`: `optax_adaptive.adabound`, or `amsbound`, with coupled weight decay.

    Args:
        lr: A number >= 0 or a schedule, which moves the band along with it.
        betas: The shares of the two running means kept at each step, each in [0, 1).
        final_lr: The rate of the SGD it ends as, > 0, when `lr` is `base_lr`.
        gamma: How fast the band closes, in (0, 1).
        eps: > 0, in units of gradients.
        weight_decay: >= 0, added to the gradient.
        amsbound: Whether to divide by the largest mean of squares so far.
        base_lr: The rate at which the optimizer was made, > 0; None for `lr` at step 0. The package
            remembers it, and does not save it.

    Raises:
        ValueError: If an argument is outside its domain.
    """
    direction = _adabound(lr, betas, final_lr, gamma, eps, amsbound, base_lr)
    return _optimizer([direction], lr, weight_decay, False, others)


def AdaBoundW(
    lr: optax.ScalarOrSchedule = 1e-3,
    betas: tuple[Any, Any] = (0.9, 0.999),
    final_lr: Any = 0.1,
    gamma: Any = 1e-3,
    eps: Any = 1e-8,
    weight_decay: Any = 0,
    amsbound: bool = False,
    *,
    base_lr: Any = None,
    **others: Any,
) -> optax.GradientTransformationExtraArgs:
    """`AdaBoundW` of the adabound repository: p shrinks by weight_decay p, whatever the rate.

    Args and errors as for `AdaBound`.

    Departures: it never was in a release; this is the repository at commit 2e928c3.
    """
    direction = _adabound(lr, betas, final_lr, gamma, eps, amsbound, base_lr)
    _check.non_negative(weight_decay=weight_decay)
    decay = None if is_zero(weight_decay) else plus_params(-weight_decay)
    return _optimizer([direction], lr, 0, False, others, behind=decay)


def _adam(betas, eps, amsgrad):
    b1, b2 = _pair(betas)
    _check.flag(amsgrad=amsgrad)
    return (scale_by_amsgrad if amsgrad else scale_by_adam)(b1, b2, eps)


def _adabound(lr, betas, final_lr, gamma, eps, amsbound, base_lr):
    b1, b2 = _pair(betas)
    _check.flag(amsbound=amsbound)
    scale = scale_by_amsbound if amsbound else scale_by_adabound
    final_rate = end_of_band(final_lr, lr, base_lr)
    return scale(b1=b1, b2=b2, final_rate=final_rate, gamma=gamma, eps=eps)


def _pair(betas: Any) -> tuple[Any, Any]:
    """The two numbers of betas."""
    if not isinstance(betas, (tuple, list)) or len(betas) != 2:
        raise ValueError(f"{_check.caller()}: betas must be a pair of numbers, got {betas!r}.")
    _check.decay_rate(**{f"betas[{i}]": b for i, b in enumerate(betas)})
    return betas[0], betas[1]


def _optimizer(
    direction: Sequence[optax.GradientTransformation | None],
    lr: Any,
    weight_decay: Any,
    maximize: Any,
    others: Any,
    decoupled: Any = False,
    lr_decay: Any = 0,
    behind: optax.GradientTransformation | None = None,
) -> optax.GradientTransformationExtraArgs:
    """Descends along the parts of `direction` that are present."""
    implementation = "it only chooses among implementations of one rule; leave it out"
    refuse(
        others,
        learning_rate="torch calls it lr",
        params="parameters are given to init and update",
        **dict.fromkeys(_IMPLEMENTATION, implementation),
    )
    _check.scheduled(lr=lr)
    _check.flag(maximize=maximize, decoupled_weight_decay=decoupled)
    _check.non_negative(weight_decay=weight_decay)
    l2 = None if decoupled else coupled(weight_decay)
    decay = weight_decay if decoupled and not is_zero(weight_decay) else None
    parts = chain(optax.scale(-1.0) if maximize else None, l2, *direction)
    return descend(parts, over_time(lr, lr_decay), decay, velocity=behind)


def from_state_dict(
    state_dict: Mapping[str, Any],
    kind: str,
    names: Sequence[str] | Mapping[str, Any] | None = None,
    to_tree: ToTree | None = None,
    **changes: Any,
) -> optax.GradientTransformationExtraArgs:
    """The optimizer of this module with the hyperparameters that a state_dict has saved.

    Args:
        state_dict: That of the optimizer of torch.
        kind: The name of its class: "AdamW".
        names: As for `import_state`: where groups differ, to know what they hold.
        to_tree: As for `import_state`, together with `names`.
        changes: Arguments to replace, in all groups: a schedule for `lr`, say.

    Returns:
        The optimizer, or, where several groups differ, `optax.partition` of one for each, with the
        indices of the groups for labels.

    Raises:
        ValueError: If a hyperparameter is not known, or groups differ and nobody says what is in
            them.
    """
    if kind not in _CONSTRUCTORS:
        raise ValueError(
            f"from_state_dict: kind must be one of {', '.join(_CONSTRUCTORS)}, got {kind!r}."
        )
    make = _CONSTRUCTORS[kind]
    groups = [_arguments(make, group) for group in state_dict["param_groups"]]
    known = groups[0].keys() | {"lr"}
    unknown = sorted(changes.keys() - known)
    if unknown:
        raise ValueError(f"from_state_dict: {kind} has no {listed(unknown)}.")
    groups = [group | changes for group in groups]
    if all(group == groups[0] for group in groups):
        return make(**groups[0])
    if names is None or to_tree is None:
        raise ValueError(
            f"from_state_dict: the {len(groups)} groups differ; names and to_tree must say which "
            "parameters they hold."
        )
    names, shapes = names_and_shapes(names)
    for name, entry in entries_of(state_dict, names).items():
        of_entry = [tuple(np.shape(x)) for x in entry.values()]
        shapes[name] = max(of_entry, key=len)  # the others are scalars
    indices = [i for i, g in enumerate(state_dict["param_groups"]) for _ in g["params"]]
    labels = Layout(shapes, to_tree).numbers("groups", dict(zip(names, indices, strict=True)))
    return optax.partition(
        {str(i): make(**group) for i, group in enumerate(groups)}, jax.tree.map(str, labels)
    )


_CONSTRUCTORS = {
    make.__name__: make
    for make in (
        *(SGD, Adagrad, Adadelta, RMSprop, Adam, AdamW, Adamax, NAdam, RAdam),
        *(AdaBound, AdaBoundW),
    )
}


spell_out(_CONSTRUCTORS.values(), {})


def _arguments(
    make: Callable[..., optax.GradientTransformationExtraArgs], group: Mapping[str, Any]
) -> dict[str, Any]:
    """The arguments of a constructor that a group has saved."""
    takes = inspect.signature(make).parameters
    arguments = {k: v for k, v in group.items() if k in takes}
    arguments["lr"] = float(array(group["lr"]))
    if "betas" in arguments:
        arguments["betas"] = tuple(float(array(b)) for b in group["betas"])
    if "base_lr" in takes:
        arguments["base_lr"] = float(group.get("initial_lr", arguments["lr"]))
    ignored = {"params", "param_names", *_OF_SCHEDULERS, *_IMPLEMENTATION}
    implied = make is AdamW and group.get("decoupled_weight_decay") is True
    ignored |= {"decoupled_weight_decay"} if implied else set()
    unknown = sorted(group.keys() - arguments.keys() - ignored)
    if unknown:
        raise ValueError(
            f"from_state_dict: {make.__name__} has no {listed(unknown)}; is kind right?"
        )
    return arguments


# What torch's schedulers leave in the groups, beside the rate of the moment.
_OF_SCHEDULERS = ("initial_lr", "max_lr", "min_lr", "max_momentum", "base_momentum")
_IMPLEMENTATION = ("foreach", "fused", "capturable", "differentiable")
