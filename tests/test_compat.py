"""The constructors of other frameworks, against what those frameworks did."""

import inspect
import pickle

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from compat_goldens import (
    GOLDENS,
    REFUSED,
    ROUNDED,
    START,
    constructed,
    module_of,
    path_of,
    schedule_of,
    snake,
)
from runs import deviation, enable_x64, temporaries

from optax_adaptive import compat

CASES = [
    pytest.param(framework, name, id=f"{framework}-{name}")
    for framework, golden in GOLDENS.items()
    for name in golden["cases"]
]


@pytest.mark.parametrize(("framework", "name"), CASES)
def test_the_line_gives_the_trajectory(framework, name):
    follows(framework, name, "float64")


def follows(framework, name, dtype):
    """Whether ours goes as theirs, or refuses what it does not offer."""
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
        assert deviation(averages, case["averages"], START) < bound


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
        assert deviation(path, case["parameters"], START) < ROUNDED.get(("keras", name), 1e-9)


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


# What every optimizer promises (test_contract.py), for the constructors of others.


def lines():
    """Of every constructor the case with the most arguments, and that with the fewest."""
    cases = {}
    for framework, golden in GOLDENS.items():
        for name, case in golden["cases"].items():
            if name in REFUSED or case.get("rate_divided_by_10_at") is not None:
                continue
            key = (module_of(framework).__name__, case["optimizer"])
            cases.setdefault(key, []).append((len(case["arguments"]), framework, name))
    for found in cases.values():
        yield list(dict.fromkeys((max(found)[1:], min(found)[1:])))


def line_ids(pairs):
    return [pytest.param(*pair, id="-".join(pair)) for pair in pairs]


LINES = list(lines())
every_line = pytest.mark.parametrize(
    ("framework", "name"), line_ids(pair for pairs in LINES for pair in pairs)
)
fullest_line = pytest.mark.parametrize(("framework", "name"), line_ids(p[0] for p in LINES))


@every_line
def test_the_line_gives_the_trajectory_in_float32(framework, name):
    follows(framework, name, "float32")


def made(framework, name):
    return constructed(framework, GOLDENS[framework]["cases"][name])


@fullest_line
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


@fullest_line
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


@fullest_line
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
    words = temporaries(made(framework, name))
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
        (compat.torch.Adagrad, {"lr_decay": -1.0}, "lr_decay must be a finite number >= 0, got -1"),
        (compat.torch.SGD, {"dampening": 2.0}, r"dampening must be a number in \[0, 1\], got 2"),
        (compat.torch.RMSprop, {"alpha": 1.0}, r"alpha must be a number in \[0, 1\), got 1"),
        (compat.torch.SGD, {"maximize": 1}, "maximize must be True or False, got 1"),
        (compat.keras_legacy.SGD, {"learning_rate": None, "decay": 0.1}, "learning_rate must be"),
        (compat.keras_legacy.SGD, {"learning_rate": True}, "learning_rate must be .* got True"),
        (compat.tfjs.adamax, {"learning_rate": -1.0, "decay": 0.1}, "learning_rate must be"),
        (compat.torch.Adagrad, {"lr": None, "lr_decay": 0.1}, "lr must be .* got None"),
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


def test_dampening_is_of_the_momentum():
    """torch does not dampen gradients without a momentum; neither where it is traced."""
    grads = jnp.ones(2)
    for momentum in (0, jnp.zeros(())):
        tx = compat.torch.SGD(0.1, momentum, dampening=0.5)
        state = tx.init(grads)
        for _ in range(2):
            updates, state = tx.update(grads, state)
            np.testing.assert_allclose(updates, -0.1, rtol=1e-6)


def test_boundaries_and_values():
    for boundaries, values, message in (
        ([1], [0.1], "values must be one more than boundaries, got 1 and 1"),
        ([2, 1], [0.1, 0.1, 0.1], r"boundaries must ascend, got \[2, 1\]"),
        ([1], [0.1, -0.1], r"values\[1\] must be a finite number >= 0"),
    ):
        with pytest.raises(ValueError, match=message):
            compat.keras.PiecewiseConstantDecay(boundaries, values)
