"""AdamMini: Adam with one second moment for every block of parameters that belong together.

Zhang, Chen, Li, Ding, Wu, Kingma, Ye, Luo and Sun, "Adam-mini: Use Fewer Learning Rates To Gain
More", ICLR 2025, algorithms 1 to 3. https://arxiv.org/abs/2406.16793
"""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from optax_adaptive import _check
from optax_adaptive._core import descend, map_leaves, transformation, zero_count, zeros_like
from optax_adaptive._numerics import bias, increment, squarable, square
from optax_adaptive._roles import Form, Roles, Rule, assigner, number, report


def _default(part, path, shape):
    outputs = "rows" if path.endswith("weight") else "neurons"
    if part == "bias":
        return "adam"
    if part == "embedding" and len(shape) == 2:
        return "rows"
    if part == "query" and len(shape) > 1:
        return "heads" if len(shape) == 3 else None
    if part == "value" and len(shape) == 3:
        return "neurons:2"
    if part in ("head", "value", "projection", "mlp", "linear") and len(shape) > 1:
        return outputs
    return "tensor"


def _splits(shape, axis, n):
    return len(shape) == 2 and n > 0 and shape[axis] % n == 0


_RULE = Rule(
    {
        "adam": Form("of any shape: a number for every coordinate", lambda shape, _: True),
        "tensor": Form("of any shape: one number", lambda shape, _: True),
        "rows": Form(
            "(n, ...): a number for each of n; N: for each index of N leading axes",
            lambda shape, n: len(shape) >= n > 0,
            True,
        ),
        "neurons": Form(
            "(..., n): a number for each of n; N: for each index of N last axes",
            lambda shape, n: len(shape) >= n > 0,
            True,
        ),
        "heads": Form(
            "(in, heads, size of a head), or with N heads side by side (in, N * size)",
            lambda shape, n: len(shape) == 3 if n == 1 else _splits(shape, 1, n),
            True,
        ),
        "row_heads": Form(
            "with N heads one below the other (N * size, in)",
            lambda shape, n: _splits(shape, 0, n),
            True,
        ),
    },
    _default,
)


class AdamMiniState(NamedTuple):
    """The count of steps and the running means."""

    count: jax.Array  # int32, shape ()
    mu: optax.Updates  # of gradients, shaped like the parameters
    nu: optax.Updates  # of mean squared gradients of blocks, with axes of 1 where they are means


def adam_mini(
    learning_rate: optax.ScalarOrSchedule,
    *,
    b1: Any = 0.9,
    b2: Any = 0.999,
    eps: Any = 1e-8,
    roles: Any = None,
    weight_decay: optax.ScalarOrSchedule | None = None,
    mask: Any = None,
) -> optax.GradientTransformationExtraArgs:
    """Adam-mini.

    With g the gradient at step t = 1, 2, ..., for every block of coordinates::

        mu   = b1 mu + (1 - b1) g
        nu   = b2 nu + (1 - b2) mean(g²)                       over the block
        step = learning_rate mu / (1 - b1^t) / (sqrt(nu / (1 - b2^t)) + eps)

    so that nu needs next to no memory. Which coordinates are a block is the role of their leaf::

        "adam"         every coordinate by itself
        "tensor"       the leaf
        "rows"         one index of the first axis: (tokens, size), or (out, in) as in Equinox
        "rows:2"       one index of the first two axes, and so on
        "neurons"      one index of the last axis: (..., out)
        "neurons:2"    one index of the last two axes, and so on: (in, heads, size of a head)
        "heads"        one head: (in, heads, size of a head)
        "heads:8"      one of 8 heads that lie side by side in the last axis: (in, 8 * size)
        "row_heads:8"  one of 8 heads that lie one below the other: (8 * size, in)

    By default names tell, as in the authors' code: biases are "adam"; embeddings "rows"; queries
    and keys "heads"; values, outputs of attention, MLPs, linear and output layers "neurons", with
    an entry for every coordinate of every head in Flax's values, and "rows" where the leaf is
    called "weight"; norms and all others, also those whose names say two things, "tensor". A query
    or key of two axes does not say how many heads it has: it is refused until `roles` tells. One
    block for all of a large embedding or attention matrix can make training unstable, so look at
    `adam_mini_roles`, which prints who is what, and why.

    A complex leaf is seen as real with a last axis of 2.

    Args:
        learning_rate: A number >= 0 or a schedule; about the root mean square of a step. The
            authors take that of AdamW.
        b1: The share of `mu` kept at each step, in [0, 1).
        b2: The share of `nu` kept at each step, in [0, 1).
        eps: Added to the root, > 0, in units of gradients.
        roles: None for the rule above; a dict from paths or shell-style patterns of them, such as
            "*/query/kernel", to roles, which leaves the others to the rule; or a function
            (path, shape) -> a role or None for the rule. A path is "params/Dense_0/kernel".
        weight_decay: A number >= 0 or a schedule, times the learning rate; None for no decay.
        mask: Which leaves decay: booleans in a prefix of the parameters' tree, or a function of
            the parameters that returns them; None for all.

    Raises:
        ValueError: If an argument is outside its domain, or `init` and `update` find a leaf whose
            role is not clear, two patterns that contradict each other, one that matches nothing, or
            a shape that its role does not have.

    Departures: as the authors' code, release 1.1.1, whose default partition is the paper's one for
    transformers. There heads are counted by dim and n_heads, a wrong number of which is a wrong
    block or an error of shapes, and a leaf whose name it does not know is one block in silence.
    `mask` says what does not decay; there it is what is called norm, ln or bias. optax has no
    Adam-mini; that of pytorch_optimizer takes every coordinate of embeddings and output layers, and
    one block for values, MLPs and outputs of attention.
    """
    direction = scale_by_adam_mini(b1=b1, b2=b2, eps=eps, roles=roles)
    return descend(direction, learning_rate, weight_decay, mask)


def scale_by_adam_mini(
    *, b1: Any = 0.9, b2: Any = 0.999, eps: Any = 1e-8, roles: Any = None
) -> optax.GradientTransformationExtraArgs:
    """The direction of `adam_mini`, without learning rate and decay."""
    _check.decay_rate(b1=b1, b2=b2)
    _check.positive(eps=eps)
    role_of = assigner(roles, _RULE)

    def init(params):
        def start(role, mu):
            return zeros_like(mu) if role in (None, "adam") else _means(role, mu)

        mu = zeros_like(params)
        return AdamMiniState(zero_count(), mu, map_leaves(start, mu, static=role_of(params)))

    def update(grads, state):
        t = increment(state.count)
        c1, c2 = bias(b1, t), bias(b2, t)

        def leaf(role, g, mu, nu):
            nu = b2 * nu + (1 - b2) * _means(role, square(g))
            g, flaw = squarable(g)
            mu = b1 * mu + (1 - b1) * g + flaw
            blocks, _ = _blocks(role, g.shape)
            u = mu.reshape(blocks) / (c1 * (jnp.sqrt(nu / c2) + eps))
            return u.reshape(g.shape), mu, nu

        roles = role_of(grads)
        updates, mu, nu = map_leaves(leaf, grads, state.mu, other=(state.nu,), static=roles)
        return updates, AdamMiniState(t, mu, nu)

    return transformation(init, update)


def adam_mini_roles(params: optax.Params, roles: Any = None) -> Roles:
    """Which blocks `adam_mini` makes of every leaf, and why: path -> role, None where it refuses.

    Its `str` is a table to print.

    Args:
        params: The parameters, or their shapes (`jax.ShapeDtypeStruct`).
        roles: As for `adam_mini`.

    Raises:
        ValueError: If two patterns contradict each other, one matches nothing, or a shape does not
            fit its role.
    """
    return report(params, roles, _RULE)


def _means(role, x):
    """The mean of every block of x; 0 of an empty one."""
    blocks, axes = _blocks(role, x.shape)
    size = math.prod(blocks[axis] for axis in axes)
    return jnp.sum(x.reshape(blocks), axes, keepdims=True) / max(1, size)


def _blocks(role, shape):
    """The shape in which the blocks of a role are whole axes, and these axes."""
    kind, n, axes = role.partition(":")[0], number(role), tuple(range(len(shape)))
    if kind == "heads":
        return shape if n == 1 else (shape[0], n, shape[1] // n), (0, 2)
    if kind == "row_heads":
        return (n, shape[0] // n, shape[1]), (1, 2)
    means = {"adam": (), "tensor": axes, "rows": axes[n:], "neurons": axes[: len(axes) - n]}
    return shape, means[kind]
