"""Groups of parameters by path, and masks by name."""

import functools
import pickle
import re
from typing import Any, NamedTuple

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest
from cases import KINDS
from flax import nnx
from flax.training.train_state import TrainState
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

import optax_adaptive as oa

PARAMS = {
    "encoder": {"kernel": jnp.linspace(0.5, 1.5, 24).reshape(4, 6), "bias": jnp.ones(6)},
    "head": [jnp.linspace(-1.0, 1.0, 12).reshape(6, 2), jnp.full(2, 0.3)],
}


def gradients(params=PARAMS, steps=3):
    """Of any floating or complex parameters, another one at each step."""

    def leaf(p, k):
        g = jnp.sin(9 * jnp.asarray(p) + k) if jnp.issubdtype(p.dtype, jnp.inexact) else 0 * p
        return g.astype(p.dtype)

    return [jax.tree.map(functools.partial(leaf, k=k), params) for k in range(steps)]


def run(tx, params, grads, **extra):
    """The updates of some steps, not compiled (programs round differently), and the last state."""
    update, state, found = tx.update, tx.init(params), []
    for g in grads:
        updates, state = update(g, state, params, **extra)
        found.append(updates)
        params = optax.apply_updates(params, updates)
    return found, state


def only(names, trees):
    return [{k: v for k, v in tree.items() if k in names} for tree in trees]


# --- by_path ----------------------------------------------------------------------------------
@pytest.mark.parametrize("case", KINDS, ids=lambda c: c.id)
def test_groups_are_optimizers_by_themselves(case):
    """Bit for bit: each on its part of the tree, of leaves of every kind."""
    params = {
        "a": jnp.linspace(0.5, 1.5, 12).reshape(3, 4),
        "b": jnp.ones((4, 2), "bfloat16"),
        "c": None,
        "d": jnp.linspace(-1.0, 1.0, 6).reshape(2, 3),
        "e": jnp.array([[1 + 2j, 3.0]]) if case.name != "muon" else jnp.ones((1, 2)),
        "n": jnp.arange(3),
    }
    one, other = case.make(), case.make(learning_rate=0.3, **case.decays(0.1))
    grads = gradients(params)
    tx = oa.by_path({"a": one, re.compile("[bcd]"): other}, default=one)
    updates, state = run(tx, params, grads)
    for names, alone, k in (("a", one, 0), ("bcd", other, 1), ("en", one, 2)):
        expected, own = run(alone, only(names, [params])[0], only(names, grads))
        chex.assert_trees_all_equal(only(names, updates), expected)
        chex.assert_trees_all_equal(jax.tree.leaves(state.groups[k]), jax.tree.leaves(own))
    chex.assert_trees_all_equal_shapes_and_dtypes(updates, grads)
    assert np.any(updates[0]["d"] != run(one, params["d"], [grads[0]["d"]])[0][0])


def test_groups_are_those_of_optax_partition():
    """Bit for bit, of optimizers of optax, too."""
    txs = {
        "x": oa.adamw(0.1, weight_decay=0.1),
        "y": optax.sgd(0.1, momentum=0.9),
        "z": oa.lion(0.1),
    }
    labels = {"encoder": {"kernel": "x", "bias": "y"}, "head": ["z", "z"]}
    tx = oa.by_path({"*/kernel": txs["x"], "*/bias": txs["y"], "head/*": txs["z"]})
    ours, state = run(tx, PARAMS, gradients())
    theirs, their_state = run(optax.partition(txs, labels), PARAMS, gradients())
    chex.assert_trees_all_equal(ours, theirs)
    for name in ("nu", "trace"):
        chex.assert_trees_all_equal(*(optax.tree.get(s, name) for s in (state, their_state)))


@pytest.mark.parametrize("how", ["pattern", "default", "constructor"])
def test_one_group_of_all_is_the_optimizer(how):
    tx = oa.adamw(0.1, weight_decay=0.1)
    grouped = {
        "pattern": lambda: oa.by_path({"*": tx}),
        "default": lambda: oa.by_path({}, default=tx),
        "constructor": lambda: oa.by_path(
            {}, default=functools.partial(oa.adamw, 0.1, weight_decay=0.1)
        ),
    }[how]()
    updates, state = run(grouped, PARAMS, gradients())
    expected, alone = run(tx, PARAMS, gradients())
    chex.assert_trees_all_equal(updates, expected)
    chex.assert_trees_all_equal(state, oa.GroupsState((alone,)))


def test_arguments_replace_those_of_the_default():
    default = functools.partial(oa.adamw, 0.1, b1=0.5, weight_decay=0.1)
    groups = {"*/bias": {"weight_decay": 0.0}, "head/0": {"b1": 0.8, "eps": 1e-3}, "head/1": {}}
    ours, _ = run(oa.by_path(groups, default=default), PARAMS, gradients())
    spelt = oa.by_path(
        {
            "*/bias": oa.adamw(0.1, b1=0.5, weight_decay=0.0),
            "head/0": oa.adamw(0.1, b1=0.8, eps=1e-3, weight_decay=0.1),
        },
        default=oa.adamw(0.1, b1=0.5, weight_decay=0.1),
    )
    chex.assert_trees_all_equal(ours, run(spelt, PARAMS, gradients())[0])
    plain, _ = run(oa.by_path({}, default=default), PARAMS, gradients())
    assert np.all(plain[1]["encoder"]["bias"] != ours[1]["encoder"]["bias"])
    assert np.all(plain[1]["head"][0] != ours[1]["head"][0])
    chex.assert_trees_all_equal(plain[2]["head"][1], ours[2]["head"][1])


@pytest.mark.parametrize("as_default", [False, True])
def test_what_is_frozen_rests(as_default):
    """Whatever its gradient; the same with the roles of pattern and default changed."""
    tx = oa.by_path({"encoder/*": "frozen"}, default=oa.adamw(0.1))
    if as_default:
        tx = oa.by_path({"head/*": oa.adamw(0.1)}, default="frozen")
    state = tx.init(PARAMS)
    still, moving = state.groups[::-1] if as_default else state.groups
    assert jax.tree.leaves(still) == []
    assert len(jax.tree.leaves(moving)) == 2 + 2 * 2  # two counts, two moments of two leaves
    grads = gradients()[0]
    grads["encoder"]["kernel"] = grads["encoder"]["kernel"].at[0, 0].set(jnp.nan)
    grads["encoder"]["bias"] = jnp.full(6, jnp.inf, "bfloat16")
    updates, _ = tx.update(grads, state, PARAMS)
    chex.assert_trees_all_equal(updates["encoder"], jax.tree.map(jnp.zeros_like, grads["encoder"]))
    assert updates["encoder"]["bias"].dtype == jnp.bfloat16
    assert all(np.all(u != 0) for u in updates["head"])
    complex_and_whole = {"encoder": {"z": jnp.ones(2, complex), "n": jnp.arange(2)}, "head": [1.0]}
    updates, _ = tx.update(complex_and_whole, tx.init(complex_and_whole), complex_and_whole)
    assert not any(np.any(u) for u in updates["encoder"].values())
    assert updates["encoder"]["z"].dtype == complex_and_whole["encoder"]["z"].dtype


def test_the_gradient_of_what_is_frozen_is_not_computed():
    """The compiled step of a chain of two matrices, the first frozen, has no product for it."""
    params = {"first": jnp.ones((5, 7)), "last": jnp.ones((7, 3))}
    x = jnp.ones((2, 5))

    def products(tx):
        def step(params, state):
            grads = jax.grad(lambda p: jnp.sum(jnp.sin(x @ p["first"]) @ p["last"]))(params)
            updates, state = tx.update(grads, state, params)
            return optax.apply_updates(params, updates), state

        return jax.jit(step).lower(params, tx.init(params)).compile().as_text().count("f32[5,7]")

    frozen = oa.by_path({"first": "frozen"}, default=oa.sgd(0.1))
    assert products(frozen) < products(oa.sgd(0.1))


class Tower(nn.Module):
    @nn.compact
    def __call__(self, x):
        for k in range(2):
            x = nn.relu(nn.Dense(6, name=f"layer_{k}")(x))
        return nn.Dense(2, name="head")(x)


class NnxTower(nnx.Module):
    def __init__(self):
        layers = [nnx.Linear(6, 6, rngs=nnx.Rngs(k)) for k in range(2)]
        self.tower = nnx.Sequential(*layers)
        self.head = nnx.Linear(6, 2, rngs=nnx.Rngs(2))

    def __call__(self, x):
        return self.head(nnx.relu(self.tower(x)))


@functools.partial(jax.tree_util.register_dataclass, data_fields=["weight", "bias"], meta_fields=[])
class Linear:
    """A layer as Equinox has it."""

    def __init__(self, weight, bias):
        self.weight, self.bias = weight, bias


@functools.partial(jax.tree_util.register_dataclass, data_fields=["layers", "norm"], meta_fields=[])
class Model:
    def __init__(self, layers, norm):
        self.layers, self.norm = layers, norm


def linear(shape=(3, 2)):
    return Linear(jnp.ones(shape), jnp.ones(shape[0]))


class Pair(NamedTuple):
    scale: Any
    shift: Any


KERNEL = jnp.ones((2, 3))
TREES = {  # a tree, patterns, and the paths that each of them finds
    "linen": (
        Tower().init(jax.random.key(0), jnp.ones((1, 6))),
        {
            "*/bias": "params/head/bias params/layer_0/bias params/layer_1/bias",
            "params/layer_?/kernel": "params/layer_0/kernel params/layer_1/kernel",
        },
    ),
    "linen boxes": (
        {"Dense_0": {"kernel": nn.Partitioned(KERNEL, ("x", None)), "bias": jnp.ones(3)}},
        {"Dense_0/kernel": "Dense_0/kernel"},
    ),
    "nnx": (
        nnx.state(NnxTower(), nnx.Param),
        {
            "tower/*/kernel": "tower/layers/0/kernel tower/layers/1/kernel",
            re.compile("tower/layers/1/.*s"): "tower/layers/1/bias",
        },
    ),
    "equinox": (
        Model([linear(), linear()], Pair(jnp.ones(3), 1.0)),
        {
            "layers/1/*": "layers/1/bias layers/1/weight",
            "norm/s[ch]*": "norm/scale norm/shift",
        },
    ),
    "one array": (KERNEL, {"": ""}),
    "slashes": ({"a/b": KERNEL, "c": KERNEL, "[d]": KERNEL}, {"a/b": "a/b", "[d]": "[d]"}),
    "regex": (
        {"bias": KERNEL, "no_bias": KERNEL, "bias_2": KERNEL},
        {re.compile("bias"): "bias", re.compile("(?!bias).*"): "no_bias"},
    ),
}


@pytest.mark.parametrize("name", TREES)
def test_paths_of_all_kinds_of_trees(name):
    """Who is in which group; and only those of the first pattern move."""
    tree, patterns = TREES[name]
    first, *others = patterns
    tx = oa.by_path({first: oa.sgd(1.0)} | dict.fromkeys(others, "frozen"), default="frozen")
    found = tx.report(tree)
    for pattern, paths in patterns.items():
        assert sorted(p for p, group in found.items() if group == pattern) == paths.split(" ")
    assert set(found.values()) <= {*patterns, "default"}
    grads = jax.tree.map(jnp.ones_like, tree)
    updates, _ = tx.update(grads, tx.init(tree), tree)
    chex.assert_trees_all_equal_structs(updates, tree)
    moved = [bool(np.all(u == -1)) for u in jax.tree.leaves(updates)]
    assert moved == [group == first for group in found.values()]
    assert moved == [bool(np.any(u)) for u in jax.tree.leaves(updates)]


def test_the_report():
    default = functools.partial(oa.adamw, 1e-3, weight_decay=0.1, mask=oa.decay_mask)
    tx = oa.by_path(
        {
            "*/bias": {"weight_decay": None, "mask": None},
            re.compile("head/0"): oa.adam(1e-2),
            "head/1": optax.adam(1e-2),
        },
        default=default,
    )
    lines = [
        "  path            shape   group                 given",
        "  encoder/bias    (6,)    */bias                "
        "adamw(0.001, weight_decay=None, mask=None)",
        "  encoder/kernel  (4, 6)  default               "
        "adamw(0.001, weight_decay=0.1, mask=decay_mask)",
        "  head/0          (6, 2)  re.compile('head/0')  adam(...)",
        "  head/1          (2,)    head/1                chain(...)",
        "",
        "  group                 leaves  parameters",
        "  */bias                1       6",
        "  re.compile('head/0')  1       12",
        "  head/1                1       2",
        "  default               1       24",
    ]
    for params in (PARAMS, jax.eval_shape(lambda: PARAMS)):
        found = tx.report(params)
        assert str(found) == repr(found) == "\n".join(lines)
        assert dict(found) == {
            "encoder/bias": "*/bias",
            "encoder/kernel": "default",
            "head/0": re.compile("head/0"),
            "head/1": "head/1",
        }
    frozen = oa.by_path({"": "frozen"}).report(jnp.ones(2000))
    assert re.search(r"^  \(the root\)  \(2000,\)         frozen$", str(frozen), re.M)
    assert str(frozen).endswith("1       2,000")


ADAMW = functools.partial(oa.adamw, 1e-3)
REFUSED = {
    r"groups must be a dict .*, got \[": lambda: oa.by_path([("*", "frozen")]),  # type: ignore
    r"the keys of groups must be strings, .*, got 3": lambda: oa.by_path({3: "frozen"}),
    r"the keys of groups must be .*, got re": lambda: oa.by_path({re.compile(b"x"): "frozen"}),
    r"groups\['a'\] must be a transformation, .*, got 'frosen'": lambda: oa.by_path(
        {"a": "frosen"}
    ),
    r"groups\['a'\] must be .*, or a dict of arguments .*, got <f": lambda: oa.by_path(
        {"a": oa.adam}, ADAMW
    ),
    r"default must be a transformation, .*, or a constructor, got \{": lambda: oa.by_path({}, {}),
    r"groups\['a'\] are arguments for default, which must be .*, got None": lambda: oa.by_path(
        {"a": {}}
    ),
    r"groups\['a'\] are arguments .*, got Grad": lambda: oa.by_path({"a": {}}, oa.adam(1.0)),
    r"groups\['a'\] gives adamw an argument 'weight_dcay'; it takes learning_rate, b1, .*": (
        lambda: oa.by_path({"a": {"weight_dcay": 0.0}}, ADAMW)
    ),
    r"groups\['a'\] gives adamw an argument 'learning_rate' that default gives by position; .*": (
        lambda: oa.by_path({"a": {"learning_rate": 0.0}}, ADAMW)
    ),
    r"default gives adamw an argument 'foo'; it takes learn": lambda: oa.by_path(
        {}, functools.partial(oa.adamw, 1e-3, foo=3)
    ),
    r"default gives adamw no argument 'learning_rate', which it needs": lambda: oa.by_path(
        {"a": {"learning_rate": 1.0}}, oa.adamw
    ),
    r"groups\['a'\]: weight_decay must be a finite number >= 0 or a schedule, got -1": (
        lambda: oa.by_path({"a": {"weight_decay": -1}}, ADAMW)
    ),
    r"default must make an optax.GradientTransformation, got 3": lambda: oa.by_path({}, lambda: 3),
}


@pytest.mark.parametrize("match", REFUSED)
def test_bad_groups_are_refused(match):
    with pytest.raises(ValueError, match=f"^by_path: {match}"):
        REFUSED[match]()


@pytest.mark.parametrize(
    ("groups", "default", "match"),
    [
        (
            {"*/bias": "frozen", "head/0": "frozen"},
            None,
            r"no pattern matches\n  encoder/kernel  \(4, 6\)\n  head/1          \(2,\)\nand there",
        ),
        (
            {"*/bias": "frozen", "encoder/*": "frozen", "*/?": "frozen", "*/1": "frozen"},
            None,
            r"more than one pattern matches\n  encoder/bias  '\*/bias', 'encoder/\*'\n"
            r"  head/1        '\*/\?', '\*/1'(\n-|$)",
        ),
        (
            {"*/bais": "frozen"},
            "frozen",
            r"no leaf matches groups\['\*/bais'\]; there are\n  encoder/bias\n",
        ),
        ({re.compile("bias"): "frozen"}, "frozen", r"no leaf matches groups\[re.compile"),
    ],
)
def test_unclear_groups_are_refused(groups, default, match):
    tx = oa.by_path(groups, default)
    for ask in (tx.init, tx.report, functools.partial(jax.eval_shape, tx.init)):
        with pytest.raises(ValueError, match=f"(?s)^by_path: {match}"):
            ask(PARAMS)
    with pytest.raises(ValueError, match=f"(?s)^by_path: {match}"):
        tx.update(PARAMS, oa.GroupsState(()), PARAMS)


def test_errors_of_optimizers_in_groups():
    tx = oa.by_path({"encoder/*": oa.adam(0.1)}, default=functools.partial(oa.adamw, 0.1))
    state = tx.init(PARAMS)
    with pytest.raises(ValueError, match=r"^by_path.update needs params"):
        tx.update(PARAMS, state)
    bad = PARAMS | {"head": [jnp.ones(2), jnp.ones(2)]}
    with pytest.raises(ValueError, match=r"^by_path.update: gradient at \['head'\]\[0\] has shape"):
        tx.update(bad, state, PARAMS)
    value = oa.by_path({"encoder/*": oa.momo(0.1)}, default=oa.sgd(0.1))
    with pytest.raises(ValueError, match=r"^momo.update needs value"):
        value.update(PARAMS, value.init(PARAMS), PARAMS)


def test_what_comes_beside_the_gradients_is_cut_where_it_is_like_them():
    """Also what only optimizers of others know; of the group are the leaves, and nothing else."""
    seen = {}

    def update(updates, state, params=None, **extra):
        seen.update(extra, updates=updates, params=params)
        return updates, state

    spy = optax.GradientTransformationExtraArgs(lambda _: optax.EmptyState(), update)
    tx = oa.by_path({"a": spy, "b": "frozen"}, default=oa.sgd(1.0))
    params = {"a": jnp.ones(2, "bfloat16"), "b": jnp.ones(3), "c": None, "d": jnp.ones(1)}
    doubled = jax.tree.map(lambda x: 2 * x, params)
    key = jax.random.key(0)
    tx.update(
        params, tx.init(params), params, hessian_diagonal=doubled, tags=doubled, value=3.0, key=key
    )
    absent = {"b": optax.MaskedNode(), "c": None, "d": optax.MaskedNode()}
    for name in ("updates", "params", "given_params", "hessian_diagonal", "tags"):
        assert {k: v for k, v in seen[name].items() if k != "a"} == absent
    assert seen["given_params"]["a"].dtype == jnp.bfloat16
    assert seen["params"]["a"].dtype == seen["hessian_diagonal"]["a"].dtype == jnp.float32
    np.testing.assert_array_equal(seen["tags"]["a"], 2)
    assert seen["value"] == 3.0
    assert seen["key"] is key


def test_extra_arguments_reach_the_groups_that_need_them():
    params = {"a": jnp.array([1.0, -2.0]), "b": jnp.array([3.0]), "c": jnp.ones(2)}
    diagonal = {"a": jnp.array([4.0, 2.0]), "b": jnp.array([1.0]), "c": jnp.ones(2)}
    txs = {"a": oa.adahessian(0.1), "b": oa.momo(1.0), "c": oa.adamw(0.1)}
    extra = {"hessian_diagonal": diagonal, "value": 0.5}
    updates, _ = run(oa.by_path(txs), params, [params, params], **extra)
    for k, tx in txs.items():
        own = {"hessian_diagonal": diagonal[k], "value": 0.5}
        chex.assert_trees_all_equal(
            [u[k] for u in updates], run(tx, params[k], [params[k]] * 2, **own)[0]
        )


def test_norms_and_distances_are_those_of_the_group():
    tx = oa.by_path(
        {"a": optax.chain(optax.clip_by_global_norm(1.0), oa.sgd(1.0))}, default=oa.sgd(1.0)
    )
    params = {"a": jnp.array([3.0, 4.0]), "b": jnp.array([1e3])}
    updates, _ = tx.update(params, tx.init(params), params)
    np.testing.assert_allclose(updates["a"], [-0.6, -0.8], rtol=1e-6)
    np.testing.assert_allclose(updates["b"], [-1e3])


def test_a_mask_in_a_group_is_given_the_parameters_of_the_group():
    seen = []

    def mask(params):
        seen.append(params)
        return jax.tree.map(lambda x: x.ndim > 1, params)

    default = functools.partial(oa.adamw, 0.1, weight_decay=1.0, mask=mask)
    tx = oa.by_path({"head/*": {"mask": oa.path_mask("head/1")}}, default=default)
    plain = oa.by_path({}, default=oa.adam(0.1))
    ours, without = (run(t, PARAMS, gradients(steps=1))[0][0] for t in (tx, plain))
    decayed = jax.tree.map(lambda a, b: bool(np.any(a != b)), ours, without)
    assert decayed == {"encoder": {"kernel": True, "bias": False}, "head": [False, True]}
    assert seen[0]["head"] == [optax.MaskedNode()] * 2


INSIDE = {
    "chain": lambda tx: optax.chain(optax.clip_by_global_norm(1e3), tx),
    "accumulate": lambda tx: oa.accumulate(tx, every=1),
    "cautious": oa.cautious,
    "quantized": lambda tx: oa.with_quantized_state(tx, min_size=16),
    "kahan": oa.kahan,
    "averaging": oa.polynomial_averaging,
    "mechanize": oa.mechanize,
    "groups": lambda tx: oa.by_path({"head/*": tx}, default=oa.sgd(0.1)),
    "multi": lambda tx: optax.MultiSteps(tx, 1),
    "masked": lambda tx: optax.masked(tx, {"encoder": True, "head": [True, False]}),
    "partition": lambda tx: optax.partition({"x": tx}, "x"),
    "layers": lambda tx: oa.layerwise_decay(tx, 0.5, layers={"head/*": 1, "encoder/*": 0}),
}


@pytest.mark.parametrize("name", INSIDE)
def test_inside_of_other_wrappers(name):
    """Of groups of the same optimizer they make what they make of that optimizer; pickled, too."""
    params = optax.tree.cast(PARAMS, jnp.bfloat16)
    tx = oa.adamw(0.1, weight_decay=0.1)
    groups = {"head/0": tx} if name == "groups" else {"*/kernel": tx, "head/0": tx}
    grads = gradients(params, 2)
    ours, state = run(INSIDE[name](oa.by_path(groups, tx)), params, grads)
    expected, _ = run(INSIDE[name](tx), params, grads)
    chex.assert_trees_all_equal_dtypes(ours, expected)
    # The codes of 8 bits are drawn anew in another state.
    chex.assert_trees_all_close(
        *(optax.tree.cast(x, jnp.float32) for x in (ours, expected)),
        rtol=0.2 if name == "quantized" else 1e-5,
        atol=1e-3 if name == "quantized" else 1e-7,
    )
    chex.assert_trees_all_equal(pickle.loads(pickle.dumps(jax.device_get(state))), state)


AROUND = {
    "accumulate": oa.accumulate(oa.adamw(0.1), every=2),
    "cautious": oa.cautious(oa.adamw(0.1)),
    "quantized": oa.with_quantized_state(oa.adamw(0.1), min_size=16),
    "state dtype": oa.with_state_dtype(oa.adamw(0.1), nu=jnp.bfloat16),
    "schedule-free": oa.schedule_free_adamw(0.1),
    "kahan": oa.kahan(oa.adamw(0.1)),
    "master weights": oa.master_weights(oa.adamw(0.1), bits=32),
    "averaging": oa.exponential_averaging(oa.adamw(0.1), decay=0.5),
    "chain": optax.chain(optax.clip_by_global_norm(0.1), oa.adam(0.1)),
    "injected": optax.inject_hyperparams(oa.adam, hyperparam_dtype=jnp.float32)(0.1),
    "roles": oa.muon(0.1, roles={"head/0": "matrix"}),
    "prodigy": oa.prodigy(),
    "dog": oa.dog(),
}


@pytest.mark.parametrize("name", AROUND)
def test_around_other_wrappers(name):
    """A wrapper in a group is that wrapper on the part of the tree; what it keeps is found."""
    # By itself optax clips bfloat16 in bfloat16, in a group in float32.
    params = PARAMS if name == "chain" else optax.tree.cast(PARAMS, jnp.bfloat16)
    tx, grads = AROUND[name], gradients(params)
    part = {"head": params["head"]}
    updates, state = run(oa.by_path({"head/*": tx}, default=oa.sgd(0.1)), params, grads)
    expected, alone = run(tx, part, only(["head"], grads))
    chex.assert_trees_all_equal(only(["head"], updates), expected)
    for read in (oa.schedule_free_eval_params, oa.averaged_params, oa.exact_params):
        try:
            own = read(alone, part)
        except ValueError:
            continue
        found = read(state, params)
        chex.assert_trees_all_equal(found["head"], own["head"])
        chex.assert_trees_all_close(found["encoder"], params["encoder"])
        assert name in ("schedule-free", "averaging", "kahan", "master weights")


def test_masks_and_partitions_of_optax_in_a_group():
    """These cut the parameters, but not those that a wrapper around them was given."""
    mask = oa.path_mask("*/kernel")
    parts = {"x": oa.schedule_free_adamw(0.1, weight_decay=0.5, mask=mask), "y": oa.sgd(0.1)}
    parts = optax.partition(parts, {"encoder": "x", "head": "y"})
    params = optax.tree.cast(PARAMS, jnp.bfloat16)
    grads = gradients(params)
    expected, _ = run(parts, params, grads)
    for around in (lambda tx: oa.by_path({"*": tx}), lambda tx: oa.accumulate(tx, every=1)):
        chex.assert_trees_all_equal(run(around(parts), params, grads)[0], expected)


def test_one_group_may_round_its_parameters():
    """Bit for bit where it would land alone; the updates of all narrow parameters are wide then."""
    params = {"a": jnp.ones(6, "bfloat16"), "b": jnp.ones(6, "bfloat16"), "c": jnp.ones(2)}
    kahan = oa.kahan(oa.sgd(1e-3))
    tx = oa.by_path({"a": kahan}, default=oa.sgd(1e-3))
    state, alone, exact = tx.init(params), kahan.init(params["a"]), params["a"]
    for _ in range(5):
        updates, state = jax.jit(tx.update)(params, state, params)
        u, alone = kahan.update(exact, alone, exact)
        params, exact = optax.apply_updates(params, updates), optax.apply_updates(exact, u)
        assert {k: u.dtype for k, u in updates.items()} == dict.fromkeys("abc", jnp.float32)
        np.testing.assert_array_equal(params["a"], exact)
    assert np.all(params["b"] == 1)  # as it would without a group
    assert np.all(params["a"] < 1)
    np.testing.assert_allclose(oa.exact_params(state, params)["a"], 0.999**5, rtol=1e-4)


def test_optax_looks_into_the_state():
    tx = oa.by_path({"*/bias": "frozen", "head/*": oa.sgd(0.1)}, default=oa.adam(0.1))
    _, state = run(tx, PARAMS, gradients())
    assert isinstance(tx, optax.GradientTransformationExtraArgs)
    nu = optax.tree.get(state, "nu")
    assert nu["encoder"]["kernel"].shape == (4, 6)
    assert isinstance(nu["encoder"]["bias"], optax.MaskedNode)
    marked = optax.tree.map_params(tx, lambda _: "array", state, transform_non_params=lambda _: "n")
    assert sorted(jax.tree.leaves(marked)) == ["array", "array", "n", "n", "n"]
    assert jax.tree.leaves(tx.init({})) == [0, 0, 0]
    assert tx.update({}, tx.init({}), {})[0] == {}


def test_leaves_that_a_filter_left_out():
    """As those of Equinox make them: None in the parameters and in the gradients."""
    params = {"encoder": PARAMS["encoder"] | {"act": None}, "head": [None, PARAMS["head"][1]]}
    tx = oa.by_path({"encoder/*": "frozen"}, default=oa.adam(0.1))
    updates, _ = tx.update(params, tx.init(params), params)
    assert updates["encoder"]["act"] is updates["head"][0] is None
    assert np.all(updates["head"][1] != 0)
    with pytest.raises(ValueError, match=r"by_path: no leaf matches groups\['encoder/\*'\]; "):
        tx.update({"head": params["head"]}, tx.init(params), None)


def test_a_default_of_no_leaf_rests():
    """It has a state, and is not called."""

    def update(*_, **__):
        raise AssertionError

    never = optax.GradientTransformation(lambda _: jnp.zeros(3), update)
    tx = oa.by_path({"*": oa.sgd(1.0)}, default=never)
    updates, state = tx.update(PARAMS, tx.init(PARAMS), PARAMS)
    np.testing.assert_array_equal(updates["head"][1], -PARAMS["head"][1])
    np.testing.assert_array_equal(state.groups[1], 0)


def test_jit_scan_vmap_and_donation():
    tx = oa.by_path(
        {"*/bias": "frozen", "head/*": oa.prodigy()}, default=functools.partial(oa.adamw, 0.1)
    )
    params = optax.tree.cast(PARAMS, jnp.bfloat16)
    traces = []

    def step(carry, scale):
        traces.append(scale)
        params, state = carry
        grads = jax.tree.map(lambda p: (p * scale).astype(p.dtype), params)
        updates, state = tx.update(grads, state, params)
        return (optax.apply_updates(params, updates), state), updates

    scales = jnp.array([1.0, -2.0, 0.5])
    carry = params, tx.init(params)
    compiled = jax.jit(step, donate_argnums=0)
    looped = jax.tree.map(jnp.copy, carry)
    for scale in scales:
        looped, _ = compiled(looped, scale)
    assert len(traces) == 1
    scanned, _ = jax.jit(lambda c: jax.lax.scan(step, c, scales))(carry)
    chex.assert_trees_all_equal_shapes_and_dtypes(scanned, carry)
    chex.assert_trees_all_close(scanned, looped, rtol=1e-2)
    both = jax.tree.map(lambda x: jnp.stack([x, x]), params)
    states = jax.vmap(tx.init)(both)
    grads = jax.tree.map(lambda x: x * 2, both)
    updates, _ = jax.vmap(tx.update)(grads, states, both)
    alone, _ = tx.update(jax.tree.map(lambda x: x * 2, params), carry[1], params)
    chex.assert_trees_all_close(jax.tree.map(lambda u: u[1], updates), alone, rtol=1e-2)


def test_arguments_of_a_group_can_be_swept():
    def first(rate):
        tx = oa.by_path(
            {"head/*": {"learning_rate": rate}}, functools.partial(oa.sgd, learning_rate=0.1)
        )
        return tx.update(PARAMS, tx.init(PARAMS), PARAMS)[0]

    swept = jax.vmap(first)(jnp.array([1.0, 2.0]))
    np.testing.assert_allclose(swept["head"][1], -np.outer([1, 2], PARAMS["head"][1]), rtol=1e-6)
    np.testing.assert_allclose(swept["encoder"]["bias"], -0.1, rtol=1e-6)


@pytest.mark.parametrize("axes", [AxisType.Auto, AxisType.Explicit])
@pytest.mark.parametrize("frozen", ["a", "b"])
def test_sharding_is_that_of_the_parameters(frozen, axes):
    """Of moments, of updates, and of those that are 0; and no leaf is gathered."""
    mesh = jax.make_mesh((8,), ("x",), axis_types=(axes,))
    sharding = NamedSharding(mesh, P("x", None))
    params = jax.device_put({"a": jnp.ones((16, 4)), "b": jnp.ones((8, 2))}, sharding)
    tx = oa.by_path({frozen: "frozen"}, default=oa.adam(0.1))
    update = jax.jit(tx.update)
    for init in (tx.init, jax.jit(tx.init)):
        state = init(params)
        updates, state = update(params, state, params)
        for leaf in jax.tree.leaves((updates, state)):
            assert leaf.ndim < 2 or leaf.sharding.is_equivalent_to(sharding, 2)
    program = update.lower(params, state, params).compile().as_text()
    assert "all-gather" not in program
    assert "all-reduce" not in program


def test_an_orbax_checkpoint_goes_on(tmp_path):
    tx = oa.by_path(
        {"*/bias": "frozen", "head/0": oa.adam(0.1)}, default=oa.with_quantized_state(oa.adam(0.1))
    )
    _, state = run(tx, PARAMS, gradients())
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(tmp_path / "state", state)
        checkpointer.wait_until_finished()
        found = checkpointer.restore(tmp_path / "state", jax.eval_shape(tx.init, PARAMS))
    chex.assert_trees_all_equal(found, state)
    chex.assert_trees_all_equal_structs(found, state)


NNX_GROUPS = {
    "frozen": {"tower/*": "frozen"},
    "schedule-free": {"head/*": oa.schedule_free_adamw(0.05)},
    "kahan": {"*/kernel": oa.kahan(oa.adamw(0.05))},
    "codes": {"*/kernel": oa.with_quantized_state(oa.adam(0.05), min_size=1, block_size=16)},
    "layers": {"*/bias": {"weight_decay": 0.0}},
}


@pytest.mark.parametrize("name", NNX_GROUPS)
def test_in_nnx(name):
    """The same as on a tree of arrays."""
    default = functools.partial(oa.adamw, 0.05, weight_decay=0.1)
    tx = oa.by_path(NNX_GROUPS[name], default=default)
    x = jax.random.normal(jax.random.key(0), (16, 6))

    def loss(model):
        return jnp.mean((model(x) - 1) ** 2)

    model = NnxTower()
    definition, state = nnx.split(model, nnx.Param)
    params = nnx.as_pure(state)
    optimizer = nnx.Optimizer(model, tx, wrt=nnx.Param)

    @nnx.jit
    def step(model, optimizer):
        optimizer.update(model, nnx.grad(loss)(model))

    plain, start = tx.init(params), params
    for _ in range(3):
        step(model, optimizer)
        grads = jax.grad(lambda p: loss(nnx.merge(definition, p)))(params)
        updates, plain = jax.jit(tx.update)(grads, plain, params)
        params = optax.apply_updates(params, updates)
    found = nnx.as_pure(nnx.state(model, nnx.Param))
    tolerance = 1e-2 if name == "codes" else 1e-5
    chex.assert_trees_all_close(found, params, atol=tolerance)
    rests = np.array_equal(*(p["tower"]["layers"][0]["kernel"] for p in (found, start)))
    assert rests is (name == "frozen")
    assert np.all(found["head"]["kernel"] != start["head"]["kernel"])


def test_in_a_train_state():
    params = Tower().init(jax.random.key(0), jnp.ones((1, 6)))["params"]
    tx = oa.by_path({"layer_*": "frozen"}, default=functools.partial(oa.adamw, 0.1))
    state = TrainState.create(apply_fn=Tower().apply, params=params, tx=tx)
    after = jax.jit(lambda s: s.apply_gradients(grads=s.params))(state)
    chex.assert_trees_all_equal(after.params["layer_0"], params["layer_0"])
    assert np.all(after.params["head"]["kernel"] != params["head"]["kernel"])


# --- masks ------------------------------------------------------------------------------------
class Block(nn.Module):
    @nn.compact
    def __call__(self, x, _=None):
        y = nn.LayerNorm(name="norm")(x)
        x = x + nn.MultiHeadDotProductAttention(2)(y, y)
        return x + nn.Dense(8)(nn.gelu(nn.Dense(16)(nn.RMSNorm()(x)))), None


class Transformer(nn.Module):
    stacked: bool = False

    @nn.compact
    def __call__(self, tokens):
        x = nn.Embed(11, 8)(tokens)
        if self.stacked:
            scan = nn.scan(
                Block, variable_axes={"params": 0}, split_rngs={"params": True}, length=3
            )
            x, _ = scan(name="blocks")(x, None)
        else:
            for _ in range(2):
                x, _ = Block()(x)
        return nn.Dense(11)(nn.LayerNorm()(x))


class Images(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.BatchNorm(use_running_average=True)(nn.Conv(4, (3, 3))(x)))
        return nn.Dense(3)(jnp.mean(x, (1, 2)))


class NnxModel(nnx.Module):
    def __init__(self):
        rngs = nnx.Rngs(0)
        self.embed = nnx.Embed(11, 8, rngs=rngs)
        self.attention = nnx.MultiHeadAttention(2, 8, rngs=rngs, decode=False)
        self.norm = nnx.LayerNorm(8, rngs=rngs)
        self.head = nnx.Linear(8, 11, rngs=rngs)


MASKED = {
    "linen": Transformer().init(jax.random.key(0), jnp.ones((1, 4), int)),
    "stacked": Transformer(True).init(jax.random.key(0), jnp.ones((1, 4), int)),
    "images": Images().init(jax.random.key(0), jnp.ones((1, 6, 6, 1)))["params"],
    "nnx": nnx.state(NnxModel(), nnx.Param),
    "equinox": Model([linear(), linear((2, 2))], Linear(jnp.ones(3), None)),
    "equinox stacked": Model([Linear(jnp.ones((5, 3, 2)), jnp.ones((5, 3)))], linear((5, 3))),
    "words": {
        "layers": {"q_norm": {"weight": jnp.ones((5, 3))}, "ln_1": {"weight": jnp.ones((5, 3))}},
        "prenorm": {"mlp": {"kernel": jnp.ones((3, 3))}},
        "qkv_norm": {"weight": jnp.ones((5, 3))},
        "gamma": jnp.ones((5, 3)),
        "complex": jnp.ones(3, complex),
        "unbiased": {"kernel": jnp.ones((3, 3))},
    },
}
SPARED = {"bias", "scale", "gamma", "complex"}
NORMS = {"norm", "q_norm", "qkv_norm", "ln_1"}


@pytest.mark.parametrize("name", MASKED)
def test_decay_spares_biases_and_norms(name):
    params = MASKED[name]
    for tree in (params, jax.eval_shape(lambda: params)):
        mask = oa.decay_mask(tree)
        chex.assert_trees_all_equal_structs(mask, params)
        decays = 0
        for path, (_, decay) in zip(
            oa.by_path({}, "frozen").report(params), jax.tree.leaves_with_path(mask), strict=True
        ):
            *modules, last = path.split("/")
            spared = last in SPARED or (modules[-1:] or [""])[0] in NORMS
            assert decay is (not spared), path
            decays += decay
        assert 0 < decays < len(jax.tree.leaves(mask))


def test_decay_as_masked():
    """The parameters lose what decays, and nothing else, when the gradients are 0."""
    params = jax.tree.map(jnp.ones_like, MASKED["linen"])
    zeros = jax.tree.map(jnp.zeros_like, params)
    tx = oa.adamw(0.5, weight_decay=0.5, mask=oa.decay_mask)
    updates, _ = tx.update(zeros, tx.init(params), params)
    expected = jax.tree.map(lambda decays, p: -0.25 * p * decays, oa.decay_mask(params), params)
    chex.assert_trees_all_close(updates, expected)
    model = NnxModel()
    nnx.update(model, jax.tree.map(jnp.ones_like, nnx.state(model, nnx.Param)))
    optimizer = nnx.Optimizer(model, tx, wrt=nnx.Param)
    optimizer.update(model, jax.tree.map(jnp.zeros_like, nnx.state(model, nnx.Param)))
    np.testing.assert_allclose(model.head.kernel[...], 0.75)
    np.testing.assert_array_equal(model.attention.query.bias[...], 1)


def test_masks_by_paths():
    mask = oa.path_mask("*/bias", re.compile("head/.*"))
    assert mask(PARAMS) == {"encoder": {"kernel": False, "bias": True}, "head": [True, True]}
    inverted = oa.path_mask("*/bias", re.compile("head/.*"), invert=True)
    assert inverted(PARAMS) == {"encoder": {"kernel": True, "bias": False}, "head": [False, False]}
    assert mask({}) == {}
    tx = optax.masked(oa.sgd(1.0), oa.path_mask("encoder/*"))
    updates, _ = jax.jit(tx.update)(PARAMS, tx.init(PARAMS), PARAMS)
    np.testing.assert_array_equal(updates["encoder"]["bias"], -1)
    chex.assert_trees_all_equal(updates["head"], PARAMS["head"])
    with pytest.raises(ValueError, match=r"path_mask: no leaf matches patterns\['\*/bais'\]; "):
        oa.path_mask("*/bias", "*/bais")(PARAMS)
    with pytest.raises(ValueError, match="path_mask: at least one pattern is needed"):
        oa.path_mask()
    with pytest.raises(ValueError, match=r"^path_mask: patterns must be strings, .*, got 3"):
        oa.path_mask("a", 3)  # type: ignore
    with pytest.raises(ValueError, match="path_mask: invert must be True or False, got 1"):
        oa.path_mask("a", invert=1)  # type: ignore
