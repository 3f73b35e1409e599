"""The constructors and checkpoints of other frameworks, against what those frameworks did."""

import functools
import inspect
import json
import pickle
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from goldens import mlp
from goldens.problem import problem
from runs import enable_x64

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
CASES = [
    pytest.param(framework, name, id=f"{framework}-{name}")
    for framework, golden in GOLDENS.items()
    for name in golden["cases"]
]


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


def deviation(ours, golden, start=START, floor=0.0):
    """The largest distance, per coordinate, over the way it travelled, or over `floor`."""
    ours, golden = np.asarray(ours), np.asarray(golden, "float64")
    distance, way = abs(ours - golden).max(0), abs(golden - start).max(0)
    return float(np.max(distance / np.maximum(way, np.maximum(floor, 1e-300))))


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize(("framework", "name"), CASES)
def test_the_line_gives_the_trajectory(framework, name, dtype):
    golden = GOLDENS[framework]
    case = golden["cases"][name]
    if name in REFUSED:
        with pytest.raises((TypeError, ValueError), match=REFUSED[name]):
            constructed(framework, case)
        return
    with enable_x64(True):
        path, averages = path_of(constructed(framework, case), dtype)
    made_in_float32 = golden["dtype"] == "float32"
    bound = ROUNDED.get((framework, name), 1e-9)
    if dtype == "float32" or made_in_float32:
        bound = max(bound, 2e-5)
    floor = abs(START) if made_in_float32 else np.zeros(8)  # its parameters are rounded at each step
    theirs = np.array(case["parameters"], "float64")
    valid = np.isfinite(theirs).all(0)  # TensorFlow.js, centered: NaN where a gradient is zero
    assert valid.sum() >= 3
    assert np.isfinite(path).all()
    assert deviation(path[:, valid], theirs[:, valid], START[valid], floor[valid]) < bound
    if "averages" in case:
        assert deviation(averages, case["averages"]) < bound


def test_every_option_makes_a_difference():
    """No two cases of one constructor have the same trajectory: each option shows in one."""
    for framework, golden in GOLDENS.items():
        if framework == "tfjs":
            continue
        shown = [
            (case["optimizer"], name, np.array(case["parameters"]))
            for name, case in golden["cases"].items()
            if "averages" not in case
        ]
        for i, (optimizer, name, path) in enumerate(shown):
            for other, other_name, other_path in shown[:i]:
                if optimizer == other:
                    assert abs(path - other_path).max() > 1e-9, (framework, name, other_name)


def test_every_constructor_has_a_case():
    for framework, golden in GOLDENS.items():
        used = {case["optimizer"] for case in golden["cases"].values()}
        assert all(hasattr(module_of(framework), name) for name in used)
    for module in (compat.torch, compat.keras, compat.keras_legacy, compat.tf1, compat.tfjs):
        frameworks = [f for f in GOLDENS if module_of(f) is module]
        used = {case["optimizer"] for f in frameworks for case in GOLDENS[f]["cases"].values()}
        assert constructors(module) == used


def constructors(module):
    """The names of the optimizers of a module: what makes a transformation."""
    return {
        name
        for name, f in vars(module).items()
        if inspect.isfunction(f)
        and not name.startswith("_")
        and f.__module__ == module.__name__
        and name not in ("from_config", "from_state_dict")
    }


@pytest.mark.parametrize("name", GOLDENS["keras"]["schedules"])
def test_schedules(name):
    golden = GOLDENS["keras"]["schedules"][name]
    exact = "Cosine" not in golden["class_name"]  # keras.ops.cos is float32
    values = np.array(golden["values"], "float64")
    for x64, bound in ((True, 1e-14 if exact else 2e-7), (False, 1e-6)):
        with enable_x64(x64):
            schedule = schedule_of(golden)
            ours = jax.jit(jax.vmap(schedule))(jnp.arange(len(values)))
            eager = [schedule(step) for step in (0, 1, 30)]
        np.testing.assert_allclose(ours, values, rtol=0, atol=bound * values.max())
        np.testing.assert_allclose(eager, values[[0, 1, 30]], rtol=0, atol=bound * values.max())


@pytest.mark.parametrize("name", GOLDENS["keras"]["configs"])
def test_from_config(name):
    """What get_config gave makes the optimizer of the case that it was taken from."""
    config, case = GOLDENS["keras"]["configs"][name], GOLDENS["keras"]["cases"][name]
    if name in REFUSED:
        with pytest.raises((TypeError, ValueError), match=REFUSED[name]):
            compat.keras.from_config(config)
        return
    serialized = {"class_name": case["optimizer"], "config": config | {"name": "mine"}}
    for given in (config, serialized):
        with enable_x64(True):
            path, _ = path_of(compat.keras.from_config(given), "float64")
        assert deviation(path, case["parameters"]) < ROUNDED.get(("keras", name), 1e-9)


def test_from_config_changes_and_refuses():
    config = GOLDENS["keras"]["configs"]["adam"]
    tx = compat.keras.from_config(config, learning_rate=0.0)
    updates, _ = tx.update(jnp.ones(2), tx.init(jnp.ones(2)))
    np.testing.assert_array_equal(updates, 0)
    refused = {
        "'mine' is none of SGD, .* keras.optimizers.serialize": config | {"name": "mine"},
        "loss_scale_factor is not taken": config | {"loss_scale_factor": 8.0},
        "fancy is not taken": config | {"fancy": 1},
        "schedule must be one of ExponentialDecay, .* 'Mine'": config
        | {"learning_rate": {"class_name": "Mine", "config": {}}},
    }
    for message, bad in refused.items():
        with pytest.raises((TypeError, ValueError), match=message):
            compat.keras.from_config(bad)


# Checkpoints.

CHECKPOINTS = [
    pytest.param(framework, name, id=f"{framework}-{name}")
    for framework, golden in GOLDENS.items()
    for name in golden["checkpoints"]
]
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


def continued(tx, params, state, dtype, steps=20):
    """The parameters and the state's averages, if any, after each further step of training."""
    x, y = (jnp.asarray(a, dtype) for a in mlp.data())
    averaged = bool(find_states(state, oa.ExponentialAveragingState))

    def step(carry, _):
        params, state = carry
        grads = jax.grad(loss)(params, x, y)
        updates, state = tx.update(grads, state, params)
        params = optax.apply_updates(params, updates)
        shown = oa.averaged_params(state, params) if averaged else params
        return (params, state), (params, shown)

    return jax.jit(lambda *carry: jax.lax.scan(step, carry, None, length=steps)[1])(params, state)


def compared(checkpoint, paths, bound):
    """Ours against theirs, where they are shown, over the way travelled since the start."""
    params, averages = paths
    steps = np.array(checkpoint["steps"]) - mlp.SAVED_AT - 1
    pairs = [(params, checkpoint["parameters"])]
    if "averages" in checkpoint:
        pairs.append((averages, checkpoint["averages"]))
    names = {**TORCH, **KERAS}
    for ours, theirs in pairs:
        for name, golden in theirs.items():
            layer, leaf = names[name].split("/")
            got = np.asarray(ours[layer][leaf], "float64")[steps]
            wanted, start = read(golden).astype("float64"), read(checkpoint["start"][name])
            if leaf == "kernel" and name in TORCH:
                wanted, start = wanted.swapaxes(1, 2), start.T
            if name in checkpoint.get("frozen", ()):
                np.testing.assert_array_equal(got, wanted)
                continue
            apart = abs(got - wanted).max() / abs(wanted - start).max()
            assert apart < bound, (name, apart)


BOUNDS = {"float64": 1e-9, "float32": 2e-5, "bfloat16": 0.05}
# Keras 2 keeps hyperparameters, or powers of them, in float32.
KERAS_2 = {"new_adam": 2e-5, "new_nadam": 2e-5, "nadam": 1e-7}


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


@pytest.mark.parametrize(("framework", "name"), CHECKPOINTS)
def test_a_run_goes_on(framework, name):
    dtype = GOLDENS[framework]["checkpoints"][name]["dtype"]
    with enable_x64(dtype == "float64"):
        checkpoint, tx, params, state = imported(framework, name)
        paths = continued(tx, params, state, dtype)
        bound = KERAS_2.get(name, 0) if framework == "keras_legacy" else 0
        compared(checkpoint, paths, max(bound, BOUNDS[dtype]))
        fresh = tx.init(params)
        assert jax.tree.structure(fresh) == jax.tree.structure(state)
        for old, new in zip(jax.tree.leaves(fresh), jax.tree.leaves(state), strict=True):
            assert (old.dtype, old.shape) == (new.dtype, new.shape)
        stateful = any(jnp.ndim(x) for x in jax.tree.leaves(state))
        if stateful:  # what was imported matters
            with pytest.raises(AssertionError):
                compared(checkpoint, continued(tx, params, fresh, dtype), BOUNDS[dtype])


@pytest.mark.parametrize(
    "name", GOLDENS["torch"]["checkpoints"] | GOLDENS["adabound"]["checkpoints"]
)
def test_a_run_goes_back(name):
    """What was imported is exported as it was."""
    framework = "torch" if name in GOLDENS["torch"]["checkpoints"] else "adabound"
    dtype = GOLDENS[framework]["checkpoints"][name]["dtype"]
    with enable_x64(dtype == "float64"):
        checkpoint, _, params, state = imported(framework, name)
        saved = state_dict_of(checkpoint)
        names = checkpoint["names"]
        back = compat.torch.export_state(params, state, saved, names, from_tree)
    assert back["param_groups"] == saved["param_groups"]
    assert back["state"].keys() == saved["state"].keys()
    for i, entry in saved["state"].items():
        assert back["state"][i].keys() == entry.keys()
        for field, x in entry.items():
            atol = 1e-7 if field == "mu_product" else 1e-9  # 1 minus it is what is kept
            np.testing.assert_allclose(back["state"][i][field], x, rtol=1e-6, atol=atol)
            assert np.shape(back["state"][i][field]) == np.shape(x)
