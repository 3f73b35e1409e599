"""What is particular to one algorithm."""

from typing import NamedTuple

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import references
from cases import problem
from flax import nnx
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from runs import deviation, enable_x64, trajectory

import optax_adaptive as oa

START, GRADIENTS = problem()


# --- rmsprop -----------------------------------------------------------------------------------


@pytest.mark.parametrize("eps_in_sqrt", [True, False])
@pytest.mark.parametrize("g", [0.37, 3.3, 1e3])
def test_centered_rmsprop_survives_a_constant_gradient(g, eps_in_sqrt):
    """n - m² rounds below 0 there: optax and torch turn NaN near step 140."""
    options = {"centered": True, "eps_in_sqrt": eps_in_sqrt, "eps": 1e-4}
    gradients = np.full((1500, 1), g)
    gradients[::2] *= 1 + 1e-4  # not to the last bit: the variance has something to measure
    ours = trajectory(oa.rmsprop(1e-3, **options), [0.0], gradients.astype("float32"))
    exact = np.array(list(references.rmsprop(np.zeros(1), gradients, 1e-3, **options)))
    assert deviation(ours, exact, [0.0]) < 1e-3


# --- adam and its line -------------------------------------------------------------------------


def test_the_first_steps_are_exact_in_float32():
    gradients = np.full((20, 1), 0.1, "float32")
    for name, kwargs in (("adam", {}), ("adam", {"b2": 0.99999}), ("radam", {})):
        ours = trajectory(getattr(oa, name)(1e-3, **kwargs), [0.0], gradients)
        exact = list(
            getattr(references, name)(np.zeros(1), gradients.astype(float), 1e-3, **kwargs)
        )
        assert deviation(ours, exact, [0.0]) < 1e-6, name


def test_what_optax_does_else():
    """The departures that the docstrings claim are there, and of the size they claim."""
    gradients = GRADIENTS.astype("float32")

    def apart(name, dtype="float32", **kwargs):
        ours = trajectory(getattr(oa, name)(1e-3, **kwargs), START, gradients, dtype)
        theirs = trajectory(getattr(optax, name)(1e-3, **kwargs), START, gradients, dtype)
        return deviation(ours, theirs, START)

    assert 1e-6 < apart("adam") < 3e-5
    assert 1e-4 < apart("adam", b2=0.99999) < 3e-3
    assert 1e-3 < apart("radam") < 3e-2
    assert apart("amsgrad", "float64") > 0.05
    constant = np.tile(np.random.default_rng(0).uniform(0.01, 10, 500), (400, 1))
    theirs = trajectory(optax.rmsprop(1e-3, centered=True), np.zeros(500), constant)
    assert 0.05 < np.isnan(theirs).any(axis=0).mean() < 0.5
    ours = trajectory(oa.rmsprop(1e-3, centered=True), np.zeros(500), constant)
    assert np.isfinite(ours).all()
    one = jnp.ones(1)
    ascent, _ = optax.adadelta().update(one, optax.adadelta().init(one), one)
    descent, _ = oa.adadelta().update(one, oa.adadelta().init(one), one)
    chex.assert_trees_all_close(ascent, -descent, rtol=1e-5)


# --- adabound ----------------------------------------------------------------------------------


def test_a_schedule_moves_the_band_of_adabound():
    """At half the rate the whole step is half as large, band included."""
    half = optax.piecewise_constant_schedule(1e-3, {30: 0.5})
    gradients = GRADIENTS.astype("float32")
    moved = trajectory(oa.adabound(half, gamma=0.05), START, gradients)
    fixed = trajectory(oa.adabound(1e-3, gamma=0.05), START, gradients)
    ours, theirs = np.diff(moved, axis=0)[29:], np.diff(fixed, axis=0)[29:]
    np.testing.assert_allclose(ours, 0.5 * theirs, rtol=1e-5, atol=1e-12)


def test_base_lr_says_where_the_band_belongs():
    gradients = GRADIENTS.astype("float32")
    warm = optax.linear_schedule(0.0, 1e-3, 10)
    paths = {
        (base, final): trajectory(oa.adabound(warm, base_lr=base, final_lr=final), START, gradients)
        for base, final in ((1e-3, 0.1), (2e-3, 0.2), (2e-3, 0.1))
    }
    chex.assert_trees_all_close(paths[1e-3, 0.1], paths[2e-3, 0.2], rtol=1e-6)
    assert deviation(paths[2e-3, 0.1], paths[1e-3, 0.1], START) > 0.01


def test_scale_by_adabound_in_units_of_the_rate():
    tx = optax.chain(oa.scale_by_adabound(final_rate=100.0), optax.scale_by_learning_rate(1e-3))
    ours = trajectory(tx, START, GRADIENTS, "float64")
    assert deviation(ours, trajectory(oa.adabound(), START, GRADIENTS, "float64"), START) < 1e-12


# --- properties --------------------------------------------------------------------------------

NAMES = ["sgd", "adagrad", "rmsprop", "adadelta", "adam", "amsgrad", "nadam", "adamax", "radam"]
NAMES += ["adabound", "amsbound"]
vectors = hnp.arrays(
    np.float32, (6, 4), elements=st.floats(-100, 100, width=32, allow_subnormal=False)
)


def path(name, gradients, **kwargs):
    return np.asarray(_run(name, tuple(kwargs.items()))(jnp.asarray(gradients)))


def _run(name, kwargs, cache={}):  # noqa: B006
    if (name, kwargs) not in cache:
        tx = getattr(oa, name)(0.1, **dict(kwargs))

        def run(gradients):
            def step(state, g):
                updates, state = tx.update(g, state)
                return state, updates

            return jax.lax.scan(step, tx.init(gradients[0]), gradients)[1]

        cache[name, kwargs] = jax.jit(run)
    return cache[name, kwargs]


@settings(max_examples=25, deadline=None)
@given(gradients=vectors, order=st.permutations(range(4)))
@pytest.mark.parametrize("name", NAMES)
def test_symmetries(name, gradients, order):
    """The mirrored gradient makes the mirrored step, and no coordinate looks at another."""
    steps = path(name, gradients)
    assert np.all(np.isfinite(steps))
    np.testing.assert_array_equal(path(name, -gradients), -steps)
    np.testing.assert_array_equal(path(name, gradients[:, order]), steps[:, order])


@settings(max_examples=25, deadline=None)
@given(gradients=vectors, power=st.integers(-8, 8))
@pytest.mark.parametrize("name", ["adam", "amsgrad", "nadam", "radam", "rmsprop", "adagrad"])
def test_scale(name, gradients, power):
    """Without eps a power of two in the gradient does not change the step of an adaptive method."""
    gradients = np.where(np.abs(gradients) < 1e-3, np.float32(1), gradients)
    kwargs = {"eps": 1e-30}
    if name == "adagrad":
        kwargs["initial_accumulator_value"] = 0.0
    scaled = path(name, gradients * np.float32(2.0) ** power, **kwargs)
    steps = path(name, gradients, **kwargs)
    if name == "radam":  # not before it is rectified
        scaled, steps = scaled[5:], steps[5:]
    np.testing.assert_allclose(scaled, steps, rtol=1e-5, atol=1e-9)


def test_trace_is_optax_trace():
    for nesterov in (True, False):
        with enable_x64(True):
            ours = trajectory(oa.trace(0.9, nesterov), START, GRADIENTS, "float64")
            theirs = trajectory(optax.trace(0.9, nesterov), START, GRADIENTS, "float64")
        assert deviation(ours, theirs, START) < 1e-12


# --- muon, adam_mini and their roles -----------------------------------------------------------


def test_muon_makes_a_matrix_nearly_orthogonal():
    """The singular values of a step are about one, also those that are small in the gradient."""
    rng = np.random.default_rng(0)
    gradient = jnp.asarray(rng.normal(size=(6, 4)) * [30.0, 10.0, 3.0, 1.0], "float32")
    tx = oa.scale_by_muon(roles={"*": "matrix"})
    step, _ = tx.update(gradient, tx.init(gradient), gradient)
    assert np.linalg.cond(gradient) > 20
    sizes = np.linalg.svd(step, compute_uv=False)
    assert np.all((sizes > 0.6) & (sizes < 1.3))
    adam, _ = oa.scale_by_adam().update(gradient, oa.scale_by_adam().init(gradient))
    assert np.linalg.svd(adam, compute_uv=False).max() > 2


@pytest.mark.parametrize("preconditioning", ["frobenius", "spectral", "schatten", "aol"])
@pytest.mark.parametrize("size", [0.0, 1e-30, 1e20, 1e30])
def test_muon_survives_extreme_matrices(size, preconditioning):
    tx = oa.muon(0.1, beta=0.5, roles={"*": "matrix"}, preconditioning=preconditioning)
    params = jnp.ones((3, 4))
    ordinary = jax.random.normal(jax.random.key(0), (3, 4))

    @jax.jit
    def run(first):
        updates, state = tx.update(first, tx.init(params), params)

        def step(state, g):
            updates, state = tx.update(g, state, params)
            return state, updates

        return updates, jax.lax.scan(step, state, jnp.tile(ordinary, (300, 1, 1)))[1]

    first, later = run(jnp.full((3, 4), size))
    chex.assert_tree_all_finite((first, later))
    chex.assert_trees_all_close(later[-1], run(0 * params)[1][-1], rtol=1e-3, atol=1e-5)


def test_muon_has_two_rates_and_two_decays():
    """What is stepped by Adam has its own; masks hold for both."""
    params = {"kernel": jnp.ones((2, 3)), "head": jnp.ones((3, 2)), "bias": jnp.ones(3)}
    roles = {"kernel": "matrix"}
    grads = jax.tree.map(lambda p: jax.random.normal(jax.random.key(1), p.shape), params)

    def update(**kwargs):
        tx = oa.muon(roles=roles, **kwargs)
        return tx.update(grads, tx.init(params), params)[0]

    both = update(learning_rate=0.1, adam_learning_rate=lambda step: 0.3 - step)
    alone = update(learning_rate=0.1), update(learning_rate=0.3)
    chex.assert_trees_all_close(both["kernel"], alone[0]["kernel"])
    chex.assert_trees_all_close(both["head"], alone[1]["head"])
    chex.assert_trees_all_close(both["bias"], alone[1]["bias"])
    adam = oa.adam(0.3, nesterov=True)
    chex.assert_trees_all_close(
        both["head"], adam.update(grads["head"], adam.init(grads["head"]))[0], rtol=1e-6
    )

    mask = {"kernel": True, "head": True, "bias": False}
    rates = {"learning_rate": 0.1, "adam_learning_rate": 0.3}
    decayed = update(**rates, weight_decay=0.5, adam_weight_decay=lambda _: 0.2, mask=mask)
    shrunk = jax.tree.map(lambda a, b: a - b, decayed, both)
    chex.assert_trees_all_close(shrunk["kernel"], jnp.full((2, 3), -0.05), atol=1e-6)
    chex.assert_trees_all_close(shrunk["head"], jnp.full((3, 2), -0.06), atol=1e-6)
    chex.assert_trees_all_close(shrunk["bias"], jnp.zeros(3))


def test_muon_keeps_one_word_for_a_matrix():
    params = {"kernel": jnp.ones((2, 3)), "head": jnp.ones((3, 2))}
    state = oa.scale_by_muon(roles={"kernel": "matrix"}).init(params)
    assert jax.tree.map(jnp.shape, state.nu) == {"kernel": (), "head": (3, 2)}


def test_adam_mini_takes_one_number_for_a_block():
    """The first step of a block has the shape of its gradient; Adam's is its sign."""
    g = jax.random.normal(jax.random.key(0), (4, 6))
    for role, axes, shape in [
        ("tensor", (0, 1), (1, 1)),
        ("rows", 1, (4, 1)),
        ("neurons", 0, (1, 6)),
        ("rows:2", (), (4, 6)),
    ]:
        tx = oa.scale_by_adam_mini(roles={"*": role})
        step, state = tx.update(g, tx.init(g))
        assert state.nu.shape == shape
        expected = g / jnp.sqrt(jnp.mean(g * g, axes, keepdims=True))
        chex.assert_trees_all_close(step, expected, rtol=1e-5)
    for role, view, axes in [
        ("heads:3", (4, 3, 2), (0, 2)),
        ("row_heads:2", (2, 2, 6), (1, 2)),
    ]:
        tx = oa.scale_by_adam_mini(roles={"*": role})
        step, _ = tx.update(g, tx.init(g))
        blocks = g.reshape(view)
        expected = blocks / jnp.sqrt(jnp.mean(blocks**2, axes, keepdims=True))
        chex.assert_trees_all_close(step, expected.reshape(4, 6), rtol=1e-5)


def shapes(names):
    """A tree of shapes from paths."""
    tree = {}
    for path, shape in names.items():
        *parents, name = path.split("/")
        node = tree
        for key in parents:
            node = node.setdefault(key, {})
        node[name] = jax.ShapeDtypeStruct(shape, jnp.float32)
    return tree


NAMED = {  # path: (shape, role by Muon, role by Adam-mini), None where it must be said
    "Embed_0/embedding": ((9, 4), "adam", "rows"),
    "wte/embedding": ((9, 4), "adam", "rows"),
    "pos_embedding": ((1, 9, 4), "adam", "tensor"),
    "LayerNorm_0/scale": ((4,), "adam", "tensor"),
    "block_0/attn/q_norm/scale": ((2, 4), "adam", "tensor"),
    "block_0/attn/query/bias": ((2, 4), "adam", "adam"),
    "block_0/attn/query/kernel": ((4, 4), "matrix", None),
    "block_1/attn/query/kernel": ((4, 2, 2), None, "heads"),
    "block_1/attn/value/kernel": ((4, 2, 2), None, "neurons:2"),
    "block_1/attn/out/kernel": ((2, 2, 4), None, "neurons"),
    "h/0/attn/c_attn/kernel": ((4, 12), "matrix", None),
    "h/0/attn/c_proj/kernel": ((4, 4), "matrix", "neurons"),
    "h/0/mlp/c_fc/kernel": ((4, 16), "matrix", "neurons"),
    "layers/0/self_attn/o_proj/weight": ((4, 4), "transposed", "rows"),
    "layers/0/mlp/gate_proj/weight": ((16, 4), "transposed", "rows"),
    "layers/0/mlp/fc1/kernel": ((4, 16), "matrix", "neurons"),
    "encoder/layer/0/attention/output/dense/kernel": ((4, 4), "matrix", "neurons"),
    "encoder/layer/0/output/dense/kernel": ((4, 4), None, "neurons"),
    "MultiHeadAttention_0/value_proj/kernel": ((4, 4), "matrix", "neurons"),
    "hidden_1/kernel": ((4, 4), "matrix", "neurons"),
    "Dense_2/kernel": ((4, 3), None, "neurons"),
    "mlp/layers/2/weight": ((3, 4), None, "rows"),
    "fc2/kernel": ((4, 3), None, "neurons"),
    "critic/value/kernel": ((4, 1), None, "tensor"),
    "AttentionModel_0/out/kernel": ((4, 3), None, "tensor"),
    "lm_head/kernel": ((4, 9), "adam", "neurons"),
    "output/kernel": ((4, 9), "adam", "neurons"),
    "unembed/weight": ((9, 4), "adam", "rows"),
    "hidden_to_output/kernel": ((4, 9), None, "tensor"),
    "Conv_0/kernel": ((3, 3, 4, 8), None, "tensor"),
}


def test_names_tell_roles():
    params = shapes({path: shape for path, (shape, *_) in NAMED.items()})
    for report, which in ((oa.muon_roles, 1), (oa.adam_mini_roles, 2)):
        assert dict(report(params)) == {path: row[which] for path, row in NAMED.items()}


def test_unclear_roles_are_refused_all_at_once():
    params = shapes({"Dense_0/kernel": (4, 3), "Conv_0/kernel": (3, 3, 1, 4), "Dense_0/bias": (3,)})
    tx = oa.muon(0.1)
    match = (
        r"(?s)^muon: which role these leaves play is not clear:\n"
        r"  Conv_0/kernel   \(3, 3, 1, 4\) .*\n  Dense_0/kernel  \(4, 3\) .*\n"
        r'.*roles=\{"Conv_0/kernel": \.\.\., "Dense_0/kernel": \.\.\.\}\nwith\n'
        r'  "adam"  .*  "matrix"  .*'
    )
    with pytest.raises(ValueError, match=match):
        tx.init(params)
    zeros = jax.tree.map(lambda s: jnp.zeros(s.shape), params)
    said = oa.muon(0.1, roles={"Conv*": "conv", "Dense_0/kernel": "adam"})
    with pytest.raises(ValueError, match=r"(?s)^muon: which role these leaves"):
        tx.update(zeros, said.init(params), zeros)
    with pytest.raises(ValueError, match=r"(?s)^adam_mini: which role this leaf plays .*heads"):
        oa.adam_mini(0.1).init(shapes({"attn/query/kernel": (4, 4)}))


def test_roles_as_users_say_them():
    params = shapes({"a/kernel": (4, 3), "b/kernel": (3, 2), "b/bias": (2,)})
    by_function = oa.muon_roles(params, lambda path, _: {"a/kernel": "matrix"}.get(path, "adam"))
    by_pattern = oa.muon_roles(params, {"a/*": "matrix", "b/kernel": "adam"})
    assert dict(by_function) == dict(by_pattern)
    assert dict(by_pattern) == {"a/kernel": "matrix", "b/kernel": "adam", "b/bias": "adam"}
    assert str(by_pattern).splitlines() == [
        "  path      shape   role    why",
        "  a/kernel  (4, 3)  matrix  roles['a/*']",
        "  b/bias    (2,)    adam    named bias",
        "  b/kernel  (3, 2)  adam    roles['b/kernel']",
    ]

    def refused(roles, match):
        with pytest.raises(ValueError, match=rf"(?s)^muon: {match}"):
            oa.muon(0.1, roles=roles).init(params)

    refused({"*/kernel": "matrix", "b/*": "adam"}, r"roles contradict each other at\n  b/kernel ")
    refused(
        {"*/kernel": "matrix", "c/*": "adam"}, r"no leaf matches roles\['c/\*'\]; there are.*b/"
    )
    refused({"*": "matrix"}, r'a leaf of role "matrix" is \(in, out\); b/bias has shape \(2,\) ')
    refused({"*": "matrx"}, r"roles\['\*'\] must be one of.*got 'matrx'")
    refused({"*": "stack:2"}, r"roles\['\*'\] must be one of.*got 'stack:2'")
    refused(lambda path, shape: 3, r"roles\('a/kernel', \(4, 3\)\) must be one of.*got 3")


def test_paths_of_all_kinds_of_trees():
    class Layer(NamedTuple):
        query: jax.Array
        value: jax.Array

    kernel = jnp.ones((2, 2))
    params = {"attention": [Layer(kernel, kernel)], "c": {"kernel": 1j * kernel[0]}}
    assert list(oa.muon_roles(params)) == ["attention/0/query", "attention/0/value", "c/kernel"]
    assert oa.muon_roles(params)["c/kernel"] is None  # two axes, as it is seen
    assert list(oa.muon_roles(kernel)) == [""]

    model = nnx.MultiHeadAttention(2, 4, rngs=nnx.Rngs(0), decode=False)
    state = nnx.state({"attn": model}, nnx.Param)
    assert oa.adam_mini_roles(state)["attn/value/kernel"] == "neurons:2"
    assert oa.adam_mini_roles(state)["attn/key/kernel"] == "heads"
    boxed = {"Dense_0": {"kernel": nn.Partitioned(kernel, ("x", None))}}
    assert oa.adam_mini_roles(boxed)["Dense_0/kernel"] == "neurons"


@pytest.mark.parametrize("role", ["matrix", "transposed", "adam"])
@pytest.mark.parametrize("axis_type", [AxisType.Auto, AxisType.Explicit])
def test_muon_is_sharded_as_its_parameters(role, axis_type):
    mesh = jax.make_mesh((8,), ("x",), axis_types=(axis_type,))
    sharding = NamedSharding(mesh, PartitionSpec(None, "x"))
    params = jax.random.normal(jax.random.key(0), (4, 16))
    tx = oa.muon(0.1, roles={"*": role})
    expected, _ = tx.update(params, tx.init(params), params)
    with jax.set_mesh(mesh):
        params = jax.device_put(params, sharding)
        state = jax.jit(tx.init)(params)
        for leaf in jax.tree.leaves(state):
            if leaf.shape == params.shape:
                assert leaf.sharding.is_equivalent_to(sharding, 2)
        updates, _ = jax.jit(tx.update)(params, state, params)
        assert updates.sharding.is_equivalent_to(sharding, 2)
        chex.assert_trees_all_close(np.asarray(updates), np.asarray(expected), rtol=1e-3, atol=1e-5)
