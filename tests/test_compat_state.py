"""Checkpoints of other frameworks, continued here and given back."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from compat_goldens import (
    GOLDENS,
    apart,
    bound_of,
    continuing,
    from_tree,
    imported,
    read,
    state_dict_of,
    to_tree,
)
from runs import enable_x64

import optax_adaptive as oa
from optax_adaptive import compat
from optax_adaptive._core import find_states

CHECKPOINTS = [
    pytest.param(framework, name, id=f"{framework}-{name}")
    for framework, golden in GOLDENS.items()
    for name in golden["checkpoints"]
]


@pytest.mark.parametrize(("framework", "name"), CHECKPOINTS)
def test_a_run_goes_on(framework, name):
    dtype = GOLDENS[framework]["checkpoints"][name]["dtype"]
    with enable_x64(dtype == "float64"):
        checkpoint, tx, params, state = imported(framework, name)
        run = continuing(tx, params, dtype)
        assert apart(checkpoint, run(params, state)) < bound_of(framework, name)
        fresh = tx.init(params)
        assert jax.tree.structure(fresh) == jax.tree.structure(state)
        for old, new in zip(jax.tree.leaves(fresh), jax.tree.leaves(state), strict=True):
            assert (old.dtype, old.shape) == (new.dtype, new.shape)
        stateful = any(jnp.ndim(x) for x in jax.tree.leaves(state))
        if stateful:  # what was imported matters
            assert apart(checkpoint, run(params, fresh)) > bound_of(framework, name)


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
    arrays = [x for e in back["state"].values() for x in e.values() if isinstance(x, np.ndarray)]
    assert all(x.flags.writeable for x in arrays)  # torch counts in place
    assert len({x.ctypes.data for x in arrays}) == len(arrays)


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
    refused(
        "no optimizer known here, tx is Adam",
        x={**state_dict, "param_groups": [{"params": group["params"]}]},
    )
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


def test_what_schedulers_and_names_leave_in_a_group():
    tx, params, state_dict, names, _ = torch_adam()
    group = state_dict["param_groups"][0] | {"initial_lr": 0.5, "max_lr": 0.5, "min_lr": 0.0}
    group |= {"base_momentum": 0.85, "max_momentum": 0.95, "param_names": names}
    scheduled = state_dict | {"param_groups": [group]}
    g = jax.tree.map(jnp.ones_like, params)
    ours, theirs = (compat.torch.from_state_dict(s, "Adam") for s in (scheduled, state_dict))
    chex.assert_trees_all_equal(
        ours.update(g, ours.init(params)), theirs.update(g, theirs.init(params))
    )
    old = {k: v for k, v in group.items() if k not in ("amsgrad", "decoupled_weight_decay")}
    state = compat.torch.import_state(
        tx, params, state_dict | {"param_groups": [old]}, names, to_tree
    )
    assert find_states(state, oa.AdamState)[0].count == 15


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


def test_before_the_first_step_there_is_no_state_to_give_back():
    tx, params, state_dict, names, _ = torch_adam()
    saved = compat.torch.export_state(params, tx.init(params), state_dict, names, from_tree)
    assert saved["state"] == {}


def test_what_does_not_fit_a_torch_to_go_back_to_is_refused():
    tx, params, state_dict, names, _ = torch_adam()
    state = compat.torch.import_state(tx, params, state_dict, names, to_tree)
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


def test_variables_with_names_are_not_taken_for_others():
    """Adam's moments fit AdaDelta in number and shape; Keras 3 says whose they are."""

    class Variable(np.ndarray):
        name = ""

    _, params, _, names, _ = keras_adam()
    variables = []
    for saved in GOLDENS["keras"]["checkpoints"]["adam"]["variables"]:
        variables.append(read(saved).view(Variable))
        variables[-1].name = saved["name"]
    compat.keras.import_state(compat.keras.Adam(), params, variables, names, to_tree)
    with pytest.raises(ValueError, match="kernel_momentum is given where tx keeps accumulated_gr"):
        compat.keras.import_state(compat.keras.Adadelta(), params, variables, names, to_tree)


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
