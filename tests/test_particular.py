"""What is particular to one algorithm."""

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


# --- novograd ----------------------------------------------------------------------------------


def test_novograd_walks_along_the_gradient_and_not_along_its_signs():
    """One number normalizes a leaf: the size of the leaf's gradient does not matter, that of a
    coordinate within it does."""
    gradients = {"a": GRADIENTS[:, :4], "b": GRADIENTS[:, 4:]}
    tx = oa.novograd(0.1, b2=0.9, eps=1e-30)

    def directions(scale):
        state = tx.init({"a": jnp.zeros(4), "b": jnp.zeros(4)})
        for a, b in zip(gradients["a"][:9], gradients["b"][:9], strict=True):
            updates, state = tx.update({"a": jnp.asarray(scale * a), "b": jnp.asarray(b)}, state)
            yield updates
        assert jax.tree.map(jnp.shape, state.direction.nu) == {"a": (), "b": ()}

    for big, small in zip(directions(2.0**10), directions(1.0), strict=True):
        chex.assert_trees_all_close(big, small, rtol=1e-5)
    first = next(directions(1.0))
    for name, leaf in gradients.items():
        np.testing.assert_allclose(first[name], -0.1 * leaf[0] / np.linalg.norm(leaf[0]), 1e-5)


def test_novograd_keeps_its_decay_in_the_momentum():
    tx = oa.novograd(0.1, b1=0.5, weight_decay=0.01, mask={"a": True, "b": False})
    params, zeros = {"a": jnp.ones(2), "b": jnp.ones(2)}, {"a": jnp.zeros(2), "b": jnp.zeros(2)}
    state = tx.init(params)
    for decayed in (1.0, 1.5, 1.75):
        updates, state = tx.update(zeros, state, params)
        np.testing.assert_allclose(updates["a"], -0.1 * 0.01 * decayed, rtol=1e-6)
        np.testing.assert_array_equal(updates["b"], 0)


# --- second moments in factors: adafactor, came, sm3 -------------------------------------------


def words(state):
    return sum(x.size for x in jax.tree.leaves(state))


@pytest.mark.parametrize("shape", [(512, 512), (2048, 256), (128, 3, 512), (4, 128, 128)])
def test_second_moments_are_sublinear(shape):
    """With default arguments; what they keep beside is a momentum, or the count of steps."""
    params = jax.ShapeDtypeStruct(shape, jnp.float32)
    size = np.prod(shape)
    a, b = sorted(range(len(shape)), key=shape.__getitem__)[-2:]
    factors = size // shape[a] + size // shape[b]
    assert words(oa.adafactor(0.1).init(params)) == factors + 3  # two counts, an unused nu
    assert words(oa.sm3(0.1, momentum=None).init(params)) == sum(shape) + 2
    assert words(oa.sm3(0.1).init(params)) == size + sum(shape) + 1
    factors = size // shape[-1] + size // shape[-2]
    assert words(oa.came(0.1).init(params)) == size + 2 * factors + 2


def test_adafactor_factors_the_two_longest_axes_if_they_are_long_enough():
    def shapes(shape, least, **kwargs):
        state = oa.adafactor(0.1, least, **kwargs).init(jnp.zeros(shape))
        return [jnp.shape(part) for part in state.direction[1:]]

    assert shapes((8, 2, 6), 6) == [(), (1, 2, 6), (8, 2, 1)]
    assert shapes((8, 2, 6), 7) == [(8, 2, 6), (), ()]
    assert shapes((8, 2, 6), 6, factored=False) == [(8, 2, 6), (), ()]
    assert shapes((8,), 1) == [(8,), (), ()]


def test_factors_are_exact_where_squares_are_of_rank_one():
    rng = np.random.default_rng(0)
    rows, columns = 10.0 ** rng.uniform(-2, 2, (20, 1)), 10.0 ** rng.uniform(-2, 2, (1, 30))
    signs = rng.choice([-1.0, 1.0], (9, 20, 30))
    start = rng.normal(size=(20, 30))

    def paths(gradients):
        return [
            trajectory(oa.adafactor(0.1, 1, factored=factored), start, gradients, "float64")
            for factored in (True, False)
        ]

    assert deviation(*paths(signs * rows * columns), start) < 1e-12
    assert deviation(*paths(rng.normal(size=signs.shape) * rows * columns), start) > 0.1


def test_adafactor_bounds_the_rms_of_its_steps():
    gradients = np.ones((40, 6, 4)) * 1e-3
    gradients[20] = 1.0
    start = np.full((6, 4), 2.0)
    sizes = {}
    for threshold in (None, 1.0, 0.5):
        path = trajectory(oa.adafactor(0.01, 1, clipping_threshold=threshold), start, gradients)
        moves = np.diff(path, axis=0, prepend=start[None])
        before = np.concatenate([start[None], path[:-1]])
        rms = np.sqrt(np.mean(moves**2, axis=(1, 2)) / np.mean(before**2, axis=(1, 2)))
        sizes[threshold] = rms.max()
    assert sizes[None] > 0.03
    np.testing.assert_allclose([sizes[1.0], sizes[0.5]], [0.01, 0.005], rtol=1e-5)


def test_adafactor_moves_parameters_that_are_zero():
    params = {"zero": jnp.zeros(3), "small": jnp.full(3, 1e-5), "large": jnp.full(3, 4.0)}
    for relative, scales in ((True, [1e-3, 1e-3, 4.0]), (False, [1.0, 1.0, 1.0])):
        tx = oa.adafactor(0.1, multiply_by_parameter_scale=relative)
        updates, _ = tx.update(jax.tree.map(jnp.ones_like, params), tx.init(params), params)
        for update, scale in zip(map(updates.get, params), scales, strict=True):
            np.testing.assert_allclose(update, -0.1 * scale, rtol=1e-6)


@pytest.mark.parametrize("name", ["adafactor", "came", "sm3", "novograd"])
@pytest.mark.parametrize("shape", [(8, 6), (4, 8, 6)])
def test_a_matrix_with_empty_rows_beside_huge_ones(name, shape):
    """r / mean(r) underflows there; optax and the authors of CAME then have 0 / 0."""
    options = {"min_dim_size_to_factor": 1} if name == "adafactor" else {}
    tx = getattr(oa, name)(0.01, **options)
    params = jnp.ones(shape)
    state, update = tx.init(params), jax.jit(tx.update)
    for seed, size in enumerate([0.0, 1.0, 1e12, 1e30, 1e-30, 1.0, 0.0, 1.0]):
        g = size * jax.random.normal(jax.random.key(seed), shape).at[..., 2, :].set(0.0)
        g = g.at[..., 3, :].mul(1e-30).at[..., :, 1].mul(1e-30)
        updates, state = update(g, state, params)
        chex.assert_tree_all_finite((updates, state))
        np.testing.assert_array_equal(updates[..., 2, :], 0)


@pytest.mark.parametrize("name", ["adafactor", "came"])
def test_two_blocks_of_very_different_size(name):
    """The factors give the small one a square far too small, and a u whose square overflows."""
    options = {"min_dim_size_to_factor": 1} if name == "adafactor" else {}
    tx = getattr(oa, name)(0.01, **options)
    g = jnp.diag(jnp.array([1e15, 1e-5]))
    updates, _ = tx.update(g, tx.init(g), jnp.ones((2, 2)))
    chex.assert_tree_all_finite(updates)
    assert updates[1, 1] < -0.01


def test_what_optax_does_else_with_factors():
    """The departures of adafactor and sm3 that their docstrings claim."""
    ones = jnp.ones((4, 4))
    g = (1e12 * ones).at[1].set(0.0)
    tx = optax.adafactor(0.01, 1)
    assert np.isnan(jax.jit(tx.update)(g, tx.init(ones), ones)[0][1]).all()
    tx = optax.adafactor(0.01, decay_offset=10)
    assert not np.isfinite(tx.update(ones, tx.init(ones), ones)[0]).all()
    with pytest.raises(IndexError):
        optax.sm3(0.01).update(ones[0, 0], optax.sm3(0.01).init(ones[0, 0]))

    start, gradients = problem((6, 4))
    ours = optax.chain(oa.adafactor(0.01, 1), optax.add_decayed_weights(-0.1))
    theirs = optax.adafactor(0.01, 1, weight_decay_rate=0.1)
    paths = [trajectory(tx, start, gradients, "float64") for tx in (ours, theirs)]
    assert deviation(*paths, start) < 1e-5


def test_shapes_of_state_are_known_ahead():
    injected = optax.inject_hyperparams(oa.adafactor)(learning_rate=0.1, min_dim_size_to_factor=2)
    injected.init(jnp.ones((2, 2)))
    with pytest.raises(ValueError, match=r"^adafactor: min_dim_size_to_factor must be known when"):
        jax.jit(injected.init)(jnp.ones((2, 2)))


def test_sm3_takes_the_smaller_bound_of_row_and_column():
    """Both are the smaller one somewhere, and the sums of squares lie below."""
    start, gradients = problem((6, 4))
    tx = oa.sm3(0.1, momentum=None, eps=0.0)
    state, sums, visits = tx.init(jnp.asarray(start, "float32")), np.zeros((6, 4)), {-1: 0, 1: 0}
    for g in gradients.astype("float32"):
        rows, columns = (np.asarray(m) for m in state.direction.sum_sq_max)
        assert rows.shape == (6, 1)
        assert columns.shape == (1, 4)
        sums, bound = sums + g**2, np.minimum(rows, columns) + g**2
        assert np.all(sums <= bound * (1 + 1e-5))
        updates, state = tx.update(jnp.asarray(g), state)
        expected = -0.1 * g / np.sqrt(np.where(bound > 0, bound, 1))
        np.testing.assert_allclose(updates, expected, 1e-5)
        for side in visits:
            visits[side] += (np.sign(rows - columns) == side).sum()
    assert min(visits.values()) > 100


def test_came_goes_faster_where_steps_agree_with_their_mean():
    """The gradient of one row keeps its sign, that of the other is as large and turns."""
    g = jnp.array([[1.0] * 4, [1.0] * 4])
    turn = jnp.array([[1.0], [-1.0]])
    tx = oa.came(1e-3, b3=0.9)
    state = tx.init(g)
    for step in range(60):
        updates, state = tx.update(g * turn if step % 2 else g, state)
    confidence = jnp.abs(updates / state.direction.mu)
    assert jnp.all(confidence[0] > 5 * confidence[1])
    np.testing.assert_allclose(state.direction.nu_row[0], state.direction.nu_row[1])


def test_an_average_trace_is_optax_ema():
    ours = trajectory(oa.trace(0.9, average=True), START, GRADIENTS, "float64")
    theirs = trajectory(optax.ema(0.9, debias=False), START, GRADIENTS, "float64")
    assert deviation(ours, theirs, START) < 1e-12
