"""What the optimizers that find their own rate promise beside what all do."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from cases import CASES, FREE
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P
from runs import enable_x64

import optax_adaptive as oa

CASES = {c.name: c for c in CASES[::-1] if c.name in FREE}
free = pytest.mark.parametrize("case", CASES.values(), ids=CASES)
# Those that measure a distance over all leaves; the others measure in every leaf or coordinate.
TOGETHER = FREE - {"ldog", "cocob"}
together = pytest.mark.parametrize("name", sorted(TOGETHER))

HESSIAN = np.geomspace(0.1, 10, 16)  # of a quadratic, and its solution
SOLUTION = np.where(np.arange(16) % 2, 3.0, -2.0)


# The distance over the size of a gradient is too large a rate for the steepest direction, unless
# momentum brakes. So it is in the authors' code.
GIVEN = {"dadapt_sgd": {"momentum": 0.9}}
# What they find is held below this; far too large, it does no harm. Adam's default rate is too fine
# for bfloat16.
GIVEN |= {"momo": {"learning_rate": 1e5}, "momo_adam": {"learning_rate": 0.1}}


def default(name):
    """With the default arguments, these apart."""
    return getattr(oa, name)(**GIVEN.get(name, {}))


def descent(tx, params, steps, scale=1.0):
    """Runs it on a quadratic, from `params`; returns the losses, and parameters and state."""

    def loss(p):
        x = jnp.concatenate([jnp.ravel(x) for x in jax.tree.leaves(p)]).astype(float)
        return scale * jnp.sum(HESSIAN * (x - SOLUTION) ** 2) / 2

    def step(carry, _):
        params, state = carry
        value, grads = jax.value_and_grad(loss)(params)
        updates, state = tx.update(grads, state, params, value=value)
        return (optax.apply_updates(params, updates), state), value

    tx = optax.with_extra_args_support(tx)
    (params, state), losses = jax.jit(lambda carry: jax.lax.scan(step, carry, length=steps))(
        (params, tx.init(params))
    )
    return np.asarray(losses, float), params, state


def one_step(tx, grads, state, params):
    return jax.jit(tx.update)(grads, state, params)


@free
def test_gradients_of_zero_leave_no_trace(case):
    """Before the first that is not zero: a frozen network, or a head of zeros."""
    tx, params = case.make(), jnp.linspace(-1.0, 1.0, 4)
    fresh = state = tx.init(params)
    for _ in range(2):
        updates, state = one_step(tx, jnp.zeros(4), state, params)
        chex.assert_trees_all_equal(updates, jnp.zeros(4))
    chex.assert_trees_all_equal(state.direction, fresh.direction)
    grads = jnp.array([1.0, -2.0, 0.0, 1e-3])
    late, early = (one_step(tx, grads, s, params) for s in (state, fresh))
    chex.assert_trees_all_equal(late[0], early[0])
    chex.assert_trees_all_equal(late[1].direction, early[1].direction)


@free
def test_a_bad_gradient_stops_one_step_and_no_more(case):
    """NaN is visible in its place, and nowhere in the state; the next step is made again."""
    tx, params = case.make(), {"a": jnp.ones(3), "b": jnp.ones(2)}
    _, state = one_step(tx, params, tx.init(params), params)
    for bad in (jnp.nan, jnp.inf):
        grads = params | {"a": jnp.array([1.0, bad, 1.0])}
        updates, state = one_step(tx, grads, state, params)
        assert not np.isfinite(updates["a"][1])
        chex.assert_tree_all_finite((updates["a"][::2], updates["b"], state))
    updates, state = one_step(tx, params, state, params)
    chex.assert_tree_all_finite((updates, state))
    assert all(np.all(x < 0) for x in jax.tree.leaves(updates))


@together
@pytest.mark.parametrize("size", [1e16, 1e20, 1e30])
def test_one_wild_gradient_does_not_spoil_the_estimate(name, size):
    """It is finite, and so the update is 0; the next steps are as if it had not come."""
    tx, params = CASES[name].make(), jnp.linspace(-1.0, 1.0, 8)
    state, update = tx.init(params), jax.jit(tx.update)
    for k in range(20):
        updates, state = update(params - 3 * k, state, params)
        params = params + updates
    wild, after = update(jnp.full(8, size), state, params)
    chex.assert_trees_all_equal(wild, jnp.zeros(8))
    for x, y in zip(after.direction, state.direction, strict=True):
        assert jnp.ndim(x) or x == y
    for _ in range(3):
        updates, after = update(params, after, params)
        expected, state = update(params, state, params)
        chex.assert_trees_all_close(updates, expected, rtol=0.2)


@free
@pytest.mark.parametrize("scale", [1e-4, 1.0, 1e4])
def test_no_rate_is_needed(case, scale):
    """A quadratic of any steepness is solved with the default arguments."""
    losses, _, _ = descent(default(case.name), jnp.zeros(16), 2000, scale)
    assert losses[-1] < 1e-2 * losses[0]


@free
def test_parameters_in_bfloat16_train(case):
    """Their first steps are far below what such parameters resolve."""
    tx = default(case.name)
    wide, _, _ = descent(tx, jnp.zeros(16), 500)
    narrow, params, state = descent(tx, jnp.ones(16, "bfloat16") / 8, 1000)
    assert params.dtype == jnp.bfloat16
    assert {x.dtype.name for x in jax.tree.leaves(state)} <= {"float32", "int32"}
    assert narrow[-1] < max(0.05 * narrow[0], 3 * wide[-1])


@together
def test_leaves_are_one_vector(name):
    whole = jnp.linspace(-1.0, 1.0, 16)
    tree = {"a": whole[:4].reshape(2, 2), "b": [whole[4], whole[5:]]}
    tx = CASES[name].make()
    _, params, _ = descent(tx, whole, 50)
    _, parts, state = descent(tx, tree, 50)
    together = jnp.concatenate([jnp.ravel(x) for x in jax.tree.leaves(parts)])
    chex.assert_trees_all_close(together, params, rtol=1e-4)
    assert jnp.ndim(state.direction.effective_lr) == 0


@together
def test_every_group_has_an_estimate(name):
    """With optax.partition, that of its own parameters alone."""
    tx = CASES[name].make()
    params = {"a": jnp.linspace(-1, 1, 8), "b": jnp.linspace(-1, 1, 8)}
    labels = {"a": "first", "b": "second"}
    both = optax.partition({"first": tx, "second": tx}, labels)
    grads = {"a": jnp.ones(8), "b": jnp.arange(8.0) ** 2}
    state, alone = both.init(params), tx.init(params["b"])
    for _ in range(5):
        updates, state = one_step(both, grads, state, params)
        update, alone = one_step(tx, grads["b"], alone, params["b"])
        chex.assert_trees_all_close(updates["b"], update, rtol=1e-6)
        params = optax.apply_updates(params, updates)
    first, second = (
        optax.tree.get(state.inner_states[group], "effective_lr") for group in ("first", "second")
    )
    assert first != second
    assert second == pytest.approx(float(alone.direction.effective_lr), rel=1e-6)


@free
def test_sharded_estimates_are_those_of_one_device(case):
    tx, params = case.make(weight_decay=0.01), jnp.linspace(-1.0, 1.0, 64).reshape(16, 4)
    mesh = jax.make_mesh((8,), ("x",), axis_types=(jax.sharding.AxisType.Auto,))
    sharded = jax.device_put(params, NamedSharding(mesh, P("x", None)))
    states = [tx.init(params), jax.jit(tx.init)(sharded)]
    update = jax.jit(tx.update)
    for seed in range(8):
        g = jax.random.normal(jax.random.key(seed), params.shape) + 1
        u, states[0] = update(g, states[0], params)
        v, states[1] = update(jax.device_put(g, sharded.sharding), states[1], sharded)
        params, sharded = params + u, sharded + v
        chex.assert_trees_all_close(u, v, rtol=1e-4)
    chex.assert_trees_all_close(*(jax.device_get(s) for s in states), rtol=1e-4, atol=1e-8)
    for leaf in jax.tree.leaves(states[1]):
        assert leaf.shape != (16, 4) or leaf.sharding.is_equivalent_to(sharded.sharding, 2)


@free
def test_weights_may_be_loaded_after_init(case):
    """The distance is that from the parameters of the first update."""
    tx = case.make()
    loaded = jnp.linspace(-1.0, 1.0, 16)
    right = wrong = loaded
    states = [tx.init(loaded), tx.init(jnp.full(16, 7.0))]
    for _ in range(5):
        u, states[0] = one_step(tx, HESSIAN * right, states[0], right)
        v, states[1] = one_step(tx, HESSIAN * wrong, states[1], wrong)
        right, wrong = right + u, wrong + v
    chex.assert_trees_all_equal(right, wrong)


@free
def test_the_rate_can_be_read(case):
    """By name, wherever the optimizer is; in float64 where the parameters are."""
    tx = optax.chain(optax.clip_by_global_norm(1.0), case.make())
    _, state = one_step(tx, jnp.ones(3), tx.init(jnp.ones(3)), jnp.ones(3))
    for name in ("effective_lr", "distance"):
        if name in case.make().init(jnp.ones(3)).direction._fields:
            assert optax.tree.get(state, name) > 0
    with enable_x64(True):
        for dtype in ("float32", "float64"):
            state = tx.init({"a": jnp.ones(3, dtype), "b": jnp.ones(2, "float32")})
            rate = optax.tree.get(state, "effective_lr", jnp.zeros((), dtype))
            # Where every leaf has one, that of "a".
            rate = rate["a"] if isinstance(rate, dict) and case.name not in TOGETHER else rate
            assert all(x.dtype == dtype for x in jax.tree.leaves(rate) if x.ndim == 0)
