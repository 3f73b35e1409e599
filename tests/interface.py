"""The interface that versions promise: names, arguments, defaults, states, trajectories.

    python tests/interface.py

writes it as it is now to goldens/interface.json, for a change that is meant and is in CHANGELOG.md.
"""

import inspect
import json
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from cases import CASES, problem
from runs import trajectory

import optax_adaptive as oa

RECORDED = Path(__file__).parent / "goldens" / "interface.json"
# Around AdamW, in float64: what they make of its steps.
CHANGING = {
    "accumulate": lambda tx: oa.accumulate(tx, every=3),
    "cautious": oa.cautious,
    "clip_update_rms": lambda tx: oa.clip_update_rms(tx, max_rms=5e-3),
    "exponential_averaging": oa.exponential_averaging,
    "grokfast": oa.grokfast,
    "grokfast_ma": lambda tx: oa.grokfast_ma(tx, window=5),
    "guard": lambda tx: oa.guard(tx, clip_above=1.5, warmup=5),
    "layerwise_decay": lambda tx: oa.layerwise_decay(tx, 0.5, layers=lambda path: 1),
    "mars": oa.mars,
    "mechanize": oa.mechanize,
    "polynomial_averaging": oa.polynomial_averaging,
    "schedule_free": lambda tx: oa.schedule_free(tx, 0.01),
}
# Those that change no step there, or only its rounding.
STORING = {
    "by_path": lambda tx: oa.by_path({"*": tx}),
    "kahan": oa.kahan,
    "master_weights": oa.master_weights,
    "monitor": oa.monitor,
    "stochastic_rounding": oa.stochastic_rounding,
    "tunable": lambda tx: oa.tunable(oa.adamw)(0.01),
    "with_quantized_state": lambda tx: oa.with_quantized_state(tx, min_size=1),
    "with_state_dtype": lambda tx: oa.with_state_dtype(tx, mu=jnp.bfloat16),
}
COMPAT = ("torch", "keras", "keras_legacy", "tf1", "tfjs")


def signature(thing):
    """The arguments of a function and their defaults, or the fields of a class."""
    if not inspect.isfunction(thing):
        fields = {*vars(thing), *getattr(thing, "__annotations__", {})}
        fields = getattr(thing, "_fields", sorted(name for name in fields if name[0] != "_"))
        return ", ".join(fields)

    def bare(p):
        default = p.default if p.default is p.empty else getattr(p.default, "__name__", p.default)
        return p.replace(annotation=p.empty, default=default)

    found = inspect.signature(thing)
    parameters = [bare(p) for p in found.parameters.values()]
    return str(found.replace(parameters=parameters, return_annotation=found.empty))


def signatures():
    """Of every public name."""
    places = {"": oa} | {f"compat.{name}.": getattr(oa.compat, name) for name in COMPAT}
    found = {}
    for place, module in places.items():
        for name, thing in vars(module).items():
            its_own = module is oa or name in getattr(module, "__all__", ())
            its_own |= getattr(thing, "__module__", None) == module.__name__
            if its_own and name[0] != "_" and callable(thing):
                found[place + name] = signature(thing)
    return found


def states():
    """The path, dtype and shape of every array in the state of each optimizer and wrapper."""
    made = {}
    for case in CASES:
        made.setdefault(case.name, (case.make(), jnp.zeros(case.shapes[-1], jnp.float32)))
    for name, wrap in (CHANGING | STORING).items():
        made[name] = (wrap(oa.adamw(0.01)), jnp.zeros((4, 256), jnp.bfloat16))
    return {name: arrays(jax.eval_shape(tx.init, params)) for name, (tx, params) in made.items()}


def arrays(state):
    leaves = jax.tree.leaves_with_path(state)
    return [f"{jax.tree_util.keystr(path)} {x.dtype}{list(x.shape)}" for path, x in leaves]


class End(NamedTuple):
    """Where a trajectory begins and ends, and how exactly it is known."""

    start: np.ndarray
    end: np.ndarray
    exact: float


def ends():
    """Of every case, by the reference that it is held to, and of wrappers, by themselves."""
    found = {}
    for case in CASES:
        for shape in case.shapes:
            start, gradients = case.problem(shape)
            end = case.reference(start, gradients)[-1]
            name = f"{case.id} on {'x'.join(map(str, shape))}"
            found[name] = End(start.ravel(), end.ravel(), 10 * case.float64)
    start, gradients = problem()
    for name, wrap in CHANGING.items():
        path = trajectory(wrap(oa.adamw(0.01)), start, gradients, "float64")
        found[f"{name} around adamw"] = End(start, path[-1], 1e-9)
    return found


def main():
    where = {name: found.end.tolist() for name, found in ends().items()}
    parts = {"signatures": signatures(), "states": states(), "ends": where}
    # A line for each entry, so that a change shows as one.
    lines = [
        f"{json.dumps(name)}: {{\n"
        + ",\n".join(f"{json.dumps(k)}: {json.dumps(v)}" for k, v in part.items())
        + "\n}"
        for name, part in parts.items()
    ]
    RECORDED.write_text("{\n" + ",\n".join(lines) + "\n}\n")


if __name__ == "__main__":
    main()
