"""Parameters of 16 bits that train like those of 32, around any transformation.

Rounding at random and with a compensation: Zamirai, Zhang, Aberger and De Sa, "Revisiting BFloat16
Training", 2020. https://arxiv.org/abs/2010.06192
The rest of a parameter in 8 bits: Gonzalez Ortiz, Gupta, Renard and Blalock, "FlashOptim:
Optimizers for Memory Efficient Training", 2026. https://arxiv.org/abs/2602.23349
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax

from optax_adaptive import _check
from optax_adaptive._codes import random_bits, rounded, salts
from optax_adaptive._core import (
    is_absent,
    is_narrow,
    map_leaves,
    nearest,
    rounded_off,
    states_of,
    trains,
    transformation,
    widen,
    zero_count,
    zeros_like,
)
from optax_adaptive._numerics import increment


class StochasticRoundingState(NamedTuple):
    """The count of steps, and the state behind."""

    updates_are_exact = True  # for `transformation`
    writes: jax.Array  # count of updates, int32, shape (): what rounding draws from
    inner: optax.OptState  # of the wrapped transformation


class KahanState(NamedTuple):
    """What the parameters lack, and the state behind."""

    updates_are_exact = True  # for `transformation`
    residual: optax.Params  # what rounding took from the parameters, bfloat16
    inner: optax.OptState  # of the wrapped transformation


class MasterWeightsState(NamedTuple):
    """What the parameters lack, and the state behind."""

    updates_are_exact = True  # for `transformation`
    writes: jax.Array  # count of updates, int32, shape (): what rounding draws from
    residual: optax.Params  # further digits of the parameters: int8 are 8 bits, int16 are 16
    inner: optax.OptState  # of the wrapped transformation


def stochastic_rounding(
    tx: optax.GradientTransformation, *, seed: Any = 0
) -> optax.GradientTransformationExtraArgs:
    """`tx`, parameters of 16 bits rounded up or down at random, right on average.

    With p the parameters and u the update of tx, in float32::

        q      = p + u, rounded to the dtype of p: up with the odds of its share of the way
        update = q - p

    `optax.apply_updates` then lands on q, bit for bit (on a neighbour, if q is below p / 2^15).
    Rounded to the nearest number, a bfloat16 parameter ignores updates below 1/512 of itself, and
    a weight decay altogether. No memory is needed, but noise comes in: of up to one digit of the
    parameter at each step.

    Around it go only `guard`, `accumulate` and `monitor`, and weight decay goes inside: the updates
    of parameters below 32 bits leave in float32, also where gradients are narrower, and what
    changes or rounds them misses q. `tx` sees gradients and parameters in float32. Parameters of 32
    bits and more are left to it.

    Args:
        tx: Any optimizer.
        seed: What the odds are drawn from, a whole number >= 0. They depend on it, the count of
            updates and the place in the array only: a run that is resumed goes on as it would have,
            and sharding changes nothing.

    Raises:
        ValueError: If an argument is outside its domain, or `update` is not given the parameters.
    """
    tx = _check.wrapped(tx)
    _check.count(seed=seed)

    def init(params):
        return StochasticRoundingState(zero_count(), tx.init(_widened(params)))

    def update(grads, state, *, params, given_params=None, **extra):
        updates, inner = tx.update(grads, state.inner, params, given_params=params, **extra)
        writes = increment(state.writes)

        def leaf(dtype, u, p, salt):
            return rounded(p + u, dtype, salt).astype(p.dtype) - p if is_narrow(dtype) else u

        drawn = salts(updates, seed, writes)
        steps = map_leaves(leaf, updates, params, other=(drawn,), static=_dtypes(given_params))
        return steps, StochasticRoundingState(writes, inner)

    return transformation(init, update)


def kahan(tx: optax.GradientTransformation) -> optax.GradientTransformationExtraArgs:
    """`tx`, what rounding takes from parameters of 16 bits kept and given back (Kahan's sum).

    With p the parameters, r the residual and u the update that tx makes for p + r, in float32::

        x      = p + r + u
        update = q - p, where q is x rounded to the dtype of p
        r      = x - q, rounded to bfloat16

    `optax.apply_updates` then lands on q, bit for bit (on a neighbour, if q is below p / 2^15).
    p + r has about 16 binary digits where p has 8, and 4 bytes: updates below about p / 2^18 are
    lost where r is large. `master_weights` does better in 3 and in 4 bytes.

    Give `init` the float32 parameters, and `update` those rounded to 16 bits: nothing is lost::

        state = tx.init(params)
        params = optax.tree.cast(params, jnp.bfloat16)

    `exact_params(state, params)` are p + r. Around it go only `guard`, `accumulate` and `monitor`,
    and weight decay goes inside: the updates of parameters below 32 bits leave in float32, also
    where gradients are narrower, and what changes or rounds them misses q. Parameters of 32 bits
    and more are left to `tx`.

    Args:
        tx: Any optimizer.

    Raises:
        ValueError: If `tx` is no transformation, or `update` is not given the parameters.

    Departures: the paper adds the residual to the update, here `tx` sees p + r too, so that decay
    and trust ratios are those of float32.
    """
    tx = _check.wrapped(tx)

    def init(params):
        def lack(x):
            return rounded_off(x, jnp.bfloat16).astype(jnp.bfloat16)

        return KahanState(_residuals(lack, params), tx.init(_widened(params)))

    def update(grads, state, *, params, given_params=None, **extra):
        dtypes = _dtypes(given_params)

        def exact(dtype, p, r):
            return p + r.astype(p.dtype) if is_narrow(dtype) else p

        def leaf(dtype, u, p, r):
            if not is_narrow(dtype):
                return u, r
            x = p + r.astype(p.dtype) + u
            return nearest(x, dtype) - p, rounded_off(x, dtype).astype(r.dtype)

        there = map_leaves(exact, params, state.residual, static=dtypes)
        updates, inner = tx.update(grads, state.inner, there, given_params=there, **extra)
        steps, residual = map_leaves(leaf, updates, params, state.residual, static=dtypes)
        return steps, KahanState(residual, inner)

    return transformation(init, update)


def master_weights(
    tx: optax.GradientTransformation, *, bits: int = 24, seed: Any = 0
) -> optax.GradientTransformationExtraArgs:
    """`tx`, bfloat16 parameters of which the state has the digits that they lack.

    A float32 x is split: its first 16 bits, rounded by the others, are the parameter p, and the
    state has the distance, an integer of 8 or 16 bits in units of its last digit::

        x      = p + residual                          (of their bits, as integers)
        x      = x + the update that tx makes for x
        update = q - p, where q is the x rounded to bfloat16

    `optax.apply_updates` then lands on q, bit for bit (on a neighbour, if q is below p / 2^15).
    With `bits=32` x is float32: training is that of float32 parameters, and only the model sees
    them rounded; parameter and residual have 4 bytes, no more than float32 alone. With `bits=24`
    they have 3, and x has 16 binary digits, rounded up or down at random, right on average.

    Give `init` the float32 parameters, and `update` those rounded to bfloat16: nothing is lost::

        state = tx.init(params)
        params = optax.tree.cast(params, jnp.bfloat16)

    `exact_params(state, params)` are x, to evaluate, to export and to save. (Numbers halfway
    between two bfloat16, one in 65,536, start one unit of the last place off.)

    Around it go only `guard`, `accumulate` and `monitor`, and weight decay goes inside: the updates
    of bfloat16 parameters leave in float32, also where gradients are narrower, and what changes or
    rounds them misses q. Parameters of 32 bits and more are left to `tx`.

    Args:
        tx: Any optimizer.
        bits: 24 or 32, of parameter and residual together.
        seed: What the odds of `bits=24` are drawn from, a whole number >= 0; as that of
            `stochastic_rounding`.

    Raises:
        ValueError: If an argument is outside its domain, a parameter has another narrow dtype, or
            `update` is not given the parameters.

    Departures: FlashOptim takes the residual in units of half a digit of p over 127, rounded to the
    nearest: updates below p / 2^17 are lost there.
    """
    tx = _check.wrapped(tx)
    _check.one_of(24, 32, bits=bits)
    _check.count(seed=seed)
    dtype, dropped = (jnp.int8, 8) if bits == 24 else (jnp.int16, 0)

    def init(params):
        def lack(x):
            if x.dtype != jnp.float32:
                return jnp.zeros_like(x, dtype)
            n = _bits(x) - _bits(nearest(x, jnp.bfloat16))
            n = (n + (1 << dropped >> 1)) >> dropped
            info = jnp.iinfo(dtype)
            return jnp.where(jnp.isfinite(x), jnp.clip(n, info.min, info.max), 0).astype(dtype)

        residual = _residuals(lack, params)
        return MasterWeightsState(zero_count(), residual, tx.init(_widened(params)))

    def update(grads, state, *, params, given_params=None, **extra):
        dtypes = _dtypes(given_params)
        for path, x in jax.tree.leaves_with_path(dtypes):
            if is_narrow(x) and x != jnp.bfloat16:
                raise _check.MisfitError(
                    f"parameter at {_check.keystr(path)} must be bfloat16 or float32, got {x}"
                )

        def exact(dtype, p, r):
            return _with_lack(p, r) if is_narrow(dtype) else p

        def leaf(narrow, u, p, r, salt):
            if not is_narrow(narrow):
                return u, r
            x = _with_lack(p, r) + u
            n = _bits(x)
            if dropped:
                n = n + (random_bits(x.shape, salt) >> (32 - dropped)).astype(jnp.int32)
            first = (n + 0x8000) >> 16
            finite = jnp.isfinite(x)
            q = jnp.where(finite, lax.bitcast_convert_type(first << 16, jnp.float32), x)
            lack = (n - (first << 16)) >> dropped
            return q - p, jnp.where(finite, lack, 0).astype(dtype)

        there = map_leaves(exact, params, state.residual, static=dtypes)
        updates, inner = tx.update(grads, state.inner, there, given_params=there, **extra)
        writes = increment(state.writes)
        drawn = salts(updates, seed, writes)
        steps, residual = map_leaves(
            leaf, updates, params, state.residual, other=(drawn,), static=dtypes
        )
        return steps, MasterWeightsState(writes, residual, inner)

    return transformation(init, update)


def exact_params(state: optax.OptState, params: optax.Params) -> optax.Params:
    """The parameters with the digits that the state of the optimizer has of them, in float32.

    Args:
        state: Of any optimizer with `master_weights` or `kahan` in it: in chains, masks, groups.
        params: The parameters.

    Returns:
        A tree like `params`; parameters below 32 bits are float32, others as they are.

    Raises:
        ValueError: If nothing in the state keeps digits of parameters.
    """

    def leaf(r: Any, p: Any) -> Any:
        if is_absent(r) or not is_narrow(p):
            return p
        x = widen(p)
        return x + r.astype(x.dtype) if trains(r) else _with_lack(x, r)

    for s in states_of("master_weights or kahan", state, (KahanState, MasterWeightsState)):
        params = jax.tree.map(leaf, s.residual, params, is_leaf=is_absent)
    return _widened(params)


def _widened(params: Any) -> Any:
    """The parameters, those below 32 bits in float32."""

    def leaf(p: Any) -> Any:
        if not is_narrow(p):
            return p
        abstract = isinstance(p, jax.ShapeDtypeStruct)
        return jax.ShapeDtypeStruct(p.shape, jnp.float32) if abstract else widen(p)

    return jax.tree.map(leaf, params)


def _residuals(lack: Callable[[jax.Array], jax.Array], params: Any) -> Any:
    """What float32 parameters lack once they are rounded to bfloat16; 0 of all others."""

    def leaf(p: Any) -> jax.Array:
        abstract = isinstance(p, jax.ShapeDtypeStruct)
        return lack(zeros_like(p) if abstract or not trains(p) else widen(p))

    return jax.tree.map(leaf, params)


def _dtypes(params: Any) -> Any:
    return jax.tree.map(jnp.result_type, params)


def _bits(x: jax.Array) -> jax.Array:
    return lax.bitcast_convert_type(x, jnp.int32)


def _with_lack(p: jax.Array, residual: jax.Array) -> jax.Array:
    """The float32 that a bfloat16 p and the digits it lacks are together."""
    digits = residual.astype(jnp.int32) << (8 if residual.dtype == jnp.int8 else 0)
    return lax.bitcast_convert_type(_bits(p) + digits, jnp.float32)
