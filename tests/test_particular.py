"""What is particular to one algorithm."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import references
from cases import CASES, problem
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
NAMES += ["adabelief", "adan", "laprop", "adopt", "ademamix", "qhadam", "adam_atan2", "adamod"]
NAMES += ["diffgrad", "padam"]  # not yogi, whose mean starts on one side of 0
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
def test_adamod_holds_its_rates_below_their_mean():
    """The first step is 1 - b3 of Adam's; a gradient that fades does not raise the rate at once."""
    assert walk(oa.adamod(0.1, b3=0.9), [2.0])[0] == pytest.approx(-0.01)
    fading = [1.0] * 50 + [1e-3] * 50
    rates = {"b1": 0.0, "b2": 0.5}
    held = walk(oa.adamod(0.1, b3=0.9, **rates), fading) / fading
    free = walk(oa.adam(0.1, **rates), fading) / fading
    share = held / free
    assert np.all(share <= 1 + 1e-5)
    assert share[49] == pytest.approx(1, abs=0.01)
    assert share[52:60].max() < 0.7
    assert share[-1] > 0.95  # it grows into the new rate, and no further
    np.testing.assert_allclose(
        walk(oa.adamod(0.1, b3=0.0), fading), walk(oa.adam(0.1), fading), rtol=1e-3
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
    np.testing.assert_allclose(walk(tx, [50.0, 50.0, 50.0]), [-0.1, -0.05, -0.05], rtol=1e-5)
    jumping = [50.0, 90.0, 50.0, 90.0]
    np.testing.assert_allclose(walk(tx, jumping), walk(oa.adam(0.1), jumping), rtol=1e-5)
    between = 1 / (1 + np.exp(-1.5))  # the change is 1.5, in the units of the gradient
    assert walk(tx, [50.0, 51.5])[1] == pytest.approx(
        between * walk(oa.adam(0.1), [50.0, 51.5])[1], rel=1e-5
    )


# --- padam -------------------------------------------------------------------------------------
def test_padam_adapts_in_part():
    """A gradient 16 times as large makes a step 16^(1 - 2 partial) times as long."""
    for partial, factor in ((0.5, 1), (0.25, 4), (0.125, 8), (0.0, 16)):
        tx = oa.padam(0.1, partial=partial, eps=1e-30)
        small, large = (walk(tx, [g, g, -g]) for g in (0.3, 0.3 * 16))
        np.testing.assert_allclose(large, factor * small, rtol=1e-5)


def test_padam_never_forgets():
    giant = [1000.0] + [1.0] * 300
    steps = walk(oa.padam(0.1, b2=0.9, partial=0.5), giant)
    assert abs(steps[-1]) < 1e-3
    assert abs(walk(oa.adam(0.1, b2=0.9), giant)[-1]) > 0.05


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


# --- prodigy ----------------------------------------------------------------------------------
def test_prodigy_finds_the_rate():
    """Far from the solution d grows by decades, and to about the distance; Adam's rate stays."""
    for distance in (1.0, 1e3):
        tx, x = oa.prodigy(), jnp.zeros(4)
        state, update = tx.init(x), jax.jit(tx.update)
        for _ in range(300):
            updates, state = update(x - distance, state, x)
            x = x + updates
        assert 0.1 * distance < state.direction.distance < 10 * distance
        np.testing.assert_allclose(x, distance, rtol=0.3)


def test_prodigy_of_a_slice_keeps_less_and_finds_as_much():
    x = jnp.linspace(1.0, 2.0, 110).reshape(10, 11)
    full, part = (optax.tree.get(run_prodigy(x, p), "distance") for p in (None, 11))
    assert run_prodigy(x, 11).direction.grad_sum.shape == (10,)
    assert float(part) == pytest.approx(float(full), rel=0.5)


def run_prodigy(x, slice_p):
    tx = oa.prodigy(slice_p=slice_p)
    state, update = tx.init(x), jax.jit(tx.update)
    for _ in range(100):
        updates, state = update(x, state, x)
        x = x + updates
    return state


# --- dog, ldog, dowg --------------------------------------------------------------------------
def test_dog_steps_by_distance_over_gradients():
    """Its step follows the gradient, its length the distance, not the size of the gradients."""
    for size in (1e-2, 1.0, 1e3):
        tx, x = oa.dog(reps_rel=0.1, eps=0.0), jnp.array([3.0, 4.0])
        g = size * jnp.array([0.6, 0.8])
        u, state = tx.update(g, tx.init(x), x)
        np.testing.assert_allclose(u, -0.6 * g / size, rtol=1e-6)  # 0.1 (1 + |x|)
        u, state = tx.update(g, state, x + jnp.array([0.0, 20.0]))
        np.testing.assert_allclose(u, -20 / 2**0.5 * g / size, rtol=1e-5)
        u, state = tx.update(2 * g, state, x)  # the distance was larger once
        np.testing.assert_allclose(u, -20 / 6**0.5 * 2 * g / size, rtol=1e-5)


def test_dog_grows_from_a_tiny_step():
    """By orders of magnitude, whatever the gradients' size; a rate of its own cannot do that."""
    for distance in (1.0, 1e3):
        tx, x = oa.dog(), jnp.zeros(4)
        state, update = tx.init(x), jax.jit(tx.update)
        for _ in range(1000):
            updates, state = update(1e-2 * (x - distance), state, x)
            x = x + updates
        assert 0.5 * distance < state.direction.distance < 4 * distance


@pytest.mark.parametrize("kwargs", [{"reps_rel": 1e-2}, {"init_eta": 1e-2}])
def test_the_first_gradients_of_zeros_are_no_steps_of_dog(kwargs):
    """Nor a decay at the rate distance / sqrt(eps); and then init_eta still holds."""
    x = jnp.ones(3)
    for make in (oa.dog, oa.ldog):
        tx = make(**kwargs, weight_decay=0.5)
        state = tx.init(x)
        for _ in range(2):
            updates, state = tx.update(jnp.zeros(3), state, x)
            np.testing.assert_array_equal(updates, 0)
        updates, state = tx.update(x, state, x)
        fresh, _ = tx.update(x, tx.init(x), x)
        chex.assert_trees_all_equal(updates, fresh)
        if "init_eta" in kwargs:
            np.testing.assert_allclose(updates, -0.015, rtol=1e-6)


def test_init_eta_is_not_times_the_learning_rate():
    """A warm-up from 0 could otherwise never start."""
    tx, x = oa.dog(lambda step: 0.1 * step, init_eta=0.01), jnp.ones(2)
    updates, state = tx.update(x, tx.init(x), x)
    np.testing.assert_allclose(updates, -0.01, rtol=1e-6)
    updates, _ = tx.update(x, state, x + updates)
    assert np.all(updates < 0)


@pytest.mark.parametrize("kwargs", [{"reps_rel": 1e-2}, {"init_eta": 1e-3}])
def test_ldog_is_dog_in_every_leaf(kwargs):
    """Also where one has no gradient at first, and one a gradient that is not finite."""
    kwargs |= {"weight_decay": 0.1}
    params = {
        "a": jnp.ones(3),
        "late": jnp.full(2, 5.0),
        "bad": jnp.ones((2, 2)),
        "c": jnp.ones(()),
    }
    tx, one = oa.ldog(**kwargs), oa.dog(**kwargs)
    state, alone = tx.init(params), {k: one.init(p) for k, p in params.items()}
    update, update_one = jax.jit(tx.update), jax.jit(one.update)
    for step in range(6):
        grads = {k: (1 + step) * p for k, p in params.items()}
        grads["late"] = grads["late"] * (step > 2)
        grads["bad"] = grads["bad"].at[0, 1].set(jnp.inf if step == 3 else 1.0)
        updates, state = update(grads, state, params)
        for name, p in params.items():
            u, alone[name] = update_one(grads[name], alone[name], p)
            chex.assert_trees_all_close(updates[name], u, rtol=1e-6)
            for field in state.direction._fields:
                mine = getattr(state.direction, field)[name]
                chex.assert_trees_all_close(mine, getattr(alone[name].direction, field), rtol=1e-6)
        chex.assert_tree_all_finite(state)
        # What the bad gradient shows is not stepped on.
        params = jax.tree.map(lambda p, u: p + jnp.where(jnp.isfinite(u), u, 0), params, updates)
    rates = [float(r) for r in jax.tree.leaves(state.direction.effective_lr)]
    assert len(set(rates)) >= 3


def test_dowg_weighs_gradients_by_the_distance():
    """Those of the start hardly count later: there its rate is larger than that of DoG."""
    x, g = jnp.zeros(2), jnp.array([0.0, 10.0])
    away = jnp.array([3.0, 0.0])
    tx = oa.dowg(init_estim_sq_dist=1e-4, eps=1e-8)
    u, state = tx.update(100 * g, tx.init(x), x)
    np.testing.assert_allclose(u, [0.0, -0.01], rtol=1e-5)
    u, state = tx.update(g, state, away)
    np.testing.assert_allclose(u, [0.0, -90 / (10**2 + 30**2) ** 0.5], rtol=1e-5)
    dog = oa.dog(init_eta=1e-5, eps=0.0)
    _, state = dog.update(100 * g, dog.init(x), x)
    slow, _ = dog.update(g, state, away)
    np.testing.assert_allclose(slow, [0.0, -30 / (1000**2 + 10**2) ** 0.5], rtol=1e-5)


def test_a_first_gradient_of_zeros_is_no_step_of_dowg():
    tx, x = oa.dowg(weight_decay=0.5), jnp.ones(3)
    updates, state = tx.update(jnp.zeros(3), tx.init(x), x)
    np.testing.assert_array_equal(updates, 0)
    assert state.direction.effective_lr == 0


# --- dadapt -----------------------------------------------------------------------------------
DADAPT = ("dadapt_sgd", "dadapt_adagrad", "dadapt_adam")


def run_dadapt(tx, distance, steps):
    """On half the squared distance to `distance`, from 0: the parameters and the state."""
    x = jnp.zeros(4)
    state, update = tx.init(x), jax.jit(tx.update)
    for _ in range(steps):
        updates, state = update(x - distance, state, x)
        x = x + updates
    return x, state.direction


def test_dadapt_sgd_is_dual_averaging_at_the_rate_it_finds():
    """The parameters are the start less the weighted sum of all gradients; d finds its size."""
    for distance in (1.0, 1e3):
        x, state = run_dadapt(oa.dadapt_sgd(), distance, 100)
        np.testing.assert_allclose(x, -state.grad_sum, rtol=1e-5)
        # The norm over all four coordinates, of which 0.4 are found for certain.
        assert 0.2 * 2 * distance < state.distance < 2 * distance
        np.testing.assert_allclose(x, distance, rtol=0.1)


def test_dadapt_adagrad_returns_to_the_start():
    """Where gradients cancel, the sum of their parts is what counts, not the way gone."""
    tx, x = oa.dadapt_adagrad(d0=0.1), jnp.full(2, 5.0)
    state, update = tx.init(x), jax.jit(tx.update)
    for g in ([1.0, -2.0], [-1.0, 2.0]):
        updates, state = update(jnp.array(g), state, x)
        moved, x = x, x + updates
    assert np.all(abs(moved - 5.0) > 0.05)
    np.testing.assert_allclose(x, 5.0, rtol=1e-6)
    for distance in (1.0, 1e3):
        _, direction = run_dadapt(oa.dadapt_adagrad(), distance, 1000)
        assert 0.05 * distance < direction.distance < distance


def test_dadapt_adam_finds_the_rate():
    """By decades, whatever the distance is; Adam's rate stays."""
    for distance in (1.0, 1e3):
        x, state = run_dadapt(oa.dadapt_adam(), distance, 600)
        assert 0.1 * distance < state.distance < 10 * distance
        np.testing.assert_allclose(x, distance, rtol=0.1)


@pytest.mark.parametrize("name", DADAPT)
def test_the_estimate_of_dadapt_rests_at_the_rate_0(name):
    """Its bound does, too: while nothing moves nothing is learnt."""

    def schedule(step):
        return jnp.where((step >= 20) & (step < 40), 0.0, 1.0)

    tx, x = getattr(oa, name)(schedule, growth_rate=1.1), jnp.zeros(4)
    state, update = tx.init(x), jax.jit(tx.update)
    distances = []
    for _ in range(60):
        updates, state = update(x - 1.0, state, x)
        x = x + updates
        distances.append(float(state.direction.distance))
    assert len(set(distances[19:40])) == 1
    assert distances[0] < distances[19] < distances[59]


@pytest.mark.parametrize("name", DADAPT)
def test_dadapt_takes_nothing_of_a_bad_gradient(name):
    """Not of its good coordinates either, which made no step."""
    tx, x = getattr(oa, name)(), jnp.ones(3)
    _, state = jax.jit(tx.update)(x, tx.init(x), x)
    _, after = jax.jit(tx.update)(jnp.array([1.0, jnp.nan, 1.0]), state, x)
    if name != "dadapt_adam":  # whose means fade
        np.testing.assert_array_equal(after.direction.grad_sum, state.direction.grad_sum)
    assert np.ptp(after.direction.grad_sum) == 0


def test_dadapt_adam_coasts_to_a_halt_at_the_rate_0():
    """And a warm-up from 0 begins where the rate does: its first gradient is not seen."""
    tx, x = oa.dadapt_adam(lambda step: jnp.where(step == 1, 1.0, 0.0)), jnp.ones(3)
    fresh = state = tx.init(x)
    update = jax.jit(tx.update)
    _, state = update(x, state, x)
    np.testing.assert_array_equal(state.direction.nu, fresh.direction.nu)
    assert state.direction.count == 0
    steps = []
    for _ in range(3):
        updates, state = update(x, state, x)
        steps.append(float(-updates[0]))
    assert steps[0] > steps[1] > steps[2] > 0


# --- cocob ------------------------------------------------------------------------------------
def run_cocob(gradients, **kwargs):
    tx, x, path = oa.cocob(**kwargs), jnp.zeros(()), []
    state = tx.init(x)
    for g in gradients:
        updates, state = tx.update(jnp.asarray(g), state, x)
        x = x + updates
        path.append(float(x))
    return np.diff(path, prepend=0)


def test_cocob_bets_more_the_longer_it_wins():
    """Where the gradient keeps its sign steps grow exponentially; where it turns they do not."""
    steady = run_cocob([1.0] * 40, alpha=5.0)
    assert np.all(steady < 0)
    assert steady[-1] < 1e3 * steady[0]
    alternating = run_cocob([1.0, -1.0] * 20, alpha=5.0)
    assert max(abs(alternating)) < 0.2001


def test_the_rate_of_cocob_is_its_first_wealth():
    """It multiplies every distance; the size of gradients, beyond eps, nothing."""
    gradients = np.cos(np.arange(30.0))
    plain = run_cocob(gradients)
    np.testing.assert_allclose(run_cocob(gradients, learning_rate=7.0), 7 * plain, rtol=1e-4)
    np.testing.assert_allclose(run_cocob(100 * gradients), plain, rtol=1e-4)


def test_a_bad_gradient_leaves_its_coordinate_of_cocob_as_it_was():
    """And the others, of the same array, bet on."""
    tx, x = oa.cocob(), jnp.zeros(2)
    update = jax.jit(tx.update)
    updates, state = update(jnp.ones(2), tx.init(x), x)
    second, after = update(jnp.array([jnp.nan, 1.0]), state, updates)
    assert np.isnan(second[0])
    assert second[1] < 0
    for old, new in zip(state.direction, after.direction, strict=True):
        assert old[0] == new[0]
    assert after.direction.sum_abs[1] == 2


def test_cocob_rounds_off_where_it_is_and_not_its_way():
    """Steps are below what bfloat16 resolves; the parameters are where they would be, rounded."""
    reached = []
    for dtype in ("float32", "bfloat16"):
        tx, x = oa.cocob(alpha=1000.0), jnp.ones((), dtype)
        state, update = tx.init(x), jax.jit(tx.update)
        for _ in range(50):
            updates, state = update(jnp.ones((), dtype), state, x)
            x = optax.apply_updates(x, updates)
        reached.append(float(x))
    assert reached[0] < 0.97
    assert reached[1] == pytest.approx(reached[0], abs=2**-8)


# --- momo, momo_adam --------------------------------------------------------------------------
def test_momo_is_the_polyak_step_without_momentum():
    """x - (f - lower bound) / |g|² g, but no longer than the learning rate."""
    x = {"a": jnp.array([1.0, -2.0]), "b": jnp.array([3.0])}
    grads = jax.tree.map(lambda p: 2 * p, x)
    for rate, tau in ((1.0, (14.0 - 2.0) / 56.0), (0.1, 0.1)):
        tx = oa.momo(rate, beta=0.0, lower_bound=2.0)
        updates, state = tx.update(grads, tx.init(x), x, value=14.0)
        chex.assert_trees_all_close(updates, jax.tree.map(lambda g: -tau * g, grads), rtol=1e-5)  # noqa: B023
        assert optax.tree.get(state, "effective_lr") == pytest.approx(tau, rel=1e-5)


def test_momo_brings_its_model_to_the_bound():
    """With momentum, decay of some leaves, and Adam's scale: after the step the mean of tangents is
    the lower bound, whatever the decay has done to it."""
    params = {"a": jnp.array([0.7, -0.3]), "b": jnp.array([0.5, 2.0])}
    for make in (oa.momo, oa.momo_adam):
        for mask in ({"a": True, "b": False}, lambda p: {"a": p["a"][0] is None, "b": True}, None):
            tx, x = make(1e3, weight_decay=1e-4, lower_bound=0.1, mask=mask), params
            state, tangents = tx.init(x), []
            for step in range(4):
                value, grads = 3.0 + step, jax.tree.map(lambda p, k=step: p + jnp.sin(k + p), x)
                tangents.append((value, grads, x))
                updates, state = tx.update(grads, state, x, value=value)
                x = optax.apply_updates(x, updates)
            weights = 0.9 ** np.arange(3, -1, -1.0) * ([1, 0.1, 0.1, 0.1] if make is oa.momo else 1)
            model = [f + optax.tree.vdot(g, optax.tree.sub(x, y)) for f, g, y in tangents]
            assert state.direction.effective_lr < 1e3
            assert np.average(model, weights=weights) == pytest.approx(0.1, abs=2e-4)


def test_momo_follows_a_bound_it_was_not_told():
    """The lowest loss is 5; a step that hopes for 0 overshoots, and the estimate comes near."""
    lowest = {}
    for adapts in (False, True):
        tx, x = oa.momo(10.0, beta=0.0, adapt_lower_bound=adapts), jnp.array([3.0, 1.0])
        state, update, h = tx.init(x), jax.jit(tx.update), jnp.array([1.0, 0.2])
        for _ in range(200):
            updates, state = update(2 * h * x, state, x, value=jnp.sum(h * x * x) + 5)
            x = x + updates
        lowest[adapts] = float(state.direction.lowest), float(jnp.sum(h * x * x))
    assert lowest[False][0] == 0
    assert lowest[True][0] == pytest.approx(5, abs=0.1)
    assert lowest[True][1] < 1e-2 < lowest[False][1]


def test_a_bad_step_of_momo_enters_nothing():
    """Neither a gradient nor a loss that is not finite; a loss that is NaN shows everywhere."""
    x = jnp.array([1.0, 2.0])
    for make in (oa.momo, oa.momo_adam):
        tx = make()
        update = jax.jit(tx.update)
        _, state = update(x, tx.init(x), x, value=1.0)
        updates, after = update(jnp.array([jnp.nan, 1.0]), state, x, value=1.0)
        assert np.isnan(updates[0])
        assert updates[1] == 0
        chex.assert_trees_all_equal(after.direction, state.direction)
        updates, after = update(x, state, x, value=jnp.nan)
        assert np.all(np.isnan(updates))
        chex.assert_trees_all_equal(after.direction, state.direction)


def test_momo_adam_is_adam_until_the_loss_is_small():
    x = jnp.array([1.0, -2.0, 0.5])
    for value, same in ((1e3, True), (1e-3, False)):
        trained = []
        for tx in (oa.momo_adam(0.1, weight_decay=None), oa.adam(0.1)):
            params, state = x, tx.init(x)
            for _ in range(3):
                updates, state = tx.update(jnp.cos(params), state, params, value=value)
                params = params + updates
            trained.append(params)
        assert np.allclose(*trained, rtol=1e-5) is same
