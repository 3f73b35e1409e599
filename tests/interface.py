"""The interface that versions promise: names, arguments, defaults, states, trajectories.

    python tests/interface.py

writes it as it is now to goldens/interface.json, for a change that is meant and is in CHANGELOG.md.
"""

import inspect
import json
from pathlib import Path

import jax
import jax.numpy as jnp
from cases import CASES

import optax_adaptive as oa

RECORDED = Path(__file__).parent / "goldens" / "interface.json"
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
    """The path, dtype and shape of every array in the state of each optimizer."""
    found = {}
    for case in CASES:
        state = jax.eval_shape(case.make().init, jnp.zeros(case.shapes[-1], jnp.float32))
        found.setdefault(
            case.name,
            [
                f"{jax.tree_util.keystr(path)} {x.dtype}{list(x.shape)}"
                for path, x in jax.tree.leaves_with_path(state)
            ],
        )
    return found


def trajectories():
    """Where each case ends, by the reference that the optimizer is held to."""
    return {
        key(case, shape): case.reference(*case.problem(shape))[-1]
        for case in CASES
        for shape in case.shapes
    }


def key(case, shape):
    return f"{case.id} on {'x'.join(map(str, shape))}"


def main():
    ends = {key: end.ravel().tolist() for key, end in trajectories().items()}
    parts = {"signatures": signatures(), "states": states(), "trajectories": ends}
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
