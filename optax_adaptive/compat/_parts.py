"""What the constructors of several frameworks are made of."""

import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
import optax
from jax import lax

from optax_adaptive import _check
from optax_adaptive._core import add_decay, at, map_leaves, transformation
from optax_adaptive._free import total
from optax_adaptive._momentum import trace
from optax_adaptive._numerics import squarable, square


def refuse(others: Mapping[str, Any], **hints: str) -> None:
    """No argument is left over; hints say what to do about some."""
    for name in others:
        hint = hints.get(name, "there is no such argument")
        raise TypeError(f"{_check.caller()}: {name} is not taken: {hint}.")


def spell_out(makes: Iterable[Callable[..., Any]], defaults: Mapping[str, Any]) -> None:
    """Shows the arguments behind the ** of constructors to all who ask for their signatures.

    `help` does, and `optax.inject_hyperparams`, which would hand them on as one argument.
    """
    for make in makes:
        signature = inspect.signature(make)
        named = [p for p in signature.parameters.values() if p.kind is not p.VAR_KEYWORD]
        behind = [
            inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default)
            for name, default in defaults.items()
            if name not in signature.parameters
        ]
        signature = signature.replace(parameters=[*named, *behind])
        setattr(make, "__signature__", signature)  # noqa: B010, pyright knows no such attribute


def is_zero(x: Any) -> bool:
    """Whether a hyperparameter is known to be 0 or None: the part that it belongs to is absent."""
    return x is None or (isinstance(x, (int, float)) and x == 0)


def chain(*parts: optax.GradientTransformation | None) -> optax.GradientTransformation:
    """The parts that are present, one after the other."""
    present = [part for part in parts if part is not None] or [optax.identity()]
    return present[0] if len(present) == 1 else optax.chain(*present)


def plus_params(amount: Any) -> optax.GradientTransformationExtraArgs:
    """Adds `amount` times the parameters to what comes in."""

    def init(params):
        return optax.EmptyState()

    def update(grads, state, *, params):
        return add_decay(grads, amount, None, params, None), state

    return transformation(init, update)


def coupled(weight_decay: Any) -> optax.GradientTransformation | None:
    """weight_decay times the parameters, added to the gradients: L2 regularisation."""
    return None if is_zero(weight_decay) else plus_params(weight_decay)


def velocity(momentum: Any, nesterov: bool = False) -> optax.GradientTransformation | None:
    """The decaying sum of what comes in, or None for no momentum."""
    _check.decay_rate(momentum=momentum)
    _check.flag(nesterov=nesterov)
    return None if is_zero(momentum) else trace(momentum, nesterov)


def check_betas(beta_1: Any, beta_2: Any, epsilon: Any) -> None:
    """Adam's numbers, as Keras calls them."""
    _check.decay_rate(beta_1=beta_1, beta_2=beta_2)
    _check.positive(epsilon=epsilon)


def over_time(rate: Any, decay: Any) -> Any:
    """rate / (1 + decay step), for a number or a schedule."""
    return rate if is_zero(decay) else lambda step: at(rate, step) / (1 + decay * step)


def rounded(x: Any) -> Any:
    """A number as float32 holds it; schedules and None as they are."""
    is_number = isinstance(x, (int, float)) and not isinstance(x, bool)
    return float(np.float32(x)) if is_number else x


def clip(
    clipnorm: Any = None, clipvalue: Any = None, global_clipnorm: Any = None
) -> optax.GradientTransformationExtraArgs | None:
    """The clipping of Keras: of every array's norm, of every entry, or of the norm of all.

    An array with norm n is multiplied by clipnorm / max(n, clipnorm).
    """
    given = {"clipnorm": clipnorm, "clipvalue": clipvalue, "global_clipnorm": global_clipnorm}
    given = {name: x for name, x in given.items() if x is not None}
    _check.positive(**given)
    if len(given) > 1:
        raise ValueError(f"{_check.caller()}: only one of {' and '.join(given)} can be given.")
    if not given:
        return None

    def init(params):
        return optax.EmptyState()

    def shrunk(g, sum_sq, most):
        g, flaw = squarable(g)
        return g * (most / jnp.maximum(jnp.sqrt(sum_sq), most)) + flaw

    def update(grads, state):
        def leaf(g):
            if clipvalue is not None:
                return lax.clamp(
                    jnp.asarray(-clipvalue, g.dtype), g, jnp.asarray(clipvalue, g.dtype)
                )
            return shrunk(g, jnp.sum(square(g)), clipnorm)

        if global_clipnorm is None:
            return map_leaves(leaf, grads), state
        sum_sq = total(square, grads)
        return map_leaves(lambda g: shrunk(g, sum_sq, global_clipnorm), grads), state

    return transformation(init, update)
