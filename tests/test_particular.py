"""What is particular to one algorithm."""

import gc

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import references
from cases import problem
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from runs import deviation, enable_x64, trajectory

import optax_adaptive as oa
from optax_adaptive._matrices import next_basis, next_root

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


# --- shampoo and soap --------------------------------------------------------------------------

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
    with pytest.raises(ValueError, match=r'decides the shapes.*static_args="max_precond_dim"'):
        jax.jit(make(0.1).init)(jnp.ones((2, 2)))
    static = optax.inject_hyperparams(getattr(oa, name), static_args="max_precond_dim")
    jax.jit(static(0.1).init)(jnp.ones((2, 2)))
