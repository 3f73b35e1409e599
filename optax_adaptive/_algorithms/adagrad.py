"""AdaGrad: every coordinate's rate shrinks with the sum of its squared gradients.

Duchi, Hazan and Singer, "Adaptive Subgradient Methods for Online Learning and Stochastic
Optimization", Journal of Machine Learning Research 12, 2011.
https://jmlr.org/papers/v12/duchi11a.html
"""

from typing import Any, NamedTuple

import jax.numpy as jnp
import optax
from jax import lax

from optax_adaptive import _check
from optax_adaptive._core import descend, full_like, map_leaves, transformation
from optax_adaptive._numerics import squarable


class AdagradState(NamedTuple):
    """The sum of squared gradients, shaped like the parameters."""

    sum_sq: optax.Updates


def adagrad(
    learning_rate: optax.ScalarOrSchedule,
    initial_accumulator_value: Any = 0.1,
    eps: Any = 1e-7,
    *,
    eps_in_sqrt: bool = True,
    weight_decay: optax.ScalarOrSchedule | None = None,
    mask: Any = None,
) -> optax.GradientTransformationExtraArgs:
    """AdaGrad.

    With g the gradient, for every coordinate::

        sum_sq = sum_sq + g²
        step   = learning_rate g / sqrt(sum_sq + eps)      (0 where sum_sq is still 0)

    eps_in_sqrt=False divides by sqrt(sum_sq) + eps.

    Args:
        learning_rate: A number >= 0 or a schedule.
        initial_accumulator_value: What `sum_sq` starts at, >= 0, in units of squared gradients.
        eps: >= 0, in units of squared gradients (of gradients if not eps_in_sqrt).
        eps_in_sqrt: Whether eps stands under the root.
        weight_decay: A number >= 0 or a schedule, times the learning rate; None for no decay.
        mask: Which leaves decay: booleans in a prefix of the parameters' tree, or a function of
            the parameters that returns them; None for all.

    Raises:
        ValueError: If an argument is outside its domain.

    Departures: as `optax.adagrad` and Keras 3. The paper and `torch.optim.Adagrad` start the sum at
    0 and add eps outside the root.
    """
    direction = scale_by_adagrad(initial_accumulator_value, eps, eps_in_sqrt=eps_in_sqrt)
    return descend(direction, learning_rate, weight_decay, mask)


def scale_by_adagrad(
    initial_accumulator_value: Any = 0.1, eps: Any = 1e-7, *, eps_in_sqrt: bool = True
) -> optax.GradientTransformationExtraArgs:
    """The direction of `adagrad`, without its learning rate."""
    _check.non_negative(initial_accumulator_value=initial_accumulator_value, eps=eps)
    _check.flag(eps_in_sqrt=eps_in_sqrt)

    def init(params):
        return AdagradState(full_like(params, initial_accumulator_value))

    def update(grads, state):
        def leaf(g, sum_sq):
            g, flaw = squarable(g)
            sum_sq = sum_sq + g * g
            rate = lax.rsqrt(sum_sq + eps) if eps_in_sqrt else 1 / (jnp.sqrt(sum_sq) + eps)
            return g * jnp.where(sum_sq > 0, rate, 0) + flaw, sum_sq

        updates, sum_sq = map_leaves(leaf, grads, state.sum_sq)
        return updates, AdagradState(sum_sq)

    return transformation(init, update)
