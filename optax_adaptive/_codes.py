"""Numbers in fewer bits: rounding at random, and codes that share a scale with their block.

A number that changes by less than half a step of its grid never changes when it is rounded to the
nearest. Rounded up or down at random, with the odds that make it right on average, it follows. The
odds come from a hash of the place in the array and of the step: nothing is kept for them, they are
the same on every device, and drawing them is a few integer operations that XLA fuses.
"""

import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import NamedSharding, PartitionSpec, reshard

# The largest code and the power of the scale by bits, as benchmarks/precision.py measures them.
_SIGNED = {8: (127, 3), 4: (7, 2)}
_POSITIVE = {8: (255, 8), 4: (15, 1)}
_FLOOR = 1 / 16


class SignedCodes(NamedTuple):
    """An array of either sign: block_max sign(code) (|code| / largest code)^power."""

    codes: jax.Array  # int8, in the shape of the array; uint8 is two codes of 4 bits, half as long
    block_max: jax.Array  # the largest |x| of each block, a stretch of the last axis


class PositiveCodes(NamedTuple):
    """An array >= 0: block_max (block_floor + (1 - block_floor) code / largest code)^power.

    The smallest code is the smallest number of the block; 0 only where all are.
    """

    codes: jax.Array  # int8, from -128 on; uint8 is two codes of 4 bits
    block_max: jax.Array  # the largest x of each block, a stretch of the last axis
    block_floor: jax.Array  # (smallest / largest)^(1 / power), 1 / 16 at least


def is_codes(x: Any) -> bool:
    """Whether this is an array in codes."""
    return isinstance(x, (SignedCodes, PositiveCodes))


def bits_of(stored: Any) -> int:
    """8 or 4: the bits of a code."""
    return 4 if stored.codes.dtype == jnp.uint8 else 8


@functools.partial(jax.jit, static_argnums=(1, 2, 3))
def encode(x: jax.Array, kind: type, bits: int, blocks: int, salt: jax.Array) -> Any:
    """The array in codes of this kind, right on average, each row cut into so many blocks."""
    x, own = _whole_rows(x, blocks)
    stored = _encoded(x, kind, bits, blocks, salt)
    return stored if own is None else stored._replace(codes=reshard(stored.codes, own))


def _encoded(x: jax.Array, kind: type, bits: int, blocks: int, salt: jax.Array) -> Any:
    size = -(-x.shape[-1] // blocks)
    # One absolute value for all that reads x: without it XLA keeps x in an array of its own.
    x, negative = jnp.abs(x), x < 0
    block_max = _of_blocks(lax.max, x, blocks, 0.0)
    block_max = jnp.where(block_max < jnp.finfo(x.dtype).tiny, 0, block_max)
    scale = jnp.where(block_max > 0, 1 / block_max, 0)
    y = x * _spread(scale, x)
    draw = odds(x.shape, salt).astype(x.dtype)

    if kind is SignedCodes:
        largest, power = _SIGNED[bits]
        codes = _drawn(
            y, largest * _root(y, power), largest, lambda c: (c / largest) ** power, draw
        )
        codes = jnp.where(negative, -codes, codes).astype(jnp.int8)
        return SignedCodes(codes if bits == 8 else _pairs(codes.astype(jnp.uint8), size), block_max)

    largest, power = _POSITIVE[bits]
    smallest = _of_blocks(lax.min, x, blocks, jnp.inf) * scale
    floor = jnp.clip(_root(smallest, power), _FLOOR, 1)
    slope = (1 - floor) / largest
    steep = jnp.where(slope > 0, 1 / slope, 0)
    c = (_root(y, power) - _spread(floor, x)) * _spread(steep, x)
    slope = _spread(slope, x)
    codes = _drawn(y, c, largest, lambda c: (1 - slope * (largest - c)) ** power, draw)
    codes = (codes - 128).astype(jnp.int8) if bits == 8 else _pairs(codes.astype(jnp.uint8), size)
    return PositiveCodes(codes, block_max, floor)


@jax.jit
def decode(stored: Any) -> jax.Array:
    """The array that codes stand for, in the dtype of its scales."""
    codes, own = _whole_rows(stored.codes, stored.block_max.shape[-1])
    x = _decoded(stored._replace(codes=codes))
    return x if own is None else reshard(x, own)


def _decoded(stored: Any) -> jax.Array:
    return _values(_integers(stored), stored)


def _integers(stored: Any) -> jax.Array:
    """The codes, one by one."""
    codes, bits = stored.codes, bits_of(stored)
    if bits == 8:
        return codes
    codes = _single(codes, -(-2 * codes.shape[-1] // stored.block_max.shape[-1]))
    return jnp.where(codes > 7, codes - 16, codes) if isinstance(stored, SignedCodes) else codes


def _values(codes: jax.Array, stored: Any) -> jax.Array:
    """What such codes would stand for in this array."""
    block_max, bits = stored.block_max, bits_of(stored)
    if isinstance(stored, SignedCodes):
        largest, power = _SIGNED[bits]
        y = codes.astype(block_max.dtype) * (1 / largest)
        return _spread(block_max, y) * (y * jnp.abs(y) ** (power - 1))
    largest, power = _POSITIVE[bits]
    below = ((127 if bits == 8 else 15) - codes.astype(jnp.int32)).astype(block_max.dtype)
    slope = (1 - stored.block_floor) / largest
    # From the largest number down, which so comes back as it was.
    return _spread(block_max, below) * (1 - _spread(slope, below) * below) ** power


@jax.jit
def squared_error(stored: Any) -> tuple[jax.Array, jax.Array]:
    """The sums of squares of what codes are expected to be off, and of what they stand for.

    What lies anywhere between two codes, gap apart, and is rounded at random is off by gap² / 6 in
    the mean of squares.
    """
    codes, _ = _whole_rows(stored.codes, stored.block_max.shape[-1])
    stored = stored._replace(codes=codes)
    codes = _integers(stored).astype(jnp.int32)
    gap = _values(codes + 1, stored) - _values(codes - 1, stored)
    return jnp.sum(gap * gap) / 24, jnp.sum(jnp.square(_values(codes, stored)))


def _whole_rows(x: jax.Array, blocks: int) -> tuple[jax.Array, Any]:
    """The array, its rows in one piece where shards would cut a block, and its own sharding then.

    Only where axes of a mesh are explicit; elsewhere XLA sees to it.
    """
    sharding = jax.typeof(x).sharding
    names = sharding.spec[-1]
    names = (names,) if isinstance(names, str) else names or ()
    if blocks % math.prod(sharding.mesh.shape[name] for name in names) == 0:
        return x, None
    whole = PartitionSpec(*sharding.spec[:-1], None)
    return reshard(x, NamedSharding(sharding.mesh, whole)), sharding


def _drawn(y: jax.Array, c: jax.Array, largest: int, value: Any, draw: jax.Array) -> jax.Array:
    """The code below c or that above, with the odds that make its value y on average."""
    c = jnp.clip(jnp.floor(c), 0, largest - 1)
    below = value(c)
    return c + (draw * (value(c + 1) - below) < y - below)


def _root(y: jax.Array, power: int) -> jax.Array:
    """y^(1 / power) of numbers >= 0, to a hundredth of a step."""
    if power == 3:
        return jnp.exp(jnp.log(y) * (1 / 3))  # a sixth of the time of cbrt on CPU
    for _ in range(power.bit_length() - 1):
        y = jnp.sqrt(y)
    return y


def _of_blocks(reduce: Any, x: jax.Array, blocks: int, nothing: float) -> jax.Array:
    """The largest or smallest of each block, of numbers >= 0.

    Reduced as integers, which have their order, and NaN above all: XLA on CPU keeps an array for
    what it reduces as floats, and for more than 32 numbers at a time.
    """
    size = -(-x.shape[-1] // blocks)
    integer = jnp.int32 if x.dtype == jnp.float32 else jnp.int64
    bits = lax.bitcast_convert_type(x, integer)
    start = lax.bitcast_convert_type(jnp.asarray(nothing, x.dtype), integer)
    missing = size * blocks - x.shape[-1]
    bits = lax.pad(bits, start, [*[(0, 0, 0)] * (x.ndim - 1), (0, missing, 0)])
    inner = math.gcd(size, 16)
    bits = bits.reshape(*x.shape[:-1], blocks, size // inner, inner)
    return lax.bitcast_convert_type(lax.reduce(bits, start, reduce, (x.ndim, x.ndim + 1)), x.dtype)


def _spread(of_blocks: jax.Array, like: jax.Array) -> jax.Array:
    """The number of each block, at every place of it."""
    length, blocks = like.shape[-1], of_blocks.shape[-1]
    full = jnp.broadcast_to(of_blocks[..., None], (*of_blocks.shape, -(-length // blocks)))
    return full.reshape(*of_blocks.shape[:-1], -1)[..., :length]


def _pairs(codes: jax.Array, size: int) -> jax.Array:
    """Two codes of 4 bits a byte: those of the halves of a block, which a shard has together."""
    group = _group(codes.shape[-1], size)
    halves = (codes & 15).reshape(*codes.shape[:-1], -1, 2, group // 2)
    halves = halves << jnp.array([[0], [4]], jnp.uint8)
    # Not the or of two slices: XLA would compute all that is before them twice.
    pairs = lax.reduce(halves, jnp.uint8(0), lax.bitwise_or, (halves.ndim - 2,))
    return pairs.reshape(*codes.shape[:-1], -1)


def _single(pairs: jax.Array, size: int) -> jax.Array:
    """The codes of `_pairs`, as int32."""
    group = _group(2 * pairs.shape[-1], size)
    pairs = pairs.reshape(*pairs.shape[:-1], -1, 1, group // 2).astype(jnp.int32)
    codes = (pairs >> jnp.array([[0], [4]], jnp.int32)) & 15
    return codes.reshape(*pairs.shape[:-3], -1)


def _group(length: int, size: int) -> int:
    return size if size % 2 == 0 and length % size == 0 else 2


def rounded(x: jax.Array, dtype: Any, salt: jax.Array) -> jax.Array:
    """A float32 array in a narrower dtype, up or down at random, right on average."""
    info = jnp.finfo(dtype)
    bits = lax.bitcast_convert_type(x, jnp.int32)
    # The exponent of the last digit; not so small that float32 has no such number.
    last = jnp.maximum((bits >> 23) & 255, max(info.minexp + 127, info.nmant + 1)) - info.nmant
    unit = lax.bitcast_convert_type(last << 23, jnp.float32)
    inverse = lax.bitcast_convert_type((254 - last) << 23, jnp.float32)
    # Of as many digits as leave the sum exact: what needs no rounding is never rounded.
    return (jnp.floor(x * inverse + odds(x.shape, salt, 23 - info.nmant)) * unit).astype(dtype)


def salts(tree: Any, seed: Any, step: jax.Array) -> Any:
    """For every leaf what to draw its odds from: uint32, shape ()."""
    leaves, structure = jax.tree.flatten(tree)
    start = _mixed(_mixed(jnp.asarray(seed).astype(jnp.uint32)) + step.astype(jnp.uint32))
    return structure.unflatten([start + np.uint32(i) for i in range(len(leaves))])


def odds(shape: tuple[int, ...], salt: jax.Array, bits: int = 24) -> jax.Array:
    """Numbers in [0, 1) with so many bits, one for every place."""
    return (random_bits(shape, salt) >> (32 - bits)).astype(jnp.float32) * 2.0**-bits


def random_bits(shape: tuple[int, ...], salt: jax.Array) -> jax.Array:
    """A uint32 for every place."""
    place = jnp.zeros(shape, jnp.uint32)
    for axis in range(len(shape)):
        stride = jnp.uint32(math.prod(shape[axis + 1 :]) % 2**32)
        place = place + stride * lax.broadcasted_iota(jnp.uint32, shape, axis)
    return _mixed(place * jnp.uint32(0x9E3779B9) + _mixed(salt))


def _mixed(h: jax.Array) -> jax.Array:
    """A hash: every bit depends on every bit of h, by the last step of MurmurHash3."""
    h = (h ^ (h >> 16)) * jnp.uint32(0x85EBCA6B)
    h = (h ^ (h >> 13)) * jnp.uint32(0xC2B2AE35)
    return h ^ (h >> 16)
