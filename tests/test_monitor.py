"""What is measured of each step, what is told of a state, and that nothing else changes."""

import math
import re
import sys

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from cases import KINDS
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P
from runs import enable_x64, temporaries

import optax_adaptive as oa
from optax_adaptive._codes import (
    PositiveCodes,
    SignedCodes,
    decode,
    encode,
    is_codes,
    squared_error,
)
from optax_adaptive._wrappers.monitor import _quantiles

nnx = pytest.importorskip("flax.nnx")

rng = np.random.default_rng(0)
PARAMS = {
    "first": {"kernel": rng.normal(size=(40, 30)), "bias": np.zeros(30)},
    "last": 3 * rng.normal(size=(9, 7, 5)),
}
PARAMS = jax.tree.map(lambda x: jnp.asarray(x, "float32"), PARAMS)
GRADS = jax.tree.map(lambda p: jnp.asarray(rng.normal(size=p.shape), "float32"), PARAMS)
GRADS["first"]["kernel"] = GRADS["first"]["kernel"].at[3].set(0.0)
LEAVES = ("first/bias", "first/kernel", "last")


def one_step(tx, params=PARAMS, grads=GRADS):
    return jax.jit(tx.update)(grads, tx.init(params), params)


def flat(tree):
    return dict(zip(LEAVES, (np.asarray(x, "float64") for x in jax.tree.leaves(tree)), strict=True))


@pytest.mark.parametrize("case", KINDS, ids=lambda c: c.id)
def test_the_columns(case):
    """Against NumPy; and the updates and the state behind are those of the optimizer alone."""
    tx = case.make(learning_rate=0.01)
    updates, state = one_step(oa.monitor(tx))
    expected, alone = one_step(tx)
    chex.assert_trees_all_close(updates, expected, rtol=1e-5, atol=1e-9)
    chex.assert_trees_all_close(state.inner, alone, rtol=1e-5, atol=1e-9)
    found, leaves = oa.scalars(state), list(zip(*map(flat, (GRADS, updates, PARAMS)), strict=True))
    g, u, p = flat(GRADS), flat(updates), flat(PARAMS)
    assert len(leaves) == 3

    def check(prefix, g, u, p, exact):
        moves, rates = u != 0, np.abs(u[g != 0]) / np.abs(g[g != 0])
        near = {"rel": 1e-4, "abs": 1e-12}
        assert found[f"grad_norm{prefix}"] == pytest.approx(np.linalg.norm(g), **near)
        assert found[f"param_rms{prefix}"] == pytest.approx(np.sqrt(np.mean(p**2)), **near)
        assert found[f"update_rms{prefix}"] == pytest.approx(np.sqrt(np.mean(u**2)), **near)
        if np.any(p):
            ratio = np.linalg.norm(u) / np.linalg.norm(p)
            assert found[f"update_ratio{prefix}"] == pytest.approx(ratio, **near)
        for q in ("05", "50", "95"):
            near = np.quantile(rates, [max(0, int(q) / 100 - 0.07), min(1, int(q) / 100 + 0.07)])
            if exact:
                near = [np.quantile(rates, int(q) / 100, method="inverted_cdf")] * 2
            value = found[f"effective_lr_{q}{prefix}"]
            assert near[0] * (1 - 1e-3) <= value <= near[1] * (1 + 1e-3)
        p32, u32 = np.float32(p), np.float32(u)
        stays = np.sum(moves & (p32 + u32 == p32)) / max(1, np.sum(moves))
        assert found[f"rounded_away{prefix}"] == pytest.approx(stays, abs=1e-6 if exact else 0.02)

    for name in LEAVES:
        check(f"/{name}", g[name].ravel(), u[name].ravel(), p[name].ravel(), g[name].size < 512)
    together = (np.concatenate([x[name].ravel() for name in LEAVES]) for x in (g, u, p))
    check("", *together, False)


def test_what_does_not_move_and_what_is_not_there():
    """A parameter of zeros, an integer, a None, an empty one; a gradient of zeros."""
    params = {
        "a": jnp.zeros(4),
        "i": jnp.arange(3),
        "n": None,
        "e": jnp.zeros((0, 3)),
        "z": jnp.ones(2),
        "s": jnp.ones(()),
    }
    grads = params | {"a": jnp.ones(4), "i": jnp.zeros(3, int), "z": jnp.zeros(2)}
    _, state = one_step(oa.monitor(oa.sgd(0.5)), params, grads)
    found = oa.scalars(state)
    assert found["update_ratio/a"] == math.inf
    assert found["update_ratio/z"] == found["update_ratio/i"] == 0
    assert found["effective_lr_50/a"] == pytest.approx(0.5, rel=1e-3)
    assert math.isnan(found["effective_lr_50/z"])
    assert math.isnan(found["effective_lr_50/e"])
    assert found["rounded_away/z"] == found["update_rms/e"] == found["param_rms/e"] == 0
    assert found["param_rms/s"] == 1
    assert found["update_rms/s"] == 0.5
    assert found["effective_lr_95"] == pytest.approx(0.5, rel=1e-3)
    assert "grad_norm/n" not in found
    one = oa.monitor(oa.sgd(0.5))
    _, state = one.update(jnp.ones(3), one.init(jnp.ones(3)), jnp.ones(3))
    assert oa.scalars(state)["grad_norm/"] == oa.scalars(state)["grad_norm"]


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
def test_updates_that_round_to_nothing(dtype):
    """In the dtype of the parameter, although it is computed in float32; kahan's are exact."""
    size = {"bfloat16": 1e-3, "float16": 1e-4, "float32": 1e-8}[dtype]
    params = jnp.ones(64, dtype).at[:16].set(0.0)
    grads = jnp.ones(64, dtype).at[:2].set(0.0)
    _, state = one_step(oa.monitor(oa.sgd(size)), params, grads)
    assert oa.scalars(state)["rounded_away"] == pytest.approx(48 / 62)
    updates, state = one_step(oa.monitor(oa.kahan(oa.sgd(size))), params, grads)
    assert oa.scalars(state)["rounded_away"] == pytest.approx(48 / 62 if dtype == "float32" else 0)
    assert updates.dtype == jnp.float32


def test_a_sampled_leaf_counts_as_all_of_it():
    """600 of 1,000 coordinates stay, of which 512 are looked at."""
    params = {"large": jnp.ones(600), "small": jnp.ones(400)}
    grads = {"large": jnp.full(600, 1e-9), "small": jnp.ones(400)}
    found = oa.scalars(one_step(oa.monitor(oa.sgd(1.0)), params, grads)[1])
    assert found["rounded_away"] == pytest.approx(0.6)


def test_quantiles_of_any_numbers():
    """Against a sort, over all decades of float32, with weights."""
    x = np.concatenate([np.geomspace(1.2e-38, 3.4e38, 98), [0.0, np.inf, np.nan]])
    x = np.asarray(rng.permutation(x), "float32")
    weights = rng.integers(1, 4, x.size)
    kept = np.repeat(x, weights).astype("float64")
    kept = kept[np.isfinite(kept)]
    for some, numbers in (
        (weights, kept),
        (np.where(x < 1e30, 0, 1), np.float64(x[(x >= 1e30) & (x < np.inf)])),
        (np.where(x <= 0, 1, 0), np.zeros(1)),
    ):
        found = jax.jit(_quantiles)(jnp.asarray(x), jnp.asarray(some, "float32"))
        expected = np.quantile(numbers, [0.05, 0.5, 0.95], method="inverted_cdf")
        np.testing.assert_allclose(found, expected, rtol=1 / 4000)
    assert all(map(jnp.isnan, _quantiles(jnp.asarray(x), jnp.zeros(x.size))))


@pytest.mark.parametrize("every", [1, 2])
def test_doubles(every):
    """The numbers stay float32, whatever the parameters are."""
    with enable_x64(True):
        params = {"a": jnp.arange(1.0, 9.0), "b": jnp.ones(4, "float32")}
        tx = oa.monitor(oa.with_quantized_state(oa.adam(0.1), min_size=1), every=every)
        state = tx.init(params)
        _, after = jax.jit(tx.update)(params, state, params)
        chex.assert_trees_all_equal_shapes_and_dtypes(after, state)
        assert {x.dtype.name for x in jax.tree.leaves((state.rows, state.total))} == {"float32"}
        found = oa.scalars(after)
        assert found["grad_norm/a"] == pytest.approx(204**0.5)
        assert found["effective_lr_50/b"] == pytest.approx(0.1, rel=1e-3)


def test_a_branch_only_where_some_are_not_measured():
    for every, branches in ((1, 0), (2, 1)):
        tx = oa.monitor(oa.sgd(1.0), every=every)
        program = jax.make_jaxpr(tx.update)(GRADS, tx.init(PARAMS), PARAMS)
        assert str(program).count(" cond[") == branches


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("kind", [SignedCodes, PositiveCodes])
def test_the_error_of_codes_is_what_is_expected_of_it(kind, bits):
    x = jax.random.normal(jax.random.key(0), (64, 256))
    x = x if kind is SignedCodes else 1 + x * x  # none below the smallest code
    stored = encode(x, kind, bits, 2, jnp.uint32(7))
    error, squares = squared_error(stored)
    true = jnp.sum((decode(stored) - x) ** 2)
    assert float(squares) == pytest.approx(float(jnp.sum(decode(stored) ** 2)), rel=1e-5)
    assert float(error) == pytest.approx(float(true), rel=0.15)


def test_the_error_of_codes_whose_blocks_are_cut_by_shards():
    mesh = jax.make_mesh((8,), ("x",), axis_types=(AxisType.Explicit,))
    x = jax.random.normal(jax.random.key(0), (4, 256))
    for bits in (8, 4):
        stored = encode(x, SignedCodes, bits, 2, jnp.uint32(7))
        with jax.set_mesh(mesh):
            codes = jax.device_put(stored.codes, NamedSharding(mesh, P(None, "x")))
            scales = jax.device_put(stored.block_max, NamedSharding(mesh, P(None, None)))
            cut = squared_error(SignedCodes(codes, scales))
        chex.assert_trees_all_close(jax.device_get(cut), squared_error(stored), rtol=1e-5)


def test_the_error_of_a_quantized_state():
    """Of the leaves that are in codes; more of it with fewer bits."""
    found = {}
    for bits in (8, 4):
        tx = oa.monitor(oa.with_quantized_state(oa.adam(0.1), bits=bits, min_size=1000))
        _, state = one_step(tx)
        found[bits] = oa.scalars(state)
        assert found[bits]["state_error/first/bias"] == 0
        assert found[bits]["state_error"] == found[bits]["state_error/first/kernel"] > 0
    assert found[4]["state_error"] > 5 * found[8]["state_error"]
    assert found[8]["state_error"] == pytest.approx(0.01, rel=0.5)
    pairs = [
        map(float, squared_error(x))
        for x in jax.tree.leaves(state, is_leaf=is_codes)
        if is_codes(x)
    ]
    mean = np.mean([error / squares for error, squares in pairs])
    assert found[4]["state_error"] == pytest.approx(mean**0.5, rel=1e-4)
    _, state = one_step(oa.monitor(oa.adam(0.1)))
    assert oa.scalars(state)["state_error"] == 0
    _, state = one_step(tx, grads=jax.tree.map(jnp.zeros_like, GRADS))
    assert oa.scalars(state)["state_error"] == 0


def test_what_comes_beside_the_gradients_is_handed_on():
    seen = {}

    def update(grads, state, params=None, **extra):
        seen.update(extra)
        return grads, state

    plain = optax.GradientTransformationExtraArgs(lambda _: optax.EmptyState(), update)
    tx, params = oa.monitor(plain), jnp.ones(3, "bfloat16")
    tx.update(params, tx.init(params), params, value=2.0)
    assert seen["value"] == 2.0
    assert seen["given_params"].dtype == jnp.bfloat16


@pytest.mark.parametrize("compiled", [True, False])
def test_only_some_updates_are_measured(compiled):
    tx = oa.monitor(oa.sgd(1.0), every=3)
    update, state = jax.jit(tx.update) if compiled else tx.update, tx.init(PARAMS)
    measured, norms = [], []
    for k in range(1, 8):
        updates, state = update(optax.tree.scale(k, GRADS), state, PARAMS)
        chex.assert_trees_all_close(updates, optax.tree.scale(-k, GRADS))
        measured.append(int(state.measured))
        norms.append(oa.scalars(state)["grad_norm"] / float(optax.tree.norm(GRADS)))
    assert measured == [1, 1, 1, 4, 4, 4, 7]
    np.testing.assert_allclose(norms, measured, rtol=1e-5)
    assert int(state.calls) == 7


def test_scalars_of_everything_there_is(capsys):
    tx = oa.monitor(oa.guard(oa.tunable(oa.prodigy)(1.0)))
    _, state = one_step(tx)
    found = oa.scalars(state)
    assert found["guard/finite"] == 1
    assert found["guard/norm"] == pytest.approx(float(optax.tree.norm(GRADS)), rel=1e-5)
    assert found["hyperparams/learning_rate"] == 1
    assert found["distance"] == float(optax.tree.get(state, "distance"))
    assert found["effective_lr"] == float(optax.tree.get(state, "effective_lr"))
    assert {type(x) for x in found.values()} <= {float, int}
    traced = jax.jit(lambda s: {k: v + 0 for k, v in oa.scalars(s).items()})(state)
    chex.assert_trees_all_close(jax.device_get(traced), found)
    oa.report(state)
    printed = capsys.readouterr().out
    assert "update 1 of 1" in printed
    for word in ("first/kernel", "guard/skipped", "hyperparams/learning_rate", "distance"):
        assert word in printed
    assert re.search(rf"^ +last +{found['grad_norm/last']:.2g} ", printed, re.MULTILINE)
    assert "grad_norm/last" not in printed
    assert set(oa.scalars(oa.momo(1.0).init(PARAMS))) == {"effective_lr"}
    only = oa.guard(oa.adam(1.0)).init(PARAMS)
    assert set(oa.scalars(only)) == {
        f"guard/{k}" for k in ("finite", "nonfinite", "skipped", "clipped", "in_a_row", "norm")
    }
    assert set(oa.scalars(oa.tunable(oa.sgd)(1.0).init(PARAMS))) == {"hyperparams/learning_rate"}


def test_several_of_a_kind_are_numbered():
    tx = optax.partition(
        {"x": oa.monitor(oa.guard(oa.sgd(1.0))), "y": oa.monitor(oa.dog())},
        {"first": "x", "last": "y"},
    )
    _, state = one_step(tx)
    found = oa.scalars(state)
    norm = float(jnp.linalg.norm(GRADS["first"]["bias"]))
    assert found["0/grad_norm/first/bias"] == pytest.approx(norm, rel=1e-5)
    assert found["1/grad_norm"] == found["1/grad_norm/last"]
    assert found["guard/finite"] == 1
    oa.report(state)
    tx = optax.partition(
        {"x": oa.guard(oa.ldog()), "y": oa.guard(oa.prodigy())}, {"first": "x", "last": "y"}
    )
    found = oa.scalars(one_step(tx)[1])
    rates = {f"1/{name}" for name in ("effective_lr", "distance")}
    assert rates == {name for name in found if "guard" not in name}  # ldog has one for each leaf
    for i, name in enumerate(("first", "last")):
        norm = float(optax.tree.norm(GRADS[name]))
        assert found[f"{i}/guard/norm"] == pytest.approx(norm, rel=1e-5)


def test_report_without_rich_says_so(monkeypatch):
    monkeypatch.setitem(sys.modules, "rich.console", None)
    with pytest.raises(ModuleNotFoundError, match="report needs the package rich: pip install"):
        oa.report(oa.monitor(oa.sgd(1.0)).init(PARAMS))


def test_before_the_first_update(capsys):
    oa.report(oa.monitor(oa.sgd(1.0)).init(PARAMS["last"]))
    printed = capsys.readouterr().out
    assert "no update yet" in printed
    assert re.search(r"^ +all .*\n +\(the root\) ", printed, re.MULTILINE)


@pytest.mark.parametrize("call", [oa.scalars, oa.report])
def test_nothing_to_tell(call):
    name = call.__name__
    with pytest.raises(ValueError, match=rf"^{name}: state must be that of .*, got DescentState"):
        call(oa.adam(1.0).init(PARAMS))


def test_a_report_is_of_one_optimizer():
    for tx in (oa.monitor(oa.sgd(1.0)), oa.guard(oa.sgd(1.0)), oa.tunable(oa.sgd)(1.0)):
        states = jax.vmap(tx.init)(jnp.ones((2, 3)))
        assert all(x.shape == (2,) for x in oa.scalars(states).values())
        with pytest.raises(ValueError, match=r"^report: state must be that of one optimizer, and"):
            oa.report(states)
        with pytest.raises(ValueError, match=r"^report: state must be that of one optimizer, and"):
            jax.jit(oa.report)(tx.init(jnp.ones(3)))
        oa.report(jax.tree.map(lambda x: x[0], states))


def test_refusals():
    with pytest.raises(ValueError, match=r"^monitor: every must be a whole number >= 1, got 0"):
        oa.monitor(oa.adam(1.0), every=0)
    with pytest.raises(ValueError, match=r"^monitor: tx must be an optax.GradientTransformation"):
        oa.monitor(oa.adam)
    tx = oa.monitor(oa.adam(1.0))
    with pytest.raises(ValueError, match=r"^monitor.update needs params"):
        tx.update(GRADS, tx.init(PARAMS))


@pytest.mark.parametrize("axis", [AxisType.Auto, AxisType.Explicit])
def test_sharded(axis):
    """The numbers are those of one device; the state of `tx` and the updates keep their place."""
    mesh = jax.make_mesh((8,), ("x",), axis_types=(axis,))
    sharding = NamedSharding(mesh, P("x", None))
    params = jnp.asarray(rng.normal(size=(48, 24)), "float32")
    tx = oa.monitor(oa.with_quantized_state(oa.adam(0.1), min_size=1))
    _, alone = one_step(tx, params, params)
    with jax.set_mesh(mesh):
        sharded = jax.device_put(params, sharding)
        updates, state = one_step(tx, sharded, sharded)
    assert updates.sharding.is_equivalent_to(sharding, 2)
    for name, value in oa.scalars(alone).items():
        assert oa.scalars(state)[name] == pytest.approx(value, rel=1e-4), name


def test_in_nnx(capsys):
    model = nnx.Linear(3, 2, rngs=nnx.Rngs(0))
    optimizer = nnx.Optimizer(model, oa.monitor(oa.guard(oa.sgd(0.5))), wrt=nnx.Param)
    grads = nnx.grad(lambda m: jnp.sum(m(jnp.ones((1, 3)))))(model)
    nnx.jit(lambda model, optimizer, grads: optimizer.update(model, grads))(model, optimizer, grads)
    found = oa.scalars(optimizer.opt_state)
    assert found["grad_norm/bias"] == pytest.approx(2**0.5)
    assert found["effective_lr_50/kernel"] == pytest.approx(0.5, rel=1e-3)
    assert found["guard/finite"] == 1
    oa.report(optimizer.opt_state)
    assert "kernel" in capsys.readouterr().out


def test_what_is_kept_beside():
    """The updates, and on CPU a copy of the parameters or of the direction."""
    for every in (1, 10):
        assert temporaries(oa.monitor(oa.adam(0.1), every=every)) <= 2.05


def test_large_leaves_are_sampled():
    """Evenly: the quantiles of a leaf of many parts are those of all of it."""
    params = jnp.ones((100, 3, 70))
    grads = jnp.ones((100, 3, 70)) * jnp.linspace(1, 2, 100)[:, None, None]
    _, state = one_step(oa.monitor(oa.descend(oa.scale_by_adam(), 1.0)), params, grads)
    found = oa.scalars(state)  # steps of 1: the rate is 1 / g
    for q, expected in (("05", 1 / 1.95), ("50", 1 / 1.5), ("95", 1 / 1.05)):
        assert found[f"effective_lr_{q}"] == pytest.approx(expected, rel=0.03)
    many = jnp.ones((2,) * 13)  # axes
    assert oa.scalars(one_step(oa.monitor(oa.sgd(0.5)), many, many)[1])["update_rms"] == 0.5
