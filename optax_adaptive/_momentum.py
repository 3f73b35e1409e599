"""Momentum: a decaying sum of what comes in, for gradients and for steps alike.

Polyak, "Some methods of speeding up the convergence of iteration methods", USSR Computational
Mathematics and Mathematical Physics 4(5), 1964. https://doi.org/10.1016/0041-5553(64)90137-5
Nesterov's form as in Sutskever, Martens, Dahl and Hinton, "On the importance of initialization and
momentum in deep learning", ICML 2013. https://proceedings.mlr.press/v28/sutskever13.html
"""

from typing import Any, NamedTuple

import optax

from optax_adaptive import _check
from optax_adaptive._core import map_leaves, transformation, zeros_like


class TraceState(NamedTuple):
    """The decaying sum, shaped like the parameters."""

    trace: optax.Updates


def trace(
    decay: Any, nesterov: bool = False, *, average: bool = False
) -> optax.GradientTransformationExtraArgs:
    """The decaying sum of the updates: momentum, without its learning rate.

    With g the incoming update, for every coordinate::

        trace  = decay trace + g
        update = trace                      (nesterov: decay trace + g, with the new trace)

    Args:
        decay: The share of the sum kept at each step, in [0, 1).
        nesterov: Whether to look one step ahead.
        average: Whether g enters with weight 1 - decay, which makes the sum a running mean.

    Raises:
        ValueError: If an argument is outside its domain.

    Departures: as `optax.trace`, and with `average` as `optax.ema` with `debias=False`; without
    `accumulator_dtype`: the sum is float32 at least.
    """
    _check.decay_rate(decay=decay)
    _check.flag(nesterov=nesterov, average=average)

    def init(params):
        return TraceState(zeros_like(params))

    def update(grads, state):
        def leaf(g, trace):
            g = (1 - decay) * g if average else g
            trace = decay * trace + g
            return decay * trace + g if nesterov else trace, trace

        updates, trace = map_leaves(leaf, grads, state.trace)
        return updates, TraceState(trace)

    return transformation(init, update)
