"""What preconditioners need: a matrix for every axis of an array, its roots and its eigenvectors.

Products keep the precision of their factors, where accelerators would by default round these to 8
or 11 bits: a basis so computed is not orthogonal. A matrix is divided by its largest entry before
it is decomposed, since a decomposition squares what it is given.
"""

import string
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import AxisType, PartitionSpec

from optax_adaptive._core import map_params, zeros_like


def zeros_per_axis(params: Any, shapes: Callable[[tuple[int, ...]], Sequence[Any]]) -> Any:
    """For every parameter a list of zeros.

    Args:
        params: The parameters.
        shapes: The shape of a parameter -> the shapes in its list, None for None.
    """

    def leaf(x: jax.Array) -> list[jax.Array | None]:
        return [None if shape is None else jnp.zeros(shape, x.dtype) for shape in shapes(x.shape)]

    return map_params(leaf, zeros_like(params))


def gram(x: jax.Array, axis: int, diagonal: bool = False) -> jax.Array:
    """The products of the slices of `x` across `axis` with each other, or each with itself."""
    here = string.ascii_lowercase[: x.ndim]
    i, there = here[axis], here if diagonal else here.replace(here[axis], "Z")
    result = i if diagonal else i + "Z"
    whole = jax.typeof(x).sharding.update(spec=PartitionSpec(*[None] * len(result)))
    return jnp.einsum(f"{here},{there}->{result}", x, x, precision="highest", out_sharding=whole)


def along(x: jax.Array, matrix: jax.Array, axis: int) -> jax.Array:
    """The vectors of `x` along `axis`, each times `matrix`; a vector stands for a diagonal."""
    here = string.ascii_lowercase[: x.ndim]
    i, there = here[axis], here.replace(here[axis], "Z")
    if matrix.ndim == 1:
        return x * jnp.expand_dims(matrix, [k for k in range(x.ndim) if k != axis])
    same = jax.typeof(x).sharding
    return jnp.einsum(f"{here},{i}Z->{there}", x, matrix, precision="highest", out_sharding=same)


def by_compiler(function: Callable[[jax.Array], jax.Array], x: jax.Array) -> jax.Array:
    """`function` of x, in the shape and sharding of x, where the compiler shards what is between.

    A product of matrices refuses a mesh with explicit axes where its inner axis is sharded.
    """
    sharding = jax.typeof(x).sharding
    if AxisType.Explicit not in sharding.mesh.axis_types:
        return function(x)
    automatic: Any = jax.sharding.auto_axes(function, out_sharding=sharding)
    return automatic(x)


# Without closures: called without jit around them, they are compiled once and keep nothing.
@jax.jit
def next_root(due: jax.Array, matrix: jax.Array, root: jax.Array, power: Any, eps: Any) -> Any:
    """(matrix + eps)^-power where it is due, else the old root; of a vector it always is."""
    matrix, power, eps = (jnp.asarray(x, root.dtype) for x in (matrix, power, eps))
    if matrix.ndim == 1:
        return (matrix + eps) ** -power
    return lax.cond(due, _inverse_root, _same, root, matrix, power, eps)


@jax.jit
def next_basis(choice: jax.Array, matrix: jax.Array, basis: jax.Array) -> Any:
    """The orthogonal basis as it was (0), eigenvectors of `matrix` (1), or a step to them (2)."""
    matrix = jnp.asarray(matrix, basis.dtype)
    return lax.switch(choice, [_same, _eigenvectors, _power_step], basis, matrix)


def _same(old: jax.Array, *_: jax.Array) -> jax.Array:
    return old


def _unit(matrix: jax.Array) -> jax.Array:
    """The largest entry, 1 where all are 0."""
    largest = jnp.max(jnp.abs(matrix), initial=0)
    return jnp.where(largest > 0, largest, 1)


def _inverse_root(_: jax.Array, matrix: jax.Array, power: jax.Array, eps: jax.Array) -> jax.Array:
    unit = _unit(matrix)
    values, vectors = jnp.linalg.eigh(matrix / unit)
    # Smaller ones are rounding, below 0 as often as not.
    floor = jnp.finfo(matrix.dtype).eps * jnp.max(values, initial=0)
    values = unit * jnp.maximum(values, floor) + eps
    return jnp.einsum("ij,j,kj->ik", vectors, values**-power, vectors, precision="highest")


def _eigenvectors(_: jax.Array, matrix: jax.Array) -> jax.Array:
    return jnp.linalg.eigh(matrix / _unit(matrix)).eigenvectors


def _power_step(basis: jax.Array, matrix: jax.Array) -> jax.Array:
    product = jnp.matmul(matrix / _unit(matrix), basis, precision="highest")
    # A vector is made orthogonal to those before it: those of large eigenvalues come first, and
    # afterwards each returns to its place.
    order = jnp.argsort(-jnp.sum(basis * product, axis=0))
    return jnp.linalg.qr(product[:, order]).Q[:, jnp.argsort(order)]
