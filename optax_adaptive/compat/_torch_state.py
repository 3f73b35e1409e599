"""The checkpoints of PyTorch: state_dicts of optimizers, in and out."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import optax

from optax_adaptive import _check
from optax_adaptive._algorithms.adabound import AdaboundState, AmsboundState
from optax_adaptive._algorithms.adadelta import AdadeltaState
from optax_adaptive._algorithms.adagrad import AdagradState
from optax_adaptive._algorithms.adam import AdamState
from optax_adaptive._algorithms.adamax import AdamaxState
from optax_adaptive._algorithms.amsgrad import AmsgradState
from optax_adaptive._algorithms.nadam import NadamState
from optax_adaptive._algorithms.radam import RadamState
from optax_adaptive._algorithms.rmsprop import CenteredRmspropState, RmspropState
from optax_adaptive._core import DescentState, find_states
from optax_adaptive._momentum import TraceState
from optax_adaptive.compat._checkpoints import (
    Layout,
    Table,
    ToTree,
    array,
    filled,
    listed,
    merged,
    names_and_shapes,
    names_in,
    only,
    refill,
    spread,
    to_raw,
    walk,
)


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
        names: Those of the parameters, in the order of the optimizer: that in which its groups
            were given them. A mapping from them to arrays tells the shapes of those without a
            state.
        to_tree: The function that makes `params` of a dict of named arrays, with all
            transpositions. It is applied to the moments.
        step: The count of steps made, where torch does not save it (SGD): schedules go on from
            there. None for what is saved, or 1 with a momentum and 0 without.

    Returns:
        `tx.init(params)` with the moments and counts of `state_dict`, in the dtypes and shardings
        that it has there. A parameter without a state, because it was frozen, keeps that of `init`.

    Raises:
        ValueError: If something is missing, left over, of another shape or optimizer, or if the
            parameters have made different numbers of steps.
    """
    names, shapes = names_and_shapes(names)
    entries = entries_of(state_dict, names)
    state = tx.init(params)
    _check_velocity(state)
    types, wanted = names_in(state, _TABLE)
    mine = next((kind for kind, states in _STATES.items() if types & set(states)), "SGD")
    theirs = _kinds(state_dict["param_groups"][0], entries)
    if mine not in theirs:
        whose = f"torch's {' or '.join(theirs)}" if theirs else "no optimizer known here"
        raise ValueError(f"import_state: state_dict is that of {whose}, tx is {mine}.")
    fields = {field for entry in entries.values() for field in entry}
    unsaved = {"step"} if mine == "SGD" else set()
    if entries or mine != "SGD":
        _complete(entries, wanted - unsaved)
    if step is not None and "step" in fields:
        raise ValueError("import_state: step is saved in state_dict; do not give another one.")

    if step is None:
        step = 1 if entries else 0  # SGD: its momentum is not of before the first one
    numbers = {"step": step, "mu_product": 1.0}
    for name in fields & _NUMBERS:
        numbers[name] = only(name, {n: e[name] for n, e in entries.items() if name in e})
    moments = sorted(wanted - _NUMBERS) if entries else []
    trees, present = {}, None
    if moments:
        for name, entry in entries.items():
            shapes[name] = tuple(np.shape(entry[moments[0]]))
        layout = Layout(shapes, to_tree)
        for moment in moments:
            trees[moment] = layout.tree({n: array(e[moment]) for n, e in entries.items()})
        present = layout.numbers("states", {name: int(name in entries) for name in names})

    return refill(state, _TABLE, params, numbers, trees, present)


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
        for entry in saved["state"].values():
            entry |= {k: torch.as_tensor(x) for k, x in entry.items()}
        optimizer.load_state_dict(saved)

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
    entries_of({**state_dict, "state": {}}, names)
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
                field = spread(field, params)
                trees[name] = merged(trees[name], field) if name in trees else field
        return part

    walk(state, _TABLE, visit)
    if not numbers.get("step"):  # torch makes the states at the first step
        trees = {}
    types, _ = names_in(state, _TABLE)
    if not any(kind in types for states in _STATES.values() for kind in states):
        numbers = {}  # SGD
    if "step" in numbers:  # the adabound package counts in integers
        of_package = types & set(_STATES["AdaBound"])
        numbers["step"] = int(numbers["step"]) if of_package else np.float32(numbers["step"])

    saved: dict[str, dict[str, Any]] = {name: {} for name in names}
    for moment, tree in trees.items():
        arrays, present = (dict(from_tree(t)) for t in filled(tree, params))
        lost = [name for name in names if name not in arrays]
        if lost:
            raise ValueError(f"export_state: from_tree gives no {listed(lost)}.")
        for name in names:
            if np.all(np.asarray(present[name]) == 1):
                saved[name][moment] = np.array(arrays[name])
    indices = [i for group in state_dict["param_groups"] for i in group["params"]]
    return {
        "state": {
            # Copies: torch counts in place, in every entry.
            i: {k: x if type(x) is int else np.array(x) for k, x in numbers.items()} | saved[name]
            for i, name in zip(indices, names, strict=True)
            if saved[name]
        },
        "param_groups": state_dict["param_groups"],
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


def _kinds(group: Mapping[str, Any], entries: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Whose state_dict it may be, AdamW being Adam and AdaBoundW AdaBound."""
    kinds = [kind for mark, kind in _MARKS.items() if mark in group][:1]
    if kinds != ["Adamax"] or any("exp_inf" in entry for entry in entries.values()):
        return kinds
    return ["Adam", "RAdam", "Adamax"]  # old releases of torch have no more marks


def entries_of(state_dict: Mapping[str, Any], names: list[str]) -> dict[str, dict[str, Any]]:
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
                f"{_check.caller()}: the optimizer keeps a velocity behind its learning rate, "
                "torch before it: make it with compat.torch.RMSprop or compat.torch.SGD."
            )
