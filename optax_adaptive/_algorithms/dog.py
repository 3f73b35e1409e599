"""DoG: distance over gradients, SGD whose rate is the distance it came over their size.

Ivgi, Hinder and Carmon, "DoG is SGD's Best Friend: A Parameter-Free Dynamic Step Size Schedule",
ICML 2023. https://arxiv.org/abs/2302.12022
"""

from typing import Any, NamedTuple

import jax.numpy as jnp
import optax

from optax_adaptive import _check
from optax_adaptive._core import map_leaves, scalar_like, zeros_of
from optax_adaptive._free import descend_freely, total


class DogState(NamedTuple):
    """Three scalars; for LDoG, three for each leaf."""

    sum_sq: Any  # of all gradients
    distance: Any  # the largest from the first parameters
    effective_lr: Any  # of the last step: distance times learning rate over the size of gradients


def dog(
    learning_rate: optax.ScalarOrSchedule = 1.0,
    *,
    reps_rel: Any = 1e-6,
    init_eta: Any = None,
    eps: Any = 1e-8,
    weight_decay: optax.ScalarOrSchedule | None = None,
    mask: Any = None,
) -> optax.GradientTransformationExtraArgs:
    """DoG.

    With g the gradient, p the parameters, p0 the first ones and |.| the norm over all leaves::

        sum_sq   = sum_sq + |g|²
        distance = max(distance, |p - p0|)          (reps_rel (1 + |p0|) at the first step)
        step     = learning_rate distance / sqrt(sum_sq + eps) g

    The first steps are tiny; the distance grows by itself to about that of the solution. The rate
    never decays, so the authors evaluate a mean of the parameters, and so should you:
    `tx = polynomial_averaging(dog())` and then `averaged_params(state, params)`. Leave the learning
    rate at 1. `distance` and `effective_lr` are in the state: `optax.tree.get(state, "distance")`.
    Where `optax.partition` makes groups, each has its own.

    Args:
        learning_rate: A number >= 0 or a schedule, a multiple of what the method finds.
        reps_rel: The first distance, > 0, in units of 1 + |p0|. Small: it can only grow. The
            authors take 1e-4 for networks with batch normalisation.
        init_eta: The first rate, > 0, whatever the learning rate is, instead of that of `reps_rel`:
            until the parameters have moved. None for `reps_rel`.
        eps: Added to the sum of squares, >= 0.
        weight_decay: A number >= 0 or a schedule, times the rate of the step; None for no decay.
        mask: Which leaves decay: booleans in a prefix of the parameters' tree, or a function of
            the parameters that returns them; None for all.

    Raises:
        ValueError: If an argument is outside its domain, or `update` is not given the parameters.

    Departures: as the authors' dog-optimizer 1.0.3, whose weight decay is
    `optax.chain(optax.add_decayed_weights(...), dog())`. After first gradients of zeros its
    `init_eta` is forgotten, and it stands still for ever. optax.contrib.dog has that decay too; its
    `init_step` is ("heuristic", reps_rel) or ("learning_rate", init_eta), the latter times the
    learning rate, so that a warm-up from 0 never starts. It measures p0 in `init`, and keeps its
    scalars in the dtype of the parameters: in bfloat16 it does not move. A first gradient of zeros
    is no step here, and one that is not finite stops the step, not the training.
    """
    return _over_gradients(learning_rate, reps_rel, init_eta, eps, weight_decay, mask, True)


def ldog(
    learning_rate: optax.ScalarOrSchedule = 1.0,
    *,
    reps_rel: Any = 1e-6,
    init_eta: Any = None,
    eps: Any = 1e-8,
    weight_decay: optax.ScalarOrSchedule | None = None,
    mask: Any = None,
) -> optax.GradientTransformationExtraArgs:
    """LDoG: DoG in every leaf for itself, with its own distance, sum and rate.

    Args and errors as for `dog`. `distance` and `effective_lr` are trees of scalars. To fine-tune
    T5 the authors needed `reps_rel=1e-8`.

    Departures: as for `dog`. A gradient that is not finite stops the step of its own leaf only.
    """
    return _over_gradients(learning_rate, reps_rel, init_eta, eps, weight_decay, mask, False)


def _over_gradients(learning_rate, reps_rel, init_eta, eps, weight_decay, mask, together):
    _check.positive(reps_rel=reps_rel)
    _check.non_negative(eps=eps)
    if init_eta is not None:
        _check.positive(init_eta=init_eta)

    def estimate(grads, moved, params, sum_sq, distance, learning_rate):
        """The new state, of a tree or of one array."""
        # At the first step p takes the place of p - p0 = 0. A choice would be an array.
        at_first = jnp.where(sum_sq > 0, 0.0, 1.0)

        def came(moved, p):
            return moved if init_eta is not None else moved + at_first * p

        length = jnp.sqrt(total(lambda moved, p: came(moved, p) ** 2, moved, params))
        if init_eta is None:
            length = jnp.where(sum_sq > 0, length, reps_rel * (1 + length))
        distance = jnp.maximum(distance, length)
        sum_sq = sum_sq + total(lambda g: g * g, grads)
        rate = learning_rate * distance / jnp.sqrt(sum_sq + eps)
        if init_eta is not None:
            rate = jnp.where(distance > 0, rate, init_eta)
        # Before there is a gradient the rate is too large for a decay: no step is made.
        return DogState(sum_sq, distance, jnp.where(sum_sq > 0, rate, jnp.nan))

    def init(params):
        if together:
            return DogState(*(scalar_like(params, 0.0) for _ in range(3)))
        return DogState(*(zeros_of(jnp.sum, params) for _ in range(3)))

    def update(grads, state, *, learning_rate, moved, params):
        def leaf(g, moved, p, sum_sq, distance):
            new = estimate(g, moved, p, sum_sq, distance, learning_rate)
            return new.effective_lr * g, *new

        if together:
            new = estimate(grads, moved, params, state.sum_sq, state.distance, learning_rate)
            return map_leaves(lambda g: new.effective_lr * g, grads), new
        of_leaves = state.sum_sq, state.distance
        steps, *new = map_leaves(leaf, grads, moved, params, other=of_leaves)
        return steps, DogState(*new)

    return descend_freely(init, update, learning_rate, weight_decay, mask, together=together)
