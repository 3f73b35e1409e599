"""One row per public optimizer and per option that changes its formula.

Parity and contract tests are parametrized over this table; a new optimizer is a new row.
"""

import functools
import inspect
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import numpy as np
import optax
import optax.contrib
import references

import optax_adaptive as oa


class Case(NamedTuple):
    """An optimizer with its arguments, and what it must equal."""

    name: str  # of the function
    kwargs: Mapping = MappingProxyType({})
    reference_kwargs: Mapping = MappingProxyType({})  # where the reference calls them otherwise
    same_in_optax: bool = True  # False: optax has no such optimizer, or the defect in `reason`
    reason: str = ""
    learning_rate: Any = 0.01
    temporaries: float = 0.01  # at most, in bytes per byte of the parameters
    shapes: tuple = ((8,),)  # of the parameters on which it is compared
    float64: float = 1e-12  # the largest deviation from the reference
    float32: float = 1e-5

    @property
    def id(self):
        options = ", ".join(f"{k}={getattr(v, '__name__', v)}" for k, v in self.kwargs.items())
        return f"{self.name}({options})"

    @property
    def record(self):
        return oa.optimizers[self.name]

    @property
    def arguments(self):
        return {"learning_rate": self.learning_rate, **self.kwargs}

    @property
    def factory(self):
        """The constructor; what needs the diagonal of a Hessian is given `hessian(gradient)`."""
        make = getattr(oa, self.name)
        return with_hessian(make) if "hessian_diagonal" in self.record.needs else make

    def make(self, **overrides):
        return self.factory(**self.arguments | overrides)

    def make_optax(self):
        make = getattr(optax, self.name, None) or getattr(optax.contrib, self.name)
        return make(**{k: v for k, v in self.arguments.items() if k != "roles"})

    def decays(self, weight_decay):
        """The arguments that make every leaf decay; Muon has a decay for each kind of leaf."""
        names = {"weight_decay", "adam_weight_decay"}
        return dict.fromkeys(
            names & inspect.signature(self.factory).parameters.keys(), weight_decay
        )

    @property
    def inject(self):
        """`optax.inject_hyperparams` of the constructor; it takes functions for schedules."""
        static = [name for name, value in self.kwargs.items() if callable(value)]
        return functools.partial(optax.inject_hyperparams, self.factory, static_args=static)

    def reference(self, x, gradients) -> Any:
        name, looks_ahead = self.name, {}
        if not hasattr(references, name):
            name = name.removesuffix("w")
        if name == "nadam":
            name, looks_ahead = "adam", {"nesterov": True}
        kwargs = looks_ahead | self.arguments | self.reference_kwargs
        if "hessian_diagonal" in self.record.needs:
            kwargs["hessian_diagonals"] = [hessian(g) for g in gradients]
        return np.array(list(getattr(references, name)(x, gradients, **kwargs)))


def hessian(g):
    """Stands for the diagonal of a Hessian where only the arithmetic is tested."""
    return 2 * g


def with_hessian(make):
    """A constructor of optimizers that make up the Hessian's diagonal when none is given."""

    @functools.wraps(make)
    def factory(*args, **kwargs):
        tx = make(*args, **kwargs)

        def update(grads, state, params=None, **extra):
            extra = {"hessian_diagonal": jax.tree.map(hessian, grads)} | extra
            return tx.update(grads, state, params, **extra)

        return optax.GradientTransformationExtraArgs(tx.init, update)

    return factory


def matrices(path, shape):
    """What optax.contrib.muon does: two axes are a matrix."""
    return "matrix" if len(shape) == 2 else "adam"


def transposed(path, shape):
    return "transposed" if len(shape) > 1 else "adam"


def convs(path, shape):
    return "conv" if len(shape) > 1 else "adam"


def stacks(path, shape):
    return {2: "matrix", 3: "stack"}.get(len(shape), "adam")


def heads(path, shape):
    return {2: "matrix", 3: "heads"}.get(len(shape), "adam")


def one_by_one(path, shape):
    return "adam"


def rows(path, shape):
    return "rows" if shape else "tensor"


def neurons(path, shape):
    return "neurons" if len(shape) > 1 else "tensor"


def values(path, shape):
    return {2: "heads:2", 3: "neurons:2"}.get(len(shape), "adam") if shape[-1:] != (3,) else "rows"


def per_head(path, shape):
    return {2: "row_heads:2", 3: "heads"}.get(len(shape), "tensor")


DECAYS = {"weight_decay": 1e-4}  # the default of optax and ours, not of the references
OPTAX_MAX = "optax keeps the largest corrected nu; the paper and torch the largest raw one"

# The iteration of Muon multiplies small singular values by 3.4 each time, and their rounding too.
# It needs a matrix beside the old and the new one, and two squares.
MATRICES = {"shapes": ((8,), (6, 4), (4, 6)), "float64": 1e-10, "temporaries": 5.01}
STACKS = MATRICES | {"shapes": ((3, 4, 6),), "same_in_optax": False}
BLOCKS = {"shapes": ((8,), (6, 4), (2, 4, 6)), "same_in_optax": False}

# rmsprop(centered=True, bias_correction=True) has no row with initial_scale 0: at a coordinate's
# first step the corrected variance is exactly g² - g², and no two codes agree on its rounding.
CASES = [
    Case("sgd"),
    Case("sgd", {"momentum": 0.9}),
    Case("sgd", {"momentum": 0.9, "nesterov": True}),
    Case("adagrad"),
    Case("adagrad", {"initial_accumulator_value": 0.0, "eps": 1e-4}),
    Case("rmsprop"),
    Case("rmsprop", {"decay": 0.7, "initial_scale": 0.3, "eps_in_sqrt": False}),
    Case("rmsprop", {"bias_correction": True}),
    Case("rmsprop", {"centered": True}),
    Case("rmsprop", {"centered": True, "eps_in_sqrt": False, "eps": 1e-3}),
    Case("rmsprop", {"centered": True, "bias_correction": True, "initial_scale": 0.1}),
    Case("rmsprop", {"momentum": 0.9}),
    # The step is read twice behind a root, by the velocity and by the look-ahead: XLA keeps it.
    Case("rmsprop", {"momentum": 0.9, "nesterov": True}, temporaries=1.01),
    Case("adadelta", learning_rate=1.0),
    Case("adadelta", {"rho": 0.95, "eps": 1e-7}),
    Case("adam"),
    Case("adam", {"b1": 0.8, "b2": 0.99, "eps": 1e-3, "eps_root": 1e-4}),
    Case("adam", {"nesterov": True}),
    Case("adamw", {}, DECAYS),
    Case("adamw", {"weight_decay": 0.1, "nesterov": True}),
    Case("amsgrad", same_in_optax=False, reason=OPTAX_MAX),
    Case("amsgrad", {"bias_correction_nu": False}),
    Case("amsgrad", {"bias_correction_mu": False, "bias_correction_nu": False}),
    Case("nadam"),
    Case("nadam", {"nesterov": False}),
    Case("nadamw", {}, DECAYS),
    Case("adamax"),
    Case("adamax", {"b1": 0.8, "b2": 0.9, "eps": 1e-3}),
    Case("adamaxw", {}, DECAYS),
    Case("radam"),
    Case("radam", {"b2": 0.9, "threshold": 4.5, "eps_root": 1e-4, "nesterov": True}),
    Case("adabound", same_in_optax=False, learning_rate=1e-3),
    Case("adabound", {"gamma": 0.05, "final_lr": 0.5, "base_lr": 0.02}, same_in_optax=False),
    Case("amsbound", {"gamma": 0.05}, same_in_optax=False, learning_rate=1e-3),
    Case("lion", {}, {"weight_decay": 1e-3}),
    Case("lion", {"b1": 0.95, "b2": 0.98, "weight_decay": 0.0}),
    Case("lamb", shapes=((8,), (6, 4)), temporaries=1.01),
    Case(
        "lamb",
        {"b1": 0.8, "b2": 0.99, "eps": 1e-3, "eps_root": 1e-4, "weight_decay": 0.1},
        shapes=((8,), (6, 4)),
        temporaries=1.01,
    ),
]
MUON = {"roles": matrices}
CASES += [
    Case("muon", MUON, **MATRICES),
    Case(
        "muon", MUON | {"ns_coeffs": "dion", "nesterov": False}, **MATRICES | {"temporaries": 8.01}
    ),
    Case(
        "muon",
        MUON | {"ns_coeffs": (3.0, -3.2, 1.2), "ns_steps": 7, "beta": 0.8, "eps": 1e-2},
        **MATRICES,
    ),
    Case("muon", MUON | {"adaptive": True, "consistent_rms": 0.2}, **MATRICES),
    Case("muon", MUON | {"preconditioning": "spectral"}, **MATRICES),
    Case("muon", MUON | {"preconditioning": "schatten"}, **MATRICES),
    Case("muon", MUON | {"preconditioning": "aol", "ns_steps": 4}, **MATRICES),
    Case(
        "muon",
        MUON | {"adam_b1": 0.8, "adam_b2": 0.99, "adam_eps_root": 1e-4, "adam_learning_rate": 0.1},
        **MATRICES,
    ),
    Case("muon", {"roles": transposed}, **STACKS),
    Case("muon", {"roles": convs}, **STACKS),
    Case("muon", {"roles": stacks, "adaptive": True}, **STACKS),
    Case("muon", {"roles": heads}, **STACKS),
    Case("adam_mini", **BLOCKS),
    Case("adam_mini", {"b1": 0.8, "b2": 0.99, "eps": 1e-3}, **BLOCKS),
    Case("adam_mini", {"roles": one_by_one}, **BLOCKS),
    Case("adam_mini", {"roles": rows}, **BLOCKS),
    Case("adam_mini", {"roles": neurons}, **BLOCKS),
    Case("adam_mini", {"roles": values}, **BLOCKS),
    Case("adam_mini", {"roles": per_head}, **BLOCKS),
]

# One per public optimizer, plus those whose state differs: for contracts that options do not touch.
PLAIN = list(
    {(c.name, "momentum" in c.kwargs, "centered" in c.kwargs): c for c in CASES[::-1]}.values()
)[::-1]


def problem(shape=(8,), steps=60, seed=0):
    """A start and gradients over many decades, with zeros and changes of sign."""
    rng = np.random.default_rng(seed)
    if shape != (8,):  # every row and every column of another size
        scale = np.ones(shape)
        for axis, n in enumerate(shape):
            scale = np.moveaxis(
                np.moveaxis(scale, axis, -1) * 10.0 ** np.linspace(-1, 1, n), -1, axis
            )
        gradients = rng.normal(size=(steps, *shape)) * scale
        gradients[: steps // 2] += 0.5 * scale
        gradients[rng.random(gradients.shape) < 0.1] = 0.0
        return rng.normal(size=shape), gradients
    scale = 10.0 ** np.linspace(-6, 2, 8)
    gradients = rng.normal(size=(steps, 8)) * scale
    gradients[: steps // 2] += 0.5 * scale  # a direction at first, then noise
    gradients[:, 3] = 0.0  # never
    gradients[:7, 4] = 0.0  # late
    gradients[rng.random(steps) < 0.8, 5] = 0.0  # sparse
    gradients[steps // 2 :, 6] *= 1e-3  # an early giant
    start = rng.normal(size=8)
    return start, gradients
