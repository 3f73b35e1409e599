"""Every wrapper around every kind of optimizer: it changes what it should, and nothing else.

The wrapped optimizers are those of tests/cases.py; a wrapper, or an option of it, is a row here.
"""

import functools
import inspect
import pickle
import re
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import optax.contrib
import pytest
import references
from cases import KINDS, problem
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P
from references import wrappers as papers
from runs import deviation, enable_x64, temporaries, trajectory

import optax_adaptive as oa


class Wrapper(NamedTuple):
    """A wrapper with its arguments."""

    name: str
    kwargs: dict

    @property
    def id(self):
        options = ", ".join(f"{k}={getattr(v, '__name__', v)}" for k, v in self.kwargs.items())
        return f"{self.name}({options})"

    def around(self, tx) -> Any:
        return getattr(oa, self.name)(tx, **self.kwargs)


# What they do to gradients.
BEFORE = [
    Wrapper("mars", {}),
    Wrapper("mars", {"gamma": 0.5, "b1": 0.8, "max_norm": 30.0}),
    Wrapper("grokfast", {}),
    Wrapper("grokfast", {"alpha": 0.7, "lamb": 0.5}),
    Wrapper("grokfast_ma", {"window": 5}),
    Wrapper("grokfast_ma", {"window": 7, "lamb": 0.5, "warmup": False}),
]
# What they do to updates.
BEHIND = [
    Wrapper("cautious", {}),
    Wrapper("cautious", {"descends": False}),
    Wrapper("clip_update_rms", {"max_rms": 1e-4}),
    Wrapper("clip_update_rms", {}),
]
# What they keep beside: updates are those of the wrapped.
BESIDE = [
    Wrapper("polynomial_averaging", {}),
    Wrapper("polynomial_averaging", {"gamma": 1.5}),
    Wrapper("exponential_averaging", {}),
    Wrapper("exponential_averaging", {"decay": 0.7, "start": 5}),
]
# When they let it step: of every gradient it is the optimizer itself.
PACING = [Wrapper("accumulate", {"every": 1})]
# What they do to the rate.
TUNING = [
    Wrapper("mechanize", {}),
    Wrapper("mechanize", {"weight_decay": 0.5, "eps": 1e-4, "s_init": 1e-2, "num_betas": 3}),
]
# What they store, of the state and of narrow parameters: around float32 and small arrays, nothing.
STORING = [
    Wrapper("with_state_dtype", {"nu": jnp.bfloat16, "rounding": "nearest"}),
    Wrapper("with_quantized_state", {}),
    Wrapper("stochastic_rounding", {}),
    Wrapper("kahan", {}),
    Wrapper("master_weights", {}),
]
# What they watch over: steps of usual gradients are those of the wrapped.
WATCHING = [Wrapper("guard", {"skip_above": 1e3}), Wrapper("monitor", {})]


# What they do to some leaves: here all are in the last layer.
def third(path):
    """The layer of every leaf."""
    return 3


LAYERS = [Wrapper("layerwise_decay", {"decay": 0.9, "layers": third})]
EVERY = [BEFORE[0], BEFORE[2], BEFORE[4], BEHIND[0], BEHIND[2], BESIDE[0], BESIDE[2]]
EVERY += [TUNING[0], PACING[0], *STORING, *WATCHING, *LAYERS]


def fields(tx):
    """The names of the fields of its state, and of those within it."""
    paths = jax.tree.leaves_with_path(tx.init({"w": jnp.ones((4, 4))}))
    return {getattr(key, "name", None) for path, _ in paths for key in path}


every_kind = pytest.mark.parametrize("case", KINDS, ids=lambda c: c.id)
every_wrapper = pytest.mark.parametrize("wrapper", EVERY, ids=lambda w: w.id)


def around(wrappers):
    """Each wrapper around every kind of optimizer; with other options around one with a decay."""
    pairs = [(w, c) for w in wrappers for c in KINDS if w in EVERY or c.name == "adamw"]
    ids = [f"{w.id}-{c.id}" for w, c in pairs]
    return pytest.mark.parametrize(("wrapper", "case"), pairs, ids=ids)


@around(BEFORE)
def test_the_paper_before(case, wrapper):
    """Around an optimizer it is that optimizer on other gradients; and those are others."""
    start, gradients = case.problem(case.shapes[0])
    changed = list(getattr(papers, wrapper.name)(gradients, **wrapper.kwargs))
    ours = trajectory(wrapper.around(case.make()), start, gradients, "float64")
    paper = case.reference(start, changed)
    assert deviation(ours, paper, start) < 10 * case.float64
    assert deviation(ours, case.reference(start, gradients), start) > 1e-6


@around(BEHIND)
def test_the_paper_behind(case, wrapper):
    """Around an optimizer it is that optimizer, its updates changed."""
    start, gradients = case.problem(case.shapes[0])
    with enable_x64(True):
        tx = case.make()
        ours, params = wrapper.around(tx), jnp.asarray(start)
        update, wrapped_update = jax.jit(ours.update), jax.jit(tx.update)
        state, wrapped_state = ours.init(params), tx.init(params)
        touched = 0
        for g in gradients[:20]:
            updates, state = update(jnp.asarray(g), state, params)
            u, wrapped_state = wrapped_update(jnp.asarray(g), wrapped_state, params)
            expected = changed(wrapper, g, np.asarray(u))
            np.testing.assert_allclose(updates, expected, rtol=1e-12, atol=1e-300)
            touched += not np.allclose(expected, u, rtol=1e-3, atol=0)
            params = params + updates
        chex.assert_trees_all_close(state, wrapped_state, rtol=1e-12)
        assert touched or wrapper.id in ("cautious()", "clip_update_rms()")


@around(BESIDE)
def test_the_paper_beside(case, wrapper):
    """The path is that of the optimizer alone, and the average is that of the path."""
    start, gradients = case.problem(case.shapes[0])
    path = case.reference(start, gradients)
    ours = trajectory(wrapper.around(case.make()), start, gradients, "float64")
    paper = start + list(getattr(papers, wrapper.name)(path - start, **wrapper.kwargs))
    # A mean of parameters is known to their own rounding, of steps however small.
    error = 10 * case.float64 * abs(path - start).max(axis=0) + 2e-15 * abs(path).max(axis=0)
    assert np.all(abs(ours - paper) < error)
    assert deviation(ours, path, start) > 1e-6


def changed(wrapper, g, u):
    """What a wrapper makes of the update u, in NumPy."""
    if wrapper.name == "clip_update_rms":
        size = np.sqrt(np.mean(u**2))
        return u * min(1.0, wrapper.kwargs.get("max_rms", 1.0) / size) if size > 0 else u
    agree = np.sign(u) * np.sign(g) == (-1 if wrapper.kwargs.get("descends", True) else 1)
    return np.where(agree, u, 0.0) / max(np.mean(agree), 1e-3)


@pytest.mark.parametrize("wrapper", TUNING, ids=lambda w: w.id)
@pytest.mark.parametrize("shape", [(8,), (6, 4)])
@pytest.mark.parametrize("name", ["sgd", "adam"])
def test_the_paper_and_optax_tune(name, shape, wrapper):
    """The updates of these do not depend on the parameters, so that they are known beforehand."""
    start, gradients = problem(shape, turns=True)
    alone = np.array(list(getattr(references, name)(start, gradients, learning_rate=1.0)))
    updates = np.diff(alone, axis=0, prepend=start[None])
    tx = getattr(oa, name)(1.0)
    ours = trajectory(wrapper.around(tx), start, gradients, "float64")
    paper = np.array(list(references.mechanize(start, gradients, updates, **wrapper.kwargs)))
    theirs = optax.contrib.mechanize(tx, **wrapper.kwargs)
    theirs = trajectory(theirs, start, gradients, "float64")
    # The first steps are of 1e-6, which parameters of 1 round off at 1e-10.
    tolerance = 1e-12 if wrapper.kwargs else 1e-8
    assert deviation(ours, paper, start) < tolerance
    assert deviation(ours, theirs, start) < tolerance
    for option in wrapper.kwargs:
        kwargs = {k: v for k, v in wrapper.kwargs.items() if k != option}
        other = np.array(list(references.mechanize(start, gradients, updates, **kwargs)))
        assert deviation(other, paper, start) > 1e-4


@pytest.mark.parametrize(
    ("wrapper", "case"),
    [
        (w, c)
        for i, w in enumerate(EVERY)
        for j, c in enumerate(KINDS)
        if i % 2 == j % 2 and (w is not STORING[0] or "nu" in fields(c.make()))
    ],
    ids=lambda x: x.id,
)
def test_what_every_optimizer_promises(case, wrapper):
    """State is a fixed point, gradients of any size are survived, NaN is visible, or guarded."""
    tx = wrapper.around(case.make(weight_decay=0.01))
    for dtype, gradient in (("bfloat16", "float32"), ("float32", "float16")):
        params = {"w": jnp.ones((2, 3), dtype), "b": jnp.zeros((), dtype), "none": None}
        grads = {"w": jnp.ones((2, 3), gradient), "b": jnp.zeros((), gradient), "none": None}
        state = tx.init(params)
        updates, new_state = jax.eval_shape(tx.update, grads, state, params)
        chex.assert_trees_all_equal_shapes_and_dtypes(new_state, state)
        chex.assert_trees_all_equal_shapes_and_dtypes(updates, grads)
        abstract = jax.tree.map(lambda p: jax.ShapeDtypeStruct(p.shape, p.dtype), params)
        chex.assert_trees_all_equal_shapes_and_dtypes(tx.init(abstract), state)

    params = {"a": jnp.linspace(0.5, 1.5, 6).reshape(2, 3), "b": jnp.ones(3)}
    update, state = jax.jit(tx.update), tx.init(params)
    for size in (0.0, 1e-30, 1e20):
        _, state = update(jax.tree.map(lambda p: p * size, params), state, params)  # noqa: B023
    # The last measurement tells of what it met.
    chex.assert_tree_all_finite(state.inner if wrapper in WATCHING else state)
    _, after = update(params, state, params)
    bad = params | {"a": params["a"].at[0, 1].set(jnp.nan)}
    updates, _ = update(bad, after, params)
    assert bool(np.isfinite(updates["a"][0, 1])) is (wrapper.name == "guard")
    assert np.all(np.isfinite(updates["b"]))


@every_wrapper
def test_composition(wrapper, tmp_path):
    """In chains, masks, partitions and inside another wrapper; pickled; looked into by name."""
    params = {"a": jnp.linspace(0.5, 1.5, 6).reshape(2, 3), "b": jnp.ones(3)}
    grads = jax.tree.map(lambda p: 2 * p - 1.5, params)
    tx = wrapper.around(oa.adamw(0.1))

    def second(tx):
        _, state = tx.update(grads, tx.init(params), params)
        return tx.update(jax.tree.map(jnp.negative, grads), state, params)

    alone, state = second(tx)
    _, before = tx.update(grads, tx.init(params), params)
    compiled, _ = jax.jit(tx.update)(jax.tree.map(jnp.negative, grads), before, params)
    chex.assert_trees_all_close(compiled, alone, rtol=1e-5)
    chex.assert_trees_all_close(second(optax.chain(optax.identity(), tx))[0], alone)
    masked, _ = second(optax.masked(tx, {"a": True, "b": False}))
    chex.assert_trees_all_close(masked["a"], alone["a"])
    parts, _ = second(optax.partition({"x": tx, "y": tx}, {"a": "x", "b": "y"}))
    chex.assert_trees_all_close(parts, alone)
    nobody, _ = tx.update({}, tx.init({}), {})
    assert nobody == {}
    twice, _ = second(wrapper.around(tx))
    chex.assert_trees_all_equal_shapes_and_dtypes(twice, alone)
    chex.assert_trees_all_equal(pickle.loads(pickle.dumps(jax.device_get(state))), state)
    counts = ("count",) if wrapper in TUNING else ("count", "step")  # these have a `step`, too
    for name in ("mu", "nu", *counts):
        assert optax.tree.get(state, name) is not None
    marked = optax.tree.map_params(
        tx, lambda _: "array", state, transform_non_params=lambda _: "count"
    )
    numbers = [x for x in jax.tree.leaves(state) if x.shape in ((), (6,))]  # 6 betas
    totals = wrapper.name == "monitor"
    assert jax.tree.leaves(marked).count("count") == len(numbers) + totals

    multi = optax.MultiSteps(tx, 2)
    state = multi.init(params)
    for _ in range(2):
        updates, state = jax.jit(multi.update)(grads, state, params)
    chex.assert_trees_all_close(updates, tx.update(grads, tx.init(params), params)[0], rtol=1e-5)


@every_wrapper
def test_state_is_sharded_as_the_parameters(wrapper):
    mesh = jax.make_mesh((8,), ("x",))
    sharding = NamedSharding(mesh, P("x", None))
    params = jax.device_put(jnp.ones((16, 4)), sharding)
    tx = wrapper.around(oa.adam(0.1))
    for init in (tx.init, jax.jit(tx.init)):
        state = init(params)
        for leaf in jax.tree.leaves(state):
            if leaf.shape == (16, 4):
                assert leaf.sharding.is_equivalent_to(sharding, 2)
            elif leaf.ndim == 3:
                assert leaf.sharding.shard_shape(leaf.shape)[1:] == (2, 4)
        updates, _ = jax.jit(tx.update)(params, state, params)
        assert updates.sharding.is_equivalent_to(sharding, 2)


@every_wrapper
def test_a_state_can_be_donated(wrapper):
    """Also one that was made without jit: no array is in it twice."""
    state = wrapper.around(oa.adamw(0.1)).init({"a": jnp.ones((20, 24)), "b": jnp.ones(3)})
    arrays = [x.unsafe_buffer_pointer() for x in jax.tree.leaves(state)]
    assert len(set(arrays)) == len(arrays)


@every_wrapper
def test_optax_itself_can_be_wrapped(wrapper):
    params = {"w": jnp.ones(3, "bfloat16")}
    tx = wrapper.around(optax.adam(0.1))
    updates, state = tx.update(params, tx.init(params), params)
    chex.assert_trees_all_equal_shapes_and_dtypes(state, tx.init(params))
    assert np.all(np.asarray(updates["w"], float) < 0)


@every_wrapper
def test_bad_arguments_are_refused(wrapper):
    make = getattr(oa, wrapper.name)
    for tx in (oa.adam, 1e-3, None):
        with pytest.raises(ValueError, match=f"{wrapper.name}: tx must be an optax.Grad.*, got "):
            make(tx, **wrapper.kwargs)
    for name, parameter in list(inspect.signature(make).parameters.items())[1:]:
        nones = () if parameter.default is None else (None,)
        for bad in (-1.0, float("nan"), "1", jnp.ones(2), *nones):
            with pytest.raises(ValueError, match=f"^{wrapper.name}: {name} must be .*, got "):
                make(oa.adam(1.0), **wrapper.kwargs | {name: bad})
    tx = wrapper.around(oa.adam(0.1))
    state = tx.init({"a": jnp.ones(3)})
    with pytest.raises(ValueError, match=r"^\w+.update: gradient at \['a'\] has shape \(2, 3\)"):
        tx.update({"a": jnp.ones((2, 3))}, state, {"a": jnp.ones(3)})


@pytest.mark.parametrize("wrapper", [*BEFORE[:5:2], BEHIND[2], TUNING[0]], ids=lambda w: w.id)
def test_numbers_can_be_traced(wrapper):
    """The strength of a wrapper can be swept, and held in the state."""
    strength = {"mars": "gamma", "clip_update_rms": "max_rms", "mechanize": "s_init"}
    strength = strength.get(wrapper.name, "lamb")

    def updates(value):
        tx = getattr(oa, wrapper.name)(oa.adam(10.0), **wrapper.kwargs | {strength: value})
        state = tx.init(jnp.ones(3))
        for k in range(6):
            u, state = tx.update(jnp.sin(k * k + jnp.arange(3.0)) / 3, state, jnp.ones(3))
        return u

    swept = jax.vmap(updates)(jnp.array([0.3, 0.9]))
    chex.assert_trees_all_close(swept[1], updates(0.9), rtol=1e-4)
    assert np.any(abs(swept[1] - swept[0]) > 1e-3)


def test_cautious_around_a_direction_decays_everywhere():
    """The authors' C-AdamW: caution for the step of Adam, none for the decay."""
    params = jnp.array([1.0, 1.0])
    tx = oa.descend(oa.cautious(oa.scale_by_adam(), descends=False), 0.1, weight_decay=0.5)
    _, state = tx.update(jnp.array([1.0, 1.0]), tx.init(params), params)
    updates, _ = tx.update(jnp.array([-0.1, 1.0]), state, params)  # the first turns round
    adam = oa.adam(0.1)
    _, state = adam.update(jnp.array([1.0, 1.0]), adam.init(params))
    plain, _ = adam.update(jnp.array([-0.1, 1.0]), state)
    assert plain[0] < 0
    np.testing.assert_allclose(updates, [-0.05, 2 * plain[1] - 0.05], rtol=1e-6)


def test_caution_keeps_what_underflows():
    """The product of update and gradient is too small for float32; their signs are not."""
    tx = oa.cautious(oa.sgd(1e-10))
    updates, _ = tx.update(jnp.full(2, 1e-25), tx.init(jnp.ones(2)))
    np.testing.assert_allclose(updates, -1e-35, rtol=1e-5)


def test_clipping_without_momentum_is_that_of_stable_adamw_and_with_it_is_not():
    """StableAdamW measures the gradient; the update of Adam is its mean."""
    gradients = [jnp.array([0.1, 0.2]), jnp.array([3.0, -5.0])]

    def last(tx):
        state = tx.init(jnp.ones(2))
        for g in gradients:
            updates, state = tx.update(g, state, jnp.ones(2))
        return updates

    for b1, same in ((0.0, True), (0.9, False)):
        options = {"b1": b1, "b2": 0.99, "eps": 1e-12}
        clipped = last(oa.descend(oa.clip_update_rms(oa.scale_by_adam(**options)), 0.1))
        stable = last(oa.stable_adamw(0.1, weight_decay=None, **options))
        assert np.allclose(clipped, stable, rtol=1e-5) is same


def test_the_window_forgets():
    """A gradient counts for `window` steps and then no longer."""
    tx = oa.grokfast_ma(oa.sgd(1.0), window=3, lamb=1.0)
    state, seen = tx.init(jnp.zeros(())), []
    for g in (9.0, 0.0, 0.0, 0.0):
        u, state = tx.update(jnp.asarray(g), state)
        seen.append(float(u))
    np.testing.assert_allclose(seen, [-9.0, 0.0, -3.0, 0.0])


def test_mars_corrects_by_the_change_and_starts_without():
    """c = g + gamma b1 / (1 - b1) (g - last), and the first gradient has not changed."""
    tx = oa.mars(oa.sgd(1.0), gamma=0.5, b1=0.8, max_norm=10.0)
    first, state = tx.update(jnp.array([0.1, 0.2]), tx.init(jnp.zeros(2)))
    np.testing.assert_allclose(first, [-0.1, -0.2], rtol=1e-6)
    second, _ = tx.update(jnp.array([0.2, 0.2]), state)
    np.testing.assert_allclose(second, [-0.2 - 2 * 0.1, -0.2], rtol=1e-6)


# --- polynomial_averaging ---------------------------------------------------------------------
PLACES = {
    "outermost": lambda tx: tx,
    "chain": lambda tx: optax.named_chain(("first", optax.identity()), ("ours", tx)),
    "masked": lambda tx: optax.masked(tx, {"a": True, "b": False, "c": True}),
    "function": lambda tx: optax.masked(tx, lambda p: {"a": True, "b": False, "c": True}),
    "partition": lambda tx: optax.partition(
        {"x": tx, "y": optax.sgd(1.0), "z": tx}, {"a": "x", "b": "y", "c": "z"}
    ),
    "injected": lambda tx: optax.inject_hyperparams(
        lambda gamma: oa.polynomial_averaging(oa.sgd(0.1), gamma=gamma),
        hyperparam_dtype=jnp.float32,
    )(gamma=3.0),
    "multi": lambda tx: optax.MultiSteps(tx, 1),
}


@pytest.mark.parametrize("place", PLACES)
def test_averages_are_found_anywhere(place):
    """In the parameters' dtypes; what is not averaged is what it was."""
    params = {"a": jnp.ones(3, "bfloat16"), "b": [jnp.ones(2)], "c": jnp.full((2, 2), 3.0)}
    tx = PLACES[place](oa.polynomial_averaging(oa.sgd(0.1), gamma=3.0))
    update, read, state = jax.jit(tx.update), jax.jit(oa.averaged_params), tx.init(params)
    chex.assert_trees_all_equal(read(state, params), params)
    path = []
    for _ in range(4):
        updates, state = update(params, state, params)
        params = optax.apply_updates(params, updates)
        path.append(params)
    averages = read(state, params)
    chex.assert_trees_all_equal_shapes_and_dtypes(averages, params)
    for name in params:
        mine = place not in ("masked", "function", "partition") or name != "b"
        columns = [np.asarray(jax.tree.leaves(p[name])[0], complex) for p in path]
        expected = (
            list(papers.polynomial_averaging(columns, gamma=3.0))[-1] if mine else columns[-1]
        )
        rtol = 1e-2 if name == "a" else 1e-6
        np.testing.assert_allclose(
            np.asarray(jax.tree.leaves(averages[name])[0], complex), expected, rtol=rtol
        )


def test_the_average_of_narrow_parameters_is_wide():
    params = jnp.ones(2, "bfloat16")
    tx = oa.polynomial_averaging(oa.sgd(1e-3), gamma=0.0)
    state = tx.init(params)
    assert state.average.dtype == jnp.float32
    for _ in range(2):
        _, state = tx.update(jnp.asarray([1.0, -2.0]), state, params)
    np.testing.assert_allclose(state.average, [0.999, 1.002], rtol=1e-6)


def test_what_does_not_train_is_not_averaged():
    """Integers, and what a filter left out of the state, as Equinox does; complex numbers train."""
    params = {"w": jnp.full(2, 1 + 1j), "steps": jnp.arange(3), "filtered": None}
    tx = oa.polynomial_averaging(oa.sgd(0.5))
    grads = params | {"steps": jnp.zeros(3, int)}
    updates, state = tx.update(grads, tx.init(params), params)
    model = optax.apply_updates(params, updates) | {"filtered": jax.nn.relu}
    averages = oa.averaged_params(state, model)
    np.testing.assert_array_equal(averages["w"], [0.5 + 0.5j] * 2)
    np.testing.assert_array_equal(averages["steps"], [0, 1, 2])
    assert averages["filtered"] is jax.nn.relu


def test_a_bad_step_stays_out_of_the_average():
    """It is not counted either: the next one is the first, or the second."""
    tx = oa.polynomial_averaging(oa.sgd(1.0), gamma=1.0)
    params, good = (
        {"a": jnp.array([1.0, 2.0]), "b": jnp.ones(1)},
        {"a": jnp.ones(2), "b": jnp.ones(1)},
    )
    state = tx.init(params)
    for mean in (None, 0.0, -1.0):
        for worst in (jnp.nan, jnp.inf):
            bad = good | {"a": jnp.array([worst, 1.0])}
            updates, after = tx.update(bad, state, params)
            assert not np.isfinite(updates["a"][0])
            chex.assert_trees_all_equal(after[:2], state[:2])
        if mean is None:
            chex.assert_trees_all_equal(oa.averaged_params(after, params), params)
        else:
            np.testing.assert_allclose(oa.averaged_params(after, params)["b"], mean)
        _, state = tx.update(good, after, params)
        params = {"a": params["a"], "b": params["b"] - 1.5}


def test_late_parameters_weigh_more():
    """As t^gamma: of the path 1, 2, 3, ... the plain mean is half, and gamma = 8 near the end."""
    for gamma, share in ((0.0, 1 / 2), (1.0, 2 / 3), (8.0, 9 / 10)):
        tx = oa.polynomial_averaging(oa.sgd(1.0), gamma=gamma)
        p, update = jnp.zeros(()), jax.jit(tx.update)
        state = tx.init(p)
        for _ in range(200):
            updates, state = update(jnp.asarray(-1.0), state, p)
            p = p + updates
        assert float(state.average) == pytest.approx(share * 200, abs=1)


def test_gamma_can_be_traced():
    def average(gamma):
        tx = oa.polynomial_averaging(oa.sgd(1.0), gamma=gamma)
        state = tx.init(jnp.zeros(()))
        for k in range(3):
            _, state = tx.update(jnp.asarray(-1.0), state, jnp.asarray(float(k)))
        return state.average

    swept = jax.vmap(average)(jnp.array([0.0, 8.0]))
    np.testing.assert_allclose(swept, [2.0, average(8.0)], rtol=1e-6)
    assert swept[1] > 2.3


def test_averages_that_are_not_there():
    params = jnp.ones(2)
    with pytest.raises(ValueError, match=r"^averaged_params: state must be .*, got DescentState"):
        oa.averaged_params(oa.sgd(0.1).init(params), params)
    tx = oa.polynomial_averaging(oa.sgd(0.1))
    with pytest.raises(ValueError, match=r"^polynomial_averaging.update needs params"):
        tx.update(params, tx.init(params))


def test_dog_needs_its_average():
    """On noisy gradients it circles around the solution; the average is close to it."""
    tx = oa.polynomial_averaging(oa.dog(reps_rel=1e-3))

    def step(carry, key):
        p, state = carry
        noisy = p - 1 + 3 * jax.random.normal(key, p.shape)
        updates, state = tx.update(noisy, state, p)
        return (p + updates, state), p + updates - 1

    p = jnp.zeros(100)
    keys = jax.random.split(jax.random.key(0), 2000)
    (p, state), path = jax.lax.scan(step, (p, tx.init(p)), keys)
    around = float(jnp.sqrt(jnp.mean(path[-500:] ** 2)))
    left = float(jnp.sqrt(jnp.mean((oa.averaged_params(state, p) - 1) ** 2)))
    assert left < 0.7 * around


@pytest.mark.parametrize(
    ("name", "kwargs", "words"),
    [
        ("polynomial_averaging", {}, 0),
        ("exponential_averaging", {}, 0),
        ("exponential_averaging", {"overwrite_every": 5}, 2),
    ],
)
def test_the_average_keeps_no_array_beside_it(name, kwargs, words):
    assert temporaries(getattr(oa, name)(oa.adam(0.1), **kwargs)) <= words + 0.01


# --- exponential_averaging --------------------------------------------------------------------
@every_kind
def test_the_average_takes_the_place_of_the_parameters(case):
    """After every third step; at the other steps the optimizer moves as it would alone there."""
    start, gradients = case.problem(case.shapes[0])
    with enable_x64(True):
        tx, params = case.make(), jnp.asarray(start)
        ours = oa.exponential_averaging(tx, decay=0.75, start=2, overwrite_every=3)
        update, alone = jax.jit(ours.update), jax.jit(tx.update)
        state, state_alone = ours.init(params), tx.init(params)
        for t, g in enumerate(gradients[:12], start=1):
            updates, state = update(jnp.asarray(g), state, params)
            u, state_alone = alone(jnp.asarray(g), state_alone, params)
            there = np.asarray(params) + np.asarray(u)
            average = there if t <= 2 else 0.75 * average + 0.25 * there  # noqa: F821
            after = average if t % 3 == 0 else there
            np.testing.assert_allclose(params + updates, after, rtol=1e-12, atol=1e-300)
            np.testing.assert_allclose(state.average, average, rtol=1e-12, atol=1e-300)
            assert t % 3 or not np.allclose(updates, u, rtol=1e-3, atol=0)
            params = jnp.asarray(after)
            np.testing.assert_array_equal(oa.averaged_params(state, params), state.average)


def test_exponential_averages_are_exact_where_they_can_be():
    """Of the first parameters, however far they go, and of those that stay."""
    tx = oa.exponential_averaging(oa.sgd(1.0), decay=0.7, start=4)
    random = jax.random.normal(jax.random.key(0), (2, 50))
    params = {"moves": random[0], "stays": random[1]}
    state, update = tx.init(params), jax.jit(tx.update)
    for t in range(1, 30):
        grads = {"moves": 10.0 ** (3 - t % 4) * jnp.sin(params["moves"]), "stays": jnp.zeros(50)}
        updates, state = update(grads, state, params)
        params = optax.apply_updates(params, updates)
        assert np.array_equal(state.average["moves"], params["moves"]) is (t <= 4)
        np.testing.assert_array_equal(state.average["stays"], params["stays"])


def test_what_is_not_finite_is_neither_averaged_nor_counted_nor_overwritten():
    """Nor does it become finite by overwriting, though the last count was one to overwrite at."""
    tx = oa.exponential_averaging(oa.sgd(1.0), decay=0.5, overwrite_every=2)
    params = {"a": jnp.array([4.0, 2.0]), "b": jnp.ones(1)}
    good, state = {"a": jnp.ones(2), "b": jnp.ones(1)}, tx.init(params)
    for t, expected in ((1, [3.0, 1.0]), (2, [2.5, 0.5]), (3, [1.5, -0.5]), (4, [1.25, -0.75])):
        for worst in (jnp.nan, jnp.inf):
            bad = good | {"a": jnp.array([worst, 1.0])}
            updates, after = jax.jit(tx.update)(bad, state, params)
            assert not np.isfinite(updates["a"][0])
            np.testing.assert_array_equal(updates["b"], -1.0)
            chex.assert_trees_all_equal(after[:2], state[:2])
        updates, state = tx.update(good, state, params)
        params = optax.apply_updates(params, updates)
        assert int(state.seen) == t
        np.testing.assert_array_equal(params["a"], expected)


def test_the_numbers_of_exponential_averaging_can_be_traced():
    def last(**numbers):
        tx = oa.exponential_averaging(oa.sgd(1.0), **numbers)
        p = jnp.zeros(())
        state = tx.init(p)
        for _ in range(4):
            updates, state = tx.update(jnp.asarray(-1.0), state, p)
            p = p + updates
        return p, state.average

    sweeps = {"decay": [0.5, 0.9], "start": [1, 4], "overwrite_every": [2.0, 3.0]}
    for name, values in sweeps.items():
        swept = jax.vmap(lambda x, name=name: last(**{name: x}))(jnp.array(values))
        for k, x in enumerate(values):
            np.testing.assert_allclose([s[k] for s in swept], last(**{name: x}), rtol=1e-6)
        assert any(s[0] != s[1] for s in swept)


def test_averages_of_both_kinds_are_found_in_groups():
    params = {"a": jnp.ones(2), "b": jnp.ones(3, "bfloat16"), "c": jnp.ones(1)}
    exponential = oa.exponential_averaging(oa.sgd(0.1), decay=0.5)
    groups = {"x": exponential, "y": oa.polynomial_averaging(oa.sgd(0.1), gamma=0), "z": oa.sgd(1)}
    tx = optax.chain(optax.partition(groups, {"a": "x", "b": "y", "c": "z"}))
    state = tx.init(params)
    chex.assert_trees_all_equal(oa.averaged_params(state, params), params)
    for grads in (params, jax.tree.map(jnp.zeros_like, params)):
        _, state = tx.update(grads, state, params)
    averages = oa.averaged_params(state, params)
    np.testing.assert_allclose(averages["a"], 0.95, rtol=1e-6)
    np.testing.assert_allclose(averages["b"].astype(float), 0.95, rtol=1e-2)
    np.testing.assert_array_equal(averages["c"], 1)
    with pytest.raises(ValueError, match=r"^exponential_averaging.update needs params"):
        exponential.update(jnp.ones(2), exponential.init(jnp.ones(2)))


# --- accumulate -------------------------------------------------------------------------------
@every_kind
def test_the_mean_makes_one_step(case):
    """The path is that of the optimizer on means, and stands still between its steps."""
    start, gradients = case.problem(case.shapes[0])
    ours = trajectory(oa.accumulate(case.make(), every=3), start, gradients, "float64")
    paper = case.reference(start, list(papers.accumulate(gradients, every=3)))
    assert deviation(ours[2::3], paper, start) < 10 * case.float64
    np.testing.assert_array_equal(ours[:-2:3], [start, *ours[2:-3:3]])
    np.testing.assert_array_equal(ours[1:-1:3], ours[:-2:3])
    assert deviation(ours[2::3], case.reference(start, gradients[2::3]), start) > 1e-6


@pytest.mark.parametrize("name", ["adam", "adabound", "prodigy"])
def test_accumulation_is_one_big_batch(name):
    """Bit for bit; and optax's own, but for the rounding of its running mean."""
    with enable_x64(True):
        tx = getattr(oa, name)(learning_rate=0.1, weight_decay=0.1)
        params = ours_params = {"a": jnp.linspace(0.5, 1.5, 6).reshape(2, 3), "b": jnp.ones(3)}
        ours, theirs = oa.accumulate(tx, every=4), optax.MultiSteps(tx, 4, accumulator_dtype=float)
        state, big, multi = ours.init(params), tx.init(params), theirs.init(params)
        update, alone, running = map(jax.jit, (ours.update, tx.update, theirs.update))
        for step in range(5):
            batch = [
                jax.tree.map(lambda p, k=k: jnp.sin(9 * p + k + 4 * step), params)  # noqa: B023
                for k in range(4)
            ]
            for g in batch:
                updates, state = update(g, state, ours_params)
                optax_updates, multi = running(g, multi, ours_params)
                ours_params = optax.apply_updates(ours_params, updates)
            mean = jax.tree.map(lambda *g: sum(g) / 4, *batch)
            expected, big = alone(mean, big, params)
            chex.assert_trees_all_equal(updates, expected)
            chex.assert_trees_all_equal(state.inner, big)
            chex.assert_trees_all_close(optax_updates, expected, rtol=1e-10)
            params = optax.apply_updates(params, expected)
        chex.assert_trees_all_equal(ours_params, params)


@pytest.mark.parametrize("compiled", [False, True])
def test_between_steps_the_state_of_the_optimizer_keeps_every_bit(compiled):
    tx = oa.accumulate(oa.adam(0.1), every=3)
    params = {"a": jnp.ones((2, 3)), "b": jnp.ones(())}
    update, state = jax.jit(tx.update) if compiled else tx.update, tx.init(params)
    grads = jax.tree.map(lambda p: 0.3 * p, params)
    for call in range(1, 8):
        updates, after = update(grads, state, params)
        moved = call % 3 == 0
        assert all(np.all(u != 0) == moved for u in jax.tree.leaves(updates))
        assert int(after.calls) == call % 3
        so_far = optax.tree.scale(call % 3 or 3, grads)  # behind a step still those of the step
        chex.assert_trees_all_close(after.grad_sum, so_far, rtol=1e-6)
        assert int(optax.tree.get(after.inner, "step")) == call // 3
        if not moved:
            chex.assert_trees_all_equal(after.inner, state.inner)
            chex.assert_trees_all_equal(updates, jax.tree.map(jnp.zeros_like, grads))
        state = after


def computations(compiled):
    """The computations of a program by their names."""
    text = re.sub(r", metadata={[^}]*}", "", compiled.as_text())
    return dict(re.findall(r"^(?:ENTRY )?%?([\w.\-]+) \(.*?\{\n(.*?)^\}", text, re.M | re.S))


def test_the_optimizer_is_computed_in_a_branch():
    """Its root is nowhere else in the compiled program; without `accumulate` it is elsewhere."""
    params = {"a": jnp.ones((16, 8)), "b": jnp.ones(8)}

    def always(tx):
        compiled = jax.jit(tx.update).lower(params, tx.init(params), params).compile()
        text = computations(compiled)
        assert any(" sqrt(" in body for body in text.values())
        entry = re.search(r"^ENTRY %?([\w.\-]+)", compiled.as_text(), re.M)[1]
        found, left = set(), [entry]
        while left:
            name = left.pop()
            if name not in found:
                found.add(name)
                body = re.sub(r"branch_computations={.*?}", "", text[name])
                left += [x for x in re.findall(r"%([\w.\-]+)", body) if x in text]
        return "".join(text[name] for name in found)

    assert " sqrt(" not in always(oa.accumulate(oa.adam(0.1), every=4))
    assert " sqrt(" in always(oa.adam(0.1))
    assert " sqrt(" in always(optax.MultiSteps(oa.adam(0.1), 4))


def test_the_optimizer_is_not_even_called_without_jit():
    """And what comes beside the gradients is that of the call at which it steps."""
    seen = []

    def update(grads, state, params=None, *, value, **extra):
        del extra
        seen.append((float(params), float(value)))
        return jax.tree.map(lambda g: g * value, grads), state

    tx = oa.accumulate(
        optax.GradientTransformationExtraArgs(lambda _: optax.EmptyState(), update), every=3
    )
    state = tx.init(jnp.zeros(()))
    for call in range(7):
        p = jnp.asarray(10.0 + call)
        updates, state = tx.update(jnp.asarray(2.0), state, p, value=jnp.asarray(float(call)))
        assert float(updates) == (2 * call if call in (2, 5) else 0)
    assert seen == [(12, 2), (15, 5)]


def test_schedules_count_the_steps_that_are_made():
    tx = oa.accumulate(oa.sgd(lambda step: 1.0 + step), every=2)
    state, update, seen = tx.init(jnp.zeros(())), jax.jit(tx.update), []
    for _ in range(6):
        updates, state = update(jnp.ones(()), state)
        seen.append(float(updates))
    assert seen == [0, -1, 0, -2, 0, -3]


def test_a_bad_gradient_is_seen_at_the_step_and_then_forgotten():
    for worst in (jnp.nan, jnp.inf):
        tx, seen = oa.accumulate(oa.sgd(1.0), every=2), []
        state, update = tx.init(jnp.zeros(())), jax.jit(tx.update)
        for g in (worst, 1.0, 1.0, 3.0):
            updates, state = update(jnp.asarray(g), state)
            seen.append(float(updates))
        np.testing.assert_array_equal(seen, [0, -worst, 0, -2])


def test_narrow_gradients_are_summed_and_given_on_in_float32():
    """In bfloat16 257 is 256, and the mean 64.75 is 65."""
    tx = oa.accumulate(oa.scale_by_adam(b1=0.0), every=4)
    params = jnp.ones(2, "bfloat16")
    state, update = tx.init(params), jax.jit(tx.update)
    for g in (256, 1, 1, 1):
        updates, state = update(jnp.full(2, g, "bfloat16"), state, params)
        assert updates.dtype == jnp.bfloat16
        assert state.grad_sum.dtype == jnp.float32
    np.testing.assert_array_equal(state.inner.mu, 64.75)


def test_sums_in_bfloat16_on_request():
    """Right on average; rounded to the nearest they stand still at 256."""
    every, size = 512, 64

    def mean(rounding):
        tx = oa.accumulate(oa.sgd(1.0), every=every)
        tx = oa.with_state_dtype(tx, grad_sum=jnp.bfloat16, rounding=rounding)
        state = tx.init(jnp.zeros(size))
        assert state.inner.grad_sum.dtype == jnp.bfloat16
        step = jax.jit(lambda state, _: tx.update(jnp.ones(size), state)[::-1])
        state, updates = jax.lax.scan(step, state, None, every)
        assert state.inner.grad_sum.dtype == jnp.bfloat16
        assert not jnp.any(updates[:-1])
        return -float(jnp.mean(updates[-1]))

    assert mean("stochastic") == pytest.approx(1.0, abs=0.02)
    assert mean("nearest") == pytest.approx(0.5, abs=0.01)


def test_masks_and_groups_inside_and_outside():
    """What a mask leaves out is neither summed nor held back."""
    params = {"a": jnp.ones((2, 3)), "b": jnp.ones(3)}
    mask = {"a": True, "b": False}
    outside = optax.masked(oa.accumulate(oa.adam(0.1), every=2), mask)
    inside = oa.accumulate(optax.masked(oa.adam(0.1), mask), every=2)
    for tx, held in ((outside, False), (inside, True)):
        state, update = tx.init(params), jax.jit(tx.update)
        sums = optax.tree.get(state, "grad_sum")
        assert isinstance(sums["b"], optax.MaskedNode) is not held
        updates, state = update(params, state, params)
        assert not jnp.any(updates["a"])
        assert bool(jnp.any(updates["b"])) is not held
        updates, state = update(params, state, params)
        np.testing.assert_allclose(updates["a"], -0.1, rtol=1e-5)
        np.testing.assert_allclose(updates["b"], 1.0)


@pytest.mark.parametrize("make", [oa.sgd, oa.adam, oa.adadelta])
def test_accumulation_keeps_one_array_of_updates_beside(make):
    assert temporaries(oa.accumulate(make(0.1), every=4)) <= 1.01


SCANNED = {
    "adamw": oa.adamw(0.1),
    "prodigy": oa.prodigy(),
    "soap": oa.soap(0.1),
    "optax.adam": optax.adam(0.1),
    "optax.noisy_sgd": optax.noisy_sgd(0.1, key=jax.random.key(0)),
}


@pytest.mark.parametrize("name", SCANNED)
def test_accumulation_in_scans_maps_and_donated_steps(name):
    """Of leaves of every kind, and around transformations that change the dtype of their state."""
    params = {
        "w": jnp.full((2, 3), 0.5, "bfloat16"),
        "none": None,
        "n": jnp.arange(3),
        "s": jnp.ones(()),
    }
    if not name.startswith("optax"):
        params["z"] = jnp.array([1 + 2j, 3.0])
    tx = oa.accumulate(SCANNED[name], every=2)
    grads = params | {"n": jnp.zeros(3, int)}

    def step(carry, scale):
        params, state = carry
        g = jax.tree.map(lambda g: (g * scale).astype(g.dtype), grads)
        updates, state = tx.update(g, state, params)
        return (optax.apply_updates(params, updates), state), updates

    @functools.partial(jax.jit, donate_argnums=0)
    def scanned(carry, scales):
        return jax.lax.scan(step, carry, scales)[0]

    scales, fresh = jnp.array([1.0, 2.0, -1.0, 0.5, 3.0]), tx.init(params)
    loop = params, fresh
    for scale in scales:
        loop, _ = step(loop, scale)
    after, state = scanned(jax.tree.map(jnp.copy, (params, fresh)), scales)
    assert np.all(after["s"] != params["s"])
    chex.assert_trees_all_equal_shapes_and_dtypes(state, fresh)
    chex.assert_trees_all_close(after, loop[0], rtol=1e-2, atol=1e-6)
    chex.assert_trees_all_close(state[:2], loop[1][:2], rtol=1e-2, atol=1e-6)

    # Two at once, one of which is a gradient ahead.
    _, ahead = step((params, fresh), scales[0])[0]
    both = jax.tree.map(lambda *x: jnp.stack(x), (params, fresh), (params, ahead))
    _, updates = jax.vmap(step)(both, scales[1] * jnp.ones(2))
    _, expected = step((params, ahead), scales[1])
    assert updates["s"][0] == 0
    chex.assert_trees_all_close(jax.tree.map(lambda u: u[1], updates), expected, rtol=1e-2)


def test_an_average_inside_of_accumulation_is_of_the_steps():
    tx = oa.accumulate(oa.exponential_averaging(oa.sgd(1.0), decay=0.5), every=2)
    p, update = jnp.zeros(()), jax.jit(tx.update)
    state = tx.init(p)
    for _ in range(5):
        updates, state = update(jnp.asarray(-1.0), state, p)
        p = p + updates
    assert float(p) == 2
    assert float(oa.averaged_params(state, p)) == 1.5


def test_accumulation_needs_no_communication():
    mesh = jax.make_mesh((8,), ("x",))
    sharding = NamedSharding(mesh, P("x", None))
    params = jax.device_put(jnp.ones((16, 4)), sharding)
    tx = oa.accumulate(oa.adam(0.1), every=2)
    state, update = jax.jit(tx.init)(params), jax.jit(tx.update)
    program = update.lower(params, state, params).compile().as_text()
    assert "all-gather" not in program
    assert "all-reduce" not in program
    for _ in range(2):
        updates, state = update(params, state, params)
        for leaf in (updates, *jax.tree.leaves(state)):
            assert leaf.shape != (16, 4) or leaf.sharding.is_equivalent_to(sharding, 2)


def test_another_number_of_gradients_may_make_the_next_step():
    """A checkpoint goes on: the step comes late, and is the mean of those that are there."""
    state = oa.accumulate(oa.sgd(1.0), every=5).init(jnp.zeros(()))
    for g in (1.0, 2.0, 3.0):
        _, state = oa.accumulate(oa.sgd(1.0), every=5).update(jnp.asarray(g), state)
    updates, state = oa.accumulate(oa.sgd(1.0), every=2).update(jnp.asarray(4.0), state)
    assert float(updates) == -2.5
    assert int(state.calls) == 0


def test_the_number_of_gradients_must_be_known():
    def make(every):
        return oa.accumulate(oa.sgd(1.0), every=every)

    with pytest.raises(ValueError, match=r"^accumulate: every must be known .*traced"):
        jax.jit(lambda every: make(every).init(jnp.ones(2)))(2)
    with pytest.raises(
        ValueError, match=r"^accumulate: every must be a whole number >= 1, got 1.5"
    ):
        make(1.5)
    with pytest.raises(ValueError, match=r"prodigy\.update needs params"):
        oa.accumulate(oa.prodigy(), every=1).update(
            jnp.ones(2), oa.accumulate(oa.prodigy(), every=1).init(jnp.ones(2))
        )


# --- mechanize --------------------------------------------------------------------------------
HESSIAN = jnp.geomspace(0.1, 10, 16)


def descent(tx, params, steps=1000, target=3.0):
    """Runs it on a quadratic: the parameters, and the rate at every step."""

    def step(carry, _):
        params, state = carry
        grads = (HESSIAN * (params - target)).astype(params.dtype)
        updates, state = tx.update(grads, state, params)
        rate = optax.tree.get(state, "effective_lr")
        return (optax.apply_updates(params, updates), state), rate

    (params, _), rates = jax.jit(lambda c: jax.lax.scan(step, c, length=steps))(
        (params, tx.init(params))
    )
    return params, rates


@pytest.mark.parametrize("size", [1e-3, 1.0, 1e3])
def test_mechanize_finds_the_rate(size):
    """Whatever the wrapped optimizer's is: it grows by decades, or hardly, to where it pays."""
    params, rates = descent(oa.mechanize(oa.adam(size)), jnp.zeros(16))
    np.testing.assert_allclose(params, 3.0, atol=0.1)
    assert 1e-3 < size * rates[-1] < 10
    assert rates[0] == pytest.approx(1e-6)


def test_mechanize_trains_parameters_in_bfloat16():
    """The first steps, of 1e-6, are far below what they resolve."""
    params, rates = descent(oa.mechanize(oa.adam(1.0)), jnp.ones(16, "bfloat16"))
    assert params.dtype == jnp.bfloat16
    np.testing.assert_allclose(params.astype(float), 3.0, atol=0.2)
    assert rates.dtype == jnp.float32


def test_the_decay_of_mechanize_holds_the_rate_down():
    """Under a gradient that never turns it grows without bound, and with a decay to 1 / decay."""
    rates = []
    for weight_decay in (0.0, 10.0):
        tx, params = oa.mechanize(oa.sgd(1.0), weight_decay=weight_decay), jnp.ones(3)
        state, update = tx.init(params), jax.jit(tx.update)
        for _ in range(60):
            updates, state = update(-jnp.ones(3), state, params)
            params = params + updates
        rates.append(float(optax.tree.get(state, "effective_lr")))
    assert rates[0] > 3
    assert rates[1] < 1


def test_first_gradients_of_zero_leave_the_numbers_of_mechanize_alone():
    tx, params = oa.mechanize(oa.sgd(1.0)), jnp.ones(3)
    state = fresh = tx.init(params)
    for _ in range(3):
        updates, state = jax.jit(tx.update)(jnp.zeros(3), state, params)
        np.testing.assert_array_equal(updates, 0)
    chex.assert_trees_all_equal(state.direction[:-1], fresh.direction[:-1])


def test_a_bad_gradient_stops_one_step_of_mechanize():
    """Its numbers stay, and the wrapped optimizer never sees it."""
    tx, params = oa.mechanize(oa.adam(1.0)), jnp.ones(3)
    update = jax.jit(tx.update)
    updates, state = update(jnp.ones(3), tx.init(params), params)
    params = params + updates
    bad, after = update(jnp.array([1.0, jnp.nan, 1.0]), state, params)
    np.testing.assert_array_equal(bad, [0, np.nan, 0])
    chex.assert_trees_all_equal(after.direction[:-1], state.direction[:-1])
    for seen in (after, update(jnp.ones(3), after, params)[1]):
        chex.assert_tree_all_finite(seen)
    _, after = update(jnp.ones(3), state, params, value=jnp.nan)
    chex.assert_trees_all_equal(after.direction[:-1], state.direction[:-1])


def test_mechanize_passes_on_what_the_wrapped_optimizer_needs():
    tx, params = oa.mechanize(oa.momo_adam(1.0)), jnp.ones(3)
    updates, _ = tx.update(params, tx.init(params), params, value=1.0)
    assert np.all(updates < 0)
    with pytest.raises(ValueError, match=r"momo_adam\.update needs value"):
        tx.update(params, tx.init(params), params)
