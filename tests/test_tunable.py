"""The numbers of a constructor in the state: read, set, swept, restored."""

import functools
import re

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest
from cases import CASES, KINDS
from cases import PLAIN as ALL
from runs import temporaries

import optax_adaptive as oa
from optax_adaptive.compat import torch

nnx = pytest.importorskip("flax.nnx")

PARAMS = {"w": jnp.linspace(0.5, 1.5, 6).reshape(2, 3), "b": jnp.ones(3)}
GRADS = jax.tree.map(lambda p: 2 * p - 1.5, PARAMS)


def walk(update, state, gradients, start):
    """The parameters after each step."""
    p, path = start, []
    for g in gradients:
        updates, state = update(g, state, p)
        p = optax.apply_updates(p, updates)
        path.append(p)
    return jax.tree.map(lambda *x: np.array(x), *path), state


def one_case(case, steps=8):
    """Two leaves: a vector, and what else it is compared on."""
    trees = [case.problem(shape) for shape in (case.shapes[0], case.shapes[-1])]
    start, gradients = zip(*trees, strict=True)
    steps = [jax.tree.map(lambda x, k=k: jnp.asarray(x[k], "float32"), gradients) for k in range(8)]
    return jax.tree.map(lambda x: jnp.asarray(x, "float32"), start), steps


# What acts on these paths only where it is large: terms beside a root, and bounds. And what acts
# nowhere on them: momo's bound on a rate, and a power of rates that are all the same.
LARGE = {"eps": 1e3, "eps_root": 1e2, "eps_residual": 1e3, "reps_rel": 1.0, "delta": 10.0}
LARGE |= {"tolerance": 1e9, "b1": 0.999, "precondition_frequency": 3.0}
NOWHERE = {("momo", "learning_rate"), ("adamp", "wd_ratio")}
NOWHERE |= {(f"schedule_free_{x}", "weight_lr_power") for x in ("sgd", "adamw", "radam")}


@pytest.mark.parametrize("case", ALL, ids=lambda c: c.id)
def test_every_number_of_every_optimizer(case):
    """The path is that of the plain optimizer, and each number that is set changes it."""
    start, gradients = one_case(case)
    tx = oa.tunable(case.factory)(**case.arguments)
    update, state = jax.jit(tx.update), tx.init(start)
    path, after = walk(update, state, gradients, start)
    plain, _ = walk(jax.jit(case.make().update), case.make().init(start), gradients, start)
    for ours, theirs, p in zip(path, plain, start, strict=True):
        reach = np.abs(theirs - p).max(axis=0) + 1e-6
        assert np.all(np.abs(ours - theirs) < 20 * case.float32 * reach)
    chex.assert_trees_all_equal_shapes_and_dtypes(after, state)
    assert {x.dtype for x in oa.hyperparams(after).values()} == {jnp.dtype("float32")}
    assert float(oa.hyperparams(after)["learning_rate"]) == np.float32(case.learning_rate)
    for name, value in oa.hyperparams(state).items():
        if (case.name, name) not in NOWHERE:
            other = LARGE.get(name.removeprefix("adam_"), 0.5 * float(value) or 0.25)
            changed, _ = walk(update, oa.set_hyperparams(state, **{name: other}), gradients, start)
            same = jax.tree.map(np.array_equal, changed, path)
            assert not all(same), name


def test_numbers_of_optax_and_of_ones_own():
    """Ours are told by their annotations; others by what they are."""

    def mine(rate, max_norm=1.0, *, power=None):
        return optax.chain(optax.clip_by_global_norm(max_norm), oa.adam(rate))

    state = oa.tunable(mine)(optax.constant_schedule(0.1)).init(PARAMS)
    assert set(oa.hyperparams(state)) == {"rate", "max_norm"}
    state = oa.tunable(optax.adamw)(1e-3, mask=lambda p: jax.tree.map(jnp.ndim, p)).init(PARAMS)
    assert set(oa.hyperparams(state)) == {
        *("learning_rate", "b1", "b2", "eps", "eps_root", "weight_decay")
    }
    partial = functools.partial(oa.adabound, 1e-3, gamma=0.01)
    assert float(oa.hyperparams(oa.tunable(partial)().init(PARAMS))["gamma"]) == np.float32(0.01)
    shapes = {"max_precond_dim", "ns_steps", "min_dim_size_to_factor", "initial_scale"}
    for factory in (oa.shampoo, oa.muon, oa.adafactor, oa.rmsprop):
        roles = {"roles": lambda path, shape: "adam"} if factory is oa.muon else {}
        names = oa.hyperparams(oa.tunable(factory)(1e-3, **roles).init(PARAMS))
        assert not shapes & set(names)
    names = oa.hyperparams(oa.tunable(oa.adam, fixed=("b1", "b2"))(1e-3).init(PARAMS))
    assert set(names) == {"learning_rate", "eps", "eps_root"}
    static = oa.tunable(lambda eps: oa.adam(1e-3, eps=eps), fixed="eps")(1e-3)
    updates, state = jax.jit(static.update)(GRADS, static.init(PARAMS), PARAMS)
    assert oa.hyperparams(state) == {}
    chex.assert_trees_all_close(
        updates, oa.adam(1e-3, eps=1e-3).update(GRADS, oa.adam(1e-3).init(PARAMS))[0]
    )


def test_numbers_behind_stars_and_what_is_no_number():
    def mine(rate, **others):
        return oa.adam(rate, **others)

    names = oa.hyperparams(oa.tunable(mine, fixed="eps")(0.1, b1=0.5, eps=1e-4).init(PARAMS))
    assert set(names) == {"rate", "b1"}

    def other(
        rate: "optax.ScalarOrSchedule",
        key,
        window: "int" = 3,
        most: "int | None" = 3,
        on=np.True_,
        z=None,
        powers=None,
    ):
        return optax.noisy_sgd(rate, key=key)

    schedule = optax.constant_schedule(0.1)
    tx = oa.tunable(other)(schedule, jax.random.key(0), z=np.complex64(1j), powers=np.ones(3))
    _, state = jax.jit(tx.update)(GRADS, tx.init(PARAMS), PARAMS)
    assert set(oa.hyperparams(state)) == {"rate"}
    for rate in (1, np.float64(0.5), np.float32(0.5), np.asarray(0.5), jnp.float32(0.5)):
        assert set(oa.hyperparams(oa.tunable(oa.sgd)(rate).init(PARAMS))) == {"learning_rate"}


def test_what_takes_gradients_alone_may_be_given_more():
    tx = oa.tunable(optax.scale)(0.5)
    updates, _ = tx.update(GRADS, tx.init(PARAMS), PARAMS, value=1.0)
    chex.assert_trees_all_equal(updates, optax.tree.scale(0.5, GRADS))


def test_starting_values_stay_as_they_are():
    for tx, name in (
        (oa.tunable(oa.cocob)(), "eps"),
        (oa.tunable(functools.partial(oa.cocob))(), "eps"),
        (oa.tunable(oa.prodigy)(), "d0"),
        (oa.tunable(lambda s_init: oa.mechanize(oa.sgd(1.0), s_init=s_init))(1e-3), "s_init"),
        (oa.tunable(lambda init_x: oa.sgd(1.0))(1e-3), "init_x"),
    ):
        assert name not in oa.hyperparams(tx.init(PARAMS))


@pytest.mark.parametrize("name", ["Adam", "SGD", "RMSprop"])
def test_a_part_that_is_absent_where_a_number_is_zero(name):
    """Constructors of torch leave parts out; each can be set."""
    make = getattr(torch, name)
    tx, plain = oa.tunable(make)(lr=0.1), make(lr=0.1)
    state, update = tx.init(PARAMS), jax.jit(tx.update)
    updates, after = update(GRADS, state, PARAMS)
    expected, _ = plain.update(GRADS, plain.init(PARAMS), PARAMS)
    chex.assert_trees_all_close(updates, expected, rtol=1e-5)
    chex.assert_trees_all_equal_shapes_and_dtypes(after, state)
    updates, _ = update(GRADS, oa.set_hyperparams(state, weight_decay=5.0), PARAMS)
    decayed = make(lr=0.1, weight_decay=5.0)
    expected, _ = decayed.update(GRADS, decayed.init(PARAMS), PARAMS)
    chex.assert_trees_all_close(updates, expected, rtol=1e-5)


def test_nothing_is_compiled_anew():
    tx = oa.tunable(oa.adamw)(learning_rate=1e-3)
    update, state = jax.jit(tx.update), tx.init(PARAMS)
    sizes = []
    for rate in (1e-3, jnp.float32(0.5), np.float64(0.25), 1, jnp.bfloat16(2)):
        state = oa.set_hyperparams(state, learning_rate=rate, weight_decay=0.0, b1=0)
        updates, state = update(GRADS, state, PARAMS)
        sizes.append(float(jnp.abs(updates["b"])[0]) / float(rate))
    assert update._cache_size() == 1
    np.testing.assert_allclose(sizes, 1, rtol=1e-5)


def test_who_says_what():
    """A schedule until it is set, and again after None; also what was written by hand is meant."""
    tx = oa.tunable(oa.sgd)(learning_rate=lambda step: 1.0 + step)
    one = jnp.ones(())

    def rate(state):
        updates, state = tx.update(one, state)
        assert float(-updates) == float(oa.hyperparams(state)["learning_rate"])
        return float(-updates), state

    state = tx.init(one)
    assert float(oa.hyperparams(state)["learning_rate"]) == 1.0
    first, state = rate(state)
    second, state = rate(state)
    assert (first, second) == (1.0, 2.0)
    held = oa.set_hyperparams(state, learning_rate=oa.hyperparams(state)["learning_rate"])
    third, held = rate(held)  # the same number as before, but now it stays
    fourth, held = rate(held)
    assert (third, fourth) == (2.0, 2.0)
    free = oa.set_hyperparams(held, learning_rate=None)
    assert float(oa.hyperparams(free)["learning_rate"]) == 4.0
    fifth, free = rate(free)
    sixth, _ = rate(oa.set_hyperparams(free, learning_rate=0.5))
    assert (fifth, sixth) == (5.0, 0.5)
    written = optax.tree.set(state, learning_rate=jnp.float32(9.0))
    seventh, written = rate(written)
    eighth, _ = rate(written)
    assert (seventh, eighth) == (9.0, 9.0)


def test_a_schedule_may_be_nan_once():
    """That is visible, and over when it says a number again."""
    tx = oa.tunable(oa.sgd)(learning_rate=lambda step: jnp.where(step == 1, jnp.nan, 1.0))
    state, update, seen = tx.init(jnp.ones(())), jax.jit(tx.update), []
    for _ in range(3):
        updates, state = update(jnp.ones(()), state)
        seen.append(float(updates))
    np.testing.assert_array_equal(seen, [-1.0, np.nan, -1.0])


def test_a_checkpoint_outlives_a_change_of_mind(tmp_path):
    """From a constant to another one and to a schedule; what was set by hand stays set."""
    make = oa.tunable(oa.adamw)
    constant, other = make(0.5), make(0.25, weight_decay=0.1)
    schedule = make(lambda step: 1.0 / (1 + step))
    _, state = constant.update(GRADS, constant.init(PARAMS), PARAMS)
    state = oa.set_hyperparams(state, b1=0.5)
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(tmp_path / "state", state)
        checkpointer.wait_until_finished()
        for tx, rate in ((constant, 0.5), (other, 0.25), (schedule, 0.5)):
            like = jax.eval_shape(tx.init, PARAMS)
            restored = checkpointer.restore(tmp_path / "state", like)
            chex.assert_trees_all_equal(restored, state)
            _, after = tx.update(GRADS, restored, PARAMS)
            found = oa.hyperparams(after)
            assert (float(found["learning_rate"]), float(found["b1"])) == (rate, 0.5)
            assert float(found["weight_decay"]) == np.float32(0.1 if tx is other else 1e-4)


def test_numbers_are_float32_for_bfloat16_parameters():
    low = jax.tree.map(lambda x: x.astype(jnp.bfloat16), PARAMS)
    tx, plain = oa.tunable(oa.adam)(1e-3), oa.adam(1e-3)
    state, updates = tx.init(low), None
    assert oa.hyperparams(state)["b2"] == np.float32(0.999)
    update = jax.jit(tx.update)
    other = plain.init(low)
    for _ in range(3):
        updates, state = update(low, state, low)
        expected, other = plain.update(low, other, low)
    chex.assert_trees_all_equal_dtypes(updates, low)
    chex.assert_trees_all_close(updates, expected, rtol=1e-2)
    chex.assert_trees_all_close(optax.tree.get(state, "nu"), other.direction.nu, rtol=1e-4)


def test_a_sweep_under_vmap():
    """States of several values, stepped at once; set together and one by one."""
    tx = oa.tunable(oa.adam)(1.0)
    rates = jnp.array([1e-3, 1e-2, 1e-1])
    states = jax.vmap(lambda r: oa.set_hyperparams(tx.init(PARAMS), learning_rate=r))(rates)
    step = jax.jit(jax.vmap(tx.update, in_axes=(None, 0, None)))
    updates, states = step(GRADS, states, PARAMS)
    np.testing.assert_allclose(abs(updates["b"][:, 0]), rates, rtol=1e-5)
    np.testing.assert_array_equal(oa.hyperparams(states)["learning_rate"], rates)
    states = oa.set_hyperparams(states, learning_rate=rates[::-1], b1=0.0)
    updates, states = step(GRADS, states, PARAMS)
    np.testing.assert_allclose(abs(updates["b"][:, 0]), rates[::-1], rtol=1e-3)
    np.testing.assert_array_equal(oa.hyperparams(states)["b1"], [0.0] * 3)
    with pytest.raises(ValueError, match=r"learning_rate must be .* shape \(2,\), where it is \(3"):
        oa.set_hyperparams(states, learning_rate=rates[:2])
    states = oa.set_hyperparams(states, learning_rate=None)
    np.testing.assert_array_equal(oa.hyperparams(states)["learning_rate"], [1.0] * 3)
    np.testing.assert_array_equal(states.is_set, [[True, False, False, False, False]] * 3)


def test_the_domains_of_names():
    """Behind any prefix, too; of other names nothing is known."""

    def mine(b1, b2, b3, rho, learning_rate, weight_decay, eps, eps_root, other):
        return oa.sgd(learning_rate)

    state = oa.tunable(mine, prefix="my_")(*[0.5] * 9).init(PARAMS)
    shares = {"my_b1", "my_b2", "my_b3", "my_rho"}
    for name in oa.hyperparams(state):
        for value, taken in ((-1.0, name == "my_other"), (0.0, True), (1.0, name not in shares)):
            if taken:
                oa.set_hyperparams(state, **{name: value})
            else:
                with pytest.raises(ValueError, match=f"^set_hyperparams: {name} must be"):
                    oa.set_hyperparams(state, **{name: value})


@pytest.mark.parametrize(
    "around",
    [
        lambda tx: optax.chain(optax.clip_by_global_norm(1e9), tx),
        lambda tx: optax.masked(tx, {"w": True, "b": True}),
        oa.cautious,
        lambda tx: oa.accumulate(tx, every=1),
        lambda tx: oa.with_quantized_state(tx, min_size=1),
        oa.schedule_free,
        lambda tx: oa.tunable(lambda max_rms: oa.clip_update_rms(tx, max_rms=max_rms))(1e9),
    ],
    ids=["chain", "masked", "cautious", "accumulate", "quantized", "schedule_free", "tunable"],
)
def test_within_others(around):
    tx = around(oa.tunable(oa.adam)(1e-3))
    state = oa.set_hyperparams(tx.init(PARAMS), learning_rate=0.5)
    updates, state = jax.jit(tx.update)(GRADS, state, PARAMS)
    assert float(oa.hyperparams(state)["learning_rate"]) == 0.5
    expected = around(oa.adam(0.5))
    expected, _ = expected.update(GRADS, expected.init(PARAMS), PARAMS)
    chex.assert_trees_all_close(updates, expected, rtol=1e-5)


def test_two_of_them_need_a_prefix():
    groups = {"w": "x", "b": "y"}
    tx = optax.partition({k: oa.tunable(oa.adam)(1e-3) for k in "xy"}, groups)
    state = tx.init(PARAMS)
    for call in (oa.hyperparams, lambda s: oa.set_hyperparams(s, b1=0.5)):
        with pytest.raises(ValueError, match=r"^(set_)?hyperparams: \w+ is there twice; give"):
            call(state)
    tx = optax.partition(
        {"x": oa.tunable(oa.adam)(1e-3), "y": oa.tunable(oa.adam, prefix="head_")(1e-2)}, groups
    )
    state = oa.set_hyperparams(tx.init(PARAMS), head_learning_rate=0.5)
    updates, _ = tx.update(GRADS, state, PARAMS)
    np.testing.assert_allclose(abs(updates["b"]), 0.5, rtol=1e-4)
    np.testing.assert_allclose(abs(updates["w"]), 1e-3, rtol=1e-4)
    with pytest.raises(ValueError, match=r"head_b1 must be a number in \[0, 1\), got 1"):
        oa.set_hyperparams(state, head_b1=1.0)


def test_in_nnx():
    """nnx.Optimizer keeps the state in Variables; the step is compiled once."""
    model = nnx.Linear(3, 2, rngs=nnx.Rngs(0))
    optimizer = nnx.Optimizer(model, oa.tunable(oa.sgd)(0.5), wrt=nnx.Param)
    traces = []

    @nnx.jit
    def step(model, optimizer):
        traces.append(1)
        optimizer.update(model, nnx.grad(lambda m: m.bias[...].sum())(model))

    step(model, optimizer)
    assert float(oa.hyperparams(optimizer.opt_state)["learning_rate"]) == 0.5
    optimizer.opt_state = oa.set_hyperparams(optimizer.opt_state, learning_rate=2.0)
    step(model, optimizer)
    np.testing.assert_allclose(model.bias[...], [-2.5, -2.5])
    assert len(traces) == 1


def test_the_band_of_adabound_moves_with_the_rate():
    """`base_lr` is the rate that the constructor was given, and the end of the band follows."""
    tx = oa.tunable(oa.adabound)(learning_rate=1e-3, gamma=0.9, final_lr=0.1)
    state, grads = tx.init(jnp.ones(())), jnp.asarray(1e-3)
    update = jax.jit(tx.update)
    for rate in (1e-3, 2e-3):
        state = oa.set_hyperparams(state, learning_rate=rate)
        for _ in range(300):
            updates, state = update(grads, state)
        assert float(-updates / grads) == pytest.approx(0.1 * rate / 1e-3, rel=0.05)


def test_nothing_is_kept_beside():
    """No array of the size of the parameters, also where numbers are traced."""
    for factory in (oa.adam, oa.adadelta, oa.lion, oa.adabound):
        assert temporaries(oa.tunable(factory)(1e-3)) < 0.01


def test_composition():
    """Eager as compiled, in scan, with optax's tools."""
    tx = oa.tunable(oa.adamw)(0.1)
    state = tx.init(PARAMS)
    eager, _ = tx.update(GRADS, state, PARAMS)
    compiled, _ = jax.jit(tx.update)(GRADS, state, PARAMS)
    chex.assert_trees_all_close(eager, compiled, rtol=1e-6)

    def body(carry, _):
        params, state = carry
        updates, state = tx.update(GRADS, state, params)
        return (optax.apply_updates(params, updates), state), ()

    (_, last), _ = jax.lax.scan(body, (PARAMS, state), None, 3)
    assert int(last.count) == 3
    marked = optax.tree.map_params(
        tx, lambda _: "array", state, transform_non_params=lambda _: "number"
    )
    assert jax.tree.leaves(marked).count("array") == 4
    assert tx.update({}, tx.init({}), {})[0] == {}


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: oa.tunable(oa.adam(1e-3)), "tunable: factory must be a constructor, as adamw is"),
        (lambda: oa.tunable(1), "tunable: factory must be a constructor, .*, got 1"),
        (lambda: oa.tunable(oa.adam, prefix=3), "tunable: prefix must be a string, got 3"),
        (lambda: oa.tunable(oa.adam, fixed="b7"), "tunable: fixed names 'b7', which is no arg.*b1"),
        (
            lambda: oa.tunable(dict),
            "tunable: factory must name its arguments; <class 'dict'> does not",
        ),
        (lambda: oa.tunable(lambda *a: oa.sgd(1.0))(1), "tunable: factory must take a by name"),
        (lambda: oa.tunable(lambda a, /: oa.sgd(a))(1), "tunable: factory must take a by name"),
        (lambda: oa.tunable(lambda a: a)(1), "tunable: factory must make an optax.Gr.* made 1"),
        (lambda: oa.tunable(oa.adamw)(1e-3, b2=1.0), r"adamw: b2 must be a number in \[0, 1\)"),
        (lambda: oa.tunable(oa.adamw)(None), "adamw: learning_rate must be"),
        (lambda: oa.hyperparams(oa.adam(1.0).init(PARAMS)), "hyperparams: state must be .*tunable"),
        (lambda: oa.set_hyperparams((), b1=1), "set_hyperparams: state must be .*tunable in it"),
        *(
            (
                lambda name=name, value=value: oa.set_hyperparams(STATE, **{name: value}),
                f"set_hyperparams: {name} must be {domain}, got {found}",
            )
            for name, value, domain, found in (
                ("b1", 1.0, r"a number in \[0, 1\)", "1."),
                ("learning_rate", -1.0, "a finite number >= 0", "-1."),
                ("learning_rate", "1", "a finite number >= 0", "'1'"),
                ("eps", True, "a finite number >= 0", "True"),
                ("learning_rate", jnp.nan, "a finite number >= 0", "nan"),
                ("b2", 1 - 1e-9, r"a number in \[0, 1\)", "1."),  # in float32
                ("learning_rate", 1e39, "a finite number >= 0", "inf"),
                ("learning_rate", jnp.ones(2), "a finite number >= 0", r"an array of shape \(2,\)"),
            )
        ),
        (
            lambda: oa.set_hyperparams(STATE, rate=1.0),
            "set_hyperparams: rate is not there; the state has b1, b2, eps, eps_root, learning_",
        ),
        (
            lambda: oa.tunable(oa.sgd)(1.0).update(GRADS, STATE),
            "sgd.update: the state has the hyperparameters b1, .*; this optimizer has learning_",
        ),
        (
            lambda: oa.tunable(oa.adamw)(1.0).update(GRADS, oa.tunable(oa.adamw)(1.0).init(PARAMS)),
            "adamw.update needs params",
        ),
        (
            lambda: oa.tunable(lambda n: oa.grokfast_ma(oa.sgd(1.0), window=n))(3).update(
                GRADS, jax.jit(oa.tunable(lambda n: oa.sgd(1.0))(3).init)(PARAMS)
            ),
            'grokfast_ma: window must be known .* .tunable needs fixed="window"',
        ),
    ],
)
def test_refusals(call, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        jax.jit(call)() if "known" in message else call()


STATE = oa.tunable(oa.adam)(1e-3).init(PARAMS)


@pytest.mark.parametrize("case", KINDS, ids=lambda c: c.id)
def test_names_mean_the_same_everywhere(case):
    """`set_hyperparams` refuses nothing that the constructor takes."""
    state = oa.tunable(case.factory)(**case.arguments).init(one_case(case)[0])
    for name in oa.hyperparams(state):
        for value in (0.0, 0.5, 1.0, 1.5):
            try:
                case.make(**{name: value})
            except ValueError as error:
                refused = str(error)
            else:
                oa.set_hyperparams(state, **{name: value})
                continue
            assert re.search(rf"\b{name}\b", refused)


def test_what_it_is_tested_with():
    assert {c.name for c in ALL} == {c.name for c in CASES}
