"""The estimator of the Hessian's diagonal."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from runs import enable_x64

import optax_adaptive as oa

KEYS = 4096
MATRIX = jnp.array([[2.0, 1.0, 0.0], [1.0, -3.0, 0.5], [0.0, 0.5, 1.0]])


def quadratic(p):
    return 0.5 * p @ MATRIX @ p


def estimates(loss_fn, params, **kwargs):
    """The diagonal for many keys."""
    keys = jax.random.split(jax.random.key(0), KEYS)
    return jax.vmap(lambda key: oa.hutchinson(loss_fn, **kwargs)(key, params)[2])(keys)


def test_the_signs_are_random():
    """Of p0 p1 the estimate is the product of two signs: of a constant probe it would be 1."""
    apart = estimates(lambda p: p["a"] * p["b"], {"a": 1.0, "b": 2.0})
    together = estimates(lambda p: p[0] * p[1], jnp.ones(2))
    for a, b in ((apart["a"], apart["b"]), (together[:, 0], together[:, 1])):
        assert set(np.unique(a)) == {-1.0, 1.0}
        chex.assert_trees_all_equal(a, b)
        assert abs(np.mean(a)) < 5 / np.sqrt(KEYS)


def test_exact_where_the_hessian_is_diagonal():
    curvature = jnp.array([1e-6, 3.0, -2.0, 0.0, 1e6])
    _, grads, diagonal = oa.hutchinson(lambda p: 0.5 * jnp.sum(curvature * p**2))(
        jax.random.key(0), jnp.ones(5)
    )
    chex.assert_trees_all_equal(diagonal, curvature)
    chex.assert_trees_all_equal(grads, curvature)


@pytest.mark.parametrize("samples", [1, 4])
def test_unbiased_and_as_noisy_as_documented(samples):
    found = np.asarray(estimates(quadratic, jnp.ones(3), samples=samples))
    rest = np.asarray(MATRIX) - np.diag(np.diag(MATRIX))
    variance = (rest**2).sum(axis=1) / samples
    error = abs(found.mean(axis=0) - np.diag(MATRIX))
    assert np.all(error < 5 * np.sqrt(variance / KEYS))
    np.testing.assert_allclose(found.var(axis=0), variance, rtol=0.1)


@pytest.mark.parametrize("samples", [1, 3])
def test_value_and_gradient_come_with_it(samples):
    """They are those of `jax.value_and_grad`, and the loss is run once."""
    runs = []

    def loss_fn(params, x, *, y):
        runs.append(None)
        error = jnp.tanh(x @ params["w"]) + params["b"] - y
        return jnp.mean(error**2), {"error": error, "step": jnp.arange(2)}

    params = {"w": jnp.linspace(-1, 1, 6).reshape(3, 2), "b": jnp.zeros(2)}
    x, y = jnp.linspace(0, 1, 12).reshape(4, 3), jnp.ones((4, 2))
    loss_and_curvature = jax.jit(oa.hutchinson(loss_fn, has_aux=True, samples=samples))
    value, grads, diagonal = loss_and_curvature(jax.random.key(0), params, x, y=y)
    assert len(runs) == 1
    expected = jax.value_and_grad(loss_fn, has_aux=True)(params, x, y=y)
    chex.assert_trees_all_close((value, grads), expected, rtol=1e-5)
    chex.assert_trees_all_equal_shapes_and_dtypes(diagonal, params)
    # By each b alone the loss is mean over 4 rows and 2 columns of b² + ...
    mean = jnp.mean(
        jax.vmap(lambda k: loss_and_curvature(k, params, x, y=y)[2]["b"])(
            jax.random.split(jax.random.key(1), KEYS)
        ),
        axis=0,
    )
    np.testing.assert_allclose(mean, 1.0, atol=0.05)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_many_samples_in_16_bits(dtype):
    """A sum of ones in bfloat16 would stay at 256."""
    params = {"w": jnp.ones(3, dtype), "none": None}
    _, grads, diagonal = oa.hutchinson(lambda p: 0.5 * jnp.sum(p["w"] ** 2), samples=600)(
        jax.random.key(0), params
    )
    chex.assert_trees_all_equal(diagonal, params)
    chex.assert_trees_all_equal_shapes_and_dtypes(diagonal, grads)


@pytest.mark.parametrize("samples", [1, 2])
def test_leaves_of_every_kind(samples):
    """A complex parameter is two real ones; an integer is held, as `allow_int` does."""
    params = {"c": jnp.array([1 + 2j]), "n": jnp.array([3]), "none": None, "python": 0.5}

    def loss_fn(p):
        u, v = p["c"].real, p["c"].imag
        return jnp.sum(p["n"] * u**2 + 5 * v**2) + p["python"] ** 2

    _, grads, diagonal = jax.jit(oa.hutchinson(loss_fn, samples=samples))(jax.random.key(0), params)
    expected = jax.grad(loss_fn, allow_int=True)(params)
    chex.assert_trees_all_equal(grads["c"], expected["c"])
    chex.assert_trees_all_equal(diagonal["c"], jnp.array([6 + 10j]))
    assert grads["n"].dtype == diagonal["n"].dtype == jax.dtypes.float0
    assert diagonal["none"] is None
    assert diagonal["python"] == 2.0
    tx = oa.adahessian(0.1)
    updates, _ = tx.update(grads, tx.init(params), params, hessian_diagonal=diagonal)
    assert updates["n"].dtype == bool
    assert oa.hutchinson(lambda p: 1.0, samples=samples)(jax.random.key(0), {}) == (1.0, {}, {})


def test_float64():
    with enable_x64(True):
        params = jnp.ones(3, "float64")
        _, _, diagonal = oa.hutchinson(lambda p: jnp.sum(p**3), samples=3)(
            jax.random.key(0), params
        )
        chex.assert_trees_all_equal(diagonal, 6 * params)


def test_behind_a_custom_gradient():
    """What has a reverse rule only is differentiated through it."""

    @jax.custom_vjp
    def sine(x):
        return jnp.sin(x)

    sine.defvjp(lambda x: (jnp.sin(x), x), lambda x, g: (g * jnp.cos(x),))
    params = jnp.arange(3.0)
    _, _, diagonal = oa.hutchinson(lambda p: jnp.sum(sine(p)))(jax.random.key(0), params)
    chex.assert_trees_all_close(diagonal, -jnp.sin(params))


def test_bad_arguments_are_refused():
    for samples in (0, -1, 1.5, True, None, "2"):
        with pytest.raises(
            ValueError, match=r"^hutchinson: samples must be a whole number >= 1, got "
        ):
            oa.hutchinson(quadratic, samples=samples)
    with pytest.raises(ValueError, match="hutchinson: has_aux must be True or False, got 1"):
        oa.hutchinson(quadratic, has_aux=1)


def test_training_as_documented():
    """A network under jit: AdaHessian with one sample goes down."""
    x = jax.random.normal(jax.random.key(0), (64, 5))
    y = jnp.sin(x.sum(axis=1, keepdims=True))
    params = {"in": 0.5 * jax.random.normal(jax.random.key(1), (5, 16)), "out": jnp.ones((16, 1))}

    def loss_fn(params, x, y):
        return jnp.mean((jnp.tanh(x @ params["in"]) @ params["out"] / 4 - y) ** 2)

    optimizer = oa.adahessian(0.15)
    loss_and_curvature = oa.hutchinson(loss_fn)

    @jax.jit
    def run(params):
        def step(carry, key):
            params, state = carry
            loss, grads, diagonal = loss_and_curvature(key, params, x, y)
            updates, state = optimizer.update(grads, state, params, hessian_diagonal=diagonal)
            return (optax.apply_updates(params, updates), state), loss

        keys = jax.random.split(jax.random.key(2), 200)
        return jax.lax.scan(step, (params, optimizer.init(params)), keys)[1]

    losses = run(params)
    assert losses[-1] < 0.2 * losses[0]
