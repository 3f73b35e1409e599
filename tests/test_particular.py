"""What is particular to one algorithm."""

import gc
from typing import NamedTuple

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import references
from cases import CASES, problem
from flax import nnx
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from jax.sharding import AxisType, NamedSharding, PartitionSpec
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

# --- shampoo and soap --------------------------------------------------------------------------
BY_MATRICES = {
    "shampoo": {"precondition_frequency": 3},
    "soap": {"precondition_frequency": 3, "weight_decay": None},
}
by_matrices = pytest.mark.parametrize("name", BY_MATRICES)

NAMED = {  # path: (shape, role by Muon, role by Adam-mini), None where it must be said
    "Embed_0/embedding": ((9, 4), "adam", "rows"),
    "wte/embedding": ((9, 4), "adam", "rows"),
    "pos_embedding": ((1, 9, 4), "adam", "tensor"),
    "LayerNorm_0/scale": ((4,), "adam", "tensor"),
    "block_0/attn/q_norm/scale": ((2, 4), "adam", "tensor"),
    "block_0/attn/query/bias": ((2, 4), "adam", "adam"),
    "block_0/attn/query/kernel": ((4, 4), "matrix", None),
    "block_1/attn/query/kernel": ((4, 2, 2), None, "heads"),
    "block_1/attn/value/kernel": ((4, 2, 2), None, "neurons:2"),
    "block_1/attn/out/kernel": ((2, 2, 4), None, "neurons"),
    "h/0/attn/c_attn/kernel": ((4, 12), "matrix", None),
    "h/0/attn/c_proj/kernel": ((4, 4), "matrix", "neurons"),
    "h/0/mlp/c_fc/kernel": ((4, 16), "matrix", "neurons"),
    "layers/0/self_attn/o_proj/weight": ((4, 4), "transposed", "rows"),
    "layers/0/mlp/gate_proj/weight": ((16, 4), "transposed", "rows"),
    "layers/0/mlp/fc1/kernel": ((4, 16), "matrix", "neurons"),
    "encoder/layer/0/attention/output/dense/kernel": ((4, 4), "matrix", "neurons"),
    "encoder/layer/0/output/dense/kernel": ((4, 4), None, "neurons"),
    "MultiHeadAttention_0/value_proj/kernel": ((4, 4), "matrix", "neurons"),
    "hidden_1/kernel": ((4, 4), "matrix", "neurons"),
    "Dense_2/kernel": ((4, 3), None, "neurons"),
    "mlp/layers/2/weight": ((3, 4), None, "rows"),
    "fc2/kernel": ((4, 3), None, "neurons"),
    "critic/value/kernel": ((4, 1), None, "tensor"),
    "AttentionModel_0/out/kernel": ((4, 3), None, "tensor"),
    "lm_head/kernel": ((4, 9), "adam", "neurons"),
    "output/kernel": ((4, 9), "adam", "neurons"),
    "unembed/weight": ((9, 4), "adam", "rows"),
    "hidden_to_output/kernel": ((4, 9), None, "tensor"),
    "Conv_0/kernel": ((3, 3, 4, 8), None, "tensor"),
}

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


# --- what makes each optimizer not plain Adam --------------------------------------------------


def walk(tx, gradients, start=1.0):
    """The updates of one parameter along a list of its gradients."""
    params, updates = jnp.asarray(start), []
    state, update = tx.init(params), jax.jit(tx.update)
    for g in gradients:
        u, state = update(jnp.asarray(float(g)), state, params)
        params = params + u
        updates.append(float(u))
    return np.array(updates)


def test_sgd_steps_in_proportion():
    np.testing.assert_allclose(walk(oa.sgd(0.1), [1, 1e3, 1e-3]), [-0.1, -100, -1e-4], rtol=1e-6)


def test_adagrad_and_amsgrad_never_forget():
    giant = [1000.0] + [1.0] * 300
    for name in ("adagrad", "amsgrad"):
        assert abs(walk(getattr(oa, name)(0.1), giant)[-1]) < 5e-3, name
    assert abs(walk(oa.adam(0.1, b2=0.9), giant)[-1]) > 0.09  # who forgets
    assert abs(walk(oa.amsgrad(0.1, b2=0.9), giant)[-1]) < 5e-3


def test_rmsprop_turns_at_once():
    """It follows the gradient of now, where Adam follows a mean."""
    there_and_back = [1.0] * 5 + [-1.0]
    assert walk(oa.rmsprop(0.1), there_and_back)[-1] > 0
    assert walk(oa.adam(0.1), there_and_back)[-1] < 0


def test_adadelta_feels_its_way():
    """Its steps have the size of those before: they grow from the root of eps."""
    steps = walk(oa.adadelta(1.0), [1.0] * 200)
    assert abs(steps[0]) < 0.01
    assert np.all(np.diff(abs(steps[5:])) > 0)
    assert abs(steps[-1]) > 1.5 * abs(steps[0])


def test_the_w_of_adamw_nadamw_adamaxw_decays_without_a_gradient():
    for name in ("adamw", "nadamw", "adamaxw"):
        tx = getattr(oa, name)(0.1, weight_decay=0.5)
        np.testing.assert_allclose(walk(tx, [0.0, 0.0], start=2.0), [-0.1, -0.095], rtol=1e-6)


def test_nadam_looks_ahead():
    """Its first step is that of Adam and of the next mean: 1 + b1 / (1 + b1)."""
    for name in ("nadam", "nadamw"):
        first = walk(getattr(oa, name)(0.1, weight_decay=None), [3.0])[0]
        np.testing.assert_allclose(first, -0.1 * (1 + 0.9 / 1.9), rtol=1e-6)


def test_adamax_divides_by_the_largest_gradient():
    """A spike shrinks by b2 a step, and a gradient below it does not count."""
    for name in ("adamax", "adamaxw"):
        tx = getattr(oa, name)(0.1, b1=0.0, b2=0.5, weight_decay=None)
        np.testing.assert_allclose(
            walk(tx, [8.0, 1.0, 1.0, 1.0, 1.0]), [-0.1, -0.025, -0.05, -0.1, -0.1], rtol=1e-6
        )


def test_radam_starts_as_sgd():
    """Five steps in proportion to the gradient, then steps of a size."""
    small, large = (walk(oa.radam(0.1), [g] * 300) for g in (1e-3, 1e3))
    np.testing.assert_allclose(large[:5] / small[:5], 1e6, rtol=1e-4)
    np.testing.assert_allclose(large[5:] / small[5:], 1.0, rtol=1e-3)


def test_adabound_and_amsbound_end_as_sgd():
    """Steps of a size at first; when the band has closed, final_lr times the mean gradient."""
    for name in ("adabound", "amsbound"):
        tx = getattr(oa, name)(1e-3, final_lr=0.1, gamma=0.9)
        steps = walk(tx, [2.0] * 400)
        np.testing.assert_allclose(steps[-1], -0.2, rtol=0.01)
        early = getattr(oa, name)(1e-3, final_lr=0.1, gamma=1e-6)
        np.testing.assert_allclose(walk(early, [2.0] * 5), -1e-3, rtol=1e-4)


def test_amsbound_never_forgets():
    giant = [1000.0] + [1.0] * 300
    open_band = {"learning_rate": 0.1, "b2": 0.9, "gamma": 1e-6}
    assert abs(walk(oa.amsbound(**open_band), giant)[-1]) < 5e-3
    assert abs(walk(oa.adabound(**open_band), giant)[-1]) > 0.05


NAMES += ["adabelief", "adan", "laprop"]  # not yogi, whose mean starts on one side of 0


# --- adabelief ---------------------------------------------------------------------------------
def test_adabelief_steps_far_where_the_gradient_is_foretold():
    """Of the same size are a steady gradient and one of random signs: Adam treats them alike."""
    noise = np.random.default_rng(0).normal(size=(400, 2))
    signs = np.sign(noise[:, 1])
    gradients = np.stack([1 + 0.01 * noise[:, 0], signs], axis=1)

    def step_lengths(make):
        path = trajectory(make(1.0, b2=0.9), np.zeros(2), gradients, "float64")
        return np.abs(np.diff(path, axis=0)[300:]).mean(axis=0)

    steady, noisy = step_lengths(oa.adabelief)
    assert 70 < steady < 170  # the mean over the deviation from it is 100 and a little more
    assert noisy < 1
    assert max(step_lengths(oa.adam)) < 1.01


def test_adabelief_of_a_gradient_that_never_changes():
    """The steps end where the docstring says."""
    options = {"b2": 0.9, "eps_root": 1e-6, "eps": 0.0}
    path = trajectory(oa.adabelief(1.0, **options), [0.0], np.full((400, 1), 0.3), "float64")
    np.testing.assert_allclose(path[-1] - path[-2], -0.3 * np.sqrt(0.1 / 1e-6), rtol=1e-6)


# --- yogi --------------------------------------------------------------------------------------
def test_yogi_forgets_by_subtraction():
    """After a large gradient nu falls by (1 - b2) g² a step; Adam's falls by a share of itself."""
    gradients = np.array([[10.0]] + [[1.0]] * 200)

    def levels(tx):
        state = tx.init(jnp.zeros(1))
        for g in gradients:
            _, state = tx.update(jnp.asarray(g, jnp.float32), state)
            yield float(state.nu[0])

    nu = np.array(list(levels(oa.scale_by_yogi(b2=0.9))))  # 10 after the first
    np.testing.assert_allclose(nu[:80], 10 - 0.1 * np.arange(80), rtol=1e-3)
    np.testing.assert_allclose(nu[-50:], 1.0, atol=0.11)  # and then it stays around 1
    adam = np.array(list(levels(oa.scale_by_adam(b2=0.9))))
    assert adam[40] < 1.2
    assert nu[40] > 5.9


def test_the_branches_of_yogi_are_visited():
    nu = np.full(8, 1e-6)
    seen = {-1: 0, 0: 0, 1: 0}
    for g in GRADIENTS:
        moves = np.where(g == 0, 0, np.sign(g**2 - nu))
        for move in moves:
            seen[int(move)] += 1
        nu = nu + 0.001 * moves * g**2
    assert min(seen.values()) > 20, seen


def test_scale_by_yogi_is_optax_in_every_argument():
    arguments = (0.8, 0.99, 1e-4, 1e-3, 0.1)
    paths = [
        trajectory(
            optax.chain(f(*arguments), optax.scale_by_learning_rate(0.01)),
            START,
            GRADIENTS,
            "float64",
        )
        for f in (oa.scale_by_yogi, optax.scale_by_yogi)
    ]
    assert deviation(*paths, START) < 1e-12


# --- adan --------------------------------------------------------------------------------------
def test_adan_without_differences_is_adam():
    """Constant gradients differ by nothing, the first from none; then a step shows."""
    gradients = np.tile(START, (30, 1))
    adam = trajectory(oa.adam(0.01, 0.98, 0.99, 1e-8, 1e-8), START, gradients, "float64")
    ours = trajectory(oa.adan(0.01), START, gradients, "float64")
    assert deviation(ours, adam, START) < 1e-12

    gradients[20:] *= 1.5
    adam = trajectory(oa.adam(0.01, 0.98, 0.99, 1e-8, 1e-8), START, gradients, "float64")
    ours = trajectory(oa.adan(0.01), START, gradients, "float64")
    apart = np.abs(np.diff(ours - adam, axis=0))
    assert apart[:19].max() < 1e-12
    assert apart[19].min() > 1e-5


def test_optax_adan_extrapolates_by_another_share():
    """By 1 - b2: that alone parts it from the paper, the authors' code and ours."""

    def in_optax(b2):
        return trajectory(optax.adan(0.01, b2=b2), START, GRADIENTS, "float64")

    def ours(b2):
        return trajectory(oa.adan(0.01, b2=b2), START, GRADIENTS, "float64")

    assert deviation(ours(0.5), in_optax(0.5), START) < 1e-12
    assert deviation(ours(0.92), in_optax(0.92), START) > 0.1


# --- laprop ------------------------------------------------------------------------------------
def test_laprop_has_no_long_step_for_any_momentum():
    """After a giant gradient Adam with b1 > sqrt(b2) runs away; this cannot."""
    gradients = np.ones((60, 1))
    gradients[10] = 1e6

    def longest(tx):
        return np.abs(np.diff(trajectory(tx, [0.0], gradients, "float64"), axis=0)).max()

    assert longest(oa.laprop(1.0, b1=0.99, b2=0.5)) < 2**0.5
    assert longest(oa.adam(1.0, b1=0.99, b2=0.5)) > 1e3


def test_laprop_without_memory_of_squares_is_a_mean_of_signs():
    directions = np.sign(GRADIENTS)
    mean, path = np.zeros(8), [np.zeros(8)]
    for t, sign in enumerate(directions, 1):
        mean = 0.9 * mean + 0.1 * sign
        path.append(path[-1] - 0.01 * mean / (1 - 0.9**t))
    ours = trajectory(oa.laprop(0.01, b2=0.0, eps=1e-30), np.zeros(8), GRADIENTS, "float64")
    assert deviation(ours, path[1:], np.zeros(8)) < 1e-12


# --- adopt -------------------------------------------------------------------------------------
def test_adopt_scales_no_gradient_by_its_own_square():
    """The first gradient moves nothing; the next is measured by it alone, however large."""
    gradients = np.array([[2.0, -2.0, 0.0], [6.0, 1.0, 3.0], [6.0, 1.0, 3.0]])
    tx = oa.adopt(1.0, b1=0.0, b2=0.0, use_clipping=False, eps=1e-6)
    steps = np.diff(trajectory(tx, np.zeros(3), gradients), axis=0, prepend=0.0)
    np.testing.assert_array_equal(steps[0], 0)
    np.testing.assert_allclose(steps[1], [-3, -0.5, -3e6], rtol=1e-6)
    np.testing.assert_allclose(steps[2], -1, rtol=1e-6)
    clipped = trajectory(oa.adopt(1.0, b1=0.0, b2=0.0), np.zeros(3), gradients)
    np.testing.assert_allclose(clipped[1], [-1, -0.5, -1], rtol=1e-6)  # at 1^(1/4)


def test_adopt_converges_where_adam_does_not():
    """The paper's example: 50 x once in 50 times, -x otherwise. The mean wants x to fall."""
    rare = np.random.default_rng(0).random(4000) < 1 / 50
    gradients = np.where(rare, 50.0, -1.0)[:, None]
    assert gradients.mean() > 0
    for b2 in (0.1, 0.5):
        adam = trajectory(oa.adam(1e-3, b1=0.0, b2=b2), [0.0], gradients)
        adopt = trajectory(oa.adopt(1e-3, b1=0.0, b2=b2, use_clipping=False), [0.0], gradients)
        assert adam[-1] > 1, b2
        assert adopt[-1] < 0, b2


def test_the_bound_of_adopt_may_be_injected():
    """`optax.inject_hyperparams` takes the function for a schedule, which it is."""
    gradients = GRADIENTS.astype("float32")
    for make in (oa.adopt, optax.inject_hyperparams(oa.adopt)):
        ours = trajectory(make(1e-3, clip_value_fn=lambda step: 0.1 * step), START, gradients)
        bounded = references.adopt(START, gradients, 1e-3, clip_value_fn=lambda step: 0.1 * step)
        assert deviation(ours, np.array(list(bounded)), START) < 1e-4
    with pytest.raises(TypeError):
        trajectory(optax.inject_hyperparams(optax.contrib.adopt)(1e-3), START, gradients)


# --- ademamix ----------------------------------------------------------------------------------
def test_ademamix_remembers():
    """500 steps one way, then 30 the other: Adam has turned round, the slow mean has not."""
    gradients = np.ones((530, 1))
    gradients[500:] = -1
    adam, ademamix = (
        np.diff(trajectory(tx, [0.0], gradients), axis=0)[-1]
        for tx in (oa.adam(1e-3), oa.ademamix(1e-3, b3=0.999))
    )
    assert adam > 0
    assert ademamix < 0


def test_ademamix_without_alpha_is_adam():
    ours = trajectory(oa.ademamix(1e-3, alpha=0.0), START, GRADIENTS, "float64")
    adam = trajectory(oa.adam(1e-3), START, GRADIENTS, "float64")
    assert deviation(ours, adam, START) < 1e-12


# --- qhadam ------------------------------------------------------------------------------------
def test_the_corners_of_qhadam():
    """Adam where both weights are 1, the sign of the gradient where both are 0."""
    ours = trajectory(oa.qhadam(1e-3, b1=0.9, v1=1.0, v2=1.0), START, GRADIENTS, "float64")
    adam = trajectory(oa.adam(1e-3), START, GRADIENTS, "float64")
    assert deviation(ours, adam, START) < 1e-12
    signs = trajectory(oa.qhadam(1.0, v1=0.0, v2=0.0, eps=1e-30), START, GRADIENTS, "float64")
    steps = np.diff(signs, axis=0, prepend=START[None])
    np.testing.assert_allclose(steps, -np.sign(GRADIENTS), rtol=1e-12)


def test_qhadam_averages_the_gradient_with_its_mean():
    steps = {
        v1: np.diff(trajectory(oa.qhadam(1e-3, v1=v1), START, GRADIENTS, "float64"), axis=0)
        for v1 in (0.0, 0.7, 1.0)
    }
    np.testing.assert_allclose(steps[0.7], 0.3 * steps[0.0] + 0.7 * steps[1.0], atol=1e-15)


# --- adam_atan2 --------------------------------------------------------------------------------
def test_adam_atan2_knows_no_scale():
    """A power of two in the gradient changes not one bit; in Adam's step eps does."""
    gradients = GRADIENTS[:, 5:].astype("float32")
    small = gradients * np.float32(2) ** -30

    def apart(tx):
        paths = [trajectory(tx, np.zeros(3), g) for g in (gradients, small)]
        return abs(paths[0] - paths[1]).max() / abs(paths[0]).max()

    assert apart(oa.adam_atan2(1e-3)) == 0
    assert apart(oa.adam(1e-3)) > 0.01


def test_the_steps_of_adam_atan2_are_bounded():
    """After long quiet one giant makes Adam's step sqrt(1000) times as long, and this one none."""
    gradients = np.full((2000, 1), 1e-3)
    gradients[-1] = 1.0
    longest = {
        name: abs(np.diff(trajectory(tx, [0.0], gradients), axis=0)).max()
        for name, tx in (
            ("adam", oa.adam(1.0, b1=0.0, b2=0.999)),
            ("adam_atan2", oa.adam_atan2(1.0, b1=0.0, b2=0.999)),
        )
    }
    assert longest["adam"] > 20
    assert 1.27 * 1.5 < longest["adam_atan2"] < 1.27 * np.pi / 2
    first = trajectory(oa.adam_atan2(1.0, a=4 / np.pi), [0.0, 0.0, 0.0], [[3.0, -1e-9, 0.0]])
    np.testing.assert_allclose(first[0], [-1, 1, 0], rtol=1e-6)


# --- lion --------------------------------------------------------------------------------------
def test_lion_walks_by_the_sign_of_its_own_mixture():
    """Neither by that of the gradient, nor by that of the mean it keeps; and never shorter."""
    path = trajectory(oa.lion(0.01, weight_decay=None), START, GRADIENTS, "float64")
    mu = np.zeros(8)
    not_of_gradient = not_of_mean = 0
    for step, g in zip(np.diff(path, axis=0, prepend=START[None]), GRADIENTS, strict=True):
        sign = np.sign(0.9 * mu + 0.1 * g)
        mu = 0.99 * mu + 0.01 * g
        np.testing.assert_allclose(step, -0.01 * sign, rtol=1e-9)
        not_of_gradient += np.sum(sign * g < 0)
        not_of_mean += np.sum(sign * mu < 0)
    assert not_of_gradient > 20
    assert not_of_mean > 20


# --- lamb --------------------------------------------------------------------------------------
def test_lamb_walks_a_share_of_the_parameters():
    """In the direction of Adam, whatever its length; and as Adam where there is nothing yet."""
    start, gradients = problem((6, 4))
    adam = trajectory(oa.adam(0.01, eps=1e-6), start, gradients, "float64")
    step = trajectory(oa.lamb(0.01), start, gradients, "float64")[0] - start
    assert np.linalg.norm(step) == pytest.approx(0.01 * np.linalg.norm(start), rel=1e-12)
    cosine = np.sum(step * (adam[0] - start)) / np.linalg.norm(step)
    assert cosine == pytest.approx(np.linalg.norm(adam[0] - start), rel=1e-12)

    nothing = trajectory(oa.lamb(0.01), 0 * start, gradients, "float64")[0]
    np.testing.assert_allclose(nothing, adam[0] - start, rtol=1e-9)


def test_the_decay_of_lamb_turns_the_step_and_keeps_its_length():
    start, gradients = problem((6, 4))
    steps = [
        trajectory(oa.lamb(0.01, weight_decay=w), start, gradients, "float64")[0] - start
        for w in (None, 1.0, 1e6)
    ]
    for step in steps:
        assert np.linalg.norm(step) == pytest.approx(0.01 * np.linalg.norm(start), rel=1e-9)
    assert np.linalg.norm(steps[1] - steps[0]) > 0.1 * np.linalg.norm(steps[0])
    np.testing.assert_allclose(steps[2], -0.01 * start, atol=1e-6)  # nothing but decay


# --- adahessian --------------------------------------------------------------------------------
def test_adahessian_is_newton_where_the_curvature_is_known():
    """One step to the minimum, over twelve decades of curvature; away from a maximum."""
    curvature = jnp.array([1e-6, 1e-3, 1.0, 1e3, 1e6, -1.0])
    target = jnp.array([1.0, -2.0, 3.0, -4.0, 5.0, 6.0])
    start = jnp.zeros(6)

    def loss(p):
        return 0.5 * jnp.sum(curvature * (p - target) ** 2)

    _, grads, diagonal = oa.hutchinson(loss)(jax.random.key(0), start)
    tx = oa.adahessian(1.0, eps=1e-12)
    step, _ = tx.update(grads, tx.init(start), start, hessian_diagonal=diagonal)
    chex.assert_trees_all_close(step, target.at[-1].mul(-1), rtol=1e-5)

    root = oa.adahessian(1.0, eps=1e-12, hessian_power=0.5)
    step, _ = root.update(grads, root.init(start), start, hessian_diagonal=diagonal)
    chex.assert_trees_all_close(step, -grads / jnp.sqrt(jnp.abs(curvature)), rtol=1e-5)
    none = oa.adahessian(1.0, eps=1e-12, hessian_power=0.0)
    step, _ = none.update(grads, none.init(start), start, hessian_diagonal=diagonal)
    chex.assert_trees_all_close(step, -grads, rtol=1e-5)


def test_adahessian_averages_the_sizes_over_a_kernel():
    """By default over height and width: signs do not cancel, and channels stay apart."""
    diagonal = jnp.array([[1.0, -3.0], [2.0, -2.0]]).reshape(2, 2, 1, 1) * jnp.array([1.0, 10.0])
    grads = jnp.ones((2, 2, 1, 2))

    def step(grads, diagonal, **kwargs):
        tx = oa.adahessian(1.0, eps=1e-12, **kwargs)
        return tx.update(grads, tx.init(grads), hessian_diagonal=diagonal)[0]

    per_channel = -grads / jnp.array([2.0, 20.0])
    chex.assert_trees_all_close(step(grads, diagonal), per_channel, rtol=1e-5)
    last = jnp.transpose(diagonal, (2, 3, 0, 1)), jnp.transpose(grads, (2, 3, 0, 1))
    spatial_last = step(last[1], last[0], averaged_axes={4: (2, 3)})
    chex.assert_trees_all_close(jnp.transpose(spatial_last, (2, 3, 0, 1)), per_channel, rtol=1e-5)
    chex.assert_trees_all_close(step(grads, diagonal, averaged_axes={}), -1 / abs(diagonal))
    # A giant keeps the rest finite, and a bad estimate shows in the whole block.
    giant = step(grads, diagonal.at[0, 0, 0, 0].set(1e30))
    assert np.all(np.isfinite(giant) & (giant != 0))
    bad = step(grads, diagonal.at[0, 0, 0, 0].set(jnp.nan))
    assert np.isnan(bad[..., 0]).all()
    assert np.isfinite(bad[..., 1]).all()


def test_adahessian_refuses_axes_that_are_not_there():
    for axes in ({4: (0, 4)}, {4: (-1,)}, {4: [0, 1]}, {4: (0, 0)}, {"4": (0,)}, (0, 1), {2: 0}):
        with pytest.raises(ValueError, match="adahessian: averaged_axes must be a mapping"):
            oa.adahessian(0.1, averaged_axes=axes)
    tx = oa.adahessian(0.1)
    with pytest.raises(ValueError, match=r"gradient at \['a'\] has shape .* its Hessian diagonal"):
        tx.update({"a": jnp.ones(2)}, tx.init({"a": jnp.ones(2)}), hessian_diagonal={"a": 1.0})


# --- stable_adamw ------------------------------------------------------------------------------
def test_stable_adamw_slows_down_where_gradients_outgrow_their_second_moment():
    """The whole leaf and its decay, in that step; until then it is AdamW."""
    start = np.linspace(0.5, 2.0, 8)
    gradients = np.where(np.arange(30)[:, None] % 2, 1.0, -0.5) * np.linspace(1, 2, 8)
    gradients[20, :2] *= 100.0
    options = {"b2": 0.99, "weight_decay": 0.1}
    adamw = trajectory(oa.adamw(1e-3, **options), start, gradients, "float64")
    stable = trajectory(oa.stable_adamw(1e-3, **options), start, gradients, "float64")

    nu, slow = np.zeros(8), []
    for t, g in enumerate(gradients, 1):
        nu = 0.99 * nu + 0.01 * g**2
        ratio = np.sqrt(np.mean(g**2 / np.maximum(nu / (1 - 0.99**t), 1e-16)))
        slow.append(max(1.0, ratio))
    assert slow[0] == pytest.approx(1.0)
    assert slow[20] > 2.0
    assert sum(s == 1.0 for s in slow) > 10
    ours, theirs = (np.diff(path, axis=0, prepend=start[None]) for path in (stable, adamw))
    # Until the spike the two are at almost the same place, so that the decay is the same.
    np.testing.assert_allclose(ours[20], theirs[20] / slow[20], rtol=1e-3)
    patient = oa.stable_adamw(1e-3, clipping_threshold=100.0, **options)
    patient = trajectory(patient, start, gradients, "float64")
    np.testing.assert_allclose(patient, adamw, rtol=1e-12)


@pytest.mark.parametrize("eps", [1e-8, 1e-30])
def test_stable_adamw_measures_against_eps_where_gradients_vanish(eps):
    """eps² is 0 in float32: coordinates that never had a gradient must not divide 0 by it."""
    gradients = np.zeros((5, 3), "float32")
    gradients[:, 0] = [0, 1, -1, 0, 1]
    path = trajectory(oa.stable_adamw(0.1, eps=eps), np.ones(3), gradients)
    exact = np.array(
        list(references.stable_adamw(np.ones(3), gradients.astype(float), 0.1, eps=eps))
    )
    np.testing.assert_allclose(path, exact, rtol=1e-6)


# --- adamod ------------------------------------------------------------------------------------
def first_steps(tx, gradients):
    """The updates of one coordinate, one after the other."""
    return np.diff(trajectory(tx, [0.0], np.reshape(gradients, (-1, 1))).ravel(), prepend=0.0)


def test_adamod_holds_its_rates_below_their_mean():
    """The first step is 1 - b3 of Adam's; a gradient that fades does not raise the rate at once."""
    assert first_steps(oa.adamod(0.1, b3=0.9), [2.0])[0] == pytest.approx(-0.01)
    fading = [1.0] * 50 + [1e-3] * 50
    rates = {"b1": 0.0, "b2": 0.5}
    held = first_steps(oa.adamod(0.1, b3=0.9, **rates), fading) / fading
    free = first_steps(oa.adam(0.1, **rates), fading) / fading
    share = held / free
    assert np.all(share <= 1 + 1e-5)
    assert share[49] == pytest.approx(1, abs=0.01)
    assert share[52:60].max() < 0.7
    assert share[-1] > 0.95  # it grows into the new rate, and no further
    np.testing.assert_allclose(
        first_steps(oa.adamod(0.1, b3=0.0), fading), first_steps(oa.adam(0.1), fading), rtol=1e-3
    )


def test_a_schedule_moves_the_bound_of_adamod():
    """At half the rate the step is half as large at once, where the authors' bound would lag."""
    half = optax.piecewise_constant_schedule(1e-3, {30: 0.5})
    gradients = GRADIENTS.astype("float32")
    moved, fixed = (trajectory(oa.adamod(r, b3=0.9), START, gradients) for r in (half, 1e-3))
    ours, theirs = np.diff(moved, axis=0)[29:], np.diff(fixed, axis=0)[29:]
    np.testing.assert_allclose(ours, 0.5 * theirs, rtol=1e-5, atol=1e-12)


# --- diffgrad ----------------------------------------------------------------------------------
def test_diffgrad_halves_the_step_where_the_gradient_stays():
    tx = oa.diffgrad(0.1)
    np.testing.assert_allclose(first_steps(tx, [50.0, 50.0, 50.0]), [-0.1, -0.05, -0.05], rtol=1e-5)
    jumping = [50.0, 90.0, 50.0, 90.0]
    np.testing.assert_allclose(
        first_steps(tx, jumping), first_steps(oa.adam(0.1), jumping), rtol=1e-5
    )
    between = 1 / (1 + np.exp(-1.5))  # the change is 1.5, in the units of the gradient
    assert first_steps(tx, [50.0, 51.5])[1] == pytest.approx(
        between * first_steps(oa.adam(0.1), [50.0, 51.5])[1], rel=1e-5
    )


# --- padam -------------------------------------------------------------------------------------
def test_padam_adapts_in_part():
    """A gradient 16 times as large makes a step 16^(1 - 2 partial) times as long."""
    for partial, factor in ((0.5, 1), (0.25, 4), (0.125, 8), (0.0, 16)):
        tx = oa.padam(0.1, partial=partial, eps=1e-30)
        small, large = (first_steps(tx, [g, g, -g]) for g in (0.3, 0.3 * 16))
        np.testing.assert_allclose(large, factor * small, rtol=1e-5)


def test_padam_never_forgets():
    giant = [1000.0] + [1.0] * 300
    steps = first_steps(oa.padam(0.1, b2=0.9, partial=0.5), giant)
    assert abs(steps[-1]) < 1e-3
    assert abs(first_steps(oa.adam(0.1, b2=0.9), giant)[-1]) > 0.05


# --- adamp -------------------------------------------------------------------------------------
def directions_alone(p, axis):
    """A loss that knows the direction of every neuron, not its length."""
    neuron = p / jnp.linalg.norm(p, axis=axis, keepdims=True)
    return jnp.sum(neuron * jnp.sin(jnp.arange(p.size)).reshape(p.shape))


@pytest.mark.parametrize("outputs_last", [True, False])
def test_adamp_does_not_lengthen_what_has_no_length(outputs_last):
    """Its steps are at right angles to every neuron, and a tenth of the decay is left."""
    axis, options = (0 if outputs_last else 1), {"outputs_last": outputs_last}
    start = jnp.cos(jnp.arange(48.0)).reshape(8, 6) + 0.1

    def grown(tx):
        p, state = start, tx.init(start)
        for _ in range(30):
            grads = jax.grad(directions_alone)(p, axis)
            updates, state = tx.update(grads, state, p)
            assert jnp.all(jnp.isfinite(updates))
            along = jnp.sum(updates * p, axis) / jnp.linalg.norm(p, axis=axis)
            p = optax.apply_updates(p, updates)
        return jnp.max(jnp.abs(along)), jnp.linalg.norm(p) / jnp.linalg.norm(start)

    (along, length), (adams_along, adams_length) = (
        grown(tx) for tx in (oa.adamp(0.1, **options), oa.adam(0.1))
    )
    assert along < 1e-6
    assert adams_along > 1e-3
    assert 1 < length < 0.9 * adams_length

    grads = jax.grad(directions_alone)(start, axis)
    plain, decayed = (
        tx.update(grads, tx.init(start), start)[0]
        for tx in (oa.adamp(0.1, **options), oa.adamp(0.1, weight_decay=0.5, **options))
    )
    chex.assert_trees_all_close(decayed - plain, -0.1 * 0.5 * 0.1 * start, rtol=1e-4, atol=1e-6)
    # Where the length counts the step is Adam's, and the decay whole.
    free = oa.adamp(0.1, weight_decay=0.5, **options)
    step, _ = free.update(grads + start, free.init(start), start)
    adamw = oa.adamw(0.1, weight_decay=0.5)
    chex.assert_trees_all_close(step, adamw.update(grads + start, adamw.init(start), start)[0])


def test_adamp_with_outputs_first_is_the_transpose():
    start, gradients = problem((6, 4))
    last = trajectory(oa.adamp(0.01, delta=1.5), start, gradients, "float64")
    first = trajectory(
        oa.adamp(0.01, delta=1.5, outputs_last=False),
        start.T,
        gradients.transpose(0, 2, 1),
        "float64",
    )
    np.testing.assert_allclose(first.transpose(0, 2, 1), last, rtol=1e-9)


# --- swats -------------------------------------------------------------------------------------
def test_swats_becomes_sgd_leaf_by_leaf():
    """Steps of a size, then steps in proportion to the gradient; noise alone stays with Adam."""
    tx = oa.swats(0.1, tolerance=1e-4)
    rng = np.random.default_rng(0)
    params = {"still": jnp.zeros(3), "noise": jnp.zeros(3)}
    state, steps = tx.init(params), []
    for size in [1.0] * 5 + [8.0] * 40:
        grads = {"still": jnp.full(3, size), "noise": jnp.asarray(rng.normal(size=3), "float32")}
        updates, state = tx.update(grads, state, params)
        steps.append(updates["still"][0])
    assert state.direction.switched == {"still": 2, "noise": 0}
    assert state.direction.sgd_rate["still"] == pytest.approx(1.0, rel=1e-3)
    np.testing.assert_allclose(steps[:2], -0.1, rtol=1e-4)
    np.testing.assert_allclose(steps[2:5], -0.1 * (1 - 0.9 ** np.arange(1, 4)), rtol=1e-3)
    assert steps[-1] == pytest.approx(-0.8, rel=0.03)


def test_swats_and_adamp_visit_all_their_branches():
    """On the problems of the parity tests, with the options of the cases."""
    for name, branches in (("adamp", {"free", "neurons", "layer"}), ("swats", {"Adam", "SGD"})):
        seen = set()
        for case in (c for c in CASES if c.name == name):
            for shape in case.shapes:
                visits = []
                start, gradients = problem(shape)
                list(
                    getattr(references, name)(
                        start, gradients, case.learning_rate, visits=visits, **case.kwargs
                    )
                )
                seen |= {b for b in branches if visits.count(b) > 3}
        assert seen == branches


def test_swats_at_a_right_angle_finds_no_rate():
    """An all-zero gradient says nothing about SGD: the mean of rates stays as it is."""
    tx = oa.scale_by_swats()
    _, state = tx.update(jnp.ones(2), tx.init(jnp.ones(2)))
    _, after = tx.update(jnp.zeros(2), state)
    chex.assert_trees_all_equal(after.sgd_rate, state.sgd_rate)
    assert after.switched == 0


def test_swats_does_not_switch_to_ascent():
    """Where momentum runs uphill the rate found is negative, and the mean may follow it."""
    tx = oa.scale_by_swats(b2=0.1, tolerance=0.5)
    state = tx.init(jnp.zeros(1))
    for g in (1.0, -0.5):
        _, state = tx.update(jnp.array([g]), state)
    assert state.sgd_rate < 0
    assert state.switched == 0


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


# --- muon, adam_mini and their roles -----------------------------------------------------------
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


def test_adam_mini_takes_one_number_for_a_block():
    """The first step of a block has the shape of its gradient; Adam's is its sign."""
    g = jax.random.normal(jax.random.key(0), (4, 6))
    for role, axes, shape in [
        ("tensor", (0, 1), (1, 1)),
        ("rows", 1, (4, 1)),
        ("neurons", 0, (1, 6)),
        ("rows:2", (), (4, 6)),
    ]:
        tx = oa.scale_by_adam_mini(roles={"*": role})
        step, state = tx.update(g, tx.init(g))
        assert state.nu.shape == shape
        expected = g / jnp.sqrt(jnp.mean(g * g, axes, keepdims=True))
        chex.assert_trees_all_close(step, expected, rtol=1e-5)
    for role, view, axes in [
        ("heads:3", (4, 3, 2), (0, 2)),
        ("row_heads:2", (2, 2, 6), (1, 2)),
    ]:
        tx = oa.scale_by_adam_mini(roles={"*": role})
        step, _ = tx.update(g, tx.init(g))
        blocks = g.reshape(view)
        expected = blocks / jnp.sqrt(jnp.mean(blocks**2, axes, keepdims=True))
        chex.assert_trees_all_close(step, expected.reshape(4, 6), rtol=1e-5)


def shapes(names):
    """A tree of shapes from paths."""
    tree = {}
    for path, shape in names.items():
        *parents, name = path.split("/")
        node = tree
        for key in parents:
            node = node.setdefault(key, {})
        node[name] = jax.ShapeDtypeStruct(shape, jnp.float32)
    return tree


def test_names_tell_roles():
    params = shapes({path: shape for path, (shape, *_) in NAMED.items()})
    for report, which in ((oa.muon_roles, 1), (oa.adam_mini_roles, 2)):
        assert dict(report(params)) == {path: row[which] for path, row in NAMED.items()}


def test_unclear_roles_are_refused_all_at_once():
    params = shapes({"Dense_0/kernel": (4, 3), "Conv_0/kernel": (3, 3, 1, 4), "Dense_0/bias": (3,)})
    tx = oa.muon(0.1)
    match = (
        r"(?s)^muon: which role these leaves play is not clear:\n"
        r"  Conv_0/kernel   \(3, 3, 1, 4\) .*\n  Dense_0/kernel  \(4, 3\) .*\n"
        r'.*roles=\{"Conv_0/kernel": \.\.\., "Dense_0/kernel": \.\.\.\}\nwith\n'
        r'  "adam"  .*  "matrix"  .*'
    )
    with pytest.raises(ValueError, match=match):
        tx.init(params)
    zeros = jax.tree.map(lambda s: jnp.zeros(s.shape), params)
    said = oa.muon(0.1, roles={"Conv*": "conv", "Dense_0/kernel": "adam"})
    with pytest.raises(ValueError, match=r"(?s)^muon: which role these leaves"):
        tx.update(zeros, said.init(params), zeros)
    with pytest.raises(ValueError, match=r"(?s)^adam_mini: which role this leaf plays .*heads"):
        oa.adam_mini(0.1).init(shapes({"attn/query/kernel": (4, 4)}))


def test_roles_as_users_say_them():
    params = shapes({"a/kernel": (4, 3), "b/kernel": (3, 2), "b/bias": (2,)})
    by_function = oa.muon_roles(params, lambda path, _: {"a/kernel": "matrix"}.get(path, "adam"))
    by_pattern = oa.muon_roles(params, {"a/*": "matrix", "b/kernel": "adam"})
    assert dict(by_function) == dict(by_pattern)
    assert dict(by_pattern) == {"a/kernel": "matrix", "b/kernel": "adam", "b/bias": "adam"}
    assert str(by_pattern).splitlines() == [
        "  path      shape   role    why",
        "  a/kernel  (4, 3)  matrix  roles['a/*']",
        "  b/bias    (2,)    adam    named bias",
        "  b/kernel  (3, 2)  adam    roles['b/kernel']",
    ]

    def refused(roles, match):
        with pytest.raises(ValueError, match=rf"(?s)^muon: {match}"):
            oa.muon(0.1, roles=roles).init(params)

    refused({"*/kernel": "matrix", "b/*": "adam"}, r"roles contradict each other at\n  b/kernel ")
    refused(
        {"*/kernel": "matrix", "c/*": "adam"}, r"no leaf matches roles\['c/\*'\]; there are.*b/"
    )
    refused({"*": "matrix"}, r'a leaf of role "matrix" is \(in, out\); b/bias has shape \(2,\) ')
    refused({"*": "matrx"}, r"roles\['\*'\] must be one of.*got 'matrx'")
    refused({"*": "stack:2"}, r"roles\['\*'\] must be one of.*got 'stack:2'")
    refused(lambda path, shape: 3, r"roles\('a/kernel', \(4, 3\)\) must be one of.*got 3")


def test_paths_of_all_kinds_of_trees():
    class Layer(NamedTuple):
        query: jax.Array
        value: jax.Array

    kernel = jnp.ones((2, 2))
    params = {"attention": [Layer(kernel, kernel)], "c": {"kernel": 1j * kernel[0]}}
    assert list(oa.muon_roles(params)) == ["attention/0/query", "attention/0/value", "c/kernel"]
    assert oa.muon_roles(params)["c/kernel"] is None  # two axes, as it is seen
    assert list(oa.muon_roles(kernel)) == [""]

    model = nnx.MultiHeadAttention(2, 4, rngs=nnx.Rngs(0), decode=False)
    state = nnx.state({"attn": model}, nnx.Param)
    assert oa.adam_mini_roles(state)["attn/value/kernel"] == "neurons:2"
    assert oa.adam_mini_roles(state)["attn/key/kernel"] == "heads"
    boxed = {"Dense_0": {"kernel": nn.Partitioned(kernel, ("x", None))}}
    assert oa.adam_mini_roles(boxed)["Dense_0/kernel"] == "neurons"


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
