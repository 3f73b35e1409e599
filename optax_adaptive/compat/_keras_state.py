"""The checkpoints of Keras 3 and Keras 2: the variables of an optimizer, in order."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

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
from optax_adaptive._algorithms.rmsprop import CenteredRmspropState, RmspropState
from optax_adaptive._core import DescentState, find_states
from optax_adaptive._momentum import TraceState
from optax_adaptive._wrappers.accumulate import AccumulateState
from optax_adaptive._wrappers.averaging import ExponentialAveragingState
from optax_adaptive.compat._checkpoints import (
    Layout,
    Table,
    ToTree,
    array,
    listed,
    names_and_shapes,
    names_in,
    refill,
)


def import_state(
    tx: optax.GradientTransformation,
    params: optax.Params,
    variables: Sequence[Any] | Mapping[Any, Any],
    names: Sequence[str] | Mapping[str, Any],
    to_tree: ToTree,
    *,
    gradient_accumulation_steps: int | None = None,
    order: str | None = None,
    u_product: float | None = None,
) -> optax.OptState:
    """The state with which `tx` continues a run of Keras 3 or Keras 2.

    ::

        named = {v.path: np.asarray(v) for v in model.trainable_variables}
        params = to_tree(named)
        tx = compat.keras.from_config(optimizer.get_config())
        state = compat.keras.import_state(tx, params, optimizer.variables, named, to_tree)

    Args:
        tx: An optimizer of this module or of `compat.keras_legacy`, or one with the same states.
        params: The parameters, as `to_tree` makes them of the model's.
        variables: Those of the optimizer, as arrays in its order; or a mapping from their indices,
            as `optimizer/vars` of a .weights.h5 file is. Keras 2: what `get_weights` gives.
        names: Those of the trainable variables, in the order of the model.
        to_tree: The function that makes `params` of a dict of named arrays.
        gradient_accumulation_steps: That of Keras, if it has one: the state does not tell.
        order: "interleaved", the moments of one variable side by side as in Keras 3 and in Keras
            2.11 to 2.15, or "blocks", those of one kind, as in the classes before. None to see it
            from the shapes.
        u_product: The product of the momenta of Nadam, in [0, 1], where it is not among the
            variables: those of Keras 2.11 to 2.15 lack `optimizer._u_product`.

    Returns:
        `tx.init(params)` with the moments and counts of `variables`, in the dtypes and shardings
        that it has there.

    Raises:
        ValueError: If something is missing, left over, or of another shape or optimizer.
    """
    names, _ = names_and_shapes(names)
    saved = _in_order(variables)
    state = tx.init(params)
    types, _ = names_in(state, _TABLE)
    for descent in find_states(state, DescentState):
        if find_states(descent.direction, TraceState):
            raise ValueError(
                "import_state: the optimizer keeps its momentum before the learning rate, Keras "
                "behind it: make it with compat.keras.SGD or compat.keras.RMSprop."
            )
    blocks = _blocks(types)
    has_product = NadamState in types
    if has_product and u_product is not None:
        _check.share(u_product=u_product)
    scalars = ["iteration"] + ["u_product"] * (has_product and u_product is None)
    slots = [slot for block in blocks for slot in block]
    surplus = len(saved) - len(scalars) - len(names) * len(slots)
    if surplus not in (0, 1):
        raise ValueError(
            f"import_state: tx keeps {listed(scalars)} and, for each of {len(names)} names, "
            f"{listed(slots) or 'nothing'}: {len(scalars) + len(names) * len(slots)} variables, or "
            f"one more for a learning rate that is no schedule; got {len(saved)}."
        )
    if AccumulateState in types and gradient_accumulation_steps is None:
        raise ValueError(
            "import_state: tx accumulates gradients; give gradient_accumulation_steps."
        )

    iteration, *saved = saved
    saved = saved[surplus:]  # behind the learning rate
    if "u_product" in scalars:  # the last one in Keras 3, the first one before
        last = saved[-1].value.shape == ()
        u_product = float(saved.pop(-1 if last else 0).value)
    moments = _by_slot(saved, names, blocks, order)

    if RmspropState in types or CenteredRmspropState in types:
        moments = {
            s: {n: -x if s == "trace" else x for n, x in m.items()} for s, m in moments.items()
        }
    calls, every = int(iteration.value), gradient_accumulation_steps or 1
    numbers = {
        "iteration": calls,
        "step": calls // every,
        "micro_step": calls % every,
        "u_product": u_product,
    }
    trees, present = {}, None
    if moments:
        first = next(iter(moments.values()))
        layout = Layout({name: np.shape(x) for name, x in first.items()}, to_tree)
        trees = {slot: layout.tree(m) for slot, m in moments.items()}
        present = layout.numbers("states", dict.fromkeys(names, 1))
    return refill(state, _TABLE, params, numbers, trees, present)


_MEANS = {"count": "step", "mu": "momentum", "nu": "velocity"}
_TABLE: Table = {
    ExponentialAveragingState: {"seen": "iteration", "average": "average"},
    AccumulateState: {"calls": "micro_step", "grad_sum": "gradient_accumulator"},
    DescentState: {"step": "step"},
    optax.InjectStatefulHyperparamsState: {
        "count": "step",
        "hyperparams": None,
        "hyperparams_states": None,
    },
    TraceState: {"trace": "trace"},
    AdagradState: {"sum_sq": "accumulator"},
    AdadeltaState: {"nu": "accumulated_grad", "delta": "accumulated_delta_var"},
    RmspropState: {"count": "step", "nu": "velocity"},
    CenteredRmspropState: {"count": "step", "mu": "average_gradient", "variance": "velocity"},
    AdamState: _MEANS,
    AmsgradState: {**_MEANS, "nu_max": "velocity_hat"},
    NadamState: {**_MEANS, "momentum_gap": "u_product"},
    AdamaxState: {"count": "step", "mu": "momentum", "nu": "norm"},
    AdaboundState: _MEANS,
    AmsboundState: {**_MEANS, "nu_max": "velocity_hat"},
}
# In the order of the variables; those in one tuple are side by side for every variable.
_BLOCKS: dict[tuple[type, ...], tuple[tuple[str, ...], ...]] = {
    (ExponentialAveragingState,): (("average",),),
    (AccumulateState,): (("gradient_accumulator",),),
    (AdagradState,): (("accumulator",),),
    (AdadeltaState,): (("accumulated_grad", "accumulated_delta_var"),),
    (RmspropState, CenteredRmspropState): (("velocity",),),
    (AdamState, AmsgradState, NadamState, AdaboundState, AmsboundState): (
        ("momentum", "velocity"),
    ),
    (AdamaxState,): (("momentum", "norm"),),
    (TraceState,): (("trace",),),
    (CenteredRmspropState,): (("average_gradient",),),
    (AmsgradState, AmsboundState): (("velocity_hat",),),
}


def _blocks(types: set[type]) -> list[tuple[str, ...]]:
    """The slots of an optimizer with states of these types."""
    return [block for of, blocks in _BLOCKS.items() if types & set(of) for block in blocks]


class _Saved(NamedTuple):
    """A variable of Keras, and its name if it has one."""

    value: np.ndarray
    name: str


def _in_order(variables: Any) -> list[_Saved]:
    """The variables as a list; the keys of a mapping are numbers, and '10' comes after '2'."""
    if isinstance(variables, Mapping):
        try:
            variables = [variables[key] for key in sorted(variables, key=int)]
        except ValueError:
            raise ValueError(
                "import_state: variables must be a list in the order of the optimizer, or a "
                f"mapping from indices, got a mapping from {listed(variables)}."
            ) from None
    saved = [_Saved(array(x), str(getattr(x, "name", ""))) for x in variables]
    count = saved[0].value if saved else np.zeros(())
    if count.shape != () or not np.issubdtype(count.dtype, np.integer):
        raise ValueError(
            "import_state: variables must begin with the count of iterations, an integer."
        )
    return saved


def _by_slot(
    saved: Sequence[_Saved],
    names: Sequence[str],
    blocks: Sequence[tuple[str, ...]],
    order: str | None,
) -> dict[str, dict[str, np.ndarray]]:
    """The moments, by slot and name of their parameter."""
    if order is not None:
        _check.one_of("interleaved", "blocks", order=order)
    ways = {
        "interleaved": [(s, n) for block in blocks for n in names for s in block],
        "blocks": [(s, n) for block in blocks for s in block for n in names],
    }
    fitting = {}
    for way, keys in ways.items():
        read = dict(zip(keys, saved, strict=True))
        shapes = {n: {read[s, n].value.shape for block in blocks for s in block} for n in names}
        if all(len(of_name) <= 1 for of_name in shapes.values()):
            fitting[way] = read
    if order is None and len(fitting) == 2 and ways["interleaved"] != ways["blocks"]:
        raise ValueError(
            "import_state: all variables have the same shapes; say whether their order is "
            "'interleaved' (Keras 2.11 and later) or 'blocks' (before)."
        )
    read = next(iter(fitting.values()), None) if order is None else fitting.get(order)
    if read is None:
        shown = listed(x.value.shape for x in saved)
        raise ValueError(
            f"import_state: the variables of one name must have one shape, got in order {shown}."
        )
    slots: dict[str, dict[str, np.ndarray]] = {}
    for (slot, name), x in read.items():
        said = next((end for end in _ENDINGS if x.name.endswith(f"_{end}")), None)
        if said not in (None, _ENDING.get(slot, slot)):
            raise ValueError(f"import_state: {x.name} is given where tx keeps {slot} of {name}.")
        slots.setdefault(slot, {})[name] = x.value
    return slots


# How the names of Keras 3 end; gradient_accumulator is no accumulator.
_ENDING = {"trace": "momentum"}
_ENDINGS = sorted(
    {_ENDING.get(s, s) for blocks in _BLOCKS.values() for block in blocks for s in block},
    key=len,
    reverse=True,
)
