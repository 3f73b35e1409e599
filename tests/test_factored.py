"""What is particular to second moments in factors: NovoGrad, Adafactor, SM3, CAME."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from cases import problem
from runs import deviation, trajectory

import optax_adaptive as oa

START, GRADIENTS = problem()


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
