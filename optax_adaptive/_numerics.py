"""What floats need: the expressions that go wrong when they are written as in the paper."""

import math
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax


def increment(count: jax.Array) -> jax.Array:
    """count + 1, which stays at the largest integer instead of turning negative."""
    return jnp.where(count < jnp.iinfo(count.dtype).max, count + 1, count)


def log(x: Any) -> Any:
    """log(x) of a hyperparameter in [0, 1), in float64 when it is a Python number.

    `jnp.log(0.999)` first rounds 0.999 to float32, and is off by 1e-5 of its value.
    """
    if isinstance(x, (int, float)):
        return math.log(x) if x > 0 else -math.inf
    return jnp.log(x)


def bias(b: Any, t: jax.Array) -> jax.Array:
    """1 - b**t, the total weight of a mean that started at 0, to full precision.

    In float32 `1 - 0.999**t` has lost three of its seven digits at t = 1.
    """
    return -jnp.expm1(t * log(b))


def squarable(g: jax.Array) -> tuple[jax.Array, jax.Array]:
    """g, held where sums of its square stay finite, and a flaw to add to one result.

    The bound is 2**51 = 2e15 in float32: its square is 2**102, and a sum of such squares stops
    growing at 2**126, before it overflows. Without it one |g| = 1e20 makes a mean of squares
    infinite for ever, and every later step 0. The flaw is 0, and NaN where g is Inf or NaN: those
    must stay visible. (Added to g itself it would cost a temporary array: two outputs read g.)
    """
    bound = _bound(g.dtype)
    return lax.clamp(jnp.asarray(-bound, g.dtype), g, jnp.asarray(bound, g.dtype)), 0 * g


def finite(g: jax.Array) -> jax.Array:
    """The first result of `squarable`, and 0 where g is Inf or NaN."""
    return jnp.where(jnp.isfinite(g), squarable(g)[0], 0)


def square(g: jax.Array) -> jax.Array:
    """The square of the first result of `squarable`, from g itself.

    For sums of squares: XLA on CPU computes this inside of a sum, and a clamped g before it.
    """
    return jnp.minimum(g * g, jnp.asarray(_bound(g.dtype) ** 2, g.dtype))


def _bound(dtype: Any) -> float:
    info = jnp.finfo(dtype)
    return 2.0 ** ((info.maxexp - info.nmant - 3) // 2)


def one_minus_x_over_expm1(x: jax.Array) -> jax.Array:
    """1 - x / (exp(x) - 1) for x >= 0, without cancellation near 0."""
    x2 = x * x
    series = x / 2 - x2 / 12 * (1 - x2 / 60 * (1 - x2 / 42 * (1 - x2 / 40 * (1 - x2 * 5 / 198))))
    far = jnp.maximum(x, 0.25)
    return jnp.where(x < 0.25, series, 1 - far / jnp.expm1(far))


def norm(x: jax.Array) -> jax.Array:
    """The root of the sum of squares; 0 for an empty array."""
    return jnp.sqrt(jnp.sum(x * x))


def rms(x: jax.Array) -> jax.Array:
    """The root of the mean of squares; 0 for an empty array."""
    return norm(x) / max(1, x.size) ** 0.5


def over_factored_root(x: jax.Array, row: jax.Array, col: jax.Array, axis: int) -> jax.Array:
    """x / sqrt(row col / mean(row)), where row and col are means of squares along two axes.

    `axis` is that of the two along which `row` still varies. row / mean(row) as it stands becomes
    0 where a row of tiny entries meets large ones, and then a zero in x makes 0 / 0.
    """
    return x * (lax.rsqrt(row) * jnp.sqrt(jnp.mean(row, axis, keepdims=True))) * lax.rsqrt(col)
