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
    AdaboundState,
    AmsboundState,
    end_of_band,
    scale_by_adabound,
    scale_by_amsbound,
)
from optax_adaptive._algorithms.adadelta import AdadeltaState, scale_by_adadelta
from optax_adaptive._algorithms.adagrad import AdagradState, scale_by_adagrad
from optax_adaptive._algorithms.adam import AdamState, scale_by_adam
from optax_adaptive._algorithms.adamax import AdamaxState, scale_by_adamax
from optax_adaptive._algorithms.amsgrad import AmsgradState, scale_by_amsgrad
from optax_adaptive._algorithms.nadam import NadamState, scale_by_nadam
from optax_adaptive._algorithms.radam import RadamState, scale_by_radam
from optax_adaptive._algorithms.rmsprop import (
    CenteredRmspropState,
    RmspropState,
    scale_by_centered_rmsprop,
    scale_by_rmsprop,
)
from optax_adaptive._core import DescentState, descend, find_states
from optax_adaptive._momentum import TraceState, trace
from optax_adaptive.compat._checkpoints import (
    Layout,
    Table,
    ToTree,
    array,
    filled,
    from_raw,
    listed,
    merged,
    names_and_shapes,
    names_in,
    only,
    place,
    scalar,
    to_raw,
    walk,
)
from optax_adaptive.compat._parts import (
    chain,
    coupled,
    is_zero,
    over_time,
    plus_params,
    refuse,
)


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
        dampening: In [0, 1], from the second step on; 0 with nesterov.
        weight_decay: >= 0, added to the gradient.
        nesterov: Whether the momentum looks one step ahead; needs `momentum`.
        maximize: Whether to ascend.

    Raises:
        ValueError: If an argument is outside its domain.
    """
    _check.decay_rate(momentum=momentum)
    _check.share(dampening=dampening)
    _check.flag(nesterov=nesterov)
    if nesterov and (is_zero(momentum) or not is_zero(dampening)):
        raise ValueError("SGD: nesterov needs a momentum, and no dampening.")
    damped = velocity = None
    if not is_zero(dampening):
        damped = optax.scale_by_schedule(lambda step: jnp.where(step == 0, 1, 1 - dampening))
    if not is_zero(momentum):
        velocity = trace(momentum, nesterov)
    return _optimizer([damped, velocity], lr, weight_decay, maximize, others)


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
    _check.decay_rate(alpha=alpha, momentum=momentum)
    scale = scale_by_centered_rmsprop if centered else scale_by_rmsprop
    velocity = None if is_zero(momentum) else trace(momentum)
    direction = [scale(alpha, eps, eps_in_sqrt=False), velocity]
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
    b1, b2 = _pair(betas)
    _check.flag(amsgrad=amsgrad)
    scale = scale_by_amsgrad if amsgrad else scale_by_adam
    decoupled = decoupled_weight_decay
    return _optimizer([scale(b1, b2, eps)], lr, weight_decay, maximize, others, decoupled)


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
    b1, b2 = _pair(betas)
    _check.flag(amsgrad=amsgrad)
    scale = scale_by_amsgrad if amsgrad else scale_by_adam
    return _optimizer([scale(b1, b2, eps)], lr, weight_decay, maximize, others, decoupled=True)


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
    return _optimizer([direction], lr, 0, False, others, velocity=decay)


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
    velocity: optax.GradientTransformation | None = None,
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
    return descend(parts, over_time(lr, lr_decay), decay, velocity=velocity)


def import_state(
    tx: optax.GradientTransformation,
    params: optax.Params,
    state_dict: Mapping[str, Any],
    names: Sequence[str] | Mapping[str, Any],
    to_tree: ToTree,
    *,
    step: int | None = None,
) -> optax.OptState:
    """The state with which `tx` continues a run of torch.

    ::

        named = {name: p.numpy(force=True) for name, p in model.named_parameters()}
        params = to_tree(named)
        tx = compat.torch.from_state_dict(optimizer.state_dict(), "AdamW")
        state = compat.torch.import_state(tx, params, optimizer.state_dict(), named, to_tree)

    Args:
        tx: An optimizer of this module, or one with the same states: in masks and groups, too.
        params: The parameters, as `to_tree` makes them of the model's. Where they are None nothing
            is imported.
        state_dict: That of the optimizer of torch, loaded, with arrays or tensors.
        names: Those of the parameters, in the order of the optimizer: that in which its groups were
            given them. A mapping from them to arrays tells the shapes of those without a state.
        to_tree: The function that makes `params` of a dict of named arrays, with its transpositions.
            It is applied to the moments.
        step: The count of steps made, where torch does not save it (SGD): schedules go on from
            there. None for what is saved, or 0.

    Returns:
        `tx.init(params)` with the moments and counts of `state_dict`, in the dtypes and shardings
        that it has there. A parameter without a state, because it was frozen, keeps that of `init`.

    Raises:
        ValueError: If something is missing, left over, of another shape or optimizer, or if the
            parameters have made different numbers of steps.
    """
    names, shapes = names_and_shapes(names)
    entries = _entries(state_dict, names)
    state = tx.init(params)
    _check_velocity(state)
    types, wanted = names_in(state, _TABLE)
    mine = next((kind for kind, states in _STATES.items() if types & set(states)), "SGD")
    theirs = _kind(state_dict["param_groups"][0], entries)
    if mine != theirs:
        raise ValueError(f"import_state: state_dict is that of torch's {theirs}, tx is {mine}.")
    fields = {field for entry in entries.values() for field in entry}
    unsaved = {"step"} if mine == "SGD" else set()
    if entries or mine != "SGD":
        _complete(entries, wanted - unsaved)
    if step is not None and "step" in fields:
        raise ValueError("import_state: step is saved in state_dict; do not give another one.")

    numbers = {}
    for name in fields & _NUMBERS:
        numbers[name] = only(name, {n: e[name] for n, e in entries.items() if name in e})
    if step is None:
        step = 0
    numbers = {"step": step, "mu_product": 1.0, **numbers}
    moments = sorted(wanted - _NUMBERS) if entries else []
    trees = {}
    if moments:
        for name, entry in entries.items():
            shapes[name] = tuple(np.shape(array(entry[moments[0]])))
        layout = Layout(shapes, to_tree)
        for moment in moments:
            trees[moment] = layout.tree({n: array(e[moment]) for n, e in entries.items()})
        present = layout.numbers("states", {name: int(name in entries) for name in names})

    def visit(part, fields):
        new = {}
        for ours, name in fields.items():
            old = getattr(part, ours)
            if name in _NUMBERS:
                # The count in front of SGD's momentum only tells the first step from the others.
                count = isinstance(part, optax.ScaleByScheduleState) and bool(entries)
                new[ours] = scalar(max(numbers[name], 1) if count else numbers[name], old)
            elif name in trees:
                new[ours] = place(old, params, trees[name], present)
        return from_raw(part._replace(**new))

    return walk(state, _TABLE, visit)


def export_state(
    params: optax.Params,
    state: optax.OptState,
    state_dict: Mapping[str, Any],
    names: Sequence[str],
    from_tree: Callable[[Any], Mapping[str, Any]],
) -> dict[str, Any]:
    """The state_dict with which torch continues a run: the inverse of `import_state`.

    ::

        saved = compat.torch.export_state(
            params, state, optimizer.state_dict(), list(named), from_tree
        )
        optimizer.load_state_dict(torch.utils._pytree.tree_map_only(
            numpy.ndarray, torch.tensor, saved
        ))

    Args:
        params: The parameters.
        state: That of an optimizer of this module.
        state_dict: That of torch's optimizer to go back to; its `param_groups` are kept.
        names: As for `import_state`.
        from_tree: The inverse of `to_tree`, as it makes the model's named arrays of `params`.

    Returns:
        A dict with NumPy arrays where torch has tensors. A parameter that no part of the state
        knows has no entry.

    Raises:
        ValueError: If the state is of no optimizer of torch, or names do not fit.
    """
    names, _ = names_and_shapes(names)
    _entries({**state_dict, "state": {}}, names)
    _check_velocity(state)
    numbers: dict[str, Any] = {}
    trees: dict[str, Any] = {}

    def visit(part, fields):
        raw = to_raw(part)
        for ours, name in fields.items():
            field = getattr(raw, ours)
            if name in _NUMBERS:
                numbers[name] = max(numbers.get(name, 0.0), float(field))
            elif name is not None:
                trees[name] = merged(trees[name], field) if name in trees else field
        return part

    walk(state, _TABLE, visit)
    types, _ = names_in(state, _TABLE)
    if types & set(_STATES["AdaBound"]):
        numbers["step"] = int(numbers["step"])  # the package counts in integers
    elif "step" in numbers:
        numbers["step"] = np.asarray(numbers["step"], np.float32)
    if "mu_product" in numbers:
        numbers["mu_product"] = np.asarray(numbers["mu_product"])
    if not any(kind in types for states in _STATES.values() for kind in states):
        numbers = {}  # SGD

    saved: dict[str, dict[str, Any]] = {name: {} for name in names}
    for moment, tree in trees.items():
        arrays, present = (dict(from_tree(t)) for t in filled(tree, params))
        lost = [name for name in names if name not in arrays]
        if lost:
            raise ValueError(f"export_state: from_tree gives no {listed(lost)}.")
        for name in names:
            if np.all(np.asarray(present[name]) == 1):
                saved[name][moment] = np.asarray(arrays[name])
    indices = [i for group in state_dict["param_groups"] for i in group["params"]]
    return {
        "state": {
            i: {**numbers, **saved[name]}
            for i, name in zip(indices, names, strict=True)
            if saved[name]
        },
        "param_groups": state_dict["param_groups"],
    }


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
    for name, entry in _entries(state_dict, names).items():
        of_entry = [tuple(np.shape(array(x))) for x in entry.values()]
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

# What a state of ours is called there.
_MEANS = {"mu": "exp_avg", "nu": "exp_avg_sq"}
_COUNTED = {"count": "step", **_MEANS}
_TABLE: Table = {
    DescentState: {"step": "step"},
    optax.ScaleByScheduleState: {"count": "step"},
    optax.InjectStatefulHyperparamsState: {
        "count": "step",
        "hyperparams": None,
        "hyperparams_states": None,
    },
    TraceState: {"trace": "momentum_buffer"},
    AdagradState: {"sum_sq": "sum"},
    AdadeltaState: {"nu": "square_avg", "delta": "acc_delta"},
    RmspropState: {"count": "step", "nu": "square_avg"},
    CenteredRmspropState: {"count": "step", "mu": "grad_avg", "variance": "square_avg"},
    AdamState: _COUNTED,
    AmsgradState: {**_COUNTED, "nu_max": "max_exp_avg_sq"},
    NadamState: {**_COUNTED, "momentum_gap": "mu_product"},
    RadamState: _COUNTED,
    AdamaxState: {"count": "step", "mu": "exp_avg", "nu": "exp_inf"},
    AdaboundState: _COUNTED,
    AmsboundState: {**_COUNTED, "nu_max": "max_exp_avg_sq"},
}
_NUMBERS = {"step", "mu_product"}
_STATES: dict[str, tuple[type, ...]] = {
    "Adagrad": (AdagradState,),
    "Adadelta": (AdadeltaState,),
    "RMSprop": (RmspropState, CenteredRmspropState),
    "Adam": (AdamState, AmsgradState),
    "NAdam": (NadamState,),
    "RAdam": (RadamState,),
    "Adamax": (AdamaxState,),
    "AdaBound": (AdaboundState, AmsboundState),
}
# By what a group has, and no group of those below it.
_MARKS = {
    "dampening": "SGD",
    "lr_decay": "Adagrad",
    "rho": "Adadelta",
    "alpha": "RMSprop",
    "final_lr": "AdaBound",
    "momentum_decay": "NAdam",
    "amsgrad": "Adam",
    "decoupled_weight_decay": "RAdam",
    "betas": "Adamax",
}


def _kind(group: Mapping[str, Any], entries: Mapping[str, Mapping[str, Any]]) -> str:
    """Whose state_dict it is, AdamW being Adam and AdaBoundW AdaBound."""
    if "betas" in group and any("exp_inf" in entry for entry in entries.values()):
        return "Adamax"
    return next((kind for mark, kind in _MARKS.items() if mark in group), "an unknown optimizer")


def _entries(state_dict: Mapping[str, Any], names: list[str]) -> dict[str, dict[str, Any]]:
    """The states by names, without those that are empty."""
    if not {"state", "param_groups"} <= set(state_dict):
        raise ValueError(
            f"{_check.caller()}: state_dict must have 'state' and 'param_groups', as that of an "
            f"optimizer of torch has, got {listed(state_dict)}."
        )
    indices = [int(i) for group in state_dict["param_groups"] for i in group["params"]]
    if len(indices) != len(names):
        raise ValueError(
            f"{_check.caller()}: names must be one for each of the {len(indices)} parameters of "
            f"the optimizer, got {len(names)}."
        )
    states = {int(i): entry for i, entry in state_dict["state"].items()}
    strays = sorted(states.keys() - set(indices))
    if strays:
        raise ValueError(
            f"{_check.caller()}: state_dict has a state for {listed(strays)}, in no group."
        )
    entries = {
        name: {field: x for field, x in states.get(i, {}).items() if x is not None}
        for i, name in zip(indices, names, strict=True)
    }
    return {name: entry for name, entry in entries.items() if entry}


def _complete(entries: Mapping[str, Mapping[str, Any]], wanted: set[str]) -> None:
    """Every state has all that is wanted, and nothing else."""
    lacks = [f"{n} lacks {f}" for n, e in entries.items() for f in sorted(wanted - e.keys())]
    extra = [f"{n} has {f}" for n, e in entries.items() for f in sorted(e.keys() - wanted)]
    if lacks or extra:
        raise ValueError(
            f"{_check.caller()}: tx keeps {listed(sorted(wanted)) or 'nothing'}; in state_dict "
            f"{listed(lacks + extra)}."
        )


def _check_velocity(state: Any) -> None:
    """Momentum stands before the learning rate, as in torch."""
    for descent in find_states(state, DescentState):
        if find_states(descent.velocity, TraceState):
            raise ValueError(
                f"{_check.caller()}: the optimizer keeps a velocity behind its learning rate, torch "
                "before it: make it with compat.torch.RMSprop or compat.torch.SGD."
            )


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
    ignored = {"params", "initial_lr", *_IMPLEMENTATION}
    implied = make is AdamW and group.get("decoupled_weight_decay") is True
    ignored |= {"decoupled_weight_decay"} if implied else set()
    unknown = sorted(group.keys() - arguments.keys() - ignored)
    if unknown:
        raise ValueError(
            f"from_state_dict: {make.__name__} has no {listed(unknown)}; is kind right?"
        )
    return arguments


_IMPLEMENTATION = ("foreach", "fused", "capturable", "differentiable")
