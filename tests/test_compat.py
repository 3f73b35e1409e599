"""The constructors and checkpoints of other frameworks, against what those frameworks did."""

import functools
import inspect
import json
import pickle
from pathlib import Path

import chex
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
    floor = (
        abs(START) if made_in_float32 else np.zeros(8)
    )  # its parameters are rounded at each step
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


# What every optimizer promises (test_contract.py), for the constructors of others.


def lines():
    """Of every constructor the case with the fewest arguments, and that with the most."""
    cases = {}
    for framework, golden in GOLDENS.items():
        for name, case in golden["cases"].items():
            if name in REFUSED or case.get("rate_divided_by_10_at") is not None:
                continue
            key = (module_of(framework).__name__, case["optimizer"])
            cases.setdefault(key, []).append((len(case["arguments"]), framework, name))
    for found in cases.values():
        for _, framework, name in dict.fromkeys((min(found), max(found))):
            yield pytest.param(framework, name, id=f"{framework}-{name}")


every_line = pytest.mark.parametrize(("framework", "name"), list(lines()))


def made(framework, name):
    return constructed(framework, GOLDENS[framework]["cases"][name])


@every_line
def test_dtypes_of_states_and_updates(framework, name):
    tx = made(framework, name)
    for wide, narrow in (("float32", "bfloat16"), ("bfloat16", "float32"), ("float16", "float16")):
        params = {"w": jnp.ones((2, 3), wide), "none": None, "empty": jnp.zeros((0, 2), wide)}
        grads = jax.tree.map(lambda p, dtype=narrow: p.astype(dtype), params)
        state = jax.eval_shape(tx.init, params)
        updates, after = jax.eval_shape(tx.update, grads, state, params)
        chex.assert_trees_all_equal_shapes_and_dtypes(state, after)
        chex.assert_trees_all_equal_shapes_and_dtypes(updates, grads)
        assert all(x.dtype in ("float32", "int32") for x in jax.tree.leaves(state))


@every_line
def test_extreme_gradients(framework, name):
    tx = made(framework, name)
    params = jnp.ones(4)
    ordinary = jnp.array([0.0, 1.0, -1.0, 0.5])

    @jax.jit
    def run(first):
        def step(state, g):
            updates, state = tx.update(g, state, params)
            return state, updates

        state, updates = step(tx.init(params), first)
        return (updates, *jax.lax.scan(step, state, jnp.tile(ordinary, (20, 1))))

    for size in (0.0, 1e-30, 1e15, jnp.nan):
        found = run(jnp.full(4, size))
        if not jnp.isnan(size):
            chex.assert_tree_all_finite(found)
            continue
        updates, _, later = found
        seen = (updates, later)  # accumulated, they are seen later
        assert not all(np.isfinite(u).all() for u in seen), "a NaN is swallowed"


@every_line
def test_jit_masks_integers_and_pickles(framework, name):
    tx = made(framework, name)
    params = {"w": jnp.array([1.0, -2.0]), "n": jnp.arange(3), "frozen": jnp.ones(2)}
    grads = {"w": jnp.array([0.5, 0.1]), "n": jnp.zeros(3, int), "frozen": jnp.ones(2)}
    masked = optax.masked(tx, {"w": True, "n": True, "frozen": False})
    state = masked.init(params)
    assert pickle.loads(pickle.dumps(jax.device_get(state))) is not None
    for _ in range(4):  # of which one is a step where gradients are accumulated
        eager, _ = masked.update(grads, state, params)
        updates, state = jax.jit(masked.update)(grads, state, params)
        chex.assert_trees_all_close(updates, eager, rtol=1e-5)
        moved = bool(jnp.any(updates["w"] != 0))
        np.testing.assert_array_equal(updates["n"], 0)
        np.testing.assert_array_equal(updates["frozen"], grads["frozen"])
    assert moved
    updates, _ = tx.update({}, tx.init({}), {})
    assert updates == {}


@every_line
def test_injected_hyperparameters(framework, name):
    case = GOLDENS[framework]["cases"][name]
    make = getattr(module_of(framework), case["optimizer"])
    rate_name = "lr" if module_of(framework) is compat.torch else "learning_rate"
    arguments = {snake(k): v for k, v in case["arguments"].items() if k != rate_name}
    arguments = {k: schedule_of(v) if isinstance(v, dict) else v for k, v in arguments.items()}
    arguments.pop("learning_rate", None)
    static = [k for k, v in arguments.items() if isinstance(v, (bool, str))]
    static += ["gradient_accumulation_steps", "ema_overwrite_frequency"]
    static += ["momentum"] if framework == "keras_legacy" else []  # it moves epsilon of RMSprop
    static = [k for k in static if k in inspect.signature(make).parameters]
    band = {"base_lr": 0.01} if "base_lr" in inspect.signature(make).parameters else {}
    tx = optax.inject_hyperparams(make, static_args=static)(
        **{rate_name: 0.01}, **arguments, **band
    )
    params = {"w": jnp.array([1.0, -2.0])}
    state = tx.init(params)
    alone = make(**{rate_name: 0.01}, **arguments, **band)
    alone_state = alone.init(params)
    for _ in range(4):
        updates, state = jax.jit(tx.update)(params, state, params)
        expected, alone_state = jax.jit(alone.update)(params, alone_state, params)
        chex.assert_trees_all_close(updates, expected, rtol=1e-3)
    state.hyperparams[rate_name] = jnp.asarray(0.0)
    stopped, _ = jax.jit(tx.update)(params, state, params)
    if "momentum" not in arguments and name != "adaboundw":  # whose decay no rate scales
        np.testing.assert_array_equal(stopped["w"], 0)


@every_line
def test_no_temporaries(framework, name):
    tx = made(framework, name)

    def step(params, state, grads):
        updates, state = tx.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    params = {"kernel": jax.ShapeDtypeStruct((512, 512), jnp.float32)}
    state = jax.eval_shape(tx.init, params)
    compiled = jax.jit(step, donate_argnums=(0, 1)).lower(params, state, params).compile()
    words = compiled.memory_analysis().temp_size_in_bytes / (4 * 512 * 512)
    assert words <= TEMPORARIES.get(f"{framework}-{name}", 0.01)


# Overwriting reads the parameters twice; the branch of accumulation hands its arrays over.
TEMPORARIES = {"keras-sgd_ema_overwrite": 1.01, "keras-adam_ema_accumulation": 2.01}


# Refusals.


@pytest.mark.parametrize(
    ("make", "arguments", "message"),
    [
        (compat.keras.Adam, {"lr": 1e-3}, "Adam: lr is not taken: it is learning_rate"),
        (compat.keras_legacy.Adam, {"lr": 1e-3}, "Adam: lr is not taken: it is learning_rate"),
        (compat.keras.AdaBound, {"lr": 1e-3}, "AdaBound: lr is not taken: it is learning_rate"),
        (compat.keras.SGD, {"decay": 1e-3}, "decay is not taken: Keras 3 ignores it"),
        (compat.keras.SGD, {"fancy": 1}, "fancy is not taken: there is no such argument"),
        (compat.keras.SGD, {"clipnorm": 1.0, "clipvalue": 1.0}, "only one of clipnorm and clipval"),
        (compat.keras.SGD, {"clipnorm": 0.0}, "clipnorm must be a finite number > 0, got 0"),
        (compat.keras.SGD, {"ema_overwrite_frequency": 3}, "needs use_ema=True"),
        (compat.keras.SGD, {"use_ema": 1}, "use_ema must be True or False"),
        (compat.keras.SGD, {"use_ema": True, "ema_momentum": 2.0}, "ema_momentum must be a number"),
        (compat.keras.SGD, {"gradient_accumulation_steps": 1.5}, "steps must be a whole number"),
        (compat.keras.SGD, {"momentum": 1.0}, r"momentum must be a number in \[0, 1\), got 1"),
        (compat.keras.Adam, {"epsilon": 0.0}, "epsilon must be a finite number > 0, got 0"),
        (compat.keras.Adam, {"beta_1": -0.1}, r"beta_1 must be a number in \[0, 1\), got -0.1"),
        (compat.keras.Adam, {"learning_rate": None}, "learning_rate must be .* schedule, got None"),
        (
            compat.keras_legacy.SGD,
            {"weight_decay": 0.1},
            "weight_decay is not taken: these classes",
        ),
        (
            compat.keras_legacy.SGD,
            {"clipnorm": 1.0, "global_clipnorm": 1.0},
            "only one of clipnorm",
        ),
        (compat.keras_legacy.Nadam, {"decay": 0.1}, "decay is not taken: .* schedule_decay"),
        (compat.torch.AdamW, {"learning_rate": 1e-3}, "learning_rate is not taken: torch calls it"),
        (compat.torch.AdamW, {"fused": True}, "fused is not taken: it only chooses among impl"),
        (compat.torch.AdamW, {"betas": 0.9}, "betas must be a pair of numbers, got 0.9"),
        (compat.torch.AdamW, {"betas": (0.9, 1.0)}, r"betas\[1\] must be .* got 1"),
        (compat.torch.AdamW, {"lr": -1.0}, "AdamW: lr must be a finite number >= 0 or a schedule"),
        (compat.torch.AdamW, {"lr": None}, "AdamW: lr must be .* got None"),
        (compat.torch.AdamW, {"weight_decay": -1.0}, "weight_decay must be a finite number >= 0"),
        (compat.torch.SGD, {"nesterov": True}, "nesterov needs a momentum"),
        (compat.torch.SGD, {"momentum": 0.9, "nesterov": True, "dampening": 0.5}, "no dampening"),
        (compat.torch.SGD, {"maximize": 1}, "maximize must be True or False, got 1"),
        (compat.tf1.AdamOptimizer, {"beta1": 1.0}, r"beta1 must be a number in \[0, 1\)"),
        (compat.tfjs.adam, {"epsilon": -1.0}, "adam: epsilon must be a finite number > 0"),
        (
            compat.keras.ExponentialDecay,
            {"decay_steps": 0},
            "ExponentialDecay: decay_steps must be",
        ),
        (compat.keras.CosineDecay, {"warmup_steps": 3}, "warmup_steps do nothing without"),
        (compat.keras.CosineDecayRestarts, {"t_mul": 0.5}, "t_mul must be a finite number >= 1"),
    ],
)
def test_bad_arguments_are_refused(make, arguments, message):
    required = {"initial_learning_rate": 0.1, "decay_steps": 9, "first_decay_steps": 9}
    required["decay_rate"] = 0.5
    takes = inspect.signature(make).parameters
    arguments = {k: v for k, v in required.items() if k in takes} | arguments
    with pytest.raises((TypeError, ValueError), match=message) as refusal:
        make(**arguments)
    assert str(refusal.value).startswith(f"{make.__name__}: ")


def test_boundaries_and_values():
    for boundaries, values, message in (
        ([1], [0.1], "values must be one more than boundaries, got 1 and 1"),
        ([2, 1], [0.1, 0.1, 0.1], r"boundaries must ascend, got \[2, 1\]"),
        ([1], [0.1, -0.1], r"values\[1\] must be a finite number >= 0"),
    ):
        with pytest.raises(ValueError, match=message):
            compat.keras.PiecewiseConstantDecay(boundaries, values)


def torch_adam():
    """What import_state of Adam's checkpoint is given."""
    checkpoint = GOLDENS["torch"]["checkpoints"]["adam"]
    names = checkpoint["names"]
    params = to_tree({n: jnp.asarray(read(checkpoint["start"][n]), "float32") for n in names})
    tx = compat.torch.Adam()
    return [tx, params, state_dict_of(checkpoint), list(names), to_tree]


def replaced(arguments, place, x):
    return [*arguments[:place], x, *arguments[place + 1 :]]


def test_what_does_not_fit_torch_is_refused():
    given = torch_adam()
    state_dict = given[2]
    group = state_dict["param_groups"][0]
    entry = state_dict["state"][0]

    def saved(**fields):
        """The state_dict with another first entry."""
        return {**state_dict, "state": {**state_dict["state"], 0: entry | fields}}

    def refused(message, place=2, x=None, **options):
        with pytest.raises(ValueError, match=message) as refusal:
            compat.torch.import_state(*replaced(given, place, x), **options)
        assert str(refusal.value).startswith("import_state: ")

    missing = {k: v for k, v in entry.items() if k != "exp_avg_sq"}
    refused("0.weight lacks exp_avg_sq", x={**state_dict, "state": {0: missing}})
    refused("in state_dict 0.weight has spare", x=saved(spare=np.ones(2)))
    refused("step must be the same for all parameters, got 0.weight 3", x=saved(step=3.0))
    refused(r"\['d0'\]\['kernel'\] the shape \(2, 2\)", x=saved(exp_avg=np.ones((2, 2))))
    refused("a state for 9, in no group", x=saved() | {"state": {9: entry}})
    refused("must have 'state' and 'param_groups', .* got model", x={"model": 1})
    radam = {k: v for k, v in group.items() if k != "amsgrad"}
    refused("that of torch's RAdam, tx is Adam", x={**state_dict, "param_groups": [radam]})
    refused("names must be one for each of the 4 parameters .* got 3", 3, given[3][:3])
    refused("names has 0.bias more than once", 3, ["0.weight", "0.bias", "2.weight", "0.bias"])
    refused("another tree than params", 4, lambda named: {"other": named["0.weight"]})
    refused(
        r"\['d0'\]\['kernel'\] the shape \(4, 3\)",
        4,
        lambda named: to_tree({n: x.T if x.ndim == 2 else x for n, x in named.items()}),
    )
    refused("tx is SGD", 0, compat.torch.SGD(momentum=0.9))
    refused("tx is Adagrad", 0, compat.torch.Adagrad())
    refused("keeps exp_avg, exp_avg_sq, max_exp_avg_sq, step", 0, compat.torch.Adam(amsgrad=True))
    refused("keeps a velocity behind its learning rate", 0, oa.rmsprop(0.1, momentum=0.9))
    refused("keeps a ScheduleFreeState, which has no counterpart", 0, oa.schedule_free_sgd())
    refused("step is saved in state_dict", 2, state_dict, step=3)


def test_parameters_without_a_state():
    """Their shapes come from `names`, or are not needed where to_tree only transposes."""
    tx, params, state_dict, names, _ = torch_adam()
    state_dict["state"] = {2: state_dict["state"][2], 3: state_dict["state"][3]}

    def reshapes(named):
        kernel = named["0.weight"].reshape(4, 3).T
        return to_tree(named) | {"d0": {"kernel": kernel, "bias": named["0.bias"]}}

    shapes = {"0.weight": np.zeros((4, 3)), "0.bias": np.zeros(4)}
    shapes |= {"2.weight": np.zeros((2, 4)), "2.bias": np.zeros(2)}
    state = compat.torch.import_state(tx, params, state_dict, shapes, reshapes)
    plain = compat.torch.import_state(tx, params, state_dict, names, to_tree)
    chex.assert_trees_all_equal(state, plain)
    mu = oa.AdamState(*find_states(state, oa.AdamState)[0]).mu
    assert not np.any(mu["d0"]["kernel"])
    assert np.all(mu["d1"]["kernel"] != 0)
    with pytest.raises(ValueError, match=r"0\.weight, 0\.bias have no state, .* let names map all"):
        compat.torch.import_state(tx, params, state_dict, names, reshapes)

    def stacks(named):
        return {"all": np.stack([named["0.bias"], named["0.bias"] * 0 + named["2.weight"][0]])}

    both = {"all": jnp.zeros((2, 4))}
    with pytest.raises(ValueError, match=r"\['all'\] is made of several arrays with different st"):
        compat.torch.import_state(tx, both, state_dict, shapes, stacks)

    conv = {"w": np.zeros((2, 3, 5, 5)), "v": np.zeros((2, 3, 5, 5))}
    empty = {
        "state": {1: {k: np.ones((2, 3, 5, 5)) for k in ("exp_avg", "exp_avg_sq")}},
        "param_groups": [state_dict["param_groups"][0] | {"params": [0, 1]}],
    }
    empty["state"][1]["step"] = 7.0

    def to_hwio(named):
        return {name: x.transpose(2, 3, 1, 0) for name, x in named.items() if name in conv} | {
            "w": named["w"].transpose(2, 3, 1, 0)
        }

    state = compat.torch.import_state(tx, to_hwio(conv), empty, conv, to_hwio)
    assert np.all(find_states(state, oa.AdamState)[0].mu["v"] == 1)


def test_equinox_leaves_and_complex_numbers():
    """Where params is None nothing is imported; moments of complex parameters are pairs."""
    tx, params, state_dict, names, _ = torch_adam()
    params["d0"]["bias"] = None
    state = compat.torch.import_state(tx, params, state_dict, names, to_tree)
    mu = find_states(state, oa.AdamState)[0].mu
    assert mu["d0"]["bias"] is None
    np.testing.assert_allclose(mu["d0"]["kernel"], state_dict["state"][0]["exp_avg"].T, rtol=1e-6)

    z = np.array([1 + 2j, 3 - 1j], "complex64")
    saved = {
        "state": {0: {"step": 3.0, "exp_avg": z, "exp_avg_sq": abs(z) + 0j}},
        "param_groups": [state_dict["param_groups"][0] | {"params": [0]}],
    }
    identity = dict
    state = compat.torch.import_state(tx, {"z": jnp.asarray(z)}, saved, ["z"], identity)
    assert find_states(state, oa.AdamState)[0].mu["z"].shape == (2, 2)
    back = compat.torch.export_state({"z": jnp.asarray(z)}, state, saved, ["z"], identity)
    np.testing.assert_allclose(back["state"][0]["exp_avg"], z)


def test_a_state_is_sharded_as_its_parameters():
    tx, params, state_dict, names, _ = torch_adam()
    mesh = jax.make_mesh((4,), ("x",))
    sharding = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(None, "x"))
    params["d0"]["kernel"] = jax.device_put(params["d0"]["kernel"], sharding)
    state = compat.torch.import_state(tx, params, state_dict, names, to_tree)
    assert find_states(state, oa.AdamState)[0].nu["d0"]["kernel"].sharding == sharding


def test_sgd_saves_no_count():
    """Schedules go on from the step that is given; dampening knows that it is not the first."""
    params = {"w": jnp.zeros(2)}
    group = {"lr": 0.1, "momentum": 0.5, "dampening": 0.5, "params": [0]}
    saved = {"state": {0: {"momentum_buffer": np.ones(2)}}, "param_groups": [group]}
    tx = compat.torch.from_state_dict(saved, "SGD", lr=lambda step: jnp.where(step == 30, 1.0, 0.0))
    for step, moves in ((30, 1.0), (None, 0.0)):
        state = compat.torch.import_state(tx, params, saved, ["w"], dict, step=step)
        updates, _ = tx.update({"w": jnp.ones(2)}, state, params)
        np.testing.assert_allclose(updates["w"], -moves * (0.5 * 1 + 0.5 * 1))
    unstarted = saved | {"state": {}}
    state = compat.torch.import_state(tx, params, unstarted, ["w"], dict, step=30)
    chex.assert_trees_all_equal(find_states(state, oa.TraceState)[0].trace, params)


def test_tensors_of_torch():
    """What has `detach`, as a tensor has, is brought to the host, bfloat16 by way of float32."""

    class Tensor:
        dtype = "torch.bfloat16"

        def __init__(self, x):
            self.x = x

        def detach(self):
            return self

        cpu = detach

        def float(self):
            return np.asarray(self.x, "float32")

    group = {"lr": Tensor(0.5), "lr_decay": 0, "params": [0]}
    entry = {"step": Tensor(3), "sum": Tensor([4.0])}
    saved = {"state": {0: entry}, "param_groups": [group]}
    tx = compat.torch.from_state_dict(saved, "Adagrad")
    state = compat.torch.import_state(tx, {"w": jnp.zeros(1)}, saved, ["w"], dict)
    updates, _ = tx.update({"w": jnp.zeros(1) + 3**0.5}, state)
    np.testing.assert_allclose(updates["w"], -0.5 * (3 / 7) ** 0.5, rtol=1e-6)


def test_from_state_dict_refuses():
    _, _, state_dict, names, _ = torch_adam()
    group = state_dict["param_groups"][0]
    other = group | {"lr": 0.5, "params": [2, 3]}
    two = state_dict | {"param_groups": [group | {"params": [0, 1]}, other]}
    for message, arguments, changes in (
        ("kind must be one of SGD, .* got 'Lion'", (state_dict, "Lion"), {}),
        ("AdamW has no decoupled_weight_decay; is kind right", (state_dict, "AdamW"), {}),
        ("SGD has no amsgrad, betas, .* is kind right", (state_dict, "SGD"), {}),
        ("Adam has no speed", (state_dict, "Adam"), {"speed": 1}),
        ("the 2 groups differ; names and to_tree must say", (two, "Adam"), {}),
    ):
        with pytest.raises(ValueError, match=message):
            compat.torch.from_state_dict(*arguments, **changes)
    tx = compat.torch.from_state_dict(two, "Adam", names, to_tree)
    params = to_tree({n: jnp.ones(s) for n, s in zip(names, [(4, 3), 4, (2, 4), 2], strict=True)})
    updates, _ = tx.update(params, tx.init(params), params)
    np.testing.assert_allclose(updates["d0"]["bias"], -group["lr"], rtol=1e-5)
    np.testing.assert_allclose(updates["d1"]["bias"], -0.5, rtol=1e-5)
    same = compat.torch.from_state_dict(two, "Adam", lr=0.1)  # nothing differs any more
    assert jax.tree.structure(same.init(params)) == jax.tree.structure(
        compat.torch.Adam().init(params)
    )


def test_adabound_remembers_the_rate_it_was_made_with():
    group = {"lr": 1e-4, "initial_lr": 1e-3, "betas": [0.9, 0.999], "final_lr": 0.1}
    group |= {"gamma": 1e-3, "eps": 1e-8, "weight_decay": 0, "amsbound": False, "params": [0]}
    saved = {"state": {}, "param_groups": [group]}
    tx = compat.torch.from_state_dict(saved, "AdaBound")
    expected = compat.torch.AdaBound(1e-4, base_lr=1e-3)
    g = {"w": jnp.full(2, 1e-6)}
    updates, _ = tx.update(g, tx.init(g))
    wanted, _ = expected.update(g, expected.init(g))
    chex.assert_trees_all_equal(updates, wanted)
    other, _ = compat.torch.AdaBound(1e-4).update(g, tx.init(g))
    assert np.all(other["w"] != updates["w"])


def test_what_does_not_fit_a_torch_to_go_back_to_is_refused():
    tx, params, state_dict, names, _ = torch_adam()
    state = tx.init(params)
    with pytest.raises(ValueError, match=r"export_state: from_tree gives no 2\.bias"):
        compat.torch.export_state(
            params,
            state,
            state_dict,
            names,
            lambda p: {n: x for n, x in from_tree(p).items() if n != "2.bias"},
        )
    with pytest.raises(ValueError, match="export_state: names must be one for each of the 4"):
        compat.torch.export_state(params, state, state_dict, names[:3], from_tree)
    with pytest.raises(ValueError, match="export_state: the optimizer keeps a LionState"):
        compat.torch.export_state(params, oa.lion(0.1).init(params), state_dict, names, from_tree)


def keras_adam(name="adam"):
    checkpoint = GOLDENS["keras"]["checkpoints"][name]
    params = to_tree(
        {n: jnp.asarray(read(checkpoint["start"][n]), "float32") for n in checkpoint["names"]}
    )
    variables = [read(v) for v in checkpoint["variables"]]
    return [compat.keras.Adam(), params, variables, checkpoint["names"], to_tree]


def test_what_does_not_fit_keras_is_refused():
    given = keras_adam()
    variables = given[2]

    def refused(message, place=2, x=None, **options):
        with pytest.raises(ValueError, match=message) as refusal:
            compat.keras.import_state(*replaced(given, place, x), **options)
        assert str(refusal.value).startswith("import_state: ")

    refused(
        "keeps iteration and, for each of 4 names, momentum, velocity: 9 variables",
        x=variables[:-2],
    )
    refused("or one more .* got 11", x=[*variables, np.ones(2)])
    refused("must begin with the count of iterations", x=variables[1:])
    refused("must begin with the count of iterations", x=[])
    refused("a mapping from Adam/iter:0", x={"Adam/iter:0": 1})
    refused("the variables of one name must have one shape", x=[*variables[:-1], np.ones((7, 7))])
    refused("keeps iteration and, for each of 4 names, accumulator", 0, compat.keras.Adagrad())
    refused("keeps its momentum before the learning rate", 0, oa.sgd(0.1, momentum=0.9))
    refused("order must be one of 'interleaved', 'blocks'", order="sideways", x=variables)
    accumulating = compat.keras.Adam(gradient_accumulation_steps=2)
    zeros = [np.zeros_like(v) for v in variables[2::2]]
    with pytest.raises(ValueError, match="give gradient_accumulation_steps"):
        compat.keras.import_state(
            accumulating, given[1], [*variables[:2], *zeros, *variables[2:]], *given[3:]
        )


def test_the_order_of_the_variables():
    """Where all have one shape it must be said; where not, it is seen."""
    names, params = ["a", "b"], {"a": jnp.zeros(2), "b": jnp.zeros(2)}
    tx = compat.keras.Adam()
    flat = [np.full(2, x) for x in (1.0, 2.0, 3.0, 4.0)]
    with pytest.raises(ValueError, match="say whether their order is 'interleaved'"):
        compat.keras.import_state(tx, params, [np.int64(7), *flat], names, dict)
    for order, nu_of_a in (("interleaved", 2.0), ("blocks", 3.0)):
        state = compat.keras.import_state(
            tx, params, [np.int64(7), *flat], names, dict, order=order
        )
        (adam,) = find_states(state, oa.AdamState)
        assert adam.nu["a"][0] == nu_of_a
        assert adam.count == 7
    numbered = {str(i): x for i, x in enumerate([np.int64(7), np.float32(0.1), *flat])}
    shuffled = {k: numbered[k] for k in sorted(numbered, reverse=True)}
    seen = compat.keras.import_state(tx, params, shuffled, names, dict, order="interleaved")
    assert find_states(seen, oa.AdamState)[0].nu["a"][0] == 2.0


def test_many_variables_are_sorted_as_numbers():
    """'10' comes after '2'."""
    names = [f"layer{i}" for i in range(6)]
    params = {name: jnp.zeros(i + 1) for i, name in enumerate(names)}
    variables = [np.int64(1), *(np.full(i // 2 + 1, i) for i in range(12))]
    stored = {str(i): variables[i] for i in sorted(range(13), key=str)}
    tx = compat.keras.Adam()
    state = compat.keras.import_state(tx, params, stored, names, dict)
    (adam,) = find_states(state, oa.AdamState)
    assert [float(adam.mu[name][0]) for name in names] == [0, 2, 4, 6, 8, 10]
