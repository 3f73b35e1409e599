"""Shampoo: the gradient times an inverse root of a matrix of gradients, along every axis.

Gupta, Koren and Singer, "Shampoo: Preconditioned Stochastic Tensor Optimization", ICML 2018,
algorithm 2. https://arxiv.org/abs/1802.09568
"""

from typing import Any, NamedTuple

import jax
import optax

from optax_adaptive import _check
from optax_adaptive._core import descend, map_leaves, transformation, zero_count, zeros_like
from optax_adaptive._matrices import along, gram, next_root, zeros_per_axis
from optax_adaptive._numerics import bias, increment, squarable


class ShampooState(NamedTuple):
    """The count of steps, the momentum, and for every axis of a parameter a matrix and its root."""

    count: jax.Array  # int32, shape ()
    trace: optax.Updates  # the decaying sum of gradients, shaped like the parameters
    statistics: Any  # lists of sums of G Gᵀ: n x n for an axis of n, its diagonal if n is large
    roots: Any  # lists of their inverse roots, as of the last time these were computed


def shampoo(
    learning_rate: optax.ScalarOrSchedule,
    *,
    momentum: Any = 0.0,
    b2: Any = None,
    eps: Any = 1e-4,
    alpha: Any = 0.5,
    precondition_frequency: Any = 1,
    max_precond_dim: int = 768,
    weight_decay: optax.ScalarOrSchedule | None = None,
    mask: Any = None,
) -> optax.GradientTransformationExtraArgs:
    """Shampoo.

    With g the gradient of one parameter of k axes at step t = 1, 2, ..., and G its matrix whose
    rows are the slices of g across one axis, for every axis::

        statistic = statistic + G Gᵀ
        root      = (statistic + eps I)^(-alpha / k)      (at steps 1, 1 + precondition_frequency,
                                                           1 + 2 precondition_frequency, ...)

    and with them, along all axes in turn::

        trace = momentum trace + g
        step  = learning_rate root_1 ... root_k trace

    With b2 the statistics are running means instead of sums::

        statistic = b2 statistic + (1 - b2) G Gᵀ
        root      = (statistic / (1 - b2^t) + eps I)^(-alpha / k)

    Along an axis longer than max_precond_dim only the diagonal of G Gᵀ is kept, and its root is
    computed at every step. A parameter without axes counts as one of one axis.

    Args:
        learning_rate: A number >= 0 or a schedule; about the size of a step with b2. Without, steps
            become smaller as the statistics grow, as those of AdaGrad do.
        momentum: The share of `trace` kept at each step, in [0, 1).
        b2: The share of `statistics` kept at each step, in [0, 1); None for their sum.
        eps: Added to the eigenvalues, > 0, in units of squared gradients.
        alpha: The power of all roots together, > 0.
        precondition_frequency: The number of steps from one computation of the roots to the next, a
            whole number >= 1. Each costs some 20 n³ operations; 20 is usual.
        max_precond_dim: The longest axis with a full matrix, a whole number >= 1. It decides the
            shapes of the state, so it must be static under `optax.inject_hyperparams` if `init` is
            traced.
        weight_decay: A number >= 0 or a schedule, times the learning rate; None for no decay.
        mask: Which leaves decay: booleans in a prefix of the parameters' tree, or a function of
            the parameters that returns them; None for all.

    Raises:
        ValueError: If an argument is outside its domain.

    Departures: as the paper, with the momentum and the diagonals of the authors' code
    (tf.contrib.opt.ShampooOptimizer). Releases of that code differ: in one eps is 0.1, in another
    every matrix is divided by its size. With svd_interval > 1 it multiplies by the identity until
    the first root is due; here step 1 computes one. Its means have no bias correction. Eigenvalues
    below rounding, the largest one times the epsilon of its dtype, count as that much.
    pytorch_optimizer agrees without momentum; under that name it and torch_optimizer feed the last
    step back into the gradient. torch_optimizer has alpha = 1, and takes the statistics of an axis
    of the gradient already multiplied along those before it.
    """
    direction = scale_by_shampoo(
        momentum=momentum,
        b2=b2,
        eps=eps,
        alpha=alpha,
        precondition_frequency=precondition_frequency,
        max_precond_dim=max_precond_dim,
    )
    return descend(direction, learning_rate, weight_decay, mask)


def scale_by_shampoo(
    *,
    momentum: Any = 0.0,
    b2: Any = None,
    eps: Any = 1e-4,
    alpha: Any = 0.5,
    precondition_frequency: Any = 1,
    max_precond_dim: int = 768,
) -> optax.GradientTransformationExtraArgs:
    """The direction of `shampoo`, without its learning rate."""
    _check.decay_rate(momentum=momentum)
    if b2 is not None:
        _check.decay_rate(b2=b2)
    _check.positive(eps=eps, alpha=alpha)
    _check.whole(precondition_frequency=precondition_frequency, max_precond_dim=max_precond_dim)

    def init(params):
        (longest,) = _check.known("shampoo", max_precond_dim=max_precond_dim)

        def shapes(shape):
            return [(n, n) if n <= longest else (n,) for n in shape or (1,)]

        statistics, roots = zeros_per_axis(params, shapes), zeros_per_axis(params, shapes)
        return ShampooState(zero_count(), zeros_like(params), statistics, roots)

    def update(grads, state):
        t = increment(state.count)
        due = state.count % precondition_frequency == 0
        old, new, weight = (1, 1, 1) if b2 is None else (b2, 1 - b2, bias(b2, t))

        def leaf(g, trace, statistics, roots):
            g, flaw = squarable(g)
            trace = momentum * trace + g + flaw
            g, u = g.reshape(g.shape or (1,)), trace.reshape(trace.shape or (1,))
            statistics = [
                old * s + new * gram(g, axis, diagonal=s.ndim == 1)
                for axis, s in enumerate(statistics)
            ]
            roots = [
                next_root(due, s / weight, root, alpha / g.ndim, eps)
                for s, root in zip(statistics, roots, strict=True)
            ]
            for axis, root in enumerate(roots):
                u = along(u, root, axis)
            return u.reshape(trace.shape), trace, statistics, roots

        other = state.statistics, state.roots
        updates, trace, *other = map_leaves(leaf, grads, state.trace, other=other)
        return updates, ShampooState(t, trace, *other)

    return transformation(init, update)
