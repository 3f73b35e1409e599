"""Steps that would spoil a run: skipped and counted, or made smaller."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from cases import KINDS
from jax.experimental import checkify
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from references import wrappers as papers
from runs import enable_x64, temporaries

import optax_adaptive as oa

PARAMS = {"w": jnp.linspace(0.5, 1.5, 6).reshape(2, 3), "b": jnp.ones(3)}
GRADS = jax.tree.map(lambda p: 2 * p - 1.5, PARAMS)
SPIKES = {"skip_above": 4.0, "warmup": 5, "decay": 0.8}
COUNTS = ("finite", "nonfinite", "skipped", "clipped", "in_a_row")


def counts(state):
    return {name: int(getattr(state, name)) for name in COUNTS}


@pytest.mark.parametrize("case", KINDS, ids=lambda c: c.id)
def test_a_step_that_is_skipped_leaves_no_trace(case):
    """The path is that of the good gradients alone; the state keeps every bit."""
    start, gradients = case.problem(case.shapes[0])
    start, gradients = jnp.asarray(start, "float32"), jnp.asarray(gradients[:6], "float32")
    tx = case.make(weight_decay=0.01)
    ours, plain = oa.guard(tx), jax.jit(tx.update)
    update, state, alone = jax.jit(ours.update), ours.init(start), tx.init(start)
    p = start
    for k, g in enumerate(gradients):
        worst = (jnp.nan, jnp.inf, -jnp.inf)[k % 3]
        skipped, after = update(g.at[..., 0].set(worst), state, p)
        np.testing.assert_array_equal(skipped, jnp.zeros_like(p))
        chex.assert_trees_all_equal(after.inner, state.inner)
        updates, state = update(g, after, p)
        expected, alone = plain(g, alone, p)
        np.testing.assert_allclose(updates, expected, rtol=2e-5, atol=1e-12)
        p = p + expected
    chex.assert_trees_all_close(state.inner, alone, rtol=2e-5, atol=1e-12)
    assert counts(state) == dict(zip(COUNTS, (6, 6, 6, 0, 0), strict=True))


@pytest.mark.parametrize(
    "options",
    [
        {"skip_above": 3.0, "warmup": 5, "decay": 0.8},
        {"clip_above": 1.5, "warmup": 2, "decay": 0.5},
        {"clip_above": 1.5, "skip_above": 3.0, "warmup": 2, "decay": 0.9},
        {},
    ],
    ids=str,
)
def test_the_formula(options):
    """Against NumPy, on gradients of which some are spikes, some not finite, and which grow."""
    rng = np.random.default_rng(0)
    gradients = rng.normal(size=(150, 8)) * np.exp(np.linspace(0, 2, 150))[:, None]
    gradients[::7] *= rng.choice([1.7, 5.0, 1e3], size=(22, 1))
    gradients[::31, 3] = np.nan
    expected = list(papers.guard(gradients, **options))
    with enable_x64(True):
        tx = oa.guard(oa.sgd(1.0), **options)
        state, update = tx.init(jnp.zeros(8)), jax.jit(tx.update)
        for g, given in zip(gradients, expected, strict=True):
            updates, state = update(jnp.asarray(g), state)
            # The mean is float32.
            np.testing.assert_allclose(-updates, 0 if given is None else given, rtol=3e-6)
    skipped = sum(x is None for x in expected)
    pairs = zip(expected, gradients, strict=True)
    clipped = sum(x is not None and not np.array_equal(x, g) for x, g in pairs)
    nonfinite = 5
    assert counts(state) == {
        "finite": 150 - nonfinite,
        "nonfinite": nonfinite,
        "skipped": skipped,
        "clipped": clipped,
        "in_a_row": 0,
    }
    assert bool(options.get("skip_above")) is (skipped > nonfinite)
    assert bool(options.get("clip_above")) is (clipped > 0)
    np.testing.assert_allclose(state.norm, np.linalg.norm(gradients[-1]), rtol=1e-6)


@pytest.mark.parametrize("option", ["skip_above", "clip_above"])
def test_gradients_that_grow_for_good_pass_in_the_end(option):
    tx = oa.guard(oa.sgd(1.0), **{option: 4.0, "warmup": 5, "decay": 0.9})
    state, update = tx.init(jnp.zeros(())), jax.jit(tx.update)
    passed = []
    for k in range(60):
        size = 1.0 if k < 20 else 1000.0
        updates, state = update(jnp.asarray(size), state)
        passed.append(float(-updates) == size)
    assert all(passed[:20])
    assert not any(passed[20:30])
    assert all(passed[-10:])


def test_huge_gradients_are_spikes_and_not_infinite():
    """Squares overflow: they are clipped as long as their norm is known, and then skipped."""
    for size, clipped in ((1e10, 1), (5e18, 1), (1e20, 0), (3e38, 0)):
        tx = oa.guard(oa.sgd(1.0), clip_above=2.0, warmup=1)
        state = tx.init(jnp.zeros(4))
        _, state = tx.update(jnp.ones(4), state)
        updates, state = tx.update(jnp.full(4, size), state)
        np.testing.assert_allclose(jnp.linalg.norm(updates), clipped * 2 * 2.0, rtol=1e-5)
        lost = 1 - clipped
        found = dict(zip(COUNTS, (1 + clipped, lost, lost, clipped, lost), strict=True))
        assert counts(state) == found


def test_spikes_count_only_after_the_warm_up_and_never_after_zeros():
    tx = oa.guard(oa.sgd(1.0), skip_above=2.0, warmup=3)
    state = tx.init(jnp.zeros(()))
    for g, skipped in ((1.0, 0), (9.0, 0), (1.0, 0), (99.0, 1)):
        _, state = tx.update(jnp.asarray(g), state)
        assert counts(state)["skipped"] == skipped
    state = tx.init(jnp.zeros(()))
    for g in (0.0, 0.0, 0.0, 1.0):
        _, state = tx.update(jnp.asarray(g), state)
    assert counts(state)["skipped"] == 0


def test_a_limit_itself_is_not_broken():
    for limit in ({"skip_above": 2.0}, {"clip_above": 2.0}):
        tx = oa.guard(oa.sgd(1.0), **limit, warmup=1, decay=0.0)  # usual is the norm before
        state = tx.init(jnp.zeros(()))
        for g in (1.0, 2.0, 4.0):
            updates, state = tx.update(jnp.asarray(g), state)
            assert float(updates) == -g
        assert counts(state)["skipped"] == counts(state)["clipped"] == 0


def test_the_defaults():
    """A hundred gradients before one is judged, a mean over about as many, updates unseen."""
    tx = oa.guard(breaks(200.0), skip_above=2.0)
    state, update = tx.init(jnp.zeros(())), jax.jit(tx.update)
    for k in range(100):
        _, state = update(jnp.asarray(9.0 if k == 99 else 1.0), state)
    assert counts(state)["skipped"] == 0
    np.testing.assert_allclose(state.norm_mean, 1 - 0.99**100 + 8 * 0.01, rtol=1e-5)
    _, state = update(jnp.asarray(9.0), state)
    assert counts(state)["skipped"] == 1
    updates, _ = update(jnp.ones(()), state._replace(inner=jnp.asarray(200.0)))
    assert jnp.isinf(updates)


@pytest.mark.parametrize("name", ["w", "b", "low", "complex"])
def test_one_bad_number_anywhere_is_enough(name):
    params = PARAMS | {"low": jnp.ones(2, "float16"), "complex": jnp.array([1 + 1j, 2])}
    params |= {"n": jnp.arange(3), "none": None, "empty": jnp.zeros((0, 2))}
    grads = params | {"n": jnp.zeros(3, int)}
    tx = oa.guard(oa.adam(0.1))
    _, state = tx.update(grads, tx.init(params), params)
    assert counts(state)["finite"] == 1
    bad = (
        grads[name]
        .at[(-1,) * grads[name].ndim]
        .set(1j * jnp.inf if name == "complex" else -jnp.inf)
    )
    updates, after = tx.update(grads | {name: bad}, state, params)
    assert counts(after)["nonfinite"] == 1
    chex.assert_trees_all_equal(after.inner, state.inner)
    chex.assert_trees_all_equal(updates, jax.tree.map(jnp.zeros_like, updates))


def test_a_loss_that_is_not_finite_skips_too():
    tx = oa.guard(oa.momo(1.0))
    state = tx.init(PARAMS)
    updates, after = tx.update(GRADS, state, PARAMS, value=jnp.nan)
    chex.assert_trees_all_equal(after.inner, state.inner)
    assert not any(map(jnp.any, jax.tree.leaves(updates)))
    assert counts(after)["nonfinite"] == 1
    updates, _ = tx.update(GRADS, state, PARAMS, value=1.0)
    assert all(map(jnp.any, jax.tree.leaves(updates)))


def breaks(after):
    """A transformation whose updates become infinite: 1 / (steps left)."""

    def update(updates, count, params=None):
        return jax.tree.map(lambda g: g / (after - count), updates), count + 1

    return optax.GradientTransformation(lambda params: jnp.zeros(()), update)


def test_updates_are_checked_on_request():
    for check in (False, True):
        tx = oa.guard(breaks(1.0), check_updates=check)
        _, state = tx.update(GRADS, tx.init(PARAMS), PARAMS)
        updates, after = tx.update(GRADS, state, PARAMS)
        assert all(bool(jnp.all(jnp.isfinite(u))) for u in jax.tree.leaves(updates)) is check
        assert float(after.inner) == (1.0 if check else 2.0)
        assert counts(after)["skipped"] == counts(after)["nonfinite"] == check


def test_it_raises_after_so_many_in_a_row():
    """Compiled through checkify, and from the host; a good step begins anew."""
    bad = jax.tree.map(lambda g: g * jnp.nan, GRADS)
    tx = oa.guard(oa.adam(0.1), max_skips=3)
    update = jax.jit(checkify.checkify(tx.update))
    state = tx.init(PARAMS)
    for g in (bad, bad, GRADS, bad, bad):
        error, (_, state) = update(g, state, PARAMS)
        error.throw()
        oa.check_guard(state, max_skips=3)
    error, (_, state) = update(bad, state, PARAMS)
    message = "3 steps in a row were skipped.*; the norm of the last gradient was nan"
    with pytest.raises(checkify.JaxRuntimeError, match=f"guard: {message}"):
        error.throw()
    with pytest.raises(FloatingPointError, match=r"check_guard: 3 .* skipped, 5 in all, 5 of them"):
        oa.check_guard(state, max_skips=3)
    oa.check_guard(state, max_skips=4)
    with pytest.raises(checkify.JaxRuntimeError, match=f"guard: {message}"):
        tx.update(bad, state._replace(in_a_row=jnp.asarray(2)), PARAMS)
    with pytest.raises(ValueError, match="functionaliz"):
        jax.jit(tx.update)(GRADS, state, PARAMS)
    nested = optax.chain(optax.identity(), oa.guard(oa.guard(oa.sgd(1.0))))
    _, state = nested.update(bad, nested.init(PARAMS))
    with pytest.raises(FloatingPointError):
        oa.check_guard(state, max_skips=1)


def test_one_of_several_that_skips_is_found():
    """In groups, and in the states that vmap made."""
    tx = optax.partition({k: oa.guard(oa.sgd(1.0)) for k in "xy"}, {"w": "x", "b": "y"})
    for name in GRADS:
        _, state = tx.update(GRADS | {name: GRADS[name] * jnp.nan}, tx.init(PARAMS), PARAMS)
        with pytest.raises(FloatingPointError):
            oa.check_guard(state, max_skips=1)
    one = oa.guard(oa.sgd(1.0))
    states = jax.vmap(one.init)(jnp.ones(2))
    _, states = jax.vmap(one.update)(jnp.array([1.0, jnp.nan]), states)
    with pytest.raises(FloatingPointError):
        oa.check_guard(states, max_skips=1)


def test_around_and_within_accumulation():
    """Outside it leaves the bad batch out of the sum; inside it loses the whole step."""
    bad = jax.tree.map(lambda g: g * jnp.nan, GRADS)
    outside = oa.guard(oa.accumulate(oa.adam(0.1), every=2))
    inside = oa.accumulate(oa.guard(oa.adam(0.1)), every=2)
    for tx, moved in ((outside, True), (inside, False)):
        state, update = tx.init(PARAMS), jax.jit(tx.update)
        _, state = update(GRADS, state, PARAMS)
        updates, state = update(bad, state, PARAMS)
        assert not jnp.any(updates["w"])
        updates, state = update(GRADS, state, PARAMS)
        assert bool(jnp.any(updates["w"])) is moved


def test_narrow_parameters_land_where_they_should():
    """Around `kahan` and its like with narrow gradients: updates stay float32."""
    low = jax.tree.map(lambda x: x.astype(jnp.bfloat16), PARAMS)
    for wrap in (oa.kahan, oa.master_weights, oa.stochastic_rounding):
        inner = wrap(oa.adam(1e-3))
        tx = oa.guard(inner)
        updates, state = tx.update(low, tx.init(low), low)
        expected, _ = inner.update(low, inner.init(low), low)
        chex.assert_trees_all_equal(updates, expected)
        chex.assert_trees_all_equal_dtypes(updates, PARAMS)
        bad = jax.tree.map(lambda g: g * jnp.nan, low)
        updates, after = tx.update(bad, state, low)
        chex.assert_trees_all_equal(after.inner, state.inner)
        chex.assert_trees_all_equal(optax.apply_updates(low, updates), low)


def test_random_keys_in_the_state():
    tx = oa.guard(optax.chain(optax.add_noise(0.1, 0.5, jax.random.key(0)), oa.sgd(1.0)))
    state = tx.init(PARAMS)
    _, state = jax.jit(tx.update)(GRADS, state, PARAMS)
    bad = jax.tree.map(lambda g: g * jnp.nan, GRADS)
    _, after = jax.jit(tx.update)(bad, state, PARAMS)
    chex.assert_trees_all_equal(
        jax.random.key_data(after.inner[0].rng_key), jax.random.key_data(state.inner[0].rng_key)
    )


@pytest.mark.parametrize("options", [{}, {"skip_above": 5.0}, {"clip_above": 2.0}], ids=str)
@pytest.mark.parametrize(("make", "words"), [(oa.sgd, 0), (oa.adam, 1), (oa.lion, 1)])
def test_what_is_kept_beside(make, words, options):
    """A copy of an old array, as XLA on CPU copies by default; it need not."""
    tx = oa.guard(make(1e-3), **options)
    assert temporaries(tx) < words + 0.01
    assert temporaries(tx, xla_cpu_copy_insertion_use_region_analysis=True) < 0.01


def test_numbers_can_be_traced():
    """Swept by vmap: each has what its own limit lets through."""

    def passed(limit, decay):
        tx = oa.guard(oa.sgd(1.0), clip_above=limit, skip_above=10 * limit, decay=decay, warmup=2)
        state = tx.init(jnp.zeros(()))
        for g in (1.0, 2.0, 1.0, 30.0):
            updates, state = tx.update(jnp.asarray(g), state)
        return -updates

    swept = jax.vmap(passed)(jnp.array([2.0, 3.0, 50.0]), jnp.array([0.0, 0.5, 0.5]))
    mean = (1 + 2 * 2 + 4 * 1) / 7
    np.testing.assert_allclose(swept, [0.0, 3 * mean, 30.0], rtol=1e-5)


def test_the_norm_is_that_of_all_devices():
    sharding = NamedSharding(Mesh(jax.devices(), ("x",)), P("x"))
    params = jax.device_put(jnp.ones(16), sharding)
    tx = oa.guard(oa.sgd(1.0), skip_above=2.0, warmup=1)
    update, state = jax.jit(tx.update), tx.init(params)
    for g, skipped in ((params, 0), (params.at[3].set(20.0), 1), (params.at[3].set(jnp.nan), 2)):
        updates, state = update(g, state)
        assert updates.sharding.is_equivalent_to(sharding, 1)
        assert counts(state)["skipped"] == skipped


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: oa.guard(oa.adam), "guard: tx must be an optax.GradientTransformation"),
        (lambda: oa.guard(oa.adam(1.0), skip_above=1.0), "guard: skip_above must be .* > 1, got 1"),
        (lambda: oa.guard(oa.adam(1.0), clip_above="2"), "guard: clip_above must be .*, got '2'"),
        (
            lambda: oa.guard(oa.adam(1.0), clip_above=3.0, skip_above=2.0),
            "guard: clip_above must be below skip_above, 2, got 3",
        ),
        (
            lambda: oa.guard(oa.adam(1.0), clip_above=2.0, skip_above=2.0),
            "guard: clip_above must be below skip_above, 2, got 2",
        ),
        (lambda: oa.guard(oa.adam(1.0), decay=1.0), r"guard: decay must be .* \[0, 1\), got 1"),
        (lambda: oa.guard(oa.adam(1.0), warmup=0), "guard: warmup must be .* >= 1, got 0"),
        (lambda: oa.guard(oa.adam(1.0), max_skips=0.5), "guard: max_skips must be .*, got 0.5"),
        (lambda: oa.guard(oa.adam(1.0), check_updates=1), "guard: check_updates must be True or F"),
        (
            lambda: oa.check_guard(oa.adam(1.0).init(PARAMS), 3),
            "check_guard: state must be .*guard",
        ),
        (
            lambda: oa.check_guard(oa.guard(oa.adam(1.0)).init(PARAMS), 0),
            "check_guard: max_skips must be a whole number >= 1, got 0",
        ),
    ],
)
def test_refusals(call, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        call()
