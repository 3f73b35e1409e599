"""The parts that every algorithm is made of."""

import dataclasses
import math
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from runs import enable_x64

import optax_adaptive as oa
from optax_adaptive import _core, _numerics


@pytest.mark.parametrize("b", [0.0, 0.5, 0.9, 0.999, 0.99999])
@pytest.mark.parametrize("t", [1, 2, 6, 1000, 10**6])
def test_bias_to_full_precision(b, t):
    exact = 1 - b**t if b < 0.99 else -math.expm1(t * math.log(b))
    assert float(_numerics.bias(b, jnp.int32(t))) == pytest.approx(exact, rel=3e-7)


def test_bias_of_a_traced_decay():
    bias = jax.jit(_numerics.bias)(jnp.float32(0.999), jnp.int32(1))
    assert float(bias) == pytest.approx(1 - float(jnp.float32(0.999)), rel=1e-6)


def test_increment_saturates():
    assert _numerics.increment(jnp.int32(7)) == 8
    assert _numerics.increment(jnp.int32(2**31 - 1)) == 2**31 - 1


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_squarable(dtype):
    with enable_x64(True):
        huge = np.asarray([1.0, -3.5, 1e30, -1e38, 0.0], dtype)
        g, flaw = _numerics.squarable(jnp.asarray(huge))
        chex.assert_trees_all_equal(flaw, jnp.zeros(5, dtype))
        chex.assert_trees_all_equal(g[:2], huge[:2])
        assert g[2] > 1e15
        assert g[3] < -1e15
        # A sum of squares stops growing where half a unit in its last place is one of them.
        assert np.all(np.isfinite(g * g * 2.0 ** (jnp.finfo(dtype).nmant + 2)))
        for bad in (np.nan, np.inf, -np.inf):
            g, flaw = _numerics.squarable(jnp.asarray([bad], dtype))
            assert np.isnan(flaw[0])


def test_one_minus_x_over_expm1():
    x = np.logspace(-9, 2, 200)
    with enable_x64(True):
        ours = np.asarray(_numerics.one_minus_x_over_expm1(jnp.asarray(x)))
        single = np.asarray(_numerics.one_minus_x_over_expm1(jnp.asarray(x, "float32")))
    # Without cancellation: x / expm1(x) = 1 - x / 2 + x² sum of 2 / (x² + (2 pi k)²)
    k = np.arange(1, 4_000_001)[:, None] * 2 * np.pi
    few = x[::40]
    tail = sum(np.sum(2 / (few**2 + part**2), axis=0) for part in np.array_split(k, 40))
    tail += 2 / (2 * np.pi) ** 2 / 4_000_000.5
    np.testing.assert_allclose(ours[::40], few / 2 - few**2 * tail, rtol=1e-9)
    np.testing.assert_allclose(ours[x > 1], 1 - x[x > 1] / np.expm1(x[x > 1]), rtol=1e-12)
    np.testing.assert_allclose(single, ours, rtol=1e-6)


def test_a_leaf_is_traced_once_per_shape():
    traces = []

    def leaf(x, y):
        traces.append(x.shape)
        return x + y, x * y

    tree = {"a": jnp.ones(2), "b": jnp.ones(2), "c": [jnp.ones(3), jnp.ones(2)]}
    sums, products = jax.jit(lambda t: _core.map_leaves(leaf, t, t))(tree)
    assert sorted(traces) == [(2,), (3,)]
    chex.assert_trees_all_equal(sums, jax.tree.map(lambda x: 2 * x, tree))
    chex.assert_trees_all_equal(products, tree)
    assert _core.map_leaves(leaf, {}, {}) == ({}, {})


def test_what_an_update_declares_is_what_it_gets():
    def init(params):
        return _core.zeros_like(params)

    def update(grads, state, *, params, value, scale=None):
        assert jax.tree.leaves(params)[0].dtype == jnp.float32
        return jax.tree.map(lambda g: g * value * (scale or 1), grads), state

    tx = _core.transformation(init, update)
    g = {"w": jnp.ones(2, jnp.bfloat16)}
    updates, _ = tx.update(g, tx.init(g), g, value=3.0, unknown="ignored")
    chex.assert_trees_all_equal(updates, {"w": jnp.full(2, 3, jnp.bfloat16)})
    updates, _ = tx.update(g, tx.init(g), g, value=3.0, scale=2.0)
    chex.assert_trees_all_equal(updates, {"w": jnp.full(2, 6, jnp.bfloat16)})
    with pytest.raises(ValueError, match=r"update needs value: call .*value=\.\.\."):
        tx.update(g, tx.init(g), g)
    with pytest.raises(ValueError, match="update needs params"):
        tx.update(g, tx.init(g), value=1.0)


def test_scopes_name_the_algorithm_in_profiles():
    tx = oa.adabound()
    compiled = jax.jit(tx.update).lower(jnp.ones(4), tx.init(jnp.ones(4))).compile()
    assert "scale_by_adabound" in compiled.as_text()


def test_states_are_found_however_deep():
    """In tuples with and without names, dicts and dataclasses; of one kind, the outermost."""

    @jax.tree_util.register_dataclass
    @dataclasses.dataclass
    class Mine:
        inner: Any

    x, adam = jnp.ones(2), optax.scale_by_adam()
    kind = optax.ScaleByAdamState
    chex.assert_trees_all_equal(_core.find_states(adam.init(x), kind), [adam.init(x)])
    assert _core.find_states({"a": None, "b": [optax.EmptyState()]}, kind) == []
    tx = optax.chain(
        optax.masked(adam, False),
        optax.partition({"x": adam, "y": optax.MultiSteps(adam, 2)}, {"a": "x", "b": "y"}),
    )
    state = tx.init({"a": x, "b": 2 * x})
    everywhere, first, second = _core.find_states({"deep": (Mine(state),)}, kind)
    assert isinstance(everywhere.mu, optax.MaskedNode)
    chex.assert_trees_all_equal_shapes(first.mu["a"], second.mu["b"], x)
    outer = kind(count=0, mu=adam.init(x), nu=adam.init(x))
    (found,) = _core.find_states((outer,), kind)
    assert found is outer
