"""State over many devices: where it lies, that training is the same, and what it costs."""

import functools
import importlib
import math
import re
from pathlib import Path

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from cases import factory
from jax.sharding import AbstractMesh, NamedSharding
from jax.sharding import PartitionSpec as P
from spread import START, Spread, X, Y, loss, mesh_of, on_one_device, stepper
from test_wrappers import EVERY

import optax_adaptive as oa


def hidden(path, shape):
    return "matrix" if "first" in path else "adam"


def rows(path, shape):
    return "rows" if len(shape) > 1 else "tensor"


def make(name):
    """An optimizer by its name, its learning rate 0.01 where it has none."""
    rate = {} if oa.optimizers[name].learning_rate is not None else {"learning_rate": 0.01}
    roles = {"muon": {"roles": hidden}, "adam_mini": {"roles": rows}}.get(name, {})
    return factory(name)(**rate, **roles)


def shapes(**kinds):
    return {name: jax.ShapeDtypeStruct(shape, jnp.float32) for name, shape in kinds.items()}


def specs(tree):
    return jax.tree.map(lambda x: x.spec, tree)


# --- where it lies --------------------------------------------------------------------------------


def test_the_first_dimension_that_can_be_divided_is_cut():
    params = shapes(matrix=(16, 24), row=(3, 16), bias=(8,), odd=(9, 10), one=(), none=(0, 8))
    cut = oa.state_shardings(oa.adam(1e-3), params, mesh_of(data=8), "data")
    assert all(x.mesh == mesh_of(data=8) for x in jax.tree.leaves(cut))
    assert (cut.step.spec, cut.direction.count.spec) == (P(), P())
    for field in (cut.direction.mu, cut.direction.nu):
        assert specs(field) == {
            **{"matrix": P("data"), "row": P(None, "data"), "bias": P("data")},
            **{"odd": P(), "one": P(), "none": P(None, "data")},
        }


def test_a_state_follows_its_parameters():
    """Axes of the parameter's own come first, and none is used twice."""
    mesh = mesh_of(data=4, model=2)

    def at(shape, *spec):
        return jax.ShapeDtypeStruct(shape, jnp.float32, sharding=NamedSharding(mesh, P(*spec)))

    params = {
        "column": at((16, 24), None, "model"),
        "row": at((24, 16), "model"),
        "full": at((16, 16), "data", "model"),
        "both": at((16, 16), ("data", "model")),
        "bias": at((16,), "model"),
        "whole": at((16, 3)),
    }
    mu = specs(oa.state_shardings(oa.adam(1e-3), params, mesh, "data").direction.mu)
    assert mu == {
        **{"column": P("data", "model"), "row": P("model", "data"), "full": P("data", "model")},
        **{"both": P(("data", "model")), "bias": P("model"), "whole": P("data")},
    }
    both = specs(oa.state_shardings(oa.adam(1e-3), params, mesh, ("data", "model")).direction.mu)
    assert both == mu | {"whole": P(("data", "model"))}
    arrays = jax.tree.map(lambda p: jax.device_put(jnp.ones(p.shape), p.sharding), params)
    assert specs(oa.state_shardings(oa.adam(1e-3), arrays, mesh, "data").direction.mu) == mu


@pytest.mark.parametrize("bits", [8, 4])
def test_codes_and_scales_are_cut_as_the_array(bits):
    mesh = mesh_of(data=8)
    tx = oa.with_quantized_state(oa.adam(1e-3), bits=bits, min_size=1)
    across = NamedSharding(mesh, P(None, "data"))
    params = shapes(long=(3, 1024), tall=(64, 32), few=(3, 512))
    params |= {
        k: p.update(sharding=across) for k, p in shapes(own=(8, 2048), less=(8, 512)).items()
    }
    nu = oa.state_shardings(tx, params, mesh, "data").inner.direction.nu
    assert specs(nu["long"]) == (P(None, "data"),) * 3  # of 8 blocks
    assert specs(nu["tall"]) == (P("data"),) * 3
    assert specs(nu["few"]) == (P(None, "data"), P(), P())  # of 4
    assert specs(nu["own"]) == (P(None, "data"),) * 3
    assert specs(nu["less"]) == (P(None, "data"), P(), P())


def test_a_window_of_gradients_is_not_cut_across_time():
    tx = oa.grokfast_ma(oa.sgd(1e-3), window=8)
    params = shapes(w=(16, 3), s=(), z=(8,)) | {"c": jax.ShapeDtypeStruct((8, 3), jnp.complex64)}
    cut = oa.state_shardings(tx, params, mesh_of(data=8), "data")
    window = {"w": P(None, "data"), "s": P(), "z": P(None, "data"), "c": P(None, "data")}
    assert specs(cut.last_grads) == window


def test_keys_of_random_numbers_are_whole():
    """Those of two words, and arrays of new ones."""
    for key in (jax.random.PRNGKey(0), jax.random.split(jax.random.key(0), 2)):
        noise = optax.GradientTransformation(lambda _, key=key: {"key": key}, lambda *_: None)
        cut = oa.state_shardings(noise, shapes(w=(4,)), mesh_of(data=2), "data")
        assert specs(cut) == {"key": P()}


LAYERS = shapes(first=(16, 64), last=(64, 8), bias=(64,))


@pytest.mark.parametrize("name", [*oa.optimizers, *EVERY], ids=lambda x: getattr(x, "id", x))
def test_nothing_large_is_on_every_device(name):
    """Of every optimizer and every wrapper, of parameters in float32 and bfloat16."""
    mesh = mesh_of(data=8)
    tx = make(name) if isinstance(name, str) else name.around(oa.adamw(1e-3))
    for params in (LAYERS, jax.tree.map(lambda p: p.update(dtype=jnp.bfloat16), LAYERS)):
        state = jax.eval_shape(tx.init, params)
        cut = oa.state_shardings(tx, params, mesh, "data")
        assert jax.tree.structure(cut) == jax.tree.structure(state)
        for x, at in zip(jax.tree.leaves(state), jax.tree.leaves(cut), strict=True):
            held = np.prod(at.shard_shape(x.shape))
            assert held == x.size / 8 or x.size < 8 or x.shape == (9,)


def test_what_optax_makes_of_a_state_is_cut_too():
    """Chains, masks, groups, injected numbers; and moments that are one vector."""
    params = shapes(a=(16, 3), b=(3, 16))
    masked = optax.masked(oa.adam(1e-3), {"a": True, "b": False})
    parts = optax.partition({"x": oa.adam(1e-3), "y": optax.adam(1e-3)}, {"a": "x", "b": "y"})
    injected = optax.inject_hyperparams(oa.adam)(learning_rate=1e-3)
    for tx in (optax.chain(optax.clip(1.0), masked), parts, injected, optax.flatten(oa.adam(1.0))):
        cut = oa.state_shardings(tx, params, mesh_of(data=8), "data")
        state = jax.eval_shape(tx.init, params)
        for x, at in zip(jax.tree.leaves(state), jax.tree.leaves(cut), strict=True):
            assert len(at.shard_shape(x.shape)) == 0 or at.num_devices == 8
            assert np.prod(at.shard_shape(x.shape)) == (x.size / 8 if x.ndim else 1)


def test_variables_of_nnx():
    nnx = pytest.importorskip("flax.nnx")
    model = nnx.Linear(16, 256, rngs=nnx.Rngs(0))
    params = nnx.state(model, nnx.Param)
    mesh = mesh_of(data=8)
    tx = oa.with_quantized_state(oa.adam(1e-3))
    cut = oa.state_shardings(tx, params, mesh, "data")
    state = jax.jit(tx.init, out_shardings=cut)(params)
    found = [x for x in jax.tree.leaves(state) if x.ndim]
    assert len(found) == 2 + 5
    for x in found:
        assert x.addressable_shards[0].data.size == x.size / 8


def test_a_mesh_of_devices_that_are_not_here():
    mesh = AbstractMesh((1024,), ("data",))
    cut = oa.state_shardings(oa.adam(1e-3), shapes(w=(2048, 4096)), mesh, "data")
    assert cut.direction.nu["w"].shard_shape((2048, 4096)) == (2, 4096)


def test_bad_arguments_are_refused():
    mesh, params = mesh_of(data=4, model=2), shapes(w=(8, 8))
    for tx in (oa.adam, None):
        with pytest.raises(ValueError, match=r"^state_shardings: tx must be an optax.Gradient"):
            oa.state_shardings(tx, params, mesh, "data")
    for bad in ("data", None, jax.devices()):
        with pytest.raises(ValueError, match=r"^state_shardings: mesh must be a jax\.sharding\.M"):
            oa.state_shardings(oa.adam(1.0), params, bad, "data")
    for bad in ("batch", (), ("data", "data"), ["data"], None, 0):
        with pytest.raises(ValueError, match=r"^state_shardings: axis must be one or .*'data', 'm"):
            oa.state_shardings(oa.adam(1.0), params, mesh, bad)
    elsewhere = NamedSharding(mesh_of(x=8), P("x"))
    params = {"w": jax.ShapeDtypeStruct((8, 8), "f", sharding=elsewhere)}
    with pytest.raises(ValueError, match=r"^state_shardings: parameter at \['w'\] is .* 'x'"):
        oa.state_shardings(oa.adam(1.0), params, mesh, "data")


# --- the same training ----------------------------------------------------------------------------

TRAINED = {
    "adamw": oa.adamw(0.01),
    "adabound": oa.adabound(0.01),
    "adafactor": oa.adafactor(0.01, min_dim_size_to_factor=8),
    "lion": oa.lion(0.001),
    "prodigy": oa.prodigy(d0=1e-3),
    "muon": oa.muon(0.01, roles=hidden),
    "soap": oa.soap(0.01, precondition_frequency=2, max_precond_dim=16),
    "shampoo": oa.shampoo(0.01, max_precond_dim=16),
    "8 bit": oa.with_quantized_state(oa.adam(0.01), min_size=256),
    "schedule_free": oa.schedule_free_adamw(0.01),
    "kahan": oa.kahan(oa.adam(0.01)),
    "accumulate": oa.accumulate(oa.adam(0.01), every=2),
}
ROWS = {"first": P("data"), "last": P("data"), "bias": P("data")}
TENSOR = {"first": P(None, "model"), "last": P("model"), "bias": P("model")}
WHERE = {
    "whole": ({"data": 8}, dict.fromkeys(START, P())),
    "fsdp": ({"data": 8}, ROWS),
    "2d": ({"data": 4, "model": 2}, TENSOR),
}


def start(name):
    return optax.tree.cast(START, jnp.bfloat16) if name == "kahan" else START


@functools.cache
def alone(name):
    return on_one_device(TRAINED[name], start(name), 6)[-1]


@pytest.mark.parametrize("where", WHERE)
@pytest.mark.parametrize("name", TRAINED)
def test_training_is_that_of_one_device(name, where):
    axes, placed = WHERE[where]
    mesh = mesh_of(**axes)
    placed = jax.tree.map(lambda spec: NamedSharding(mesh, spec), placed)
    training = Spread(TRAINED[name], mesh, start(name), placed)
    for _ in range(6):
        training.step()
    for tree, places in ((training.state, training.cut), (training.params, placed)):
        for x, at in zip(jax.tree.leaves(tree), jax.tree.leaves(places), strict=True):
            assert x.sharding.is_equivalent_to(at, x.ndim)
    found, expected = optax.tree.cast((training.params, alone(name)), jnp.float32)
    way = max(np.abs(expected[k] - START[k]).max() for k in START)
    assert way > 1e-3
    # bfloat16 gradients are summed in another order; and a code is drawn that is next to another.
    tolerance = {"kahan": 0.2, "8 bit": 0.05}.get(name, 1e-3) * way
    for k in START:
        np.testing.assert_allclose(found[k], expected[k], rtol=0, atol=tolerance)


# --- what it costs --------------------------------------------------------------------------------


def collectives(compiled):
    """The shapes that every collective makes, as `f32[2,64]`."""
    kinds = "all-reduce|reduce-scatter|all-gather|all-to-all|collective-permute"
    found = {}
    for made, kind in re.findall(rf"= (.*?) ({kinds})(?:-start)?\(", compiled.as_text()):
        found.setdefault(kind, []).extend(re.findall(r"\w+\[[\d,]*\]", made))
    return {kind: sorted(made) for kind, made in found.items()}


def elements(shape):
    return math.prod(map(int, filter(None, shape.split("[")[1].strip("]").split(","))))


def sizes(tree, where=None):
    """The shapes of arrays, or of what one device has of them."""
    where = where or jax.tree.map(lambda x: NamedSharding(mesh_of(data=8), P()), tree)
    held = jax.tree.map(lambda x, at: at.shard_shape(x.shape), tree, where)
    shapes = jax.tree.leaves(held, is_leaf=lambda x: isinstance(x, tuple))
    return sorted(f"f32[{','.join(map(str, shape))}]" for shape in shapes)


def compiled_step(gradients=None, name="adamw"):
    mesh = mesh_of(data=8)
    whole = NamedSharding(mesh, P())
    tx = TRAINED[name]
    cut = oa.state_shardings(tx, START, mesh, "data")
    params = jax.device_put(START, whole)
    state = jax.jit(tx.init, out_shardings=cut)(params)
    batch = jax.device_put((X, Y), NamedSharding(mesh, P("data")))
    step = jax.jit(stepper(tx, gradients), out_shardings=(whole, cut))
    return step.lower(params, state, *batch).compile(), (params, state, *batch), cut


@pytest.mark.parametrize("name", ["adamw", "adabound", "lion", "8 bit"])
def test_the_state_stays_where_it_is(name):
    """The compiled step gathers the new parameters once, and nothing of the state."""
    compiled, (params, state, *batch), cut = compiled_step(name=name)
    found = collectives(compiled)
    assert found.pop("all-gather") == sizes(START)
    # All gradients, some of them transposed: this is what a CPU does.
    assert sorted(map(elements, found.pop("all-reduce"))) == sorted(map(np.size, START.values()))
    assert found == {}

    (_, came, *_), _ = compiled.input_shardings
    _, left = compiled.output_shardings
    for places in (came, left):
        for x, there, at in zip(*map(jax.tree.leaves, (state, places, cut)), strict=True):
            assert there.is_equivalent_to(at, x.ndim)
    held = [*jax.tree.leaves(params), *jax.tree.leaves((state, batch))]
    held = sum(x.addressable_shards[0].data.nbytes for x in held)
    assert held < 1.4 * sum(x.nbytes for x in START.values())
    assert compiled.memory_analysis().argument_size_in_bytes == pytest.approx(held, abs=256)


def test_gradients_come_by_reduce_scatter(monkeypatch):
    """The pattern of examples/zero1.py shows on every platform, and trains the same."""
    pytest.importorskip("sklearn")
    monkeypatch.syspath_prepend(Path(__file__).parents[1] / "examples")
    zero1 = importlib.import_module("zero1")
    mesh = mesh_of(data=8)
    cut = oa.state_shardings(optax.ema(0.9), START, mesh, "data").ema
    compiled, given, _ = compiled_step(zero1.scattered(loss, mesh, cut))
    found = collectives(compiled)
    assert found.pop("reduce-scatter") == sizes(START, cut)
    assert found.pop("all-gather") == sizes(START)
    assert found in ({}, {"all-reduce": ["f32[]"]})  # the loss

    plain, _, _ = compiled_step()
    chex.assert_trees_all_close(compiled(*given), plain(*given), rtol=1e-4, atol=1e-6)
