"""Bytes before they are allocated are those that are then allocated."""

import re

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import AbstractMesh, NamedSharding
from jax.sharding import PartitionSpec as P
from spread import mesh_of
from test_sharding import LAYERS, make
from test_wrappers import EVERY

import optax_adaptive as oa

F32, BF16 = jnp.float32, jnp.bfloat16
TREE = {
    "embed": {"table": jax.ShapeDtypeStruct((64, 32), F32)},
    "block": {
        "kernel": jax.ShapeDtypeStruct((32, 8), BF16),
        "bias": jax.ShapeDtypeStruct((8,), F32),
    },
    "steps": jax.ShapeDtypeStruct((), jnp.int32),
}


def test_adam_by_hand():
    found = oa.plan(oa.adam(1e-3), TREE)
    assert found.count == 64 * 32 + 32 * 8 + 8
    assert found.parameters == 4 * 64 * 32 + 2 * 32 * 8 + 4 * 8 + 4
    assert found.gradients == 4 * 64 * 32 + 2 * 32 * 8 + 4 * 8  # integers have none
    moment = 4 * (64 * 32 + 32 * 8 + 8 + 1)  # float32 also of bfloat16, and of what does not train
    assert found.by_field == {"step": 4, "count": 4, "mu": moment, "nu": moment}
    assert found.by_dtype == {"int32": 8, "float32": 2 * moment}
    assert found.by_group == {
        **{"(no parameter)": 8, "embed": 2 * 4 * 64 * 32},
        **{"block": 2 * 4 * (32 * 8 + 8), "steps": 2 * 4},
    }
    assert found.state == 2 * moment + 8
    assert found.total == found.parameters + found.gradients + found.state
    assert found.per_parameter == found.state / found.count
    assert found.device is None
    row = next(r for r in found.rows if r.path == "block/kernel" and r.field == "nu")
    assert row == ("state", "nu", "block/kernel", "block", (32, 8), "float32", 1024, None)


def test_codes_and_their_scales_are_one_field():
    params = {"w": jax.ShapeDtypeStruct((64, 256), F32)}
    found = oa.plan(oa.with_quantized_state(oa.adam(1e-3)), params)
    assert found.by_field["mu"] == 64 * 256 + 4 * 64 * 2
    assert found.by_field["nu"] == 64 * 256 + 2 * 4 * 64 * 2
    assert found.by_dtype["int8"] == 2 * 64 * 256
    alone = oa.plan(oa.with_quantized_state(oa.adam(1e-3)), params["w"])  # a tree of one leaf
    assert alone.by_field == found.by_field


@pytest.mark.parametrize("name", [*oa.optimizers, *EVERY], ids=lambda x: getattr(x, "id", x))
def test_the_bytes_are_those_that_are_allocated(name):
    tx = make(name) if isinstance(name, str) else name.around(oa.adamw(1e-3))
    shapes = LAYERS | {"first": LAYERS["first"].update(dtype=BF16)}
    params = jax.tree.map(lambda p: jnp.ones(p.shape, p.dtype), shapes)
    state = jax.tree.leaves(tx.init(params))
    found = oa.plan(tx, shapes)
    assert found.state == sum(x.nbytes for x in state) == sum(found.by_field.values())
    assert sum(found.by_dtype.values()) == sum(found.by_group.values()) == found.state
    for dtype, size in found.by_dtype.items():
        assert size == sum(x.nbytes for x in state if x.dtype == dtype)
    assert found.parameters == found.gradients == sum(p.nbytes for p in params.values())
    assert "" not in found.by_field
    assert "" not in found.by_field


# --- on one device --------------------------------------------------------------------------------


def allocated(tree):
    """Bytes on every device; they must be the same on all."""
    held = {}
    for x in jax.tree.leaves(tree):
        for shard in x.addressable_shards:
            held[shard.device] = held.get(shard.device, 0) + shard.data.nbytes
    (size,) = set(held.values())
    assert len(held) == 8
    return size


SPREAD = {
    "adamw": oa.adamw(1e-3),
    "sm3": oa.sm3(1e-3),
    "soap": oa.soap(1e-3),
    "8 bit": oa.kahan(oa.with_quantized_state(oa.adam(1e-3), min_size=512)),
    "window": oa.grokfast_ma(oa.sgd(1e-3), window=3),
}


@pytest.mark.parametrize("tx", SPREAD.values(), ids=SPREAD)
def test_one_device_holds_its_part_of_the_state(tx):
    """Beside parameters that are on every device, and beside some that are not."""
    mesh = mesh_of(data=8)
    ones = jax.tree.map(lambda p: jnp.ones(p.shape, BF16), LAYERS)
    parts = jax.device_put(ones, NamedSharding(mesh, P()))
    parts["last"] = jax.device_put(ones["last"], NamedSharding(mesh, P(None, "data")))
    for params in (ones, parts):
        cut = oa.state_shardings(tx, params, mesh, "data")
        held = oa.plan(tx, params, shardings=cut).device
        state = jax.jit(tx.init, out_shardings=cut)(parts)
        assert held.state == allocated(state)
        for field, size in held.by_field.items():
            assert size <= oa.plan(tx, params).by_field[field]
    assert held.parameters == held.gradients == allocated(parts)
    assert oa.plan(tx, ones, shardings=cut).device.parameters == sum(
        p.nbytes for p in ones.values()
    )


@pytest.mark.parametrize("name", ["adamw", "8 bit", "window"])
def test_what_has_the_shape_of_a_parameter_follows_it(name):
    """Told by shardings, by specs, or by the parameters themselves."""
    tx, mesh = SPREAD[name], mesh_of(data=4, model=2)
    specs = {"first": P("data", "model"), "last": P(("data", "model")), "bias": P()}
    where = jax.tree.map(lambda spec: NamedSharding(mesh, spec), specs)
    params = jax.tree.map(lambda p, at: jax.device_put(jnp.ones(p.shape), at), LAYERS, where)
    shaped = jax.tree.map(lambda p, at: p.update(sharding=at), LAYERS, where)
    state = jax.jit(tx.init)(params)
    plans = [
        oa.plan(tx, LAYERS, mesh, specs),
        oa.plan(tx, LAYERS, shardings=where),
        oa.plan(tx, params),
        oa.plan(tx, shaped),
        oa.plan(tx, LAYERS, AbstractMesh((4, 2), ("data", "model")), specs),
    ]
    for found in plans:
        assert found.device.state == allocated(state)
        assert found.device.parameters == found.device.gradients == allocated(params)
        assert found.device.rows == plans[0].device.rows
    assert plans[0].state == sum(x.nbytes for x in jax.tree.leaves(state))


def test_arrays_of_other_shapes_are_on_every_device():
    params = {"w": jax.ShapeDtypeStruct((256, 512), F32)}
    found = oa.plan(oa.adafactor(1e-3), params, mesh_of(data=8), {"w": P("data")})
    assert found.device.by_field["nu_row"] == found.by_field["nu_row"] > 4
    assert found.device.parameters == found.parameters / 8


# --- what is printed ------------------------------------------------------------------------------


def test_the_table_of_one():
    mesh = AbstractMesh((8,), ("data",))
    tx, params = oa.adam(1e-3), {"w": jax.ShapeDtypeStruct((1024, 512), BF16)}
    cut = oa.state_shardings(tx, params, mesh, "data")
    assert str(oa.plan(tx, params, shardings=cut)).splitlines() == [
        "                     bytes    per parameter  on one device",
        "  parameters         1.0 MiB  2.00 B         1.0 MiB",
        "  gradients          1.0 MiB  2.00 B         1.0 MiB",
        "  state              4.0 MiB  8.00 B         512.0 KiB",
        "  total              6.0 MiB  12.00 B        2.5 MiB",
        "  state by field",
        "    mu               2.0 MiB  4.00 B         256.0 KiB",
        "    nu               2.0 MiB  4.00 B         256.0 KiB",
        "    counts, scalars  8 B      0.00 B         8 B",
        "  state by dtype",
        "    int32            8 B      0.00 B         8 B",
        "    float32          4.0 MiB  8.00 B         512.0 KiB",
        "  state by group",
        "    w                4.0 MiB  8.00 B         512.0 KiB",
        "    (no parameter)   8 B      0.00 B         8 B",
    ]
    assert "device" not in repr(oa.plan(tx, params))
    assert str(oa.plan(tx, {})).splitlines()[4] == "  total              8 B"


def test_alternatives_have_a_column_each():
    mesh = AbstractMesh((8,), ("data",))
    params = {"w": jax.ShapeDtypeStruct((1024, 512), F32)}
    both = {"AdamW": oa.adamw(1e-3), "8-bit": oa.with_quantized_state(oa.adabound())}
    cuts = {name: oa.state_shardings(tx, params, mesh, "data") for name, tx in both.items()}
    found = oa.plan(both, params, shardings=cuts)
    assert list(found) == list(both)
    assert len(found) == 2
    for name, tx in both.items():
        assert found[name].rows == oa.plan(tx, params, shardings=cuts[name]).rows
    assert repr(found).splitlines() == [
        "                       AdamW      8-bit",
        "  parameters           2.0 MiB    2.0 MiB",
        "  gradients            2.0 MiB    2.0 MiB",
        "  state                4.0 MiB    1.0 MiB",
        "    mu                 2.0 MiB    528.0 KiB",
        "    nu                 2.0 MiB    544.0 KiB",
        "    counts, scalars    8 B        12 B",
        "  total                8.0 MiB    5.0 MiB",
        "  state per parameter  8.00 B     2.09 B",
        "  on one device",
        "    parameters         2.0 MiB    2.0 MiB",
        "    gradients          2.0 MiB    2.0 MiB",
        "    state              512.0 KiB  134.0 KiB",
        "    total              4.5 MiB    4.1 MiB",
    ]
    alone = oa.plan(both | {"sgd": oa.sgd(1.0)}, params)
    assert "device" not in str(alone)
    followed = oa.plan(both, params, mesh, {"w": P("data")})
    assert followed["8-bit"].device.parameters == 4 * 1024 * 512 / 8


def test_units():
    assert [oa._plan.human(x) for x in (0, 1023, 1024, 1024**2 - 1, 3 * 2**40, 2**70)] == [
        *("0 B", "1023 B", "1.0 KiB", "1024.0 KiB", "3.0 TiB", "1048576.0 PiB")
    ]


def test_groups():
    """By depth of the path, and by patterns."""
    tx = oa.sgd(1e-3, momentum=0.9)
    assert oa.plan(tx, TREE, groups=2).by_group.keys() == {
        *("(no parameter)", "embed/table", "block/kernel", "block/bias", "steps")
    }
    groups = {"embed/*": "embeddings", re.compile(".*(bias|scale)"): "vectors"}
    found = oa.plan(tx, TREE, groups=groups)
    assert found.by_group == {
        **{"(no parameter)": 4, "embeddings": 4 * 64 * 32, "vectors": 4 * 8},
        "(others)": 4 * (32 * 8 + 1),
    }
    assert {r.group for r in found.rows if r.kind == "parameters"} == found.by_group.keys() - {
        "(no parameter)"
    }
    assert oa.plan(tx, jax.ShapeDtypeStruct((4,), F32)).by_group == {"(the root)": 4 + 16}


# --- models ---------------------------------------------------------------------------------------


def test_more_than_any_memory_holds():
    shape = jax.ShapeDtypeStruct((2**20, 2**24), BF16)
    params = {
        f"layer{k}": {"kernel": shape, "bias": jax.ShapeDtypeStruct((8,), F32)} for k in range(99)
    }
    found = oa.plan(oa.kahan(oa.with_quantized_state(oa.adamw(1e-3))), params)
    assert found.count == 99 * (2**44 + 8)
    assert found.parameters == 99 * (2**45 + 32)
    assert 4 < found.per_parameter < 4.1


def test_models_of_frameworks():
    """Variables of linen that were never made, and of NNX."""
    nn = pytest.importorskip("flax.linen")
    variables = jax.eval_shape(nn.Dense(256).init, jax.random.key(0), jnp.ones((1, 64)))
    nnx = pytest.importorskip("flax.nnx")
    model = nnx.eval_shape(lambda: nnx.Linear(64, 256, rngs=nnx.Rngs(0)))
    tx = oa.with_quantized_state(oa.adam(1e-3))
    plans = [oa.plan(tx, variables, groups=2), oa.plan(tx, nnx.state(model, nnx.Param))]
    for found in plans:
        assert found.parameters == 4 * (64 * 256 + 256)
        assert found.by_field == {
            **{"writes": 4, "step": 4, "count": 4},
            **{"mu": 64 * 256 + 4 * 64 * 2 + 4 * 256, "nu": 64 * 256 + 8 * 64 * 2 + 4 * 256},
        }
    assert plans[0].by_group.keys() == {"(no parameter)", "params/kernel", "params/bias"}
    assert plans[1].by_group.keys() == {"(no parameter)", "kernel", "bias"}
    mesh = mesh_of(data=8)
    params = nnx.state(model, nnx.Param)
    cut = oa.state_shardings(tx, params, mesh, "data")
    assert oa.plan(tx, params, shardings=cut).device.state == 12 + (plans[1].state - 12) // 8


def test_modules_of_equinox():
    eqx = pytest.importorskip("equinox")
    module = eqx.filter_eval_shape(eqx.nn.MLP, 4, 3, 8, 1, key=jax.random.key(0))
    params = eqx.filter(module, lambda x: isinstance(x, jax.ShapeDtypeStruct))
    found = oa.plan(oa.adam(1e-3), params, groups=2)
    assert found.by_group == {
        **{"(no parameter)": 8, "layers/0": 8 * (4 * 8 + 8), "layers/1": 8 * (8 * 3 + 3)}
    }


def test_bad_arguments_are_refused():
    tx, params, mesh = oa.adam(1e-3), {"w": jax.ShapeDtypeStruct((6, 8), F32)}, mesh_of(data=8)
    for bad in (oa.adam, None, {}, {"adam": oa.adam}):
        with pytest.raises(ValueError, match=r"^plan: tx must be an optax\.GradientTrans"):
            oa.plan(bad, params)
    with pytest.raises(ValueError, match=r"^plan: mesh must be a jax\.sharding\.Mesh, .*'data'"):
        oa.plan(tx, params, "data", {"w": P()})
    with pytest.raises(ValueError, match=r"^plan: mesh does nothing without shardings\.$"):
        oa.plan(tx, params, mesh)
    with pytest.raises(ValueError, match=r"^plan: shardings at \['w'\] is a PartitionSpec, w"):
        oa.plan(tx, params, shardings={"w": P("data")})
    with pytest.raises(ValueError, match=r"^plan: shardings at \['w'\] must be .* got 'data'"):
        oa.plan(tx, params, mesh, {"w": "data"})
    with pytest.raises(ValueError, match=r"^plan: shardings must be a tree like the parameters or"):
        oa.plan(tx, params, mesh, {"v": P("data")})
    with pytest.raises(ValueError, match=r"^plan: parameters of w of shape \(6, 8\) do not fit"):
        oa.plan(tx, params, mesh, {"w": P("data")})
    with pytest.raises(ValueError, match=r"^plan: groups must be a whole number >= 1, got 0"):
        oa.plan(tx, params, groups=0)
    with pytest.raises(ValueError, match=r"^plan: no leaf matches groups\['bias'\]; there are\n"):
        oa.plan(tx, params, groups={"bias": "b"})
    with pytest.raises(ValueError, match=r"^plan: w is in several groups, by \['w', '\*'\]"):
        oa.plan(tx, params, groups={"w": "b", "*": "c"})
