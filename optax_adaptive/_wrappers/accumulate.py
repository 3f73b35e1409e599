"""Accumulation: one step for the mean of several gradients, as of one large batch.

The wrapped optimizer runs only when it steps: nothing else is computed at the other calls.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from optax_adaptive import _check
from optax_adaptive._core import branch, cast, map_leaves, transformation, zero_count, zeros_like


class AccumulateState(NamedTuple):
    """The gradients of the next step, shaped like the parameters, and the state behind."""

    calls: jax.Array  # count of gradients since the last step, int32, shape ()
    grad_sum: optax.Updates  # of them; where there are none, those of the last step
    inner: optax.OptState  # of the wrapped transformation


def accumulate(
    tx: optax.GradientTransformation, *, every: int
) -> optax.GradientTransformationExtraArgs:
    """`tx`, given the mean of the gradients of `every` calls, once in as many calls.

    With g the gradient at call t = 1, 2, ... and tx the wrapped transformation::

        grad_sum = g                       at the first call, and behind each step
                   grad_sum + g            at other calls
        update   = tx(grad_sum / every)    where `every` divides t
                   0                       elsewhere

    Between its steps the state of `tx` keeps every bit, and `tx` is not computed: under `jax.jit`
    it is a branch that is not taken. (`jax.vmap` over states takes both branches.) Schedules in it
    count its steps, not calls. What else comes to `update`, as the parameters, `value` and
    `hessian_diagonal`, is that of the call at which it steps, and not a mean.

    The sum is of float32 at least, and `tx` is given the mean so; only updates are in the dtype of
    the gradients. `with_state_dtype(accumulate(tx, every=n), grad_sum=jnp.bfloat16)` stores it in
    half the bytes. A gradient that is not finite makes the mean so, and is seen at the next step;
    with `guard` outside it is left out, and another one takes its place.

    Args:
        tx: Any transformation.
        every: How many gradients make a step: a whole number >= 1, known when the state is made.

    Raises:
        ValueError: If an argument is outside its domain.

    Departures: as `optax.MultiSteps(tx, every)`, which computes `tx` at every call, gives it the
    mean in the dtype of the gradients, and keeps a NaN in its sum for ever; and as
    `gradient_accumulation_steps` of the optimizers of Keras 3.
    """
    tx = _check.wrapped(tx)
    _check.whole(every=every)
    (every,) = _check.known("accumulate", every=every)

    def init(params):
        return AccumulateState(zero_count(), zeros_like(params), tx.init(params))

    def update(grads, state, *, params=None, **extra):
        begins, calls = state.calls == 0, state.calls + 1
        due = calls >= every

        def add(g, grad_sum):
            return jnp.where(begins, 0, grad_sum) + g

        grad_sum = map_leaves(add, grads, state.grad_sum)

        def step(grad_sum, inner):
            mean = map_leaves(lambda x: x / calls, grad_sum, inline=True)
            updates, new = tx.update(mean, inner, params, **extra)
            # The branches must agree, also around a transformation that changes dtypes.
            return jax.tree.map(lambda x, like: cast(x, like.dtype), (updates, new), (mean, inner))

        def wait(grad_sum, inner):
            return jax.tree.map(jnp.zeros_like, grad_sum), inner

        updates, inner = branch(due, step, wait, grad_sum, state.inner)
        return updates, AccumulateState(jnp.where(due, 0, calls), grad_sum, inner)

    return transformation(init, update)
