"""Muon: hidden matrices step along the nearest orthogonal matrix, everything else by Adam.

Jordan, Jin, Boza, You, Cesista, Newhouse and Bernstein, "Muon: An optimizer for hidden layers in
neural networks", 2024. https://kellerjordan.github.io/posts/muon/
Consistent lengths of steps: Liu et al., "Muon is Scalable for LLM Training", 2025.
https://arxiv.org/abs/2502.16982
Adaptive steps: Bernstein and Newhouse, "Old Optimizer, New Norm: An Anthology", 2024.
https://arxiv.org/abs/2409.20325
"""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax

from optax_adaptive import _check
from optax_adaptive._core import (
    Others,
    descend,
    map_leaves,
    transformation,
    zero_count,
    zeros_like,
)
from optax_adaptive._matrices import by_compiler
from optax_adaptive._numerics import bias, increment, squarable
from optax_adaptive._roles import Form, Roles, Rule, assigner, players, report

_JORDAN = (3.4445, -4.7750, 2.0315)
_PRESETS = {
    "standard": _JORDAN,
    "dion": (
        (4.0848, -6.8946, 2.9270),
        (3.9505, -6.3029, 2.6377),
        (3.7418, -5.5913, 2.3037),
        (2.8769, -3.1427, 1.2046),
        (2.8366, -3.0525, 1.2012),
    ),
}


def _default(part, path, shape):
    if part in ("vector", "bias", "norm", "embedding", "head"):
        return "adam"
    if part in ("query", "value", "projection", "mlp") and len(shape) == 2:
        return "transposed" if path.endswith("weight") else "matrix"
    return None


_RULE = Rule(
    {
        "adam": Form("of any shape: embeddings, heads, norms, biases", lambda shape, _: True),
        "matrix": Form("(in, out)", lambda shape, _: len(shape) == 2),
        "transposed": Form(
            "(out, ...in), as in Equinox and torch", lambda shape, _: len(shape) > 1
        ),
        "conv": Form("(...in, out), also attention's outputs", lambda shape, _: len(shape) > 1),
        "heads": Form("(in, heads, size of a head)", lambda shape, _: len(shape) == 3),
        "stack": Form("(..., in, out), matrices by themselves", lambda shape, _: len(shape) > 2),
    },
    _default,
)


class MuonState(NamedTuple):
    """The count of steps and the running means."""

    count: jax.Array  # int32, shape ()
    mu: optax.Updates  # of gradients, shaped like the parameters
    nu: optax.Updates  # of squared gradients where the role is "adam"; elsewhere 0, shape ()


def muon(
    learning_rate: optax.ScalarOrSchedule,
    ns_coeffs: Any = _JORDAN,
    ns_steps: int = 5,
    beta: Any = 0.95,
    eps: Any = 1e-8,
    *,
    nesterov: bool = True,
    adaptive: bool = False,
    preconditioning: str = "frobenius",
    adam_b1: Any = 0.9,
    adam_b2: Any = 0.999,
    adam_eps_root: Any = 0.0,
    adam_weight_decay: optax.ScalarOrSchedule = 0.0,
    adam_learning_rate: optax.ScalarOrSchedule | None = None,
    consistent_rms: Any = None,
    roles: Any = None,
    weight_decay: optax.ScalarOrSchedule | None = None,
    mask: Any = None,
) -> optax.GradientTransformationExtraArgs:
    """Muon.

    With g the gradient at step t = 1, 2, ... of a leaf that is a matrix, fan_in x fan_out::

        mu   = beta mu + (1 - beta) g
        m    = mu / (1 - beta^t)
        x    = m / (|m| + eps)                       where |.| is the root of the sum of squares
        x    = a x + (b x x' + c (x x')²) x          ns_steps times, with (a, b, c) = ns_coeffs
        step = learning_rate sqrt(max(1, fan_out / fan_in)) x

    and with nesterov::

        m    = beta mu / (1 - beta^(t+1)) + (1 - beta) g / (1 - beta^t)

    x comes out nearly orthogonal: the singular vectors of m, and singular values between about 0.7
    and 1.2 where those of m are not below a hundredth of |m|. Every other leaf steps as by `adam`
    with adam_b1, adam_b2, eps and adam_eps_root, and with the same nesterov.

    Which leaf is which is its role. A leaf with one axis or none, and one whose names say that it
    is an embedding, a head, a norm or a bias, is "adam". A leaf of two axes that names say is a
    projection of attention or of an MLP inside a numbered layer or a block is "matrix", or
    "transposed" if it is called "weight". All others are refused until `roles` tells: a `Dense_2`
    may be the head, and a kernel of three axes can be a matrix in several ways. `muon_roles`
    prints who is what, and why. The roles are::

        "adam"        any shape
        "matrix"      (in, out)
        "transposed"  (out, ...in): `weight` in Equinox, of linear and convolution layers
        "conv"        (...in, out): convolutions, and the output projection of Flax's attention
        "heads"       (in, heads, size of a head): queries, keys and values of Flax's attention
        "stack"       (..., in, out): a matrix for every index of the leading axes

    A complex leaf is seen as real with a last axis of 2.

    Args:
        learning_rate: A number >= 0 or a schedule; about the size of the singular values of a step.
        ns_coeffs: Three numbers; or several threes, one for each iteration (ns_steps is then not
            read); or "standard", the default, or "dion".
        ns_steps: How many iterations, >= 1.
        beta: The share of `mu` kept at each step, in [0, 1).
        eps: Keeps norms and roots from 0, > 0, in units of gradients.
        nesterov: Whether the mean looks one step ahead.
        adaptive: Whether x is multiplied by the sum of m x, so that its length follows the
            gradient's.
        preconditioning: What m is divided by first: "frobenius", the root of its sum of squares;
            "spectral", its largest singular value; "schatten", sqrt(|m m'|); "aol", each row by
            the root of the sum of the absolute values in its row of m m'. The last two take the
            larger of the number under the root and eps.
        adam_b1: Of "adam": the share of `mu` kept at each step, in [0, 1).
        adam_b2: Of "adam": the share of `nu` kept at each step, in [0, 1).
        adam_eps_root: Of "adam": added under the root, >= 0, in units of squared gradients.
        adam_weight_decay: Of "adam": a number >= 0 or a schedule, times adam_learning_rate.
        adam_learning_rate: Of "adam": a number >= 0 or a schedule; None for learning_rate.
        consistent_rms: None, or a number > 0, the root mean square of every step over the learning
            rate: sqrt(max(fan_in, fan_out)) consistent_rms stands for sqrt(max(1, fan_out /
            fan_in)). Liu et al. use 0.2 to keep the rates of AdamW.
        roles: None for the rule above; a dict from paths or shell-style patterns of them, such as
            "*/Dense_0/kernel", to roles, which leaves the others to the rule; or a function
            (path, shape) -> a role or None for the rule. A path is "params/Dense_0/kernel".
        weight_decay: A number >= 0 or a schedule, times the learning rate, of all but "adam"; None
            for no decay.
        mask: Which leaves decay: booleans in a prefix of the parameters' tree, or a function of
            the parameters that returns them; None for all.

    Raises:
        ValueError: If an argument is outside its domain, `update` is not given the parameters, or
            `init` and `update` find a leaf whose role is not clear, two patterns that contradict
            each other, one that matches nothing, or a shape that its role does not have.

    Departures: as `optax.contrib.muon` where roles are the same. There every leaf of two axes is
    orthogonalised, embeddings and heads too. Its muon_weight_dimension_numbers are `roles` here;
    its weight_decay_mask is `mask`, and masks adam_weight_decay too; its mu_dtype is missing as
    everywhere. With several threes of coefficients all are used, where optax refuses more than
    ns_steps. On a stack "adaptive" and "schatten" act on every matrix by itself. eps must be > 0.

    The authors' code iterates in bfloat16; here it is float32 at least, with JAX's precision of
    matrix products. It does not correct the means, which changes the direction of nesterov in the
    first steps, and steps others by Adam without nesterov, b2 = 0.95. torch and Keras as the
    authors; Keras decides by role only for embeddings, and does not scale unless by consistent_rms.
    """
    direction = scale_by_muon(
        ns_coeffs,
        ns_steps,
        beta,
        eps,
        nesterov=nesterov,
        adaptive=adaptive,
        preconditioning=preconditioning,
        adam_b1=adam_b1,
        adam_b2=adam_b2,
        adam_eps_root=adam_eps_root,
        consistent_rms=consistent_rms,
        roles=roles,
    )
    _check.scheduled(adam_weight_decay=adam_weight_decay)
    if adam_learning_rate is None:
        adam_learning_rate = learning_rate
    else:
        _check.scheduled(adam_learning_rate=adam_learning_rate)
    by_adam = players(assigner(roles, _RULE), "adam")
    adam = Others(by_adam, adam_learning_rate, adam_weight_decay)
    return descend(direction, learning_rate, weight_decay, mask, others=adam)


def scale_by_muon(
    ns_coeffs: Any = _JORDAN,
    ns_steps: int = 5,
    beta: Any = 0.95,
    eps: Any = 1e-8,
    *,
    nesterov: bool = True,
    adaptive: bool = False,
    preconditioning: str = "frobenius",
    adam_b1: Any = 0.9,
    adam_b2: Any = 0.999,
    adam_eps_root: Any = 0.0,
    consistent_rms: Any = None,
    roles: Any = None,
) -> optax.GradientTransformationExtraArgs:
    """The direction of `muon`, of all roles and scaled by shapes, without rates and decays."""
    threes = _threes(ns_coeffs)
    _check.whole(ns_steps=ns_steps)
    _check.decay_rate(beta=beta, adam_b1=adam_b1, adam_b2=adam_b2)
    _check.positive(eps=eps)
    _check.flag(nesterov=nesterov, adaptive=adaptive)
    _check.one_of(*_PRECONDITIONINGS, preconditioning=preconditioning)
    _check.non_negative(adam_eps_root=adam_eps_root)
    if consistent_rms is not None:
        _check.positive(consistent_rms=consistent_rms)
    role_of = assigner(roles, _RULE)

    def init(params):
        def start(role, mu):
            return zeros_like(mu) if role == "adam" else jnp.zeros_like(mu, shape=())

        mu = zeros_like(params)
        return MuonState(zero_count(), mu, map_leaves(start, mu, static=role_of(params)))

    def update(grads, state):
        t = increment(state.count)
        c, c_next = bias(beta, t), bias(beta, increment(t))
        c1, c1_next, c2 = bias(adam_b1, t), bias(adam_b1, increment(t)), bias(adam_b2, t)

        def orthogonal(x):
            length, width = x.shape[-2:]
            if length > width:
                return orthogonal(x.mT).mT
            x = x / _PRECONDITIONINGS[preconditioning](x, eps)
            if len(threes) == 1:  # in a loop: ns_steps may be traced
                return lax.fori_loop(0, ns_steps, lambda _, x: _newton_schulz(x, *threes[0]), x)
            for three in threes:
                x = _newton_schulz(x, *three)
            return x

        def leaf(role, g, mu, nu):
            g, flaw = squarable(g)
            if role == "adam":
                mu = adam_b1 * mu + (1 - adam_b1) * g + flaw
                nu = adam_b2 * nu + (1 - adam_b2) * (g * g)
                m = adam_b1 * mu / c1_next + (1 - adam_b1) * g / c1 if nesterov else mu / c1
                return m / (jnp.sqrt(nu / c2 + adam_eps_root) + eps), mu, nu
            mu = beta * mu + (1 - beta) * g + flaw
            m = beta * mu / c_next + (1 - beta) * g / c if nesterov else mu / c
            if not g.size:
                return m, mu, nu
            matrices, fan_in, fan_out = _as_matrices(role, g.shape)

            def direction(m):
                x = m.reshape(matrices)
                u = orthogonal(x)
                if adaptive:
                    u = u * jnp.sum(x * u, (-2, -1), keepdims=True)
                return u.reshape(m.shape)

            if consistent_rms is None:
                scale = max(1, fan_out / fan_in) ** 0.5
            else:
                scale = max(fan_in, fan_out) ** 0.5 * consistent_rms
            return scale * by_compiler(direction, m), mu, nu

        roles = role_of(grads)
        updates, mu, nu = map_leaves(leaf, grads, state.mu, other=(state.nu,), static=roles)
        return updates, MuonState(t, mu, nu)

    return transformation(init, update)


def muon_roles(params: optax.Params, roles: Any = None) -> Roles:
    """Which leaf `muon` treats how, and why: path -> role, None where `muon` would refuse it.

    Its `str` is a table to print.

    Args:
        params: The parameters, or their shapes (`jax.ShapeDtypeStruct`).
        roles: As for `muon`.

    Raises:
        ValueError: If two patterns contradict each other, one matches nothing, or a shape does not
            fit its role.
    """
    return report(params, roles, _RULE)


def _as_matrices(role, shape):
    """Leaves of a role as (how many, rows, columns), and the fans of each."""
    stacked = len(shape) - 2 if role == "stack" else 0
    rows = len(shape) - 1 if role == "conv" else stacked + 1
    parts = [math.prod(p) for p in (shape[:stacked], shape[stacked:rows], shape[rows:])]
    return parts, *(parts[:0:-1] if role == "transposed" else parts[1:])


def _threes(ns_coeffs):
    """The coefficients of every iteration, or the three of all."""
    if isinstance(ns_coeffs, str):
        _check.one_of(*_PRESETS, ns_coeffs=ns_coeffs)
        ns_coeffs = _PRESETS[ns_coeffs]
    return _check.threes(ns_coeffs=ns_coeffs)


def _newton_schulz(x, a, b, c):
    """The singular values s of x become a s + b s³ + c s⁵."""
    square = x @ x.mT
    return a * x + (b * square + c * square @ square) @ x


def _norm(x):
    return jnp.sqrt(jnp.sum(x * x, (-2, -1), keepdims=True))


_PRECONDITIONINGS = {
    "frobenius": lambda x, eps: _norm(x) + eps,
    "spectral": lambda x, eps: jnp.linalg.norm(x, 2, (-2, -1), keepdims=True) + eps,
    "aol": lambda x, eps: jnp.sqrt(jnp.maximum(jnp.sum(jnp.abs(x @ x.mT), -1, keepdims=True), eps)),
    "schatten": lambda x, eps: jnp.sqrt(jnp.maximum(_norm(x @ x.mT), eps)),
}
