"""SOAP: Adam in the coordinates in which Shampoo's matrices are diagonal.

Vyas, Morwani, Zhao, Kwun, Shapira, Brandfonbrener, Janson and Kakade, "SOAP: Improving and
Stabilizing Shampoo using Adam", ICLR 2025, algorithm 3. https://arxiv.org/abs/2409.11321
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from optax_adaptive import _check
from optax_adaptive._core import descend, map_leaves, transformation, zero_count, zeros_like
from optax_adaptive._matrices import along, gram, next_basis, zeros_per_axis
from optax_adaptive._numerics import bias, increment, rms, squarable


class SoapState(NamedTuple):
    """The count of steps, Adam's means, and for every axis of a parameter a matrix and a basis."""

    count: jax.Array  # int32, shape ()
    mu: optax.Updates  # mean of gradients, shaped like the parameters
    nu: optax.Updates  # mean of squared gradients in the bases, shaped like the parameters
    statistics: Any  # lists of means of G Gᵀ: n x n for an axis of n, None where it stays as it is
    bases: Any  # lists of about their eigenvectors, in columns


def soap(
    learning_rate: optax.ScalarOrSchedule = 3e-3,
    *,
    b1: Any = 0.95,
    b2: Any = 0.95,
    shampoo_beta: Any = None,
    eps: Any = 1e-8,
    precondition_frequency: Any = 10,
    max_precond_dim: int = 10000,
    merge_dims: bool = False,
    precondition_1d: bool = False,
    normalize_grads: bool = False,
    correct_bias: bool = True,
    weight_decay: optax.ScalarOrSchedule | None = 0.01,
    mask: Any = None,
) -> optax.GradientTransformationExtraArgs:
    """SOAP.

    With g the gradient of one parameter at step t = 0, 1, 2, ..., and in(x) the product of x with
    the bases along all axes, out(x) that with their transposes::

        mu   = b1 mu + (1 - b1) g
        nu   = b2 nu + (1 - b2) in(g)²
        u    = out(in(mu) / (sqrt(nu) + eps))
        u    = u / rms(u)                                (if normalize_grads)
        step = learning_rate u sqrt(1 - b2^t) / (1 - b1^t)

    and then for every axis, G being the matrix whose rows are the slices of g across it::

        statistic = shampoo_beta statistic + (1 - shampoo_beta) G Gᵀ
        basis     = the Q of QR(statistic basis), when t is a multiple of precondition_frequency

    Step 0 only makes the bases, the eigenvectors of the first G Gᵀ: mu and nu stay 0, and the
    parameters where they are (but for the weight decay). Vectors, scalars and axes longer than
    max_precond_dim have no basis: where no axis has one, the rule is Adam.

    Args:
        learning_rate: A number >= 0 or a schedule; about the size of a step.
        b1: The share of `mu` kept at each step, in [0, 1).
        b2: The share of `nu` kept at each step, in [0, 1).
        shampoo_beta: The share of `statistics` kept at each step, in [0, 1); None for b2.
        eps: Added to the root, > 0, in units of gradients.
        precondition_frequency: The number of steps from one basis to the next, a whole number >= 1.
        max_precond_dim: The longest axis with a basis, a whole number >= 1. It decides the shapes
            of the state, so it must be static under `optax.inject_hyperparams` if `init` is traced
            or dimensions are merged.
        merge_dims: Whether neighbouring axes count as one while their product is no larger than
            max_precond_dim: (3, 3, 64, 128) as (576, 128). For convolutions.
        precondition_1d: Whether vectors have a basis, too.
        normalize_grads: Whether u is divided by the root of its mean square, parameter by
            parameter. The authors advise it where bases are as old as 100 steps.
        correct_bias: Whether the step has the two factors with t.
        weight_decay: A number >= 0 or a schedule, times the learning rate; None for no decay.
        mask: Which leaves decay: booleans in a prefix of the parameters' tree, or a function of
            the parameters that returns them; None for all.

    Raises:
        ValueError: If an argument is outside its domain, or `update` is not given the parameters.

    Departures: as the authors' code (github.com/nikhilvyas/SOAP), which decays the weights after
    the step and not at step 0, and always factorises in float32. It keeps `mu` in the bases and
    turns it when they change: the same but for rounding. It sorts the bases by eigenvalue and `nu`
    with them; here both stay in place, again the same. heavyball's SOAP corrects the bias of
    `statistics`, too, and has other defaults.
    """
    direction = scale_by_soap(
        b1=b1,
        b2=b2,
        shampoo_beta=shampoo_beta,
        eps=eps,
        precondition_frequency=precondition_frequency,
        max_precond_dim=max_precond_dim,
        merge_dims=merge_dims,
        precondition_1d=precondition_1d,
        normalize_grads=normalize_grads,
        correct_bias=correct_bias,
    )
    return descend(direction, learning_rate, weight_decay, mask)


def scale_by_soap(
    *,
    b1: Any = 0.95,
    b2: Any = 0.95,
    shampoo_beta: Any = None,
    eps: Any = 1e-8,
    precondition_frequency: Any = 10,
    max_precond_dim: int = 10000,
    merge_dims: bool = False,
    precondition_1d: bool = False,
    normalize_grads: bool = False,
    correct_bias: bool = True,
) -> optax.GradientTransformationExtraArgs:
    """The direction of `soap`, without learning rate and decay."""
    b3 = b2 if shampoo_beta is None else shampoo_beta
    _check.decay_rate(b1=b1, b2=b2, shampoo_beta=b3)
    _check.positive(eps=eps)
    _check.whole(precondition_frequency=precondition_frequency, max_precond_dim=max_precond_dim)
    _check.flag(merge_dims=merge_dims, precondition_1d=precondition_1d)
    _check.flag(normalize_grads=normalize_grads, correct_bias=correct_bias)

    def merged(shape):
        if not merge_dims or len(shape) < 2:
            return shape
        return _merged(shape, *_check.known("soap", max_precond_dim=max_precond_dim))

    def init(params):
        (longest,) = _check.known("soap", max_precond_dim=max_precond_dim)

        def shapes(shape):
            alone = len(shape) == 1 and not precondition_1d
            return [None if alone or n > longest else (n, n) for n in merged(shape)]

        statistics, bases = zeros_per_axis(params, shapes), zeros_per_axis(params, shapes)
        return SoapState(zero_count(), zeros_like(params), zeros_like(params), statistics, bases)

    def update(grads, state):
        t = state.count
        moves = jnp.minimum(t, 1)  # not at step 0
        past = jnp.maximum(t, 1)
        scale = moves * (jnp.sqrt(bias(b2, past)) / bias(b1, past) if correct_bias else 1)
        choice = jnp.where(t == 0, 1, jnp.where(t % precondition_frequency == 0, 2, 0))

        def leaf(g, mu, nu, statistics, bases):
            g, flaw = squarable(g)
            mu = b1 * mu + moves * (1 - b1) * g + flaw
            axes = [axis for axis, basis in enumerate(bases) if basis is not None]
            shape = merged(g.shape)

            def turned(x, back=False):
                x = x.reshape(shape)
                for axis in axes:
                    x = along(x, bases[axis].T if back else bases[axis], axis)
                return x.reshape(g.shape)

            turned_g = turned(g)
            nu = b2 * nu + moves * (1 - b2) * (turned_g * turned_g)
            u = turned(turned(mu) / (jnp.sqrt(nu) + eps), back=True)
            if normalize_grads:
                u = u / (rms(u) + 1e-30)  # as the authors', whatever eps is
            statistics, bases = list(statistics), list(bases)
            for axis in axes:
                new = gram(g.reshape(shape), axis)
                statistics[axis] = b3 * statistics[axis] + (1 - b3) * new
                bases[axis] = next_basis(choice, statistics[axis], bases[axis])
            return scale * u, mu, nu, statistics, bases

        other = state.statistics, state.bases
        updates, *means = map_leaves(leaf, grads, state.mu, state.nu, other=other)
        return updates, SoapState(increment(t), *means)

    return transformation(init, update)


def _merged(shape, largest):
    """The shape with neighbouring axes made one, first to last, while they are no longer."""
    merged, product = [], 1
    for n in shape:
        if product * n <= largest:
            product *= n
        elif product != 1:
            merged.append(product)
            product = n
        else:
            merged.append(n)
    return (*merged, product) if product != 1 or not merged else tuple(merged)
