"""State over devices: where every array of a state lies, told from the parameter it belongs to.

Rajbhandari, Rasley, Ruwase and He, "ZeRO: Memory Optimizations Toward Training Trillion Parameter
Models", SC 2020. https://arxiv.org/abs/1910.02054
"""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.sharding import AbstractMesh, Mesh, NamedSharding, PartitionSpec

from optax_adaptive import _check
from optax_adaptive._paths import Shape, field_and_owner, in_codes

# What a dimension is cut along: names of axes of a mesh, () where it is whole.
Cuts = tuple[tuple[str, ...], ...]


class Entry(NamedTuple):
    """An array of a state."""

    field: str  # that it is in
    owner: Any  # the path of the parameter that it belongs to, or None
    codes: bool  # whether it is codes of an array, or the scales of their blocks
    array: jax.ShapeDtypeStruct


def state_shardings(
    tx: optax.GradientTransformation,
    params: optax.Params,
    mesh: Mesh | AbstractMesh,
    axis: str | tuple[str, ...],
) -> Any:
    """Where the state of `tx` lies, spread over an axis of the mesh: ZeRO-1.

    Moments need not be on every device, though the parameters are: each device updates its share of
    them. What is returned goes wherever JAX takes shardings::

        cut = state_shardings(tx, params, mesh, "data")
        state = jax.jit(tx.init, out_shardings=cut)(params)     # no device ever holds all of it
        step = jax.jit(step, out_shardings=(whole, cut))        # -> params, state

    and a checkpoint is restored into it, on a mesh of any size. For every array of the state:

    - One in the shape of its parameter, or in codes of that shape, lies as the parameter does, if
      that has a `NamedSharding`. Where it has further axes, as a window of gradients, these are
      not cut.
    - Then it is cut along `axis`, at the first dimension that is whole and that the size of `axis`
      divides. So codes and their scales, moments and gradients are cut alike.
    - What cannot be divided stays as it is, and so do scalars and keys of random numbers.

    Nothing is allocated: `params` may be shapes, as of `jax.eval_shape`, and the mesh may be a
    `jax.sharding.AbstractMesh`, of devices that are not here.

    Args:
        tx: Any transformation.
        params: The parameters: arrays or `jax.ShapeDtypeStruct`, with or without shardings.
        mesh: A `jax.sharding.Mesh`. Its axes must be Auto, as those of `Mesh(devices, names)` are:
            along Explicit ones JAX wants parameters, gradients and state cut alike.
        axis: The name of an axis of the mesh, or a tuple of several. Those that a parameter is cut
            along already are left out for its state.

    Returns:
        A tree like the state, of `jax.sharding.NamedSharding`.

    Raises:
        ValueError: If an argument is not what it should be, or a parameter is cut along an axis
            that the mesh does not have.
    """
    tx = _check.wrapped(tx)
    axes = _axes(mesh, axis)
    shapes = shapes_of(params)
    cuts = {path: own_cuts(path, p, mesh) for path, p in jax.tree.leaves_with_path(params)}
    state = abstract_state(tx, params)

    def sharding(entry: Entry) -> NamedSharding:
        shape, dtype = entry.array.shape, entry.array.dtype
        followed = follow(entry, shapes, cuts, mesh)
        free, used = range(len(shape)), set()
        cut: list[tuple[str, ...]] = [()] * len(shape)
        if followed is not None:
            cut, free = followed
            used = {name for names in cuts[entry.owner] for name in names}
        if jnp.issubdtype(dtype, jax.dtypes.prng_key) or dtype == jnp.uint32:
            free = ()  # keys, new and old: there is no half of one
        rest = tuple(name for name in axes if name not in used)
        size = _size(mesh, rest)
        for k in (k for k in free if not cut[k] and shape[k] and shape[k] % size == 0):
            cut[k] = rest
            break
        return NamedSharding(mesh, spec_of(cut))

    found = [sharding(entry) for entry in entries(state, shapes)]
    return jax.tree.unflatten(jax.tree.structure(state), found)


def abstract_state(tx: optax.GradientTransformation, params: Any) -> Any:
    """The state of these parameters, in shapes. Where they lie is of no account."""

    return jax.eval_shape(tx.init, jax.tree.map(in_shape, params))


def in_shape(x: Any) -> jax.ShapeDtypeStruct:
    """An array, or a number, without its values."""
    shape = x.shape if hasattr(x, "shape") else jnp.shape(x)
    return jax.ShapeDtypeStruct(shape, jnp.result_type(x))


def shapes_of(params: Any) -> dict[Any, Shape]:
    """The shapes of parameters by their paths."""
    return {path: in_shape(p).shape for path, p in jax.tree.leaves_with_path(params)}


def entries(state: Any, params: Mapping[Any, Any]) -> list[Entry]:
    """The arrays of a state, in the order of its leaves; `params` has the parameters' paths."""
    return [
        Entry(*field_and_owner(path, params), in_codes(path), x)
        for path, x in jax.tree.leaves_with_path(state)
    ]


def follow(
    entry: Entry,
    shapes: Mapping[Any, Shape],
    cuts: Mapping[Any, Cuts],
    mesh: Mesh | AbstractMesh,
) -> tuple[list[tuple[str, ...]], range] | None:
    """How an array is cut as its parameter is, and which dimensions are those of the parameter.

    None where it has another shape: factors, matrices, what belongs to no parameter.
    """
    if entry.owner is None:
        return None
    shape, like = entry.array.shape, shapes[entry.owner]
    same = len(like) - entry.codes  # scales, and codes of 4 bits, are shorter in the last one
    starts = range(len(shape) - len(like), -1, -1)
    start = next((i for i in starts if shape[i : i + same] == like[:same]), None)
    if start is None:
        return None
    own = range(start, start + len(like))
    cut: list[tuple[str, ...]] = [()] * len(shape)
    for k, names in zip(own, cuts[entry.owner], strict=True):
        cut[k] = names if shape[k] % _size(mesh, names) == 0 else ()
    return cut, own


def own_cuts(path: Any, x: Any, mesh: Mesh | AbstractMesh) -> Cuts:
    """How an array is cut, whole where it has no `NamedSharding`."""
    sharding = getattr(x, "sharding", None)
    spec = sharding.spec if isinstance(sharding, NamedSharding) else ()
    return cuts_of(path, in_shape(x).shape, spec, mesh)


def cuts_of(path: Any, shape: Shape, spec: Any, mesh: Mesh | AbstractMesh) -> Cuts:
    """How a spec cuts an array of this shape, if it can."""
    names = [() if x is None else x if isinstance(x, tuple) else (x,) for x in spec]
    where = _check.keystr(path)
    for name in (name for some in names for name in some):
        if name not in mesh.axis_names:
            raise ValueError(
                f"{_check.caller()}: parameter at {where} is cut along {name!r}; mesh has "
                f"{', '.join(map(repr, mesh.axis_names))}."
            )
    if len(names) > len(shape):
        raise ValueError(
            f"{_check.caller()}: parameter at {where} has shape {shape}, its spec {len(names)} "
            "dimensions."
        )
    return (*names, *[()] * (len(shape) - len(names)))


def spec_of(cut: Any) -> PartitionSpec:
    """The spec that cuts so, without whole dimensions at its end."""
    names = [None if not x else x[0] if len(x) == 1 else x for x in cut]
    while names and names[-1] is None:
        names.pop()
    return PartitionSpec(*names)


def a_mesh(mesh: Any) -> None:
    """A mesh of devices, here or not."""
    if not isinstance(mesh, (Mesh, AbstractMesh)):
        raise ValueError(
            f"{_check.caller()}: mesh must be a jax.sharding.Mesh, such as "
            f'Mesh(jax.devices(), ("data",)), got {mesh!r}.'
        )


def _axes(mesh: Any, axis: Any) -> tuple[str, ...]:
    a_mesh(mesh)
    axes = axis if isinstance(axis, tuple) else (axis,)
    twice = any(name in axes[:k] for k, name in enumerate(axes))
    if not axes or twice or any(name not in mesh.axis_names for name in axes):
        raise ValueError(
            f"{_check.caller()}: axis must be one or several of "
            f"{', '.join(map(repr, mesh.axis_names))}, the axes of mesh, got {axis!r}."
        )
    return axes


def _size(mesh: Mesh | AbstractMesh, names: tuple[str, ...]) -> int:
    return math.prod(mesh.shape[name] for name in names)
