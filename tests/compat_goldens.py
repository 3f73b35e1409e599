"""What other frameworks did with a pasted line or a saved state, and what compat makes of it."""

import functools
import inspect
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
from goldens import mlp
from goldens.problem import problem

import optax_adaptive as oa
from optax_adaptive import compat
from optax_adaptive._core import find_states

GOLDENS = {
    path.stem: json.loads(path.read_text())
    for path in sorted((Path(__file__).parent / "goldens" / "compat").glob("*.json"))
}
MODULES = {"adabound": compat.torch, "keras_adabound": compat.keras}
START, GRADIENTS = problem((8,))

# Refused, and why.
REFUSED = {
    "sgd_ema_overwrite_accumulation": "ema_overwrite_frequency is not offered together",
    "sgd_loss_scale": "loss_scale_factor is not taken",
}
# Where the framework itself is not exact in float64.
ROUNDED = {
    ("keras", "adamax_cosine"): 2e-7,  # keras.ops.cos is float32
    ("keras", "nadam_cosine_warmup"): 5e-7,
    ("keras", "adadelta_cosine_restarts"): 5e-7,
    ("keras_legacy", "adam_schedule"): 2e-7,  # schedules are float32
    ("keras_legacy", "nadam"): 1e-8,  # the 0.96 of its schedule is float32
    ("keras_legacy", "nadam_betas"): 1e-7,
    ("tf1", "adam"): 1e-5,  # the powers of the betas are float32
    ("tf1", "adam_betas"): 1e-6,
}


def module_of(framework):
    return MODULES.get(framework) or getattr(compat, framework)


def snake(name):
    """The argument as Python writes it, from JavaScript."""
    return "".join(f"_{c.lower()}" if c.isupper() else c for c in name)


def constructed(framework, case):
    """The optimizer of a case, by the line that the framework was given."""
    make = getattr(module_of(framework), case["optimizer"])
    arguments = dict(case["arguments"])
    if framework == "tfjs":
        arguments = {snake(name): x for name, x in arguments.items()}
    rate_name = "lr" if module_of(framework) is compat.torch else "learning_rate"
    rate = arguments.get(rate_name)
    if isinstance(rate, dict):
        arguments[rate_name] = schedule_of(rate)
    if case.get("rate_divided_by_10_at") is not None:
        rate = rate or inspect.signature(make).parameters[rate_name].default
        lower = rate / 10
        if framework in ("keras_legacy", "keras_adabound", "tf1"):
            rate, lower = float(np.float32(rate)), float(np.float32(lower))
        arguments[rate_name] = lambda step: jnp.where(
            step < case["rate_divided_by_10_at"], rate, lower
        )
    return make(**arguments)


def schedule_of(serialized):
    config = {name: x for name, x in serialized["config"].items() if name != "name"}
    return getattr(compat.keras, serialized["class_name"])(**config)


def tree(vector):
    return {"kernel": vector[:6].reshape(2, 3), "bias": vector[6:]}


def flat(tree):
    return jnp.concatenate([tree["kernel"].ravel(), tree["bias"]])


def path_of(tx, dtype):
    """The parameters after each step, summed in float64, and their averages where there are."""

    def step(carry, g):
        p, state = carry
        params = tree(p.astype(dtype))
        updates, state = tx.update(tree(g), state, params)
        p = p + flat(updates)
        shown = p
        if find_states(state, oa.ExponentialAveragingState):
            shown = flat(oa.averaged_params(state, tree(p.astype(dtype))))
        return (p, state), (p, shown)

    start = jnp.asarray(START)
    init = tx.init(tree(start.astype(dtype)))
    _, paths = jax.jit(functools.partial(jax.lax.scan, step))(
        (start, init), jnp.asarray(GRADIENTS, dtype)
    )
    return [np.asarray(path, "float64") for path in paths]


TORCH = {"0.weight": "d0/kernel", "0.bias": "d0/bias", "2.weight": "d1/kernel", "2.bias": "d1/bias"}
KERAS = {name: name for name in TORCH.values()}


def read(x):
    return np.array(x["data"], "float32" if x["dtype"] == "bfloat16" else x["dtype"]).reshape(
        x["shape"]
    )


def to_tree(named):
    """As a user writes it: a kernel of torch is transposed."""
    if "0.weight" in named:
        return {
            "d0": {"kernel": named["0.weight"].T, "bias": named["0.bias"]},
            "d1": {"kernel": named["2.weight"].T, "bias": named["2.bias"]},
        }
    return {
        layer: {leaf: named[f"{layer}/{leaf}"] for leaf in ("kernel", "bias")}
        for layer in ("d0", "d1")
    }


def from_tree(params):
    return {
        "0.weight": params["d0"]["kernel"].T,
        "0.bias": params["d0"]["bias"],
        "2.weight": params["d1"]["kernel"].T,
        "2.bias": params["d1"]["bias"],
    }


def state_dict_of(checkpoint):
    """The state_dict, its arrays read."""
    saved = checkpoint["state"]

    def unpack(x):
        if isinstance(x, dict):
            return read(x) if "dtype" in x else {k: unpack(v) for k, v in x.items()}
        return x

    return {
        "state": {int(i): unpack(entry) for i, entry in saved["state"].items()},
        "param_groups": [unpack(group) for group in saved["param_groups"]],
    }


def loss(params, x, y):
    hidden = jnp.tanh(x @ params["d0"]["kernel"] + params["d0"]["bias"])
    return jnp.mean((hidden @ params["d1"]["kernel"] + params["d1"]["bias"] - y) ** 2)


def continuing(tx, params, dtype, steps=20):
    """A function of parameters and state: the parameters, and their averages if the state has them,
    after each further step of training."""
    x, y = (jnp.asarray(a, dtype) for a in mlp.data())
    averaged = bool(find_states(tx.init(params), oa.ExponentialAveragingState))

    def step(carry, _):
        params, state = carry
        grads = jax.grad(loss)(params, x, y)
        updates, state = tx.update(grads, state, params)
        params = optax.apply_updates(params, updates)
        shown = oa.averaged_params(state, params) if averaged else params
        return (params, state), (params, shown)

    return jax.jit(lambda *carry: jax.lax.scan(step, carry, None, length=steps)[1])


def apart(checkpoint, paths):
    """How far ours is from theirs, where they are shown, over the way since the checkpoint."""
    params, averages = paths
    steps = np.array(checkpoint["steps"]) - mlp.SAVED_AT - 1
    pairs = [(params, checkpoint["parameters"])]
    if "averages" in checkpoint:
        pairs.append((averages, checkpoint["averages"]))
    names, found = {**TORCH, **KERAS}, []
    for ours, theirs in pairs:
        for name, golden in theirs.items():
            layer, leaf = names[name].split("/")
            got = np.asarray(ours[layer][leaf], "float64")[steps]
            wanted, start = read(golden).astype("float64"), read(checkpoint["start"][name])
            if leaf == "kernel" and name in TORCH:
                wanted, start = wanted.swapaxes(1, 2), start.T
            way = 0 if name in checkpoint.get("frozen", ()) else abs(wanted - start).max()
            distance = abs(got - wanted).max()
            found.append(distance and distance / way)
    return max(found)


def bound_of(framework, name):
    """The largest distance, by precision; Keras 2 keeps hyperparameters in float32."""
    rounded = {"new_adam": 2e-5, "new_nadam": 2e-5, "nadam": 1e-7}
    dtype = GOLDENS[framework]["checkpoints"][name]["dtype"]
    usual = {"float64": 1e-9, "float32": 2e-5, "bfloat16": 0.05}[dtype]
    return rounded.get(name, usual) if framework == "keras_legacy" else usual


def imported(framework, name):
    """An optimizer and the state it continues with, from a checkpoint."""
    checkpoint = GOLDENS[framework]["checkpoints"][name]
    dtype = checkpoint["dtype"]
    names = checkpoint["names"]
    named = {n: jnp.asarray(read(checkpoint["start"][n]), dtype) for n in names}
    params = to_tree(named)
    if "state" in checkpoint:
        saved = state_dict_of(checkpoint)
        changes = {}
        if "rates" in checkpoint:
            rates = jnp.asarray(checkpoint["rates"])
            changes["lr"] = lambda step: rates[step - mlp.SAVED_AT]
        kind = checkpoint["optimizer"]
        tx = compat.torch.from_state_dict(saved, kind, names, to_tree, **changes)
        if "frozen" in checkpoint:
            frozen = {"d0": "frozen", "d1": "trained"}
            tx = optax.partition({"frozen": optax.set_to_zero(), "trained": tx}, frozen)
        return checkpoint, tx, params, compat.torch.import_state(tx, params, saved, names, to_tree)
    module = compat.keras if name.startswith("new_") else module_of(framework)
    arguments = dict(checkpoint["arguments"])
    if isinstance(arguments["learning_rate"], dict):
        arguments["learning_rate"] = schedule_of(arguments["learning_rate"])
    tx = getattr(module, checkpoint["optimizer"])(**arguments)
    variables = {str(i): read(v) for i, v in enumerate(checkpoint["variables"])}
    options = {}
    if "gradient_accumulation_steps" in arguments:
        options["gradient_accumulation_steps"] = arguments["gradient_accumulation_steps"]
    if name == "new_nadam":
        momenta = 0.9 * (1 - 0.5 * 0.96 ** np.arange(1, mlp.SAVED_AT + 1))
        options["u_product"] = float(np.prod(momenta))
    return (
        checkpoint,
        tx,
        params,
        compat.keras.import_state(tx, params, variables, names, to_tree, **options),
    )
