"""Flax NNX keeps the state of an optimizer in Variables, which hold one array each."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import optax_adaptive as oa
from optax_adaptive._codes import is_codes

nnx = pytest.importorskip("flax.nnx")


class Model(nnx.Module):
    """Two layers; the kernel of the first is large enough for codes."""

    def __init__(self):
        self.first = nnx.Linear(16, 256, rngs=nnx.Rngs(0))
        self.last = nnx.Linear(256, 1, rngs=nnx.Rngs(1))

    def __call__(self, x):
        return self.last(nnx.relu(self.first(x)))


X = jax.random.normal(jax.random.key(2), (32, 16))


def loss(model):
    return jnp.mean((model(X)[:, 0] - jnp.sin(X[:, 0])) ** 2)


def in_nnx(tx, steps, dtype=None):
    """The parameters after some steps of nnx.Optimizer, as a plain tree, and the optimizer."""
    model = Model()
    optimizer = nnx.Optimizer(model, tx, wrt=nnx.Param)
    if dtype is not None:
        nnx.update(model, optax.tree.cast(nnx.state(model, nnx.Param), dtype))

    @nnx.jit
    def step(model, optimizer):
        optimizer.update(model, nnx.grad(loss)(model))

    for _ in range(steps):
        step(model, optimizer)
    return nnx.as_pure(nnx.state(model, nnx.Param)), optimizer


def plainly(tx, steps):
    """The same by hand."""
    model = Model()
    definition, state = nnx.split(model, nnx.Param)
    params = nnx.as_pure(state)

    @jax.jit
    def step(params, opt_state):
        grads = jax.grad(lambda p: loss(nnx.merge(definition, p)))(params)
        updates, opt_state = tx.update(grads, opt_state, params)
        return optax.apply_updates(params, updates), opt_state

    opt_state = tx.init(params)
    for _ in range(steps):
        params, opt_state = step(params, opt_state)
    return params


TRANSFORMATIONS = {
    "8 bits": oa.with_quantized_state(oa.adam(1e-2)),
    "4 bits": oa.with_quantized_state(oa.adabound(), bits=4),
    "bfloat16 state": oa.with_state_dtype(oa.adam(1e-2), mu=jnp.bfloat16, nu=jnp.bfloat16),
    "in a chain": optax.chain(
        optax.clip_by_global_norm(1.0), oa.with_quantized_state(oa.adagrad(0.1))
    ),
}


def same(a, b):
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_allclose(
            np.asarray(x, np.float32), np.asarray(y, np.float32), rtol=2e-3, atol=2e-4
        )


@pytest.mark.parametrize("tx", TRANSFORMATIONS.values(), ids=TRANSFORMATIONS)
def test_codes_in_nnx(tx):
    found, optimizer = in_nnx(tx, 4)
    same(found, plainly(tx, 4))
    state = nnx.as_pure(optimizer.opt_state)
    coded = [x for x in jax.tree.leaves(state, is_leaf=is_codes) if is_codes(x)]
    assert bool(coded) is not (tx is TRANSFORMATIONS["bfloat16 state"])
    if coded:
        numbers = jax.tree.leaves(oa.dequantize_state(state))
        assert all(x.dtype != jnp.int8 for x in numbers)


@pytest.mark.parametrize("wrap", [oa.stochastic_rounding, oa.kahan, oa.master_weights])
def test_narrow_parameters_in_nnx(wrap):
    tx = wrap(oa.with_quantized_state(oa.adam(1e-2)))
    found, optimizer = in_nnx(tx, 4, jnp.bfloat16)
    assert found["first"]["kernel"].dtype == jnp.bfloat16
    close = plainly(oa.adam(1e-2), 4)
    apart = np.asarray(found["first"]["kernel"], np.float32) - close["first"]["kernel"]
    assert np.mean(abs(apart)) < 2e-3  # of a way of 0.04
    if wrap is not oa.stochastic_rounding:
        exact = oa.exact_params(nnx.as_pure(optimizer.opt_state), found)
        assert exact["first"]["kernel"].dtype == jnp.float32


@pytest.mark.parametrize("name", ["sm3", "shampoo", "soap", "schedule_free_adamw"])
def test_lists_of_arrays_in_nnx(name):
    """These have several arrays for a parameter, the last one for a narrow one."""
    options = {"max_precond_dim": 20} if name in ("shampoo", "soap") else {}
    tx = getattr(oa, name)(1e-2, **options)
    same(in_nnx(tx, 3)[0], plainly(tx, 3))
    in_nnx(tx, 2, jnp.bfloat16)
