"""SGD: gradient descent, plain or with momentum.

Robbins and Monro, "A Stochastic Approximation Method", The Annals of Mathematical Statistics 22(3),
1951. https://doi.org/10.1214/aoms/1177729586
"""

from typing import Any

import optax

from optax_adaptive import _check
from optax_adaptive._core import descend
from optax_adaptive._momentum import trace


def sgd(
    learning_rate: optax.ScalarOrSchedule,
    momentum: Any = None,
    nesterov: bool = False,
    *,
    weight_decay: optax.ScalarOrSchedule | None = None,
    mask: Any = None,
) -> optax.GradientTransformationExtraArgs:
    """Gradient descent, with heavy-ball or Nesterov momentum.

    With g the gradient, for every coordinate::

        trace = momentum trace + g
        step  = learning_rate trace         (nesterov: of momentum trace + g)

    Whether a step sees all the data, a minibatch or one example is decided by the gradient.

    Args:
        learning_rate: A number >= 0 or a schedule.
        momentum: In [0, 1); None for plain gradient descent, which keeps no state.
        nesterov: Whether the momentum looks one step ahead; needs `momentum`.
        weight_decay: A number >= 0 or a schedule, times the learning rate; None for no decay.
        mask: Which leaves decay: booleans in a prefix of the parameters' tree, or a function of
            the parameters that returns them; None for all.

    Raises:
        ValueError: If an argument is outside its domain.

    Departures: as `optax.sgd`, without `accumulator_dtype`: the trace is float32 at least. As
    `torch.optim.SGD` with dampening 0. Keras keeps the learning rate inside the velocity, which
    differs once the rate changes.
    """
    return descend(scale_by_sgd(momentum, nesterov), learning_rate, weight_decay, mask)


def scale_by_sgd(momentum: Any = None, nesterov: bool = False) -> optax.GradientTransformation:
    """The direction of `sgd`, without its learning rate."""
    _check.momentum_pair(momentum, nesterov)
    return optax.identity() if momentum is None else trace(momentum, nesterov)
