"""Parameters of 16 bits that train like those of 32."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from cases import KINDS
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P
from runs import enable_x64

import optax_adaptive as oa
from optax_adaptive._codes import is_codes

BF16 = jnp.bfloat16
WRAPPERS = {
    "stochastic_rounding": oa.stochastic_rounding,
    "kahan": oa.kahan,
    "master_weights 24": oa.master_weights,
    "master_weights 32": lambda tx: oa.master_weights(tx, bits=32),
}
KEEPING = [name for name in WRAPPERS if name != "stochastic_rounding"]
every_wrapper = pytest.mark.parametrize("wrap", WRAPPERS.values(), ids=WRAPPERS)
every_keeping = pytest.mark.parametrize("wrap", [WRAPPERS[k] for k in KEEPING], ids=KEEPING)

PARAMS = {"w": jnp.linspace(-1.3, 1.1, 24 * 32).reshape(24, 32), "b": jnp.linspace(0.5, 1.5, 7)}


def narrow(params, dtype=BF16):
    return optax.tree.cast(params, dtype)


def walk(tx, params, state, gradients):
    """Parameters and state after one step for each gradient."""

    @jax.jit
    def step(params, state, g):
        updates, state = tx.update(g, state, params)
        return optax.apply_updates(params, updates), state

    for g in gradients:
        params, state = step(params, state, g)
    return params, state


def gradients_of(params, steps, scale=1.0):
    keys = jax.random.split(jax.random.key(3), steps)
    return [jax.tree.map(lambda p: scale * jax.random.normal(k, p.shape), params) for k in keys]  # noqa: B023


def exact(state, params):
    try:
        return oa.exact_params(state, params)
    except ValueError:
        return params


@every_wrapper
def test_many_small_steps_add_up(wrap):
    """1,000 steps of 1e-3 lead from 1 to 2; alone a bfloat16 stays at 1, for ever."""
    start = jnp.ones((32, 32))
    grads = [jnp.full((32, 32), -1.0)] * 1000
    tx = wrap(optax.sgd(1e-3))
    params, _ = walk(tx, narrow(start), tx.init(start), grads)
    assert params.dtype == BF16
    assert np.mean(np.asarray(params, float)) == pytest.approx(2, rel=0.01)
    sgd = optax.sgd(1e-3)
    alone, _ = walk(sgd, narrow(start), sgd.init(start), grads)
    np.testing.assert_array_equal(np.asarray(alone, float), 1)


@every_wrapper
@pytest.mark.parametrize("decay", [0.1, 0.001])
def test_weight_decay_shrinks_as_in_float32(wrap, decay):
    """2,000 steps without a gradient; by a part in a million of the parameter in the second."""
    tx, zeros = oa.adamw(1e-3, weight_decay=decay), jax.tree.map(jnp.zeros_like, PARAMS)
    ours = wrap(tx)
    params, state = walk(ours, narrow(PARAMS), ours.init(PARAMS), [zeros] * 2000)
    true, _ = walk(tx, PARAMS, tx.init(PARAMS), [zeros] * 2000)
    found = exact(state, params)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(true), strict=True):
        lost = float(jnp.sum(jnp.abs(a.astype(jnp.float32))) / jnp.sum(jnp.abs(b)))
        few = b.size < 100 and wrap is oa.stochastic_rounding
        assert lost == pytest.approx(1, abs=0.03 if few else 0.01)


def test_kahan_loses_what_is_below_its_own_digits_and_master_weights_do_not():
    """What the documents say: steps of 2^-20 of a parameter."""
    start = jnp.ones((32, 32))
    grads = [jnp.full((32, 32), -(2.0**-20))] * 4000
    ways = {}
    for name in KEEPING:
        tx = WRAPPERS[name](optax.sgd(1.0))
        params, state = walk(tx, narrow(start), tx.init(start), grads)
        ways[name] = float(jnp.mean(oa.exact_params(state, params) - 1)) / (4000 * 2.0**-20)
    assert ways["kahan"] < 0.5
    assert ways["master_weights 24"] == pytest.approx(1, abs=0.02)
    assert ways["master_weights 32"] == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("seed", [0, 1])
def test_plain_apply_updates_lands_on_the_bit(seed):
    """(p + (q - p)) rounded is q, unless q is below p / 2^15: 4 million pairs of bfloat16."""
    rng = np.random.default_rng(seed)
    p = rng.normal(size=2**21) * 2.0 ** rng.integers(-60, 60, 2**21)
    q = rng.choice([-1, 1], 2**21) * p * 2 ** rng.uniform(-14.9, 40, 2**21)
    p, q = (jnp.asarray(x, jnp.float32).astype(BF16) for x in (p, q))
    landed = jax.jit(optax.apply_updates)(p, q.astype(jnp.float32) - p.astype(jnp.float32))
    np.testing.assert_array_equal(np.asarray(landed, float), np.asarray(q, float))


@every_wrapper
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_updates_land_where_the_state_says(wrap, dtype):
    """Gradients of 16 bits, too: the updates leave in float32."""
    tx = wrap(oa.adam(0.01))
    params, state = narrow(PARAMS), tx.init(PARAMS)
    for g in gradients_of(params, 5):
        updates, state = tx.update(narrow(g, dtype), state, params)
        chex.assert_trees_all_equal_dtypes(updates, PARAMS)
        there = optax.apply_updates(params, updates)
        for p, u, t in zip(*map(jax.tree.leaves, (params, updates, there)), strict=True):
            np.testing.assert_array_equal(p.astype(jnp.float32) + u, t.astype(jnp.float32))
        params = there


def test_32_bits_are_training_in_float32():
    """With a decay, from a checkpoint of float32; XLA may round a product and a sum together."""
    tx = oa.adamw(0.01, weight_decay=0.1)
    ours = oa.master_weights(tx, bits=32)
    grads = gradients_of(PARAMS, 40)
    params, state = walk(ours, narrow(PARAMS), ours.init(PARAMS), grads)
    true, true_state = walk(tx, PARAMS, tx.init(PARAMS), grads)
    chex.assert_trees_all_close(oa.exact_params(state, params), true, rtol=2e-6)
    chex.assert_trees_all_close(state.inner, true_state, rtol=2e-6)
    chex.assert_trees_all_close(
        jax.tree.map(lambda p: p.astype(jnp.float32), params), true, rtol=2.0**-8
    )


@pytest.mark.parametrize(("name", "bound"), [("kahan", 2e-3), ("master_weights 24", 2e-3)])
def test_fewer_bits_stay_near_float32(name, bound):
    tx = oa.adamw(0.01, weight_decay=0.1)
    ours = WRAPPERS[name](tx)
    grads = gradients_of(PARAMS, 40)
    params, state = walk(ours, narrow(PARAMS), ours.init(PARAMS), grads)
    true, _ = walk(tx, PARAMS, tx.init(PARAMS), grads)
    plain, _ = walk(tx, narrow(PARAMS), tx.init(narrow(PARAMS)), grads)

    def away(found):
        errors = jax.tree.map(lambda a, b: jnp.max(jnp.abs(a.astype(jnp.float32) - b)), found, true)
        return max(map(float, jax.tree.leaves(errors)))

    assert away(oa.exact_params(state, params)) < bound < away(plain)


@pytest.mark.parametrize(("name", "bound"), [("kahan", 2.0**-17), ("master_weights 24", 2.0**-15)])
def test_a_start_from_float32_loses_nothing(name, bound):
    """Within the digits that are kept; and all of it with 32 bits, but for ties, by one digit."""
    params = jax.random.normal(jax.random.key(0), (1 << 20,)).at[:3].set([1.5, 0.0, -1e-20])
    for n, worst in ((name, bound), ("master_weights 32", 2.0**-23)):
        found = oa.exact_params(WRAPPERS[n](oa.sgd(1.0)).init(params), narrow(params))
        assert found.dtype == jnp.float32
        errors = (found - params) / jnp.maximum(abs(params), 1e-30)
        assert float(jnp.max(abs(errors))) <= worst
        assert abs(float(jnp.mean(errors * jnp.sign(params)))) < 1e-6  # to the nearest
    different = np.sum(np.asarray(found != params))
    assert 0 < different < 2e-5 * params.size
    tied = np.asarray(params).view(np.uint32)[np.asarray(found != params)] & 0xFFFF
    np.testing.assert_array_equal(tied, 0x8000)


@every_keeping
def test_exact_parameters_are_found_anywhere(wrap):
    start = {"a": PARAMS["w"], "b": PARAMS["b"], "c": jnp.arange(3)}
    part = wrap(oa.adam(0.01))
    labels = {"a": "x", "b": "y", "c": "y"}
    for tx in (
        optax.chain(optax.identity(), part),
        optax.masked(part, {"a": True, "b": False, "c": False}),
        optax.partition({"x": part, "y": optax.set_to_zero()}, labels),
    ):
        params = {"a": narrow(start["a"]), "b": narrow(start["b"]), "c": start["c"]}
        found = oa.exact_params(tx.init(start), params)
        np.testing.assert_allclose(found["a"], start["a"], rtol=2.0**-15)
        assert found["b"].dtype == jnp.float32
        np.testing.assert_array_equal(found["c"], start["c"])
        np.testing.assert_allclose(found["b"], start["b"], rtol=2.0**-8)
    with pytest.raises(ValueError, match=r"^exact_params: state must be that .* master_weights"):
        oa.exact_params(oa.adam(0.1).init(start), start)


@every_wrapper
@pytest.mark.parametrize("case", KINDS, ids=lambda c: c.id)
def test_every_kind_of_optimizer(case, wrap):
    """The state is a fixed point; what it sees is float32, and it keeps no residual of its own."""
    tx = wrap(case.make())
    params = {"w": PARAMS["w"][:4, :6], "b": jnp.ones(()), "none": None}
    state, inside = tx.init(params), case.make().init(params)
    chex.assert_trees_all_equal_shapes_and_dtypes(state.inner, inside)
    held = narrow(params)
    chex.assert_trees_all_equal_shapes_and_dtypes(tx.init(held), state)
    abstract = jax.tree.map(lambda p: jax.ShapeDtypeStruct(p.shape, p.dtype), params)
    chex.assert_trees_all_equal_shapes_and_dtypes(tx.init(abstract), state)
    updates, new = jax.eval_shape(tx.update, held, state, held)
    chex.assert_trees_all_equal_shapes_and_dtypes(new, state)
    chex.assert_trees_all_equal_shapes_and_dtypes(updates, params)


@every_wrapper
def test_the_wrapped_optimizer_is_given_float32(wrap):
    """Gradients, parameters, and what others look at to see whether parameters are rounded."""
    seen = []

    def update(updates, state, params=None, **extra):
        seen.extend(jax.tree.leaves((updates, params, extra["given_params"])))
        return updates, state

    tx = wrap(optax.GradientTransformationExtraArgs(optax.identity().init, update))
    tx.update(narrow(PARAMS), tx.init(PARAMS), narrow(PARAMS))
    assert [x.dtype for x in seen] == [jnp.float32] * 6


@pytest.mark.parametrize(
    ("name", "rate"),
    [("prodigy", 1.0), ("dog", 1.0), ("schedule_free_adamw", 0.01), ("cocob", 1.0), ("lamb", 0.01)],
)
def test_optimizers_that_look_at_parameters_are_those_of_float32(name, rate):
    """Along one gradient, so that the methods without a rate find one and go far."""
    tx = getattr(oa, name)(rate)
    ours = oa.master_weights(tx, bits=32)
    grads = [PARAMS] * 40
    params, state = walk(ours, narrow(PARAMS), ours.init(PARAMS), grads)
    true, _ = walk(tx, PARAMS, tx.init(PARAMS), grads)
    assert np.max(abs(true["w"] - PARAMS["w"])) > 1e-2
    chex.assert_trees_all_close(oa.exact_params(state, params), true, rtol=1e-4, atol=1e-5)


def test_seven_bytes_and_less_train_like_float32():
    """bfloat16 parameters, 8 further bits, moments in codes: all at once."""
    tx = oa.adamw(0.01)
    ours = oa.master_weights(oa.with_quantized_state(tx, min_size=64))
    grads = gradients_of(PARAMS, 40)
    params, state = walk(ours, narrow(PARAMS), ours.init(PARAMS), grads)
    assert sum(map(is_codes, jax.tree.leaves(state, is_leaf=is_codes))) == 2
    true, _ = walk(tx, PARAMS, tx.init(PARAMS), grads)
    found = oa.exact_params(state, params)
    way = jnp.linalg.norm(true["w"] - PARAMS["w"])
    assert float(jnp.linalg.norm(found["w"] - true["w"]) / way) < 0.03


@every_wrapper
def test_what_needs_nothing_is_left_alone(wrap):
    """float32 and complex parameters are those of the optimizer; None and integers pass."""
    params = {"f": PARAMS["b"], "c": jnp.ones(3, "complex64"), "i": jnp.arange(3), "none": None}
    grads = params | {"i": jnp.zeros(3, jax.dtypes.float0)}
    tx = oa.adamw(0.01)
    expected, _ = tx.update(grads, tx.init(params), params)
    updates, _ = wrap(tx).update(grads, wrap(tx).init(params), params)
    chex.assert_trees_all_equal(updates, expected)


@every_wrapper
def test_narrow_and_wide_parameters_side_by_side(wrap):
    """Each is what it is alone; a wide one is not rounded where it was wide at the start."""
    params = {"n": PARAMS["w"], "wide": PARAMS["b"]}
    held = params | {"n": narrow(params["n"])}
    tx = wrap(oa.adam(0.01))
    found, state = walk(tx, held, tx.init(params), gradients_of(params, 5))
    true, _ = walk(oa.adam(0.01), params, oa.adam(0.01).init(params), gradients_of(params, 5))
    np.testing.assert_array_equal(found["wide"], true["wide"])
    np.testing.assert_array_equal(exact(state, found)["wide"], true["wide"])
    assert found["n"].dtype == BF16


@pytest.mark.parametrize("wrap", [oa.stochastic_rounding, oa.kahan])
def test_float16(wrap):
    start = jnp.ones((16, 16))
    tx = wrap(optax.sgd(1e-4))
    held = start.astype(jnp.float16)
    params, _ = walk(tx, held, tx.init(held), [-start] * 1000)
    assert params.dtype == jnp.float16
    assert np.mean(np.asarray(params, float)) == pytest.approx(1.1, rel=2e-3)


@pytest.mark.parametrize("dtype", ["float16", "float8_e4m3fn"])
def test_master_weights_refuse_other_narrow_dtypes(dtype):
    tx = oa.master_weights(oa.sgd(1.0))
    params = {"w": jnp.ones(3, dtype)}
    words = rf"^master_weights.update: parameter at \['w'\] must be bfloat16 .*, got {dtype}"
    with pytest.raises(ValueError, match=words):
        tx.update(params, tx.init(params), params)


@every_wrapper
def test_what_is_not_finite_is_seen(wrap):
    every_bit = np.array(0x7FFFFFFF, np.uint32).view(np.float32)  # is NaN, too
    for bad in (jnp.nan, every_bit, jnp.inf):
        tx = wrap(optax.sgd(1.0))
        params = narrow(PARAMS)
        grads = PARAMS | {"b": PARAMS["b"].at[2].set(bad)}
        updates, state = tx.update(grads, tx.init(PARAMS), params)
        there = optax.apply_updates(params, updates)
        assert not np.isfinite(np.asarray(there["b"], float)[2])
        assert np.sum(~np.isfinite(np.asarray(there["b"], float))) == 1
        assert np.all(np.isfinite(np.asarray(there["w"], float)))
        residual = getattr(state, "residual", None)
        assert residual is None or np.all(np.isfinite(np.asarray(residual["b"], float)))


@pytest.mark.parametrize("name", ["stochastic_rounding", "master_weights"])
def test_a_run_is_determined_by_its_seed(name):
    """Also when it is resumed; with another seed it is another one."""

    def run(seed, stop=None):
        tx = getattr(oa, name)(oa.adam(1e-4), seed=seed)
        grads = gradients_of(PARAMS, 10)
        params, state = walk(tx, narrow(PARAMS), tx.init(PARAMS), grads[:stop])
        if stop is None:
            return params, state
        state = jax.tree.map(jnp.asarray, jax.device_get(state))
        return walk(getattr(oa, name)(oa.adam(1e-4), seed=seed), params, state, grads[stop:])

    chex.assert_trees_all_equal(run(1), run(1))
    chex.assert_trees_all_equal(run(1), run(1, 4))
    different = jax.tree.map(lambda a, b: np.any(a != b), run(1), run(2))
    assert any(jax.tree.leaves(different))


@every_wrapper
def test_shards_make_no_difference(wrap):
    mesh = jax.make_mesh((8,), ("x",))
    start = jnp.linspace(-1, 1, 64 * 32).reshape(64, 32)
    tx, grads = wrap(oa.adam(1e-4)), gradients_of(start, 4)
    plain, plain_state = walk(tx, narrow(start), tx.init(start), grads)
    for spec in (P("x", None), P(None, "x")):
        sharding = NamedSharding(mesh, spec)
        params, *placed = (jax.device_put(x, sharding) for x in (start, *grads))
        for init in (tx.init, jax.jit(tx.init)):
            state = init(params)
            for x in jax.tree.leaves(state):
                assert x.ndim == 0 or x.sharding.is_equivalent_to(sharding, 2)
        compiled = jax.jit(tx.update).lower(params, state, narrow(params)).compile().as_text()
        assert "all-gather" not in compiled
        found, state = walk(tx, narrow(params), state, placed)
        chex.assert_trees_all_equal(jax.device_get(found), jax.device_get(plain))
        chex.assert_trees_all_close(jax.device_get(state), jax.device_get(plain_state), rtol=1e-6)


@every_wrapper
def test_scans_maps_and_accumulation_inside(wrap):
    tx = wrap(oa.accumulate(oa.adam(0.01), every=2))
    held = narrow(PARAMS)

    def run(held):
        def step(carry, _):
            params, state = carry
            updates, state = tx.update(params, state, params)
            return (optax.apply_updates(params, updates), state), None

        return jax.lax.scan(step, (held, tx.init(PARAMS)), None, 4)[0][0]

    moved = jax.jit(run)(held)
    assert moved["w"].dtype == BF16
    assert np.any(np.asarray(moved["w"] != held["w"]))
    many = jax.vmap(run)(jax.tree.map(lambda p: jnp.stack([p, p]), held))
    np.testing.assert_array_equal(many["w"][0], many["w"][1])


def test_x64_changes_nothing():
    with enable_x64(True):
        start = jnp.ones((8, 8), jnp.float32)
        for wrap in WRAPPERS.values():
            tx = wrap(oa.adam(1e-3))
            params, state = narrow(start), tx.init(start)
            updates, new = jax.jit(tx.update)(params, state, params)
            assert updates.dtype == jnp.float32
            chex.assert_trees_all_equal_shapes_and_dtypes(new, state)
            wide = jnp.ones((8, 8))
            assert wide.dtype == jnp.float64
            updates, _ = tx.update(wide, tx.init(wide), wide)
            assert updates.dtype == jnp.float64


def test_parameters_are_needed():
    tx = oa.kahan(oa.sgd(1.0))
    with pytest.raises(ValueError, match=r"^kahan.update needs params"):
        tx.update(PARAMS, tx.init(PARAMS))
    for bits in (16, 24.0, True, None):
        with pytest.raises(ValueError, match=r"^master_weights: bits must be one of 24, 32, got"):
            oa.master_weights(oa.sgd(1.0), bits=bits)
