"""Hutchinson's estimator: the diagonal of a Hessian from products of it with random signs.

Bekas, Kokiopoulou and Saad, "An estimator for the diagonal of a matrix", Applied Numerical
Mathematics 57, 2007. https://doi.org/10.1016/j.apnum.2007.01.003
Hutchinson, "A stochastic estimator of the trace of the influence matrix for Laplacian smoothing
splines", Communications in Statistics - Simulation and Computation 18(3), 1989.
https://doi.org/10.1080/03610918908812806
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from optax_adaptive import _check


def hutchinson(
    loss_fn: Callable[..., Any], *, samples: int = 1, has_aux: bool = False
) -> Callable[..., tuple[Any, Any, Any]]:
    """`jax.value_and_grad`, and an estimate of the diagonal of the Hessian.

    With H the Hessian of the loss by the parameters and z a vector of random signs, the estimate
    is::

        mean over the samples of z (H z)

    Its expectation is the diagonal of H, and it is exact where H is diagonal. The
    variance at coordinate i is the sum of the squares of the rest of row i of H, over the number
    of samples.

    The product H z is the derivative of the gradient along z, forward over reverse, in the pass in
    which the loss and the gradient come out: nothing is computed twice. A sample costs about as
    much as two gradients, and the first one twice their memory; further ones come one after the
    other, with what they need of the first pass kept in memory.

    For example::

        loss_and_curvature = oa.hutchinson(loss_fn)

        @jax.jit
        def train_step(key, step, params, state, batch):
            key = jax.random.fold_in(key, step)
            loss, grads, diagonal = loss_and_curvature(key, params, batch)
            updates, state = optimizer.update(grads, state, params, hessian_diagonal=diagonal)
            return optax.apply_updates(params, updates), state, loss

    Args:
        loss_fn: (params, *args, **kwargs) -> a real scalar, or (scalar, aux) with `has_aux`.
        samples: How many random sign vectors to average over, an integer >= 1.
        has_aux: Whether the loss returns something beside it.

    Returns:
        A function (key, params, *args, **kwargs) -> (value, gradients, diagonal). `key` is a key of
        `jax.random`, another one at every step; the rest goes to `loss_fn`. `value` is what
        `loss_fn` returns. Gradients are those of `jax.grad`, and the diagonal is a tree like them,
        with their dtypes. A complex parameter u + iv has the second derivatives by u and by v as
        real and imaginary part. Integer parameters are held, and have the dtype float0 in both
        trees, as with `jax.grad(allow_int=True)`.

    Raises:
        ValueError: If `samples` or `has_aux` is outside its domain.
    """
    _check.whole(samples=samples)
    (samples,) = _check.known("hutchinson", samples=samples)
    _check.flag(has_aux=has_aux)

    def value_grad_and_diagonal(key: Any, params: Any, /, *args: Any, **kwargs: Any):
        leaves, structure = jax.tree.flatten(params)
        leaves = [jnp.asarray(x) for x in leaves]
        trains = [jnp.issubdtype(x.dtype, jnp.inexact) for x in leaves]

        def filled(trained: Any, others: Any) -> Any:
            """The tree of the parameters with `trained` where they train, `others` elsewhere."""
            trained = iter(trained)
            pairs = zip(trains, others, strict=True)
            return structure.unflatten([next(trained) if yes else x for yes, x in pairs])

        def gradient(trained):
            def loss(trained):
                return loss_fn(filled(trained, leaves), *args, **kwargs)

            value, grads = jax.value_and_grad(loss, has_aux=has_aux)(trained)
            return grads, value

        trained = [x for yes, x in zip(trains, leaves, strict=True) if yes]
        grads, hessian_times, value = jax.linearize(gradient, trained, has_aux=True)

        def sample(key):
            signs = _signs(key, trained)
            return [_times(z, hz) for z, hz in zip(signs, hessian_times(signs), strict=True)]

        if samples == 1:
            diagonal = sample(key)
        else:
            # One after the other; many terms of 16 bits are summed in 32.
            def add(sums, key):
                return [s + x for s, x in zip(sums, sample(key), strict=True)], None

            zeros = [jnp.zeros(x.shape, jnp.promote_types(x.dtype, jnp.float32)) for x in trained]
            sums, _ = jax.lax.scan(add, zeros, jax.random.split(key, samples))
            diagonal = [(s / samples).astype(x.dtype) for s, x in zip(sums, trained, strict=True)]
        held = [np.zeros(x.shape, jax.dtypes.float0) for x in leaves]
        return value, filled(grads, held), filled(diagonal, held)

    return value_grad_and_diagonal


def _signs(key: Any, like: list[jax.Array]) -> list[jax.Array]:
    """Independent +1 and -1 in the shapes and dtypes of `like`, in both parts of complex ones."""
    return [_sign(k, x) for k, x in zip(jax.random.split(key, len(like)), like, strict=True)]


def _sign(key: Any, like: jax.Array) -> jax.Array:
    if not jnp.issubdtype(like.dtype, jnp.complexfloating):
        return jax.random.rademacher(key, like.shape, like.dtype)
    real, imag = jax.random.rademacher(key, (2, *like.shape), jnp.real(like).dtype)
    return jax.lax.complex(real, imag)


def _times(z: jax.Array, hz: jax.Array) -> jax.Array:
    """Elementwise products; of complex numbers, of their parts, with u - iv for JAX's gradients."""
    if not jnp.issubdtype(z.dtype, jnp.complexfloating):
        return z * hz
    return jax.lax.complex(z.real * hz.real, -z.imag * hz.imag)
