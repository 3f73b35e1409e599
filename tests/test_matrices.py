"""What is particular to Shampoo, SOAP and Muon."""

import gc

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from runs import trajectory

import optax_adaptive as oa
from optax_adaptive._matrices import next_basis, next_root

BY_MATRICES = {
    "shampoo": {"precondition_frequency": 3},
    "soap": {"precondition_frequency": 3, "weight_decay": None},
}
by_matrices = pytest.mark.parametrize("name", BY_MATRICES)


@by_matrices
def test_steps_turn_with_the_coordinates(name):
    """Rotated gradients make rotated steps: no coordinate is better than a mixture of them."""
    rng = np.random.default_rng(0)
    gradients = rng.normal(size=(20, 3, 3)) + 2 * np.eye(3)
    left, right = (np.linalg.qr(rng.normal(size=(3, 3)))[0] for _ in range(2))

    def apart(tx):
        path = trajectory(tx, np.zeros((3, 3)), gradients, "float64")
        turned = trajectory(tx, np.zeros((3, 3)), left @ gradients @ right, "float64")
        return abs(left @ path @ right - turned).max() / abs(path).max()

    assert apart(getattr(oa, name)(0.1, **BY_MATRICES[name])) < 1e-9
    assert apart(oa.adam(0.1)) > 0.1


@by_matrices
def test_decompositions_are_made_when_due_and_not_between(name):
    tx = getattr(oa, name)(0.1, **BY_MATRICES[name])
    params = jax.random.normal(jax.random.key(0), (3, 4))
    compiled = jax.jit(tx.update).lower(params, tx.init(params), params).compile()
    entry = compiled.as_text().partition("ENTRY")[2]
    assert entry.count("conditional(") == 2  # one for every axis
    assert "syevd" in compiled.as_text()
    assert "syevd" not in entry
    assert "geqrf" not in entry

    state, changed = tx.init(params), []
    for seed in range(8):
        grads = jax.random.normal(jax.random.key(seed), params.shape)
        old, (_, state) = state.direction[-1], compiled(grads, state, params)
        same = jax.tree.map(jnp.array_equal, old, state.direction[-1])
        assert len(set(map(bool, jax.tree.leaves(same)))) == 1
        changed.append(not jax.tree.leaves(same)[0])
    assert [step for step, new in enumerate(changed) if new] == [0, 3, 6]


@by_matrices
def test_eager_steps_compile_once_and_keep_nothing(name):
    params = jax.random.normal(jax.random.key(0), (3, 4))
    tx = getattr(oa, name)(0.1, **BY_MATRICES[name])
    state, alive, compiled = tx.init(params), [], []
    for _ in range(12):
        updates, state = tx.update(params, state, params)
        del updates
        gc.collect()
        alive.append(len(jax.live_arrays()))
        compiled.append(next_root._cache_size() + next_basis._cache_size())
    assert alive[-1] == alive[2]
    assert compiled[-1] == compiled[2]


@by_matrices
@pytest.mark.parametrize("size", [0.0, 1e-30, 1e-15, 1.0, 1e15, 1e20, 1e30])
def test_singular_and_extreme_matrices(name, size):
    """Gradients of rank 0 and 1, of every size, then others: finite, and of the usual size."""
    options = BY_MATRICES[name] | {"b2": 0.8}
    options |= {"b1": 0.5} if name == "soap" else {"eps": 1e-8}
    tx = getattr(oa, name)(1.0, **options)
    state, update = tx.init(jnp.ones((3, 4))), jax.jit(tx.update)
    for _ in range(5):
        updates, state = update(jnp.full((3, 4), size), state)
        chex.assert_tree_all_finite((updates, state))
    for seed in range(300):
        updates, state = update(jax.random.normal(jax.random.key(seed), (3, 4)), state)
        chex.assert_tree_all_finite((updates, state))
    assert 0.01 < jnp.sqrt(jnp.mean(updates**2)) < 10


def test_the_first_step_of_soap_only_makes_the_bases():
    tx = oa.scale_by_soap(eps=1e-4)
    grads = {"w": jax.random.normal(jax.random.key(0), (3, 3)), "b": jnp.ones(3)}
    updates, state = tx.update(grads, tx.init(grads))
    assert not any(jnp.any(x) for x in jax.tree.leaves((updates, state.mu, state.nu)))
    basis, expected = state.bases["w"][0], jnp.linalg.svd(grads["w"])[0]
    np.testing.assert_allclose(abs(basis.T @ expected), np.eye(3)[::-1], atol=1e-5)
    assert state.bases["b"] == [None]
    updates, _ = tx.update(grads, state)
    # The same gradient again: in the bases it is diagonal, and every singular value becomes 1.
    np.testing.assert_allclose(jnp.linalg.svd(updates["w"])[1], 1, rtol=0.02)


def test_the_first_step_of_shampoo_is_the_nearest_orthogonal_matrix():
    gradient = jax.random.normal(jax.random.key(0), (4, 4))
    tx = oa.scale_by_shampoo(eps=1e-12)
    update, _ = tx.update(gradient, tx.init(gradient))
    u, _, v = jnp.linalg.svd(gradient)
    np.testing.assert_allclose(update, u @ v, atol=1e-4)


def test_dimensions_that_merge():
    tx = oa.scale_by_soap(merge_dims=True, max_precond_dim=600)
    for shape, sizes in (
        ((3, 3, 64, 128), [576, 128]),
        ((700, 2, 3), [None, 6]),
        ((2, 1, 5), [10]),
        ((1, 1), [1]),
        ((700, 0), [None, 0]),
        ((4,), [None]),
        ((), []),
    ):
        statistics = tx.init(jnp.zeros(shape)).statistics
        assert [s if s is None else len(s) for s in statistics] == sizes
        chex.assert_shape(tx.update(jnp.zeros(shape), tx.init(jnp.zeros(shape)))[0], shape)


@by_matrices
def test_a_traced_size_is_refused(name):
    make = optax.inject_hyperparams(getattr(oa, name))
    with pytest.raises(ValueError, match=r'must be known.*static_args="max_precond_dim"'):
        jax.jit(make(0.1).init)(jnp.ones((2, 2)))
    static = optax.inject_hyperparams(getattr(oa, name), static_args="max_precond_dim")
    jax.jit(static(0.1).init)(jnp.ones((2, 2)))


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
