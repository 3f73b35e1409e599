"""State in fewer bytes: what codes and narrow dtypes keep of it, around any optimizer.

The bars of step errors, bytes and temporaries are those of benchmarks/precision.py, whose functions
measure them here, too.
"""

import dataclasses
import pickle
import re
import sys
from pathlib import Path

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
from optax_adaptive._codes import (
    PositiveCodes,
    SignedCodes,
    decode,
    encode,
    is_codes,
    odds,
    rounded,
    salts,
)

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))

import precision

BF16 = jnp.bfloat16
quantized = oa.with_quantized_state
every_storage = pytest.mark.parametrize("bits", [8, 4])
every_code = pytest.mark.parametrize("kind", [SignedCodes, PositiveCodes])


def sample(kind, shape=(40, 256), seed=0):
    """Numbers over many decades: Gaussian ones, and squares of them."""
    x = np.random.default_rng(seed).normal(size=shape).astype(np.float32)
    x *= np.exp(np.random.default_rng(seed + 1).normal(size=shape)).astype(np.float32)
    return jnp.asarray(x if kind is SignedCodes else x * x)


def coded(x, kind, bits=8, block=128, salt=0):
    return encode(jnp.asarray(x), kind, bits, -(-x.shape[-1] // block), jnp.uint32(salt))


def trained(tx, params, steps, scale=0.1):
    """The parameters and the state after some steps along gradients that depend on them."""

    @jax.jit
    def step(params, state, t):
        grads = jax.tree.map(lambda p: scale * jnp.sin(3 * p + t), params)
        updates, state = tx.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    state = tx.init(params)
    for t in range(steps):
        params, state = step(params, state, t)
    return params, state


def moments(state):
    return [x for x in jax.tree.leaves(state, is_leaf=is_codes) if is_codes(x)]


PARAMS = {
    "embed": {"table": jnp.linspace(-1, 1, 96 * 64).reshape(96, 64)},
    "head": jnp.linspace(0.5, 1.5, 64 * 96).reshape(64, 96),
    "bias": jnp.ones(96),
}

# --- codes ------------------------------------------------------------------------------------


@every_code
@every_storage
@pytest.mark.parametrize("shape", [(8, 256), (8, 130), (8, 1000), (2, 3, 34), (512,), (8, 18)])
def test_codes_are_right_on_average(kind, bits, shape):
    """Whatever the length of the rows. 4 bits do not reach below 1/16 of the largest square."""
    x = sample(kind, shape)
    if bits == 4 and kind is PositiveCodes:
        x = x / jnp.max(x) + 0.1
    many = jax.vmap(lambda salt: decode(coded(x, kind, bits, salt=salt)))(jnp.arange(2000))
    largest = {8: 127, 4: 7} if kind is SignedCodes else {8: 255, 4: 15}
    step = 8 / largest[bits]  # the power is 8 at most
    assert np.max(abs(many - x)) < 1.1 * step * np.max(abs(x))
    assert np.max(abs(np.mean(many, 0) - x)) < 4 * step * np.max(abs(x)) / 2 / 2000**0.5
    assert np.any(many[0] != many[1])


@every_code
@every_storage
def test_codes_are_small_and_shaped_like_the_array(kind, bits):
    for shape, blocks in (((3, 256), 2), ((3, 300), 3), ((3, 16), 1)):
        stored = coded(sample(kind, shape), kind, bits)
        width = shape[-1] // (8 // bits)
        chex.assert_shape(stored.codes, (*shape[:-1], width))
        assert stored.codes.dtype == (jnp.int8 if bits == 8 else jnp.uint8)
        for scale in stored[1:]:
            chex.assert_shape(scale, (*shape[:-1], blocks))
            assert scale.dtype == jnp.float32


@every_code
@every_storage
def test_the_largest_of_a_block_and_zeros_are_exact(kind, bits):
    x = sample(kind).at[3].set(0.0)
    y = decode(coded(x, kind, bits))
    tops = jnp.argmax(abs(x).reshape(40, 2, 128), -1)[..., None]
    for a in (x, y):
        assert a.shape == (40, 256)
    np.testing.assert_allclose(
        *(jnp.take_along_axis(a.reshape(40, 2, 128), tops, -1) for a in (y, x)), rtol=3e-7
    )
    np.testing.assert_array_equal(y[3], 0)
    if kind is SignedCodes:
        np.testing.assert_array_equal(jnp.sign(y) * jnp.sign(x) >= 0, True)
        one = jnp.zeros((1, 128)).at[0, 5].set(-2.0)
        np.testing.assert_array_equal(decode(coded(one, kind, bits)), one)


@every_storage
def test_positive_codes_are_never_below_the_smallest_number(bits):
    """Neither 0 nor less than is there: a step divides by their root."""
    x = sample(PositiveCodes) * 1e-6
    y = decode(coded(x, PositiveCodes, bits))
    smallest = jnp.min(x.reshape(40, 2, 128), -1, keepdims=True)
    assert np.all(y.reshape(40, 2, 128) >= smallest * (1 - 1e-4))
    some = jnp.zeros((1, 128)).at[0, 0].set(1.0)
    floor = {8: 16.0**-8, 4: 1 / 16}[bits]
    np.testing.assert_allclose(decode(coded(some, PositiveCodes, bits))[0, 1:], floor, rtol=1e-5)


@every_code
@every_storage
def test_numbers_that_are_all_alike_stay_what_they_are(kind, bits):
    for value in (1.0, 1e-30, 1e30, 3.3):
        x = jnp.full((2, 64), value)
        np.testing.assert_allclose(decode(coded(x, kind, bits)), x, rtol=1e-6)


@every_code
@every_storage
def test_what_is_not_finite_stays_visible_in_its_block(kind, bits):
    for bad in (jnp.nan, jnp.inf):
        x = sample(kind).at[1, 3].set(bad)
        y = decode(coded(x, kind, bits))
        assert not np.isfinite(y[1, 3])
        assert np.all(np.isfinite(y[0]))
        assert np.all(np.isfinite(y[1, 128:]))


@every_code
def test_codes_of_any_scale(kind):
    """From the smallest normal float32 up; what is below is 0."""
    x = sample(kind) / 1000
    exact = decode(coded(x, kind))
    for scale in (1e-30, 1e-3, 1e3, 1e30):
        np.testing.assert_allclose(
            decode(coded(x * scale, kind)) / scale, exact, rtol=0.05, atol=1e-3 * np.max(exact)
        )
    stored = coded(np.full((2, 64), 1e-39, np.float32), kind)
    np.testing.assert_array_equal(np.asarray(stored.block_max), 0)
    np.testing.assert_array_equal(decode(stored), 0)


def test_codes_of_float64_are_read_as_float64():
    with enable_x64(True):
        params = jnp.linspace(0.5, 1, 64 * 64).reshape(64, 64)
        assert params.dtype == jnp.float64
        tx = quantized(oa.adam(0.1))
        _, state = trained(tx, params, 2)
        for stored in moments(state):
            assert decode(stored).dtype == jnp.float64


def test_odds_are_uniform_and_differ_from_place_to_place_and_step_to_step():
    tree = [jnp.zeros((64, 128)), jnp.zeros((64, 128))]
    first, second = (salts(tree, 0, jnp.int32(t)) for t in (0, 1))
    other = salts(tree, 1, jnp.int32(0))
    draws = [odds((64, 128), s) for s in (*first, *second, *other)]
    counts = np.array([np.histogram(u, 16, (0, 1))[0] for u in draws])
    assert np.all(abs(counts - 512) < 5 * 512**0.5)
    for i, u in enumerate(draws):
        rolled = [np.roll(u, k, axis) for k, axis in ((1, 0), (1, 1), (64, 1), (8, 0))]
        for v in (*draws[:i], *rolled):
            assert abs(np.corrcoef(np.ravel(u), np.ravel(v))[0, 1]) < 5 / 8192**0.5


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_rounding_at_random_is_between_neighbours_and_right_on_average(dtype):
    x = jnp.array([1.0, 1.001, -1.001, 3.14159, 100.3, 1e-3, -2e-6, 0.0, 65.4e3])
    many = jax.vmap(lambda salt: rounded(x, dtype, salt).astype(jnp.float32))(
        jnp.arange(20000, dtype=jnp.uint32)
    )
    many = np.asarray(many, float)
    unit = np.maximum(abs(x), float(jnp.finfo(dtype).tiny)) * float(jnp.finfo(dtype).eps)
    assert np.all(abs(many - x) <= unit)
    assert np.all(abs(np.mean(many, 0) - x) < 4 * unit / 2 / 20000**0.5 + 1e-9)
    assert np.all(many[:, 0] == 1)
    bad = rounded(jnp.array([jnp.nan, jnp.inf, -jnp.inf, 1e30]), dtype, jnp.uint32(0))
    assert np.isnan(bad[0])
    np.testing.assert_array_equal(np.asarray(bad[1:3], float), [np.inf, -np.inf])


# --- the bars -------------------------------------------------------------------------------------


def bytes_of(tx, shape=(1024, 4096), dtype=jnp.float32):
    parameter, state = precision.bytes_per_parameter(tx, dtype, shape)
    return parameter + state


def test_bytes():
    """Also of rows that are no multiple of a block."""
    for shape in ((1024, 4096), (1024, 768), (1024, 1000)):
        assert bytes_of(oa.adamw(1e-3), shape) == pytest.approx(12, abs=0.01)
        assert bytes_of(quantized(oa.adamw(1e-3)), shape) <= 4 + 2.13
        assert bytes_of(quantized(oa.adamw(1e-3), bits=4), shape) <= 4 + 1.13
        assert bytes_of(oa.master_weights(quantized(oa.adamw(1e-3))), shape, BF16) <= 5.13
    narrow = oa.with_state_dtype(oa.adamw(1e-3), mu=BF16, nu=BF16)
    assert bytes_of(narrow) == pytest.approx(8, abs=0.01)


# What is measured, with a little room; in the bar 0.03 for Adam, 1.5 and 2.5 times.
ERRORS = {
    "adam": {"iid": 0.03, "lognormal 1": 0.12},
    "adabound": {"iid": 0.03, "lognormal 1": 0.12},
    "adagrad": {"iid": 0.01, "lognormal 1": 0.1},
    "rmsprop": {"iid": 0.01, "lognormal 1": 0.1},
    "adadelta": {"iid": 0.03, "lognormal 1": 0.12},
    "lion": {"iid": 0.25, "lognormal 1": 0.35},  # steps of +1 and -1: those that turn round
    "prodigy": {"iid": 0.03, "lognormal 1": 0.12},
}


@pytest.mark.parametrize("name", precision.OPTIMIZERS)
def test_steps_of_8_bits_are_near_and_nothing_blows_up(name):
    exact = precision.OPTIMIZERS[name]()
    compare = precision.both(exact, quantized(exact), 250)
    for scale in (1e-3, 1.0, 1e3) if name == "adam" else (1.0,):
        for stream in precision.STREAMS:
            found, _, _ = compare(stream, scale)
            assert found.error < ERRORS[name].get(stream, 0.3), (stream, scale)
            bar = 2.5 if stream == "lognormal 1" else 1.5
            assert 1 / bar < found.largest < bar, (stream, scale)
            assert found.shrunk == pytest.approx(1, abs=0.05), (stream, scale)


def test_steps_of_4_bits_stay_bounded():
    """With 15 codes a step is coarse, a third of its length off; the largest is not."""
    exact = oa.adam(1.0)
    compare = precision.both(exact, quantized(exact, bits=4), 250)
    for stream in precision.STREAMS:
        found, _, _ = compare(stream)
        assert found.error < (0.9 if "lognormal" in stream else 0.5)
        assert found.largest < 2.5


def test_what_the_codes_avoid():
    """A table with a code for 0 makes steps of thousands of learning rates; the test can see it."""
    exact = oa.adam(1.0)
    naive = precision.both(exact, precision.adam_from_tables(1.0), 100)
    assert naive("iid")[0].error < 0.05
    assert naive("sparse 2 %")[0].largest > 1000
    assert naive("Zipf rows")[0].largest > 1000


@every_storage
def test_adagrad_goes_on_adding(bits):
    """Hazard: after t steps one gradient is 1/t of the sum, below half a step of any code."""
    tx, exact = quantized(oa.adagrad(1.0), bits=bits), oa.adagrad(1.0)
    sums = []
    for t in (tx, exact):

        @jax.jit
        def run(t=t):
            def step(state, i):
                g = jax.random.normal(jax.random.fold_in(jax.random.key(0), i), (32, 128))
                g = g * jnp.where((jnp.arange(128) % 2 == 0) & (i < 1000), 3.0, 1.0)
                return t.update(g, state)[1], None  # noqa: B023

            return jax.lax.scan(step, t.init(jnp.ones((32, 128))), jnp.arange(4000))[0]

        state = run()
        state = oa.dequantize_state(state) if t is tx else state
        sums.append(optax.tree.get(state, "sum_sq"))
    ours, true = sums
    for half in (slice(0, None, 2), slice(1, None, 2)):
        ratio = np.mean(ours[:, half]) / np.mean(true[:, half])
        assert ratio == pytest.approx(1, abs=0.03 if bits == 8 else 0.1)
    if bits == 8:
        assert np.std(ours / true) < 0.1


def test_adadelta_does_not_drift():
    """Hazard: a step is a ratio of two means, and feeds one of them: an error of delta by a factor
    stays, and one at every step would grow without bound. Right on average, it does not."""
    exact = oa.adadelta(1.0)
    compare = precision.both(exact, quantized(exact), 1500)
    for stream in ("iid", "lognormal 0.5", "lognormal 1"):
        found, top, stored_top = compare(stream)
        assert stored_top[-150:].mean() / top[-150:].mean() == pytest.approx(1, abs=0.1)
        assert found.error < 0.1
    for tx in (oa.adadelta(), optax.adadelta(1.0)):
        stored = moments(quantized(tx, bits=4).init(PARAMS))
        assert [x.codes.dtype.name for x in stored] == ["int8"] * 4


@pytest.mark.parametrize("bits", [8, 4])
def test_a_mean_of_squares_sinks_again(bits):
    """One large gradient in every second place, then small ones: in bfloat16, to the nearest, the
    mean stands still."""
    shape = (32, 128)
    less = {8: 0.1, 4: 0.5}[bits]  # 4 bits do not reach below 1/16 of the largest square

    def after(tx):
        @jax.jit
        def run():
            def step(state, t):
                g = jnp.where((jnp.arange(128) % 2 == 0) & (t > 100), less, 1.0)
                return tx.update(jnp.broadcast_to(g, shape), state)[1], None

            return jax.lax.scan(step, tx.init(jnp.ones(shape)), jnp.arange(3000))[0]

        return run()

    adam = oa.adam(1.0, b2=0.999)
    true = optax.tree.get(after(adam), "nu")
    codes = oa.dequantize_state(after(quantized(adam, bits=bits, min_size=64)))
    narrow = after(oa.with_state_dtype(adam, nu=BF16))
    nearest = after(oa.with_state_dtype(adam, nu=BF16, rounding="nearest"))
    small = (slice(None), slice(0, None, 2))
    sunk = {
        name: float(np.mean(np.asarray(optax.tree.get(s, "nu")[small], np.float32)))
        / float(np.mean(true[small]))
        for name, s in (("codes", codes), ("narrow", narrow), ("nearest", nearest))
    }
    assert sunk["codes"] == pytest.approx(1, abs=0.05)
    assert sunk["narrow"] == pytest.approx(1, abs=0.05)
    assert sunk["nearest"] > 2 or bits == 4


def test_the_committed_results_can_be_shown_and_drawn(tmp_path, capsys):
    results = (precision.RESULTS / "precision.json").read_bytes()
    (tmp_path / "precision.json").write_bytes(results)
    precision.main(["--draw", "--output-dir", str(tmp_path)])
    shown = capsys.readouterr().out
    assert shown.count("master_weights") >= 2
    assert (tmp_path / "precision.png").read_bytes()[:4] == b"\x89PNG"
    assert (tmp_path / "precision.json").read_bytes() == results


# --- any transformation, anywhere -----------------------------------------------------------------


@pytest.mark.parametrize("case", KINDS, ids=lambda c: c.id)
def test_every_kind_of_optimizer_trains_in_codes(case):
    """It goes the way of float32, and the state is a fixed point: shapes, dtypes, structure."""
    shape = (16, 32)
    noise = jax.random.normal(jax.random.key(0), (9, *shape))
    params = {"w": noise[8], "b": jnp.ones(3), "none": None}
    paths = []
    for tx in (case.make(), quantized(case.make(), min_size=64)):
        state, path = tx.init(params), [params["w"]]
        update, p = jax.jit(tx.update), params
        for t in range(8):
            grads = {"w": p["w"] + noise[t] / 3, "b": p["b"], "none": None}
            updates, new = update(grads, state, p)
            chex.assert_trees_all_equal_shapes_and_dtypes(new, state)
            state, p = new, optax.apply_updates(p, updates)
            path.append(p["w"])
        chex.assert_tree_all_finite(state)
        paths.append(path)
    exact, ours = (np.array([x - params["w"] for x in path]) for path in paths)
    assert np.linalg.norm(ours[-1] - exact[-1]) <= 0.35 * np.linalg.norm(exact[-1])
    abstract = jax.tree.map(lambda p: jax.ShapeDtypeStruct(p.shape, p.dtype), params)
    tx = quantized(case.make(), min_size=64)
    chex.assert_trees_all_equal_shapes_and_dtypes(tx.init(abstract), tx.init(params))


CONTAINERS = {
    "chain": lambda tx: optax.chain(optax.clip_by_global_norm(10.0), tx),
    "named": lambda tx: optax.named_chain(("first", optax.identity()), ("ours", tx)),
    "masked": lambda tx: optax.masked(tx, {"embed": True, "head": True, "bias": False}),
    "partition": lambda tx: optax.partition(
        {"x": tx, "y": optax.sgd(0.1)}, {"embed": "x", "head": "x", "bias": "y"}
    ),
    "injected": lambda tx: optax.inject_hyperparams(
        lambda learning_rate: quantized(oa.adam(learning_rate)), hyperparam_dtype=jnp.float32
    )(0.1),
    "around injected": lambda tx: quantized(
        optax.inject_hyperparams(oa.adam, hyperparam_dtype=jnp.float32)(learning_rate=0.1)
    ),
    "around a chain": lambda tx: quantized(
        optax.chain(optax.clip_by_global_norm(10.0), oa.adam(0.1))
    ),
    "around a partition": lambda tx: quantized(
        optax.partition(
            {"x": oa.adam(0.1), "y": optax.sgd(0.1)}, {"embed": "x", "head": "x", "bias": "y"}
        )
    ),
    "multi": lambda tx: optax.MultiSteps(tx, 1),
    "in an accumulation": lambda tx: oa.accumulate(tx, every=1),
    "around optax": lambda tx: quantized(optax.adam(0.1)),
}


@pytest.mark.parametrize("container", CONTAINERS)
def test_composition(container):
    """Everywhere two moments of two large arrays are in codes, and the steps are Adam's."""
    tx = CONTAINERS[container](quantized(oa.adam(0.1)))
    params, state = trained(tx, PARAMS, 4)
    exact, _ = trained(oa.adam(0.1), PARAMS, 4)
    assert len(moments(state)) == 4
    for name in ("embed", "head"):
        a, b, start = (jax.tree.leaves(p[name])[0] for p in (params, exact, PARAMS))
        assert np.linalg.norm(a - b) < 0.05 * np.linalg.norm(b - start)
    for field in ("mu", "nu"):
        found = optax.tree.get(state, field)
        assert is_codes(found["head"])
        assert is_codes(found["embed"]["table"])
        assert not is_codes(found["bias"])
        numbers = optax.tree.get(oa.dequantize_state(state), field)
        assert numbers["head"].shape == (64, 96)
    marked = optax.tree.map_params(
        tx, lambda _: "array", state, transform_non_params=lambda _: "number"
    )
    assert jax.tree.leaves(marked).count("array") >= 4 * 2
    back = pickle.loads(pickle.dumps(jax.device_get(state)))
    chex.assert_trees_all_equal(back, jax.device_get(state))


def test_scans_maps_and_donated_steps():
    tx = quantized(oa.adam(0.1))
    _, state = trained(tx, PARAMS, 3)

    def run(params):
        def step(carry, t):
            params, state = carry
            grads = jax.tree.map(lambda p: 0.1 * jnp.sin(3 * p + t), params)
            updates, state = tx.update(grads, state, params)
            return (optax.apply_updates(params, updates), state), None

        return jax.lax.scan(step, (params, tx.init(params)), jnp.arange(3))[0]

    _, scanned = jax.jit(run)(PARAMS)
    a, b = (oa.dequantize_state(s) for s in (scanned, state))
    chex.assert_trees_all_close(a, b, rtol=0.2, atol=1e-3)
    batched = jax.vmap(run)(jax.tree.map(lambda p: jnp.stack([p, 2 * p]), PARAMS))
    chex.assert_trees_all_equal_shapes(jax.tree.map(lambda x: x[0], batched[1]), state)
    donated = jax.jit(tx.update, donate_argnums=1)(PARAMS, state, PARAMS)
    assert all(x.is_deleted() for x in jax.tree.leaves(state) if x.ndim)
    chex.assert_trees_all_equal_shapes(donated[1], scanned)


def test_an_orbax_checkpoint_goes_on_as_if_nothing_had_been(tmp_path):
    ocp = pytest.importorskip("orbax.checkpoint")
    for bits in (8, 4):
        tx = oa.master_weights(quantized(oa.adam(0.1), bits=bits))
        narrow = jax.tree.map(lambda p: p.astype(BF16), PARAMS)
        update = jax.jit(tx.update)
        _, state = update(narrow, tx.init(PARAMS), narrow)
        with ocp.StandardCheckpointer() as checkpointer:
            checkpointer.save(tmp_path / f"{bits}", state)
            checkpointer.wait_until_finished()
            abstract = jax.eval_shape(tx.init, PARAMS)
            restored = checkpointer.restore(tmp_path / f"{bits}", abstract)
        chex.assert_trees_all_equal(restored, state)
        chex.assert_trees_all_equal(update(narrow, restored, narrow), update(narrow, state, narrow))


@every_storage
def test_a_run_changes_storage_on_the_way(bits):
    """From float32 into codes and back: the moments are those that were there."""
    tx = oa.adam(0.1)
    params, state = trained(tx, PARAMS, 5)
    stored = oa.quantize_state(state, bits=bits)
    chex.assert_trees_all_equal_shapes_and_dtypes(stored, quantized(tx, bits=bits).init(PARAMS))
    back = oa.dequantize_state(stored)
    chex.assert_trees_all_equal_shapes_and_dtypes(back, state)
    for field, bar in (("mu", 0.03), ("nu", 0.03)) if bits == 8 else (("mu", 0.4), ("nu", 0.4)):
        for a, b in zip(
            *(jax.tree.leaves(optax.tree.get(s, field)) for s in (back, state)), strict=True
        ):
            assert np.linalg.norm(a - b) < bar * np.linalg.norm(b)
    updates, _ = quantized(tx, bits=bits).update(PARAMS, stored, params)
    plain, _ = tx.update(PARAMS, back, params)
    chex.assert_trees_all_close(updates, plain, rtol=1e-5)
    inside = oa.dequantize_state((optax.EmptyState(), stored))
    chex.assert_trees_all_equal(inside[1], back)


def test_every_option_counts():
    def codes(**options):
        state = quantized(oa.adam(0.1), **options).init(PARAMS)
        again = oa.quantize_state(oa.adam(0.1).init(PARAMS), **options)
        chex.assert_trees_all_equal(state, again)
        return optax.tree.get(state, "mu")

    assert sorted(k for k, x in codes().items() if moments(x)) == ["embed", "head"]
    assert codes(bits=4)["head"].codes.shape == (64, 48)
    assert codes(block_size=32)["head"].block_max.shape == (64, 3)
    assert codes(block_size=40)["head"].block_max.shape == (64, 3)
    assert is_codes(codes(min_size=96)["bias"])
    assert not moments(codes(min_size=6145))
    seen = []

    def exclude(path):
        seen.append(path)
        return "embed" in path

    excluded = codes(exclude=exclude)
    assert not is_codes(excluded["embed"]["table"])
    assert is_codes(excluded["head"])
    assert set(seen) == {"embed/table", "head"}
    state = quantized(oa.adam(0.1), fields={"mu": None}).init(PARAMS)
    assert not moments(optax.tree.get(state, "mu"))
    assert len(moments(state)) == 2
    averaged = oa.polynomial_averaging(oa.sgd(0.1))
    assert not moments(quantized(averaged).init(PARAMS))
    signed = quantized(averaged, fields={"average": "signed"}).init(PARAMS)
    assert {type(x) for x in moments(signed)} == {SignedCodes}
    positive = quantized(averaged, fields={"average": "positive"}).init(PARAMS)
    assert {type(x) for x in moments(positive)} == {PositiveCodes}

    def drawn(seed):
        return trained(quantized(oa.adam(0.1), seed=seed), PARAMS, 2)[1]

    chex.assert_trees_all_equal(drawn(3), drawn(3))
    a, b = (optax.tree.get(drawn(seed), "mu")["head"].codes for seed in (3, 4))
    assert np.any(a != b)


def test_rows_of_odd_length_have_8_bits_and_short_ones_none():
    params = {"odd": jnp.ones((100, 63)), "short": jnp.ones((1000, 10)), "zero": jnp.ones((0, 64))}
    mu = optax.tree.get(quantized(oa.lion(0.1), bits=4).init(params), "mu")
    assert mu["odd"].codes.dtype == jnp.int8
    assert not is_codes(mu["short"])
    assert not is_codes(mu["zero"])


def test_complex_and_narrow_parameters():
    """Complex ones are pairs of reals, rows of 2; narrow ones have codes with float32 scales."""
    params = {"c": jnp.ones((64, 64), "complex64"), "n": jnp.ones((64, 64), BF16)}
    for tx in (quantized(oa.adam(0.1)), quantized(optax.adam(0.1))):
        params = {"n": params["n"]} if tx is not None and "c" not in params else params
        state = tx.init(params)
        assert optax.tree.get(state, "nu")["n"].block_max.dtype == jnp.float32
        updates, new = jax.jit(tx.update)(params, state, params)
        chex.assert_trees_all_equal_shapes_and_dtypes(new, state)
        chex.assert_trees_all_equal_shapes_and_dtypes(updates, params)
        params = {"n": params["n"]}


# --- shards and temporaries -----------------------------------------------------------------------


@every_storage
def test_codes_are_sharded_as_the_parameters_and_nothing_is_gathered(bits):
    mesh = jax.make_mesh((8,), ("x",))
    tx = quantized(oa.adam(0.1), bits=bits)
    start = jnp.linspace(-1, 1, 64 * 2048).reshape(64, 2048)
    plain, _ = trained(tx, start, 3)
    for spec in (P("x", None), P(None, "x")):
        sharding = NamedSharding(mesh, spec)
        params = jax.device_put(start, sharding)
        for init in (tx.init, jax.jit(tx.init)):
            for stored in moments(init(params)):
                for x in stored:
                    assert x.sharding.is_equivalent_to(sharding, 2), (spec, init)
        state = jax.jit(tx.init)(params)
        compiled = jax.jit(tx.update).lower(params, state, params).compile()
        assert not re.search(r"all-gather|all-to-all|collective-permute", compiled.as_text())
        sharded, state = trained(tx, params, 3)
        for stored in moments(state):
            assert stored.codes.sharding.is_equivalent_to(sharding, 2)
        np.testing.assert_allclose(sharded, plain, atol=1e-6)


def test_a_row_may_be_sharded_across_its_blocks():
    mesh = jax.make_mesh((8,), ("x",))
    params = jnp.linspace(-1, 1, 64 * 96).reshape(64, 96)
    tx = quantized(oa.adam(0.1))
    plain, _ = trained(tx, params, 3)
    sharded, _ = trained(tx, jax.device_put(params, NamedSharding(mesh, P(None, "x"))), 3)
    np.testing.assert_allclose(sharded, plain, atol=1e-4)


@every_storage
def test_a_compiled_start_is_computed_when_it_runs(bits):
    """And not by the compiler, which takes minutes for a large parameter; nor through float32."""
    params = jax.ShapeDtypeStruct((64, 256), jnp.float32)
    compiled = jax.jit(quantized(oa.adam(0.1), bits=bits).init).lower(params).compile()
    assert len(re.findall(r" reduce\(", compiled.as_text())) >= 2
    assert compiled.memory_analysis().temp_size_in_bytes < 0.1 * 4 * 64 * 256


# Old codes that are read while new ones are written: a byte of four for each moment on CPU.
TEMPORARIES = {"adam": 0.55, "lion": 0.28, "adagrad": 0.3, "adabound": 0.55, "adadelta": 1.6}


@pytest.mark.parametrize("name", TEMPORARIES)
def test_a_step_keeps_no_float32_moments_beside_it(name):
    """But for AdaDelta, whose delta has a division that two results read: XLA computes it once."""
    options = {"learning_rate": 0.1}
    found = precision.temporaries(quantized(getattr(oa, name)(**options)), 1, (256, 512))
    assert found["by default"] < TEMPORARIES[name]


def test_the_temporaries_of_many_leaves():
    """Those of all leaves are alive at once, but with a compiler option that finds no need to."""
    found = precision.temporaries(quantized(oa.adam(1.0)), 25)
    assert found["by default"] < 13.75
    assert found["with region analysis"] < 1.5
    assert precision.temporaries(quantized(oa.lion(1.0)), 25)["by default"] < 7.5


# --- narrower dtypes ------------------------------------------------------------------------------


@pytest.mark.parametrize("rounding", ["stochastic", "nearest"])
def test_named_fields_are_narrow_and_steps_near(rounding):
    tx = oa.with_state_dtype(oa.adam(0.1), mu=BF16, rounding=rounding)
    params, state = trained(tx, PARAMS, 5)
    exact, _ = trained(oa.adam(0.1), PARAMS, 5)
    chex.assert_trees_all_close(params, exact, atol=5e-3)
    for x in jax.tree.leaves(optax.tree.get(state, "mu")):
        assert x.dtype == BF16
    for x in jax.tree.leaves(optax.tree.get(state, "nu")):
        assert x.dtype == jnp.float32
    both = oa.with_state_dtype(oa.adam(0.1), mu=jnp.float16, nu="bfloat16")
    dtypes = {f: optax.tree.get(both.init(PARAMS), f)["head"].dtype.name for f in ("mu", "nu")}
    assert dtypes == {"mu": "float16", "nu": "bfloat16"}


def test_fields_can_be_wider_than_the_transformation_has_them():
    tx = oa.with_state_dtype(optax.adam(0.1), nu=jnp.float32)
    params = {"w": jnp.ones((4, 4), BF16)}
    state = tx.init(params)
    assert optax.tree.get(state, "nu")["w"].dtype == jnp.float32
    assert optax.tree.get(state, "mu")["w"].dtype == BF16
    _, state = tx.update(params, state, params)
    assert optax.tree.get(state, "nu")["w"].dtype == jnp.float32


def test_a_parameter_named_like_a_field_is_none():
    """The `mu` of a variational autoencoder: only the first field on a path counts."""

    @jax.tree_util.register_dataclass
    @dataclasses.dataclass
    class Model:
        mu: jax.Array

    params = Model(mu=jnp.ones((64, 64)))
    state = oa.with_state_dtype(oa.adam(0.1), mu=BF16).init(params)
    assert optax.tree.get(state, "nu", filtering=None).mu.dtype == jnp.float32
    codes = quantized(oa.adam(0.1)).init(params)
    assert {type(x) for x in moments(codes)} == {SignedCodes, PositiveCodes}


def test_scalars_and_integers_are_left():
    tx = oa.with_state_dtype(oa.dog(), sum_sq=BF16, distance=BF16)
    state = tx.init(PARAMS)
    assert optax.tree.get(state, "sum_sq").dtype == jnp.float32


def test_rounding_of_dtypes_goes_on_after_a_restart_and_depends_on_the_seed():
    def states(seed):
        return trained(oa.with_state_dtype(oa.adam(0.1), nu=BF16, seed=seed), PARAMS, 3)[1]

    chex.assert_trees_all_equal(states(1), states(1))
    a, b = (optax.tree.get(states(seed), "nu")["head"] for seed in (1, 2))
    assert np.any(a != b)


# --- refusals -------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", ["with_quantized_state", "quantize_state"])
@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"bits": 2}, "bits must be one of 8, 4, got 2"),
        ({"bits": True}, "bits must be one of 8, 4, got True"),
        ({"block_size": 8}, "block_size must be a whole number >= 16, got 8"),
        ({"min_size": 0}, "min_size must be a whole number >= 1, got 0"),
        ({"exclude": "embed"}, "exclude must be a function of a path, or None, got 'embed'"),
        ({"fields": ["mu"]}, r"fields must be a dict from names of fields, got \['mu'\]"),
        (
            {"fields": {"mu": "unsigned"}},
            r"fields\['mu'\] must be \"signed\", \"positive\" or None, got 'unsigned'",
        ),
        ({"seed": -1}, "seed must be a whole number >= 0, got -1"),
    ],
)
def test_bad_options(make, options, words):
    tx = oa.adam(0.1)
    first = tx if make == "with_quantized_state" else tx.init(PARAMS)
    with pytest.raises(ValueError, match=f"^{make}: {words}"):
        getattr(oa, make)(first, **options)


def test_codes_of_codes_are_refused():
    tx = quantized(quantized(oa.adam(0.1)))
    with pytest.raises(ValueError, match=r"^with_quantized_state: the state has codes already"):
        tx.init(PARAMS)
    with pytest.raises(ValueError, match=r"^quantize_state: the state has codes already"):
        oa.quantize_state(quantized(oa.adam(0.1)).init(PARAMS))
    with pytest.raises(ValueError, match=r"^dequantize_state: state must be that .* AdamState"):
        oa.dequantize_state(oa.scale_by_adam().init(PARAMS))


@pytest.mark.parametrize(
    ("dtypes", "words"),
    [
        ({}, "name a field of the state, such as nu=jnp.bfloat16"),
        ({"nu": jnp.float16}, "nu must be bfloat16 or float32, got "),
        ({"mu": jnp.int8}, "mu must be bfloat16 or float32 or float16, got "),
        ({"mu": None}, "mu must be bfloat16 or float32 or float16, got None"),
        ({"mu": BF16, "rounding": "up"}, "rounding must be one of 'stochastic', 'nearest', got"),
    ],
)
def test_bad_dtypes(dtypes, words):
    with pytest.raises(ValueError, match=f"^with_state_dtype: {words}"):
        oa.with_state_dtype(oa.adam(0.1), **dtypes)


def test_a_field_that_is_not_there():
    tx = oa.with_state_dtype(oa.lion(0.1), nu=BF16)
    with pytest.raises(ValueError, match=r"^with_state_dtype: tx has no field 'nu' .* has .*mu"):
        tx.init(PARAMS)
