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
