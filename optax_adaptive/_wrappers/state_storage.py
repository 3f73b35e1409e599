"""State in fewer bytes, around any transformation: in a narrower dtype, or in codes of 8 or 4 bits.

Block-wise codes: Dettmers, Lewis, Shleifer and Zettlemoyer, "8-bit Optimizers via Block-wise
Quantization", ICLR 2022. https://arxiv.org/abs/2110.02861
Why they are rounded at random: Xu, Liang, Yu, Liu, Zhang, Ma, Wang and Wang, "Pushing the Limits of
Low-Bit Optimizers: A Focus on EMA Dynamics", 2025. https://arxiv.org/abs/2505.00347
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax
from jax.tree_util import GetAttrKey, keystr

from optax_adaptive import _check
from optax_adaptive._codes import (
    PositiveCodes,
    SignedCodes,
    bits_of,
    decode,
    encode,
    is_codes,
    rounded,
    salts,
)
from optax_adaptive._core import is_variable, states_of, transformation, widen, zero_count
from optax_adaptive._numerics import increment

# What the fields of states are, ours and those of optax where they have other names. Parameters,
# matrices and what rounding lost are none of them.
_SIGNED = "mu mu_diff mu_slow trace grad_sum last_grads slow offset ema acc_grads"
_POSITIVE = "nu nu_max delta sum_sq variance rate bound sum_abs reward nu_row nu_col residual_row"
_POSITIVE += " residual_col sum_sq_max sum_of_squares e_g e_x v_row v_col"
_FIELDS: dict[str, str] = dict.fromkeys(_SIGNED.split(), "signed")
_FIELDS |= dict.fromkeys(_POSITIVE.split(), "positive")
# Of steps that are a ratio of two means, and feed one of them.
_RATIOS = ({"nu", "delta"}, {"e_g", "e_x"})
_KINDS = {"signed": SignedCodes, "positive": PositiveCodes}

# In shorter rows the scales of the blocks would weigh more than half of the codes.
_SHORTEST_ROW = 16


class NarrowState(NamedTuple):
    """The state behind, some of its fields in another dtype."""

    writes: jax.Array  # count of updates, int32, shape (): what rounding draws from
    inner: optax.OptState  # of the wrapped transformation


class QuantizedState(NamedTuple):
    """The state behind, its moments in codes: `SignedCodes` and `PositiveCodes` for arrays."""

    writes: jax.Array  # count of updates, int32, shape (): what rounding draws from
    inner: optax.OptState  # of the wrapped transformation


def with_state_dtype(
    tx: optax.GradientTransformation,
    *,
    rounding: str = "stochastic",
    seed: Any = 0,
    **dtypes: Any,
) -> optax.GradientTransformationExtraArgs:
    """`tx`, some fields of its state stored in another dtype.

    `with_state_dtype(adamw(1e-3), mu=jnp.bfloat16, nu=jnp.bfloat16)` has 4 bytes of moments per
    parameter instead of 8. Arithmetic stays float32: the fields are widened for each update, and
    rounded behind it.

    A mean of 1,000 steps changes by a thousandth of itself at each, and bfloat16 has steps of
    1/256: rounded to the nearest number it stays where it is for ever. So "stochastic" is the
    default.

    Args:
        tx: Any transformation.
        rounding: "stochastic", up or down with the odds that are right on average, or "nearest".
        seed: What the odds are drawn from, a whole number >= 0. They depend on it, the count of
            updates and the place in the array only: a run that is resumed goes on as it would have.
        **dtypes: Fields of the state by name, each with jnp.bfloat16, jnp.float16 or jnp.float32.
            A field of that name is meant wherever it is in the state. float16 is for signed ones:
            squares of gradients below 2e-4 are 0 in it.

    Raises:
        ValueError: If an argument is outside its domain; in `init`, if the state has no such field.

    Departures: the `mu_dtype` of optax stores one of the moments, rounded to the nearest.
    """
    tx = _check.wrapped(tx)
    _check.one_of("stochastic", "nearest", rounding=rounding)
    _check.count(seed=seed)
    who = _check.caller()
    if not dtypes:
        raise ValueError(f"{who}: name a field of the state, such as nu=jnp.bfloat16.")
    stored = {field: _storable(who, field, dtype) for field, dtype in dtypes.items()}

    def dtype_of(path: Any, x: Any) -> Any:
        at = _field(path, _FIELDS | stored)
        real = x.ndim and jnp.issubdtype(x.dtype, jnp.floating)
        return stored.get(path[at].name) if real and at is not None else None

    def write(state: Any, writes: jax.Array) -> Any:
        def leaf(path, x, salt):
            dtype = dtype_of(path, x)
            if dtype is None or x.dtype == dtype:
                return x
            if rounding == "nearest" or jnp.finfo(dtype).bits >= 32:
                return x.astype(dtype)
            return rounded(x.astype(jnp.float32), dtype, salt)

        return jax.tree.map_with_path(leaf, state, salts(state, seed, writes))

    def read(path: Any, x: Any) -> Any:
        return x if dtype_of(path, x) is None else widen(x)

    def init(params):
        inner = tx.init(params)
        has = _field_names(inner)
        for field in stored:
            if field not in has:
                raise ValueError(
                    f"{who}: tx has no field {field!r} in its state; it has {', '.join(has)}."
                )
        return NarrowState(zero_count(), write(inner, zero_count()))

    def update(grads, state, *, params=None, **extra):
        inner = jax.tree.map_with_path(read, state.inner)
        updates, inner = tx.update(grads, inner, params, **extra)
        writes = increment(state.writes)
        return updates, NarrowState(writes, write(inner, writes))

    return transformation(init, update)


def with_quantized_state(
    tx: optax.GradientTransformation,
    *,
    bits: int = 8,
    block_size: int = 128,
    min_size: int = 4096,
    exclude: Callable[[str], bool] | None = None,
    fields: Mapping[str, str | None] | None = None,
    seed: Any = 0,
) -> optax.GradientTransformationExtraArgs:
    """`tx`, the moments in its state stored in codes of 8 or 4 bits.

    With x the numbers of one block, a stretch of the last axis, and c the codes::

        signed:    block_max = max(|x|)
                   x = block_max sign(c) (|c| / 127)³               c = -127 ... 127
        positive:  block_max = max(x),  block_floor = max((min(x) / max(x))^(1/8), 1/16)
                   x = block_max (block_floor + (1 - block_floor) c / 255)⁸    c = 0 ... 255

    and with 4 bits (|c| / 7)² for c = -7 ... 7, and the power 1 and 15 in the place of 8 and 255.
    Arithmetic stays float32: codes are read for each update, and written behind it, up or down at
    random with the odds that make them right on average.

    So a running mean or a growing sum follows changes far below the steps of its codes, where one
    rounded to the nearest stands still. The smallest code of a positive field is the smallest
    number of its block and never 0: a mean of squares that became 0 beside a mean of gradients that
    did not would make a step of thousands of learning rates. A block lies inside of one row. The
    row of an embedding has scales of its own, however rare its word, and embeddings need no
    exception; `exclude=lambda path: "embed" in path` makes one.

    Two moments take 2.1 bytes per parameter with 8 bits, 1.1 with 4, instead of 8. Compile `init`
    (`jax.jit(tx.init)(params)`) where float32 moments of all parameters would not fit.

    In codes are the arrays of these fields of the state, wherever they are in it: means and sums of
    gradients (mu, mu_diff, mu_slow, trace, grad_sum, last_grads, slow, offset) and of what is
    never negative (nu, nu_max, delta, sum_sq, variance, rate, bound, sum_abs, reward, and rows and
    columns of factored ones); and those of optax with other names (ema, acc_grads, sum_of_squares,
    e_g, e_x, v_row, v_col). What has another name stays as it is: parameters, their means,
    the matrices of Shampoo and SOAP; `fields` says otherwise.

    `optax.tree.get(state, "nu")` is a tree of codes, and that of `dequantize_state(state)` one of
    numbers.

    Args:
        tx: Any transformation.
        bits: 8, or 4: two codes a byte. Rows of odd length have 8, and so have the means of
            AdaDelta: its step is their ratio, and feeds one of them, so that errors multiply.
        block_size: The longest block, a whole number >= 16; a row is cut into equal ones.
        min_size: Smaller arrays stay as they are: a whole number >= 1. So do those whose last axis
            is shorter than 16.
        exclude: None, or a function of the path of a parameter, as "encoder/embed/embedding": True
            where its state is to stay as it is.
        fields: None, or further fields of a state by name: "signed", "positive", or None for one
            that stays as it is.
        seed: What the odds are drawn from, a whole number >= 0. They depend on it, the count of
            updates and the place in the array only: a run that is resumed goes on as it would have.

    Raises:
        ValueError: If an argument is outside its domain; in `init`, if `tx` has codes already.

    Departures: bitsandbytes and torchao read codes from a table, flat blocks of 256, rounded to the
    nearest, and have a code 0 for means of squares; they leave embeddings in float32. FlashOptim
    (https://arxiv.org/abs/2602.23349) compands, in groups of 32, to the nearest.
    """
    tx = _check.wrapped(tx)
    options = _options(bits, block_size, min_size, exclude, fields, seed)

    def init(params):
        return _quantize(tx.init(params), *options)

    def update(grads, state, *, params=None, **extra):
        updates, new = tx.update(grads, _decoded(state.inner), params, **extra)
        writes = increment(state.writes)

        def write(old, x, salt):
            if not is_codes(old):
                return x
            return encode(x, type(old), bits_of(old), old.block_max.shape[-1], salt)

        drawn = salts(new, seed, writes)
        inner = jax.tree.map(write, state.inner, new, drawn, is_leaf=is_codes)
        return updates, QuantizedState(writes, inner)

    return transformation(init, update)


def quantize_state(
    state: optax.OptState,
    *,
    bits: int = 8,
    block_size: int = 128,
    min_size: int = 4096,
    exclude: Callable[[str], bool] | None = None,
    fields: Mapping[str, str | None] | None = None,
    seed: Any = 0,
) -> QuantizedState:
    """The state of a transformation as `with_quantized_state` around it stores it.

    To go on in codes with a run that began in float32, or to start from its checkpoint::

        tx8 = with_quantized_state(tx, bits=8)
        state = quantize_state(state, bits=8)            # updates, state = tx8.update(...)

    Args:
        state: Of `tx`, after any number of steps.
        bits, block_size, min_size, exclude, fields, seed: Those of `with_quantized_state`.

    Raises:
        ValueError: If an argument is outside its domain, or the state has codes already.
    """
    return _quantize(state, *_options(bits, block_size, min_size, exclude, fields, seed))


def dequantize_state(state: optax.OptState) -> optax.OptState:
    """The state in float32, as the transformation within `with_quantized_state` has it.

    To look into it, to store it for another program, or to go on without codes.

    Args:
        state: Of `with_quantized_state`, or of anything that holds it: chains, masks, groups.

    Raises:
        ValueError: If nothing in the state is quantized.
    """
    states_of("with_quantized_state", state, QuantizedState)

    def quantized(x: Any) -> bool:
        return isinstance(x, QuantizedState)

    return jax.tree.map(
        lambda x: _decoded(x.inner) if quantized(x) else x, state, is_leaf=quantized
    )


def _options(
    bits: Any, block_size: Any, min_size: Any, exclude: Any, fields: Any, seed: Any
) -> tuple[Any, ...]:
    """The arguments of `_quantize` behind the first."""
    _check.one_of(8, 4, bits=bits)
    _check.at_least_sixteen(block_size=block_size)
    _check.whole(min_size=min_size)
    _check.count(seed=seed)
    who = _check.caller()
    block_size, min_size = _check.known(who, block_size=block_size, min_size=min_size)
    if exclude is not None and not callable(exclude):
        raise ValueError(f"{who}: exclude must be a function of a path, or None, got {exclude!r}.")
    if fields is not None and not isinstance(fields, Mapping):
        raise ValueError(f"{who}: fields must be a dict from names of fields, got {fields!r}.")
    for field, kind in (fields or {}).items():
        if kind is not None and kind not in _KINDS:
            raise ValueError(
                f'{who}: fields[{field!r}] must be "signed", "positive" or None, got {kind!r}.'
            )
    return bits, block_size, min_size, exclude, _FIELDS | dict(fields or {}), seed, who


def _quantize(
    state: Any,
    bits: int,
    block_size: int,
    min_size: int,
    exclude: Callable[[str], bool] | None,
    fields: Mapping[str, str | None],
    seed: Any,
    who: str,
) -> QuantizedState:
    if any(map(is_codes, jax.tree.leaves(state, is_leaf=is_codes))):
        raise ValueError(f"{who}: the state has codes already; one such wrapper is enough.")

    has = set(_field_names(state))
    fine = set().union(*(ratio for ratio in _RATIOS if ratio <= has))

    def leaf(path, node, salt):
        (x,), around = jax.tree.flatten(node)  # a Variable of Flax NNX, or the array itself
        at = _field(path, fields)
        kind = None if at is None else fields[path[at].name]
        if at is None or kind is None:
            return node
        shape, real = jnp.shape(x), jnp.issubdtype(jnp.result_type(x), jnp.floating)
        small = jnp.size(x) < min_size or shape[-1] < _SHORTEST_ROW if shape else True
        if small or not real:
            return node
        if exclude is not None and exclude(keystr(path[at + 1 :], simple=True, separator="/")):
            return node
        some = 8 if shape[-1] % 2 or path[at].name in fine else bits
        # Compiled, most of it is constant, and XLA would spend minutes to compute it beforehand.
        x = lax.optimization_barrier(widen(x))
        stored = encode(x, _KINDS[kind], some, -(-shape[-1] // block_size), salt)
        return jax.tree.map(lambda made: around.unflatten([made]), stored)

    writes = zero_count()
    nodes, structure = jax.tree.flatten_with_path(state, is_leaf=is_variable)
    drawn = salts(list(range(len(nodes))), seed, writes)
    made = [leaf(*node, salt) for node, salt in zip(nodes, drawn, strict=True)]
    return QuantizedState(writes, structure.unflatten(made))


def _decoded(state: Any) -> Any:
    return jax.tree.map(lambda x: decode(x) if is_codes(x) else x, state, is_leaf=is_codes)


def _field(path: Any, fields: Mapping[str, Any]) -> int | None:
    """Where on a path the first of these fields is: what follows is the path of a parameter."""
    names = [key.name if isinstance(key, GetAttrKey) else None for key in path]
    return next((i for i, name in enumerate(names) if name in fields), None)


def _field_names(state: Any) -> list[str]:
    """The fields of all states within a state, also where they have no leaves."""
    names: dict[str, None] = {}

    def visit(x: Any) -> None:
        names.update(dict.fromkeys(getattr(x, "_fields", ())))
        for part in x.values() if isinstance(x, Mapping) else x if isinstance(x, tuple) else ():
            visit(part)

    visit(state)
    return list(names)


def _storable(who: str, field: str, dtype: Any) -> Any:
    """The dtype, if a field can be stored in it."""
    allowed = ["bfloat16", "float32"] + ["float16"] * (_FIELDS.get(field) != "positive")
    try:
        found = jnp.dtype("O" if hasattr(dtype, "shape") else dtype or "O")
    except TypeError:
        found = jnp.dtype("O")
    if found.name not in allowed:
        raise ValueError(f"{who}: {field} must be {' or '.join(allowed)}, got {dtype!r}.")
    return found
