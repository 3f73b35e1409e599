"""Wrappers around wrappers: random stacks, in the order of docs/composing.md, keep the promises."""

import pickle
import random
from collections.abc import Callable
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from cases import PLAIN
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

import optax_adaptive as oa

BFLOAT16 = {"grad_sum": jnp.bfloat16}


class Layer(NamedTuple):
    """One wrapper of a stack."""

    place: int  # from the outside inwards
    name: str
    around: Callable[[Any], Any]
    neutral: bool = True  # whether usual steps are those of what is wrapped
    exact: bool = False  # whether updates of narrow parameters are float32


LAYERS = [
    Layer(0, "guard", lambda tx: oa.guard(tx, skip_above=1e6)),
    Layer(1, "accumulate", lambda tx: oa.accumulate(tx, every=1)),
    Layer(2, "monitor", oa.monitor),
    Layer(2, "monitor every 2", lambda tx: oa.monitor(tx, every=2)),
    Layer(3, "stochastic_rounding", oa.stochastic_rounding, exact=True),
    Layer(3, "kahan", oa.kahan, exact=True),
    Layer(3, "master_weights", oa.master_weights, exact=True),
    Layer(4, "polynomial_averaging", oa.polynomial_averaging),
    Layer(4, "exponential_averaging", lambda tx: oa.exponential_averaging(tx, decay=0.9)),
    Layer(4, "schedule_free", oa.schedule_free, neutral=False),
    Layer(4, "mechanize", oa.mechanize, neutral=False),
    Layer(5, "by_path", lambda tx: oa.by_path({"*a": tx}, default=tx)),
    Layer(6, "layerwise_decay", lambda tx: oa.layerwise_decay(tx, 0.5, layers=lambda path: 1)),
    Layer(7, "cautious", oa.cautious, neutral=False),
    Layer(7, "clip_update_rms", lambda tx: oa.clip_update_rms(tx, max_rms=1e9)),
    Layer(8, "mars", oa.mars, neutral=False),
    Layer(8, "grokfast", oa.grokfast, neutral=False),
    Layer(9, "8 bits", lambda tx: oa.with_quantized_state(tx, min_size=1), neutral=False),
    Layer(9, "8 bits of large arrays", oa.with_quantized_state),
    Layer(10, "tunable", None),  # around the constructor, see Stack.make
]


class Stack(NamedTuple):
    """Three wrappers, the outermost first, around an optimizer."""

    layers: tuple[Layer, ...]
    case: Any

    @property
    def id(self):
        return " ".join([*(layer.name for layer in self.layers), self.case.id])

    def make(self):
        factory = self.case.factory
        if self.layers[-1].around is None:
            factory = oa.tunable(factory)
        tx = factory(**self.case.arguments)
        for layer in self.layers[::-1]:
            tx = layer.around(tx) if layer.around else tx
        return tx

    def has(self, name):
        return any(layer.name == name for layer in self.layers)


def stacks(count, seed):
    """Wrappers of three different places, each wrapper and each optimizer about as often."""
    rng, found = random.Random(seed), []
    optimizers = [c for c in PLAIN if not c.name.startswith("schedule_free")]
    while len(found) < count:
        layers = sorted(rng.sample(LAYERS, 3))
        if len({layer.place for layer in layers}) == 3:
            found.append(Stack(tuple(layers), optimizers[len(found) * 7 % len(optimizers)]))
    return found


STACKS = stacks(20, seed=1)
# What has one estimate for all leaves has one for each group.
TOGETHER = {"prodigy", "dog", "dowg", "dadapt_sgd", "dadapt_adagrad", "dadapt_adam", "momo"}
TOGETHER |= {"momo_adam"}
PARAMS = {"a": jnp.linspace(0.5, 1.5, 32).reshape(2, 16), "b": jnp.ones(3)}
GRADS = jax.tree.map(lambda p: 2 * p - 1.4, PARAMS)


def test_every_wrapper_is_in_a_stack():
    used = {layer.name for stack in STACKS for layer in stack.layers}
    assert used == {layer.name for layer in LAYERS}


@pytest.mark.parametrize("stack", STACKS, ids=lambda s: s.id)
def test_promises(stack, tmp_path):
    tx = stack.make()
    state = tx.init(PARAMS)
    update = jax.jit(tx.update)

    # Compiled once, as it is eagerly; donated; in scan.
    eager, after = tx.update(GRADS, state, PARAMS)
    updates, compiled = update(GRADS, state, PARAMS)
    chex.assert_trees_all_close(updates, eager, rtol=2e-3, atol=1e-7)
    again, _ = update(GRADS, compiled, PARAMS)
    assert update._cache_size() == 1
    chex.assert_trees_all_equal_shapes_and_dtypes(compiled, state)

    def step(params, state):
        updates, state = tx.update(jax.tree.map(lambda p: 2 * p - 1.4, params), state, params)
        return optax.apply_updates(params, updates), state

    donated = jax.jit(step, donate_argnums=(0, 1))
    donated(jax.tree.map(jnp.array, PARAMS), tx.init(PARAMS))
    body = lambda carry, _: (step(*carry), ())  # noqa: E731
    (walked, _), _ = jax.lax.scan(body, (PARAMS, state), None, 3)
    chex.assert_tree_all_finite(walked)

    # What it is without the wrappers that change nothing.
    if all(layer.neutral for layer in stack.layers) and not (
        stack.has("by_path") and stack.case.name in TOGETHER
    ):
        alone, beside = stack.case.make(), stack.case.make().init(PARAMS)
        first, beside = alone.update(GRADS, beside, PARAMS)
        second, _ = alone.update(GRADS, beside, PARAMS)
        chex.assert_trees_all_close(updates, first, rtol=1e-4, atol=1e-7)
        chex.assert_trees_all_close(again, second, rtol=1e-3, atol=1e-7)

    # Gradients of any size are survived; NaN is seen, unless there is a guard.
    for size in (0.0, 1e-30, 1e20):
        _, state = update(jax.tree.map(lambda p: p * size, PARAMS), state, PARAMS)  # noqa: B023
    inner = state.inner if stack.has("guard") else state
    watched = [x for x in jax.tree.leaves(inner) if jnp.issubdtype(x.dtype, jnp.floating)]
    if not any(layer.name.startswith("monitor") for layer in stack.layers):  # norms of 1e20 are Inf
        assert all(bool(jnp.all(jnp.isfinite(x))) for x in watched)
    bad = GRADS | {"a": GRADS["a"].at[0, 1].set(jnp.nan)}
    updates, after = update(bad, state, PARAMS)
    assert bool(jnp.isfinite(updates["a"][0, 1])) is stack.has("guard")
    if stack.has("guard"):
        chex.assert_trees_all_equal(after.inner, state.inner)
        assert int(after.nonfinite) == int(state.nonfinite) + 1

    # It travels: pickled, and in optax's own wrappers.
    host = jax.device_get(state)
    chex.assert_trees_all_equal(pickle.loads(pickle.dumps(host)), host)
    chained = optax.chain(optax.identity(), optax.masked(tx, {"a": True, "b": True}))
    expected, _ = tx.update(GRADS, tx.init(PARAMS), PARAMS)
    found, _ = chained.update(GRADS, chained.init(PARAMS), PARAMS)
    chex.assert_trees_all_close(found, expected, rtol=1e-5, atol=1e-8)

    # Errors name the leaf.
    with pytest.raises(ValueError, match=r"update: gradient at \['b'\] has shape \(2, 3\)"):
        tx.update(GRADS | {"b": jnp.ones((2, 3))}, tx.init(PARAMS), PARAMS)


@pytest.mark.parametrize("stack", STACKS, ids=lambda s: s.id)
def test_dtypes_are_a_fixed_point(stack):
    """Of state in every dtype; updates have that of gradients, or float32 where they are exact."""
    tx = stack.make()
    exact = any(layer.exact for layer in stack.layers)
    for dtype, gradient in (("bfloat16", "float32"), ("bfloat16", "bfloat16"), ("float32",) * 2):
        params = {"a": jnp.ones((2, 16), dtype), "b": jnp.zeros((), dtype), "none": None}
        grads = jax.tree.map(lambda p: p.astype(gradient), params)  # noqa: B023
        state = tx.init(params)
        updates, after = jax.eval_shape(tx.update, grads, state, params)
        chex.assert_trees_all_equal_shapes_and_dtypes(after, state)
        leaves = "float32" if exact and dtype == "bfloat16" else gradient
        assert {x.dtype.name for x in jax.tree.leaves(updates)} == {leaves}
        abstract = jax.eval_shape(lambda p: p, params)
        chex.assert_trees_all_equal_shapes_and_dtypes(jax.eval_shape(tx.init, abstract), state)


@pytest.mark.parametrize("stack", STACKS, ids=lambda s: s.id)
def test_state_lies_where_the_parameters_do(stack):
    sharding = NamedSharding(Mesh(jax.devices(), ("x",)), P("x", None))
    params = {"a": jax.device_put(jnp.ones((16, 32)), sharding)}
    tx = stack.make()
    for leaf in jax.tree.leaves(jax.jit(tx.init)(params)):
        if leaf.shape == (16, 32):
            assert leaf.sharding.is_equivalent_to(sharding, 2)


@pytest.mark.parametrize("wrap", [oa.kahan, oa.master_weights, oa.stochastic_rounding])
@pytest.mark.parametrize(
    "outside",
    [
        oa.guard,
        oa.monitor,
        lambda tx: oa.accumulate(tx, every=1),
        oa.mars,
        oa.exponential_averaging,
    ],
    ids=["guard", "monitor", "accumulate", "mars", "exponential_averaging"],
)
def test_exact_updates_stay_exact_inside_of_others(outside, wrap):
    """With narrow gradients, too: bfloat16 parameters land where they should, bit for bit."""
    params = jnp.linspace(0.5, 1.5, 32, dtype="bfloat16")
    grads = jnp.full(32, 1e-3, "bfloat16")
    tx = outside(wrap(oa.sgd(0.5)))
    updates, _ = tx.update(grads, tx.init(params), params)
    assert updates.dtype == jnp.float32
    landed = optax.apply_updates(params, updates).astype("float32")
    np.testing.assert_array_equal(landed, params.astype("float32") + updates)


@pytest.mark.parametrize("wrap", [oa.kahan, oa.master_weights, oa.stochastic_rounding])
def test_only_updates_of_narrow_parameters_are_exact(wrap):
    """Beside them complex and integer leaves, and wide ones with narrow gradients, are as ever."""
    params = {"low": jnp.ones(2, "bfloat16"), "wide": jnp.ones(2)}
    params |= {"complex": jnp.array([1 + 1j, 2]), "n": jnp.arange(3)}
    grads = params | {"wide": jnp.ones(2, "bfloat16"), "n": jnp.zeros(3, int)}
    tx = wrap(oa.sgd(0.5))
    updates, _ = tx.update(grads, tx.init(params), params)
    expected = grads | {"low": jnp.ones(2)}
    chex.assert_trees_all_equal_shapes_and_dtypes(updates, expected)
