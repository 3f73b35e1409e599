"""Schedule-Free: the averages, wherever the state is, and parameters too coarse to hold them."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest
import references
from cases import problem
from runs import enable_x64

import optax_adaptive as oa

NAMES = ("schedule_free_sgd", "schedule_free_adamw", "schedule_free_radam")


def run(tx, params, grads):
    """The parameters and the state after these gradients."""
    state, update = tx.init(params), jax.jit(tx.update)
    for g in grads:
        updates, state = update(g, state, params)
        params = optax.apply_updates(params, updates)
    return params, state


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_evaluation_parameters_are_the_averages(name, dtype):
    start, gradients = problem()
    averages, options = [], {"learning_rate": 1.0, "weight_decay": 0.1, "r": 1.0}
    path = list(getattr(references, name)(start, gradients, averages=averages, **options))
    with enable_x64(dtype == "float64"):
        tx = getattr(oa, name)(**options)
        gradients = [jnp.asarray(g, dtype) for g in gradients]
        params, state = run(tx, jnp.asarray(start, dtype), gradients)
        x = oa.schedule_free_eval_params(state, params)
        assert x.dtype == dtype
        close = {"rtol": 1e-11 if dtype == "float64" else 3e-5}
        np.testing.assert_allclose(params, path[-1], **close)
        np.testing.assert_allclose(x, averages[-1], **close)
        assert np.abs(x - params).max() > 1e-2


@pytest.mark.parametrize("name", NAMES)
def test_before_the_first_step_they_are_the_parameters(name):
    params = jnp.linspace(0.1, 0.9, 5)
    state = getattr(oa, name)().init(params)
    chex.assert_trees_all_equal(oa.schedule_free_eval_params(state, params), params)


def test_they_are_found_wherever_the_state_is():
    """In chains, masks, partitions, MultiSteps and injected hyperparameters; of every leaf."""
    params = {"a": jnp.ones(3), "b": jnp.full(2, 0.5), "frozen": None, "steps": jnp.arange(2)}
    grads = {"a": jnp.ones(3), "b": -jnp.ones(2), "frozen": None, "steps": jnp.zeros(2, int)}
    tx = oa.schedule_free_adamw(0.1)
    trained, state = run(tx, params, [grads] * 4)
    expected = oa.schedule_free_eval_params(state, trained)
    assert np.all(expected["a"] > trained["a"])
    assert expected["frozen"] is None
    chex.assert_trees_all_equal(expected["steps"], params["steps"])

    labels = {"a": "one", "b": "two", "frozen": "one", "steps": "one"}
    for around in (
        optax.chain(optax.clip(10.0), tx),
        optax.partition({"one": tx, "two": tx}, labels),
        optax.inject_hyperparams(oa.schedule_free_adamw)(0.1),
        optax.MultiSteps(tx, 1).gradient_transformation(),
    ):
        trained, state = run(around, params, [grads] * 4)
        x = oa.schedule_free_eval_params(state, trained)
        chex.assert_trees_all_close(x, expected, rtol=1e-6)

    masked = optax.chain(optax.masked(tx, {**labels, "a": True, "b": False, "frozen": False}))
    floats = {k: params[k] for k in "ab"}
    masked = optax.masked(tx, {"a": True, "b": False})
    trained, state = run(masked, floats, [{k: grads[k] for k in "ab"}] * 4)
    x = oa.schedule_free_eval_params(state, trained)
    chex.assert_trees_all_close(x["a"], expected["a"], rtol=1e-6)
    chex.assert_trees_all_equal(x["b"], trained["b"])


def test_another_state_is_refused():
    state = oa.adam(0.1).init(jnp.ones(2))
    with pytest.raises(ValueError, match=r"^schedule_free_eval_params: state must hold that of a"):
        oa.schedule_free_eval_params(state, jnp.ones(2))


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_coarse_parameters_follow_the_exact_ones(dtype):
    """Steps below their resolution are not lost, and the average is that of float32."""
    tx = oa.schedule_free_adamw(1e-4)
    keys = jax.random.split(jax.random.key(0), 200)
    grads = [jax.random.normal(k, (6,)).astype(dtype).astype("float32") + 0.5 for k in keys]
    start = jnp.linspace(0.5, 2.0, 6).astype(dtype)
    wide, wide_state = run(tx, start.astype("float32"), grads)
    params, state = run(tx, start, [g.astype(dtype) for g in grads])
    exact = run(tx, start.astype("float32"), [g.astype(dtype).astype("float32") for g in grads])
    assert params.dtype == dtype
    # Their steps are rounded, too, and so the last bit may differ.
    close = {"rtol": float(jnp.finfo(dtype).eps)}
    np.testing.assert_allclose(params.astype(float), exact[0], **close)
    ours = oa.schedule_free_eval_params(state, params)
    theirs = oa.schedule_free_eval_params(exact[1], exact[0])
    np.testing.assert_allclose(ours.astype(float), theirs, **close)
    assert np.any(np.asarray(params, float) != np.asarray(start, float))
    assert state.residual[0].dtype == jnp.float32
    assert wide_state.residual == []
    assert np.all(np.isfinite(wide))


@pytest.mark.parametrize("name", NAMES)
def test_resumed_runs_are_bit_exact(name, tmp_path):
    params = {"w": jnp.linspace(-1, 1, 6).reshape(2, 3), "half": jnp.ones(3, "bfloat16")}
    grads = [
        jax.tree.map(lambda p, s=s: jnp.cos(s + jnp.arange(p.size).reshape(p.shape)), params)
        for s in range(10)
    ]
    tx = getattr(oa, name)(0.1)
    whole = run(tx, params, grads)
    half = run(tx, params, grads[:5])
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(tmp_path / "half", half)
        checkpointer.wait_until_finished()
        abstract = jax.eval_shape(lambda p: (p, tx.init(p)), params)
        params, state = checkpointer.restore(tmp_path / "half", abstract)
    update = jax.jit(tx.update)
    for g in grads[5:]:
        updates, state = update(g, state, params)
        params = optax.apply_updates(params, updates)
    chex.assert_trees_all_equal((params, state), whole)
    chex.assert_trees_all_equal(
        oa.schedule_free_eval_params(state, params), oa.schedule_free_eval_params(*whole[::-1])
    )


def test_the_step_and_its_weight_have_the_same_rate():
    """Under a warm-up: the first step is made at 1 / warmup_steps, and the average is it."""
    tx = oa.schedule_free_sgd(1.0, warmup_steps=4)
    params, state = run(tx, jnp.zeros(1), [jnp.ones(1)])
    np.testing.assert_allclose(params, -0.25)
    np.testing.assert_allclose(oa.schedule_free_eval_params(state, params), -0.25)
    assert optax.tree.get(state, "effective_lr") == 0.25
    # Weights 1/16 and 4/16: x is -0.25 and -0.75, of which the second counts 4 times as much.
    params, state = run(tx, jnp.zeros(1), [jnp.ones(1)] * 2)
    np.testing.assert_allclose(oa.schedule_free_eval_params(state, params), -0.65, rtol=1e-6)


def test_a_warm_up_from_a_rate_of_zero():
    """No step, no weight, no NaN."""
    tx = oa.schedule_free_sgd(optax.linear_schedule(0.0, 1.0, 4))
    params, state = run(tx, jnp.ones(2), [jnp.ones(2)])
    chex.assert_trees_all_equal(params, jnp.ones(2))
    params, state = run(tx, jnp.ones(2), [jnp.ones(2)] * 3)
    chex.assert_tree_all_finite((params, state))
    assert np.all(oa.schedule_free_eval_params(state, params) < 1)


def test_a_bad_gradient_is_not_remembered():
    tx, params = oa.schedule_free_adamw(0.1), jnp.ones(3)
    params, state = run(tx, params, [jnp.ones(3)] * 2)
    for bad in (jnp.nan, jnp.inf):
        updates, state = tx.update(jnp.array([1.0, bad, 1.0]), state, params)
        assert not np.isfinite(updates[1])
        chex.assert_tree_all_finite((updates[::2], state))


@pytest.mark.parametrize(
    "make", [oa.rmsprop, oa.lion, functools.partial(oa.prodigy, d0=1e-3)], ids=lambda f: str(f)[:20]
)
def test_any_optimizer_can_be_wrapped(make):
    """On a noisy quadratic the average is nearer to the solution than the iterates are."""
    rate = 1.0 if isinstance(make, functools.partial) else 0.05
    tx = oa.schedule_free(make(rate), rate, r=1.0)
    params = jnp.full(20, 3.0)
    state, update = tx.init(params), jax.jit(tx.update)
    for key in jax.random.split(jax.random.key(0), 400):
        grads = params - 1 + jax.random.normal(key, (20,))
        updates, state = update(grads, state, params)
        params = params + updates
    x = oa.schedule_free_eval_params(state, params)
    z = params + state.kept * state.offset
    assert np.linalg.norm(x - 1) < 0.7 * np.linalg.norm(z - 1)


def test_around_prodigy_tiny_first_steps_do_not_count():
    """Weights follow the distance found; with equal ones the start would be in the average."""
    tx = oa.schedule_free(oa.prodigy())
    params = jnp.zeros(4)
    state, update = tx.init(params), jax.jit(tx.update)
    for _ in range(200):
        updates, state = update(params - 5.0, state, params)
        params = params + updates
    distance = optax.tree.get(state.inner, "distance")
    assert distance > 0.1
    assert state.effective_lr == distance
    assert state.weight_sum < 200 * distance**2
    x = oa.schedule_free_eval_params(state, params)
    assert np.linalg.norm(x - 5) < 0.3 * np.linalg.norm(jnp.full(4, 5.0))


def test_decay_is_at_the_parameters():
    """Where the gradient is taken, not at the iterate; and where the mask says so."""
    tx = oa.schedule_free(oa.sgd(0.5), 0.5, weight_decay=0.2, mask={"a": True, "b": False})
    params = {"a": jnp.ones(2), "b": jnp.ones(2)}
    zeros = jax.tree.map(jnp.zeros_like, params)
    trained, _ = run(tx, params, [zeros])
    np.testing.assert_allclose(trained["a"], 0.9)
    np.testing.assert_allclose(trained["b"], 1.0)
