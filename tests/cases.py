"""One row per public optimizer and per option that changes its formula.

Parity and contract tests are parametrized over this table; a new optimizer is a new row.
"""

import functools
import inspect
import os
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import optax.contrib
import references
from goldens.problem import hessian, value

import optax_adaptive as oa


class Case(NamedTuple):
    """An optimizer with its arguments, and what it must equal."""

    name: str  # of the function
    kwargs: Mapping = MappingProxyType({})
    reference_kwargs: Mapping = MappingProxyType({})  # where the reference calls them otherwise
    optax_kwargs: Mapping | None = None  # where optax calls them otherwise
    same_in_optax: bool = True  # False: optax has no such optimizer, or the defect in `reason`
    reason: str = ""
    learning_rate: Any = 0.01
    temporaries: float = 0.01  # at most, in bytes per byte of the parameters
    shapes: tuple = ((8,),)  # of the parameters on which it is compared
    decades: float = 2  # between the slices of their gradients along an axis, but of a vector of 8
    float64: float = 1e-12  # the largest deviation from the reference
    float32: float = 1e-5
    optax: float = 1e-12  # the largest deviation from optax in float64

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
        """The constructor, as `factory` makes it."""
        return factory(self.name)

    def make(self, **overrides):
        return self.factory(**self.arguments | overrides)

    def make_optax(self):
        make = getattr(optax, self.name, None) or getattr(optax.contrib, self.name)
        kwargs = self.kwargs if self.optax_kwargs is None else self.optax_kwargs
        arguments = {"learning_rate": self.learning_rate, **kwargs}
        tx = make(**{k: v for k, v in arguments.items() if k != "roles"})
        return with_extra(lambda: tx)() if "value" in self.record.needs else tx

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

    def problem(self, shape):
        return problem(shape, decades=self.decades, turns=self.name in FREE)

    def reference(self, x, gradients) -> Any:
        name = self.name
        if not hasattr(references, name):
            name = name.removesuffix("w")
        kwargs = self.arguments | dict(self.reference_kwargs)
        if "hessian_diagonal" in self.record.needs:
            kwargs["hessian_diagonals"] = [hessian(g) for g in gradients]
        if "value" in self.record.needs:
            kwargs["values"] = [value(g) for g in gradients]
        return np.array(list(getattr(references, name)(x, gradients, **kwargs)))


def factory(name):
    """A constructor; what needs a loss or the diagonal of a Hessian is given one."""
    make, record = getattr(oa, name), oa.optimizers.get(name)
    made_up = {"value", "hessian_diagonal"}.intersection(record.needs if record else ())
    return with_extra(make) if made_up else make


def with_extra(make):
    """A constructor of optimizers that make up the Hessian's diagonal and the loss if not given."""

    @functools.wraps(make)
    def factory(*args, **kwargs):
        tx = make(*args, **kwargs)

        def leaf(g):
            return g if g.dtype == jax.dtypes.float0 else hessian(g)

        def loss(grads):
            leaves = [jnp.asarray(g) for g in jax.tree.leaves(grads) if g.dtype != bool]
            pairs = [jnp.stack([g.real, g.imag]) if jnp.iscomplexobj(g) else g for g in leaves]
            made_up = sum((value(jnp.asarray(g, float)) for g in pairs), start=jnp.zeros(()))
            return jnp.where(jnp.isfinite(made_up), made_up, 1.0)  # as it may be where g is not

        def update(grads, state, params=None, **extra):
            made_up = {"hessian_diagonal": jax.tree.map(leaf, grads), "value": loss(grads)}
            extra = made_up | extra
            return tx.update(grads, state, params, **extra)

        return optax.GradientTransformationExtraArgs(tx.init, update)

    return factory


DECAYS = {"weight_decay": 1e-4}  # the default of optax and ours, not of the references
OPTAX_MAX = "optax keeps the largest corrected nu; the paper and torch the largest raw one"

OPTAX_AHEAD = "optax extrapolates by 1 - b2, the paper and the authors' code by b2"


def grows(step):
    """A schedule of b3, from 0.8 to 0.98."""
    return 0.98 - 0.18 / (1 + 0.1 * step)


def warms_up(step):
    """A schedule of alpha, towards 4."""
    return 4 * step / (step + 10.0)


def climbs(step):
    """A schedule of the bound of ADOPT, from 0."""
    return step / (2.0 + step)


# They find their own rate. Where gradients keep a direction, it grows without bound.
FREE = {
    "prodigy",
    "dog",
    "ldog",
    "dowg",
    "dadapt_sgd",
    "dadapt_adagrad",
    "dadapt_adam",
    "cocob",
    "momo",
    "momo_adam",
}
# They find the parameters anew from the first ones: a step undoes the rounding of an earlier one,
# which may have been larger.
ANEW = {"cocob", "dadapt_adagrad"}

OPTAX_CORRECTS = "optax always corrects the bias, the authors by default never"
PRODIGY = {"learning_rate": 1.0, "float32": 1e-4, "same_in_optax": False, "reason": OPTAX_CORRECTS}

OPTAX_LAGS = "in optax the steps and the weights read a schedule one step apart"
OPTAX_DRIFTS = "where there is no gradient optax's x drifts by its rounding"
SCHEDULE_FREE = {"float64": 1e-11, "optax": 1e-11}  # the others' x and z are rounded to float64
# In float32 the way p - p0 has the digits that p leaves it.
DOG = {"learning_rate": 1.0, "shapes": ((8,), (6, 4)), "float32": 1e-4}
LDOG = DOG | {"same_in_optax": False, "reason": "not in optax"}
DADAPT = {"learning_rate": 1.0, "same_in_optax": False, "shapes": ((8,), (6, 4))}
# The decay is coupled: its sum with the gradient is read by several loops. In float32 the distance
# from the start is as fine as the parameters, and small where gradients are.
DADAPT_ADAGRAD = DADAPT | {"temporaries": 1.01, "float32": 1e-4}
OPTAX_BESIDE = "optax divides the parameters by 1 + rate x decay, but not the step"
OPTAX_NO_CORRECTION = "optax has no bias_correction for momo"
OPTAX_SCALES = "optax multiplies the gradients by the rate"
MOMO = {"learning_rate": 1.0, "float32": 1e-4}
MOMO_ADAM = {"learning_rate": 0.5}

OPTAX_POWER = 1e-5  # optax takes the power of the step number in float32
MATRICES = ((8,), (6, 4), (3, 2, 4))


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


# The iteration of Muon multiplies small singular values by 3.4 each time, and their rounding too.
# It needs a matrix beside the old and the new one, and two squares.
MUON_SHAPES = {"shapes": ((8,), (6, 4), (4, 6)), "float64": 1e-10, "temporaries": 5.01}
STACKS = MUON_SHAPES | {"shapes": ((3, 4, 6),), "same_in_optax": False}
BLOCKS = {"shapes": ((8,), (6, 4), (2, 4, 6)), "same_in_optax": False}
MUON = {"roles": matrices}

# rmsprop(centered=True, bias_correction=True) has no row with initial_scale 0: at a coordinate's
# first step the corrected variance is exactly g² - g², and no two codes agree on its rounding.
CASES = [
    Case("sgd"),
    Case("sgd", {"momentum": 0.9}),
    Case("sgd", {"momentum": 0.9, "nesterov": True}),
    Case("adagrad"),
    Case("adagrad", {"initial_accumulator_value": 0.0, "eps": 1e-4}),
    Case(
        "adagrad",
        {"initial_accumulator_value": 0.0, "eps": 1e-4, "eps_in_sqrt": False},
        same_in_optax=False,
    ),
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
    Case(
        "adam",
        {"eps": 1e-3, "eps_root": 1e-4, "eps_hat": True},
        same_in_optax=False,
    ),
    Case("adamw", {}, DECAYS),
    Case("adamw", {"weight_decay": 0.1, "nesterov": True}),
    Case("adamw", {"eps": 1e-3, "eps_hat": True}, DECAYS, same_in_optax=False),
    Case("amsgrad", same_in_optax=False, reason=OPTAX_MAX),
    Case("amsgrad", {"bias_correction_nu": False}),
    Case("amsgrad", {"eps": 1e-3, "eps_hat": True}, same_in_optax=False),
    Case("amsgrad", {"bias_correction_mu": False, "bias_correction_nu": False}),
    Case("nadam"),
    Case(
        "nadam",
        {"b1": 0.8, "b2": 0.99, "eps": 1e-3, "eps_root": 1e-4, "momentum_decay": 0.4},
        same_in_optax=False,
    ),
    Case("nadamw", {}, DECAYS),
    Case("nadamw", {"momentum_decay": 0.004}, DECAYS, same_in_optax=False),
    Case("adamax"),
    Case("adamax", {"b1": 0.8, "b2": 0.9, "eps": 1e-3}),
    Case("adamax", {"eps": 1e-3, "eps_in_max": False}, same_in_optax=False),
    Case("adamaxw", {}, DECAYS),
    Case("adamaxw", {"eps": 1e-3, "eps_in_max": False}, DECAYS, same_in_optax=False),
    Case("radam"),
    Case("radam", {"b2": 0.9, "threshold": 4.5, "eps_root": 1e-4, "nesterov": True}),
    Case("radam", {"eps": 1e-3, "eps_hat": True}, same_in_optax=False),
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
    Case("adabelief"),
    Case("adabelief", {"b1": 0.8, "b2": 0.99, "eps": 1e-3, "eps_root": 1e-6}),
    Case("adabelief", {"nesterov": True}),
    Case("yogi"),
    Case("yogi", {"b1": 0.8, "b2": 0.99, "eps": 1e-5}),
    Case(
        "yogi",
        {"eps_root": 1e-4, "initial_accumulator_value": 0.1},
        same_in_optax=False,
        reason="only optax.scale_by_yogi takes them",
    ),
    Case("adan", same_in_optax=False, reason=OPTAX_AHEAD),
    Case("adan", {"b2": 0.5, "b3": 0.9}),
    Case(
        "adan",
        {"b1": 0.9, "b2": 0.8, "eps": 1e-3, "eps_root": 0.0},
        same_in_optax=False,
        reason=OPTAX_AHEAD,
    ),
    Case("laprop", same_in_optax=False),
    Case("laprop", {"b1": 0.8, "b2": 0.99, "eps": 1e-3}, same_in_optax=False),
    Case("adopt"),
    Case("adopt", {"b1": 0.8, "b2": 0.9, "eps": 1e-3, "clip_value_fn": climbs}),
    Case("adopt", {"use_clipping": False, "eps": 1e-1}),
    Case("adopt", {"clip_value_fn": 0.5}, same_in_optax=False, reason="optax has no constant"),
    # The scaled gradient is read twice behind a root, by the mean and by the look-ahead.
    Case("adopt", {"nesterov": True, "b2": 0.99}, temporaries=1.01),
    Case("ademamix"),
    Case("ademamix", {"b1": 0.8, "b2": 0.99, "b3": 0.97, "alpha": 2.0, "eps": 1e-3}),
    Case("ademamix", {"eps_root": 1e-4, "b3": grows, "alpha": warms_up}),
    Case("qhadam", same_in_optax=False),
    Case(
        "qhadam",
        {"b1": 0.8, "b2": 0.9, "v1": 0.4, "v2": 0.6, "eps": 1e-3},
        same_in_optax=False,
    ),
    Case("adam_atan2", same_in_optax=False),
    Case("adam_atan2", {"b1": 0.8, "b2": 0.9, "a": 2.0, "b": 3.0}, same_in_optax=False),
    Case("adahessian", same_in_optax=False, shapes=((8,), (6, 4), (3, 2, 4, 5)), learning_rate=0.1),
    Case(
        "adahessian",
        {"b1": 0.8, "b2": 0.99, "eps": 1e-3, "hessian_power": 0.5, "averaged_axes": {}},
        same_in_optax=False,
        shapes=((8,), (3, 2, 4, 5)),
    ),
    # Of what is averaged XLA makes an array first, on CPU.
    Case(
        "adahessian",
        {"averaged_axes": {2: (0,), 4: (2, 3)}},
        same_in_optax=False,
        shapes=((6, 4), (3, 2, 4, 5)),
        temporaries=1.01,
    ),
    Case("stable_adamw", same_in_optax=False, shapes=((8,), (6, 4))),
    Case(
        "stable_adamw",
        {"b1": 0.8, "b2": 0.9, "eps": 1e-3, "clipping_threshold": 0.5, "weight_decay": 0.1},
        same_in_optax=False,
        shapes=((8,), (6, 4)),
    ),
    Case("adamod", same_in_optax=False),
    Case("adamod", {"b1": 0.8, "b2": 0.99, "b3": 0.9, "eps": 1e-3}, same_in_optax=False),
    # The last gradient is read in the step that overwrites it: XLA copies it.
    Case("diffgrad", same_in_optax=False, temporaries=1.01),
    Case("diffgrad", {"b1": 0.8, "b2": 0.99, "eps": 1e-3}, same_in_optax=False, temporaries=1.01),
    Case("padam", same_in_optax=False, learning_rate=0.1),
    Case("padam", {"b1": 0.8, "b2": 0.9, "partial": 0.4, "eps": 1e-3}, same_in_optax=False),
    # XLA stores the products p p and p u of the sums over a neuron, and u: three arrays.
    Case("adamp", same_in_optax=False, shapes=((8,), (6, 4), (3, 4, 5)), temporaries=3.01),
    Case(
        "adamp",
        {"b1": 0.8, "b2": 0.99, "eps": 1e-3, "delta": 1.5, "nesterov": True},
        same_in_optax=False,
        shapes=((8,), (6, 4), (3, 4, 5)),
        temporaries=3.01,
    ),
    Case(
        "adamp",
        {"delta": 1.5, "wd_ratio": 0.5, "outputs_last": False, "weight_decay": 0.1},
        same_in_optax=False,
        shapes=((6, 4), (3, 4, 5)),
        temporaries=3.01,
    ),
    # The direction is needed for the sums over the leaf and for the step.
    Case("swats", same_in_optax=False, shapes=((8,), (6, 4)), temporaries=1.01),
    Case("swats", {"tolerance": 0.1}, same_in_optax=False, shapes=((8,), (6, 4)), temporaries=1.01),
    Case(
        "swats",
        {"b1": 0.8, "b2": 0.9, "eps": 1e-3, "tolerance": 0.3},
        same_in_optax=False,
        shapes=((8,), (6, 4)),
        temporaries=1.01,
    ),
    *(
        # The eigenvalues of G Gᵀ span twice the decades of the rows and twice those of the columns,
        # and float32 tells only seven apart; a root of the lost ones is as large as eps lets it be.
        Case(
            "shampoo",
            kwargs,
            same_in_optax=False,
            shapes=shapes,
            decades=0.5,
            temporaries=5.1,
            **tolerances,
        )
        for kwargs, shapes, tolerances in (
            ({}, ((5,), (4, 3), (2, 3, 4)), {"float32": 3e-5}),
            ({"momentum": 0.9, "b2": 0.9}, ((5,), (4, 3), (2, 3, 4)), {"float32": 3e-5}),
            ({"eps": 1e-2, "alpha": 1.0}, ((5,), (4, 3), (2, 3, 4)), {"float32": 6e-5}),
            ({"precondition_frequency": 7}, ((3, 3), (2, 3, 4)), {"float32": 3e-5}),
            ({"max_precond_dim": 3}, ((5,), (4, 3)), {}),
        )
    ),
    *(
        # As for shampoo. Every first gradient has full rank along every axis that has a basis:
        # of a space in which it is zero any basis will do, and no two codes have the same.
        Case(
            "soap",
            kwargs,
            {"weight_decay": 0.01},
            same_in_optax=False,
            shapes=shapes,
            decades=0.5,
            float32=1e-4,
            temporaries=5.1,
        )
        for kwargs, shapes in (
            ({}, ((2,), (8,), (3, 3), (2, 3, 4))),
            ({"b1": 0.8, "b2": 0.9, "shampoo_beta": 0.99, "eps": 1e-3}, ((3, 3), (2, 3, 4))),
            ({"precondition_frequency": 3, "correct_bias": False}, ((3, 3), (2, 3, 4))),
            ({"max_precond_dim": 3}, ((4, 3), (2, 3, 4))),
            ({"max_precond_dim": 4, "merge_dims": True}, ((2, 2, 4),)),
            ({"precondition_1d": True}, ((2,), (3, 3))),
            ({"normalize_grads": True}, ((3, 3),)),
        )
    ),
    Case("novograd", shapes=((8,), (6, 4))),
    Case(
        "novograd",
        {"b1": 0.8, "b2": 0.9, "eps": 1e-3, "eps_root": 1e-4, "weight_decay": 0.1},
        shapes=((8,), (6, 4)),
    ),
    # Where the update is a product of the gradient with something that depends on all of it, as
    # below, XLA keeps that product or that something: optax's adafactor and sm3 need as much.
    Case("adafactor", optax=OPTAX_POWER, shapes=MATRICES, temporaries=1.01),
    Case(
        "adafactor",
        {"min_dim_size_to_factor": 3, "momentum": 0.9},
        optax=OPTAX_POWER,
        shapes=MATRICES,
        temporaries=1.01,
    ),
    Case(
        "adafactor",
        {"min_dim_size_to_factor": 1, "decay_rate": 0.6, "eps": 1e-3},
        optax=OPTAX_POWER,
        shapes=MATRICES,
        temporaries=1.01,
    ),
    Case(
        "adafactor",
        {"min_dim_size_to_factor": 1, "clipping_threshold": None},
        optax=OPTAX_POWER,
        shapes=MATRICES,
        temporaries=1.01,
    ),
    Case(
        "adafactor",
        {
            "min_dim_size_to_factor": 1,
            "multiply_by_parameter_scale": False,
            "clipping_threshold": 0.5,
        },
        optax=OPTAX_POWER,
        shapes=MATRICES,
        temporaries=1.01,
    ),
    Case(
        "adafactor",
        {"min_dim_size_to_factor": 1, "factored": False, "momentum": 0.5},
        optax=OPTAX_POWER,
        shapes=MATRICES,
        temporaries=1.01,
    ),
    Case(
        "adafactor",
        {"min_dim_size_to_factor": 1, "decay_offset": 10},
        same_in_optax=False,
        reason="in optax the step number falls to 0 and below, and its power is infinite or NaN",
        shapes=MATRICES,
        temporaries=1.01,
    ),
    Case("sm3", shapes=MATRICES, temporaries=1.01),
    Case("sm3", {"momentum": 0.7}, shapes=MATRICES, temporaries=1.01),
    Case(
        "sm3",
        {"momentum": None, "eps": 0.0},
        same_in_optax=False,
        shapes=MATRICES,
        temporaries=1.01,
    ),
    Case("came", same_in_optax=False, learning_rate=1e-3, shapes=MATRICES, temporaries=1.05),
    Case(
        "came",
        {
            "b1": 0.8,
            "b2": 0.99,
            "b3": 0.95,
            "eps": 1e-3,
            "eps_residual": 1e-2,
            "clipping_threshold": 0.5,
        },
        same_in_optax=False,
        learning_rate=1e-3,
        shapes=MATRICES,
        temporaries=1.05,
    ),
    Case("muon", MUON, **MUON_SHAPES),
    Case(
        "muon",
        MUON | {"ns_coeffs": "dion", "nesterov": False},
        **MUON_SHAPES | {"temporaries": 8.01},
    ),
    Case(
        "muon",
        MUON | {"ns_coeffs": (3.0, -3.2, 1.2), "ns_steps": 7, "beta": 0.8, "eps": 1e-2},
        **MUON_SHAPES,
    ),
    Case("muon", MUON | {"adaptive": True, "consistent_rms": 0.2}, **MUON_SHAPES),
    Case("muon", MUON | {"preconditioning": "spectral"}, **MUON_SHAPES),
    Case("muon", MUON | {"preconditioning": "schatten"}, **MUON_SHAPES),
    Case("muon", MUON | {"preconditioning": "aol", "ns_steps": 4}, **MUON_SHAPES),
    Case(
        "muon",
        MUON | {"adam_b1": 0.8, "adam_b2": 0.99, "adam_eps_root": 1e-4, "adam_learning_rate": 0.1},
        **MUON_SHAPES,
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
    *(
        Case("prodigy", {"d0": 1e-3} | kwargs, **PRODIGY | more)
        for kwargs, more in (
            ({}, {"shapes": ((8,), (6, 4))}),
            ({"b1": 0.8, "b2": 0.99, "eps": 1e-3, "d_coef": 2.0}, {}),
            ({"b3": 0.9, "use_bias_correction": True}, {}),
            ({"growth_rate": 1.02}, {}),
            ({"safeguard_warmup": True}, {"learning_rate": 0.5}),  # at 1 it changes nothing
            # Parts of arrays are arrays.
            ({"slice_p": 3}, {"shapes": ((8,), (6, 4)), "temporaries": 1.01}),
        )
    ),
    # At these rates no step hides behind the rounding of the parameters.
    *(
        Case(
            "schedule_free_sgd",
            kwargs,
            same_in_optax=not kwargs,
            reason=OPTAX_LAGS if "warmup_steps" in kwargs else OPTAX_DRIFTS,
            learning_rate=100.0,
            **SCHEDULE_FREE,
        )
        for kwargs in (
            {},
            {"b1": 0.7, "weight_lr_power": 1.0},
            {"warmup_steps": 20},
            {"warmup_steps": 20, "weight_lr_power": 0.0, "r": 1.5},
        )
    ),
    # The step is read twice behind a root, by the parameters and by the offset.
    *(
        Case(
            "schedule_free_adamw",
            kwargs,
            same_in_optax=not kwargs,
            reason=OPTAX_LAGS if "warmup_steps" in kwargs else OPTAX_DRIFTS,
            learning_rate=10.0,
            temporaries=1.01,
            **SCHEDULE_FREE,
        )
        for kwargs in (
            {},
            {"b1": 0.7, "b2": 0.99, "eps": 1e-3, "weight_lr_power": 1.0},
            {"warmup_steps": 20, "r": 1.5},
        )
    ),
    # First the one that moves at its first step.
    *(
        Case(
            "schedule_free_radam",
            kwargs,
            same_in_optax=False,
            learning_rate=10.0,
            temporaries=1.01,
            **SCHEDULE_FREE,
        )
        for kwargs in (
            {"silent_sgd_phase": False},
            {},
            {"b1": 0.7, "b2": 0.9, "eps": 1e-3, "weight_lr_power": 1.0, "r": 1.5},
        )
    ),
    *(
        case
        for kwargs, init_step in (
            ({"reps_rel": 1e-3}, ("heuristic", 1e-3)),
            ({"init_eta": 1e-4}, ("learning_rate", 1e-4)),
            ({"reps_rel": 1e-2, "eps": 1e3}, ("heuristic", 1e-2)),
        )
        for case in (
            Case(
                "dog",
                kwargs,
                optax_kwargs={k: v for k, v in kwargs.items() if k == "eps"}
                | {"init_step": init_step},
                **DOG,
            ),
            Case("ldog", kwargs, **LDOG),
        )
    ),
    Case("dowg", **DOG),
    Case("dowg", {"init_estim_sq_dist": 0.1, "eps": 0.5}, **DOG),
    Case("dadapt_sgd", {"d0": 0.1}, **DADAPT),
    Case("dadapt_sgd", {"d0": 0.1, "momentum": 0.9}, **DADAPT),
    Case("dadapt_sgd", {"d0": 0.1, "growth_rate": 1.02}, **DADAPT),
    Case("dadapt_adagrad", {"d0": 1.0}, **DADAPT_ADAGRAD),
    Case("dadapt_adagrad", {"d0": 1.0, "momentum": 0.9, "eps": 1e-3}, **DADAPT_ADAGRAD),
    Case("dadapt_adagrad", {"d0": 1.0, "growth_rate": 1.02}, **DADAPT_ADAGRAD),
    Case("dadapt_adam", {"d0": 1e-3}, **DADAPT),
    Case("dadapt_adam", {"d0": 1e-3, "b1": 0.8, "b2": 0.99, "eps": 1e-3}, **DADAPT),
    Case("dadapt_adam", {"d0": 1e-3, "use_bias_correction": True}, **DADAPT),
    Case("dadapt_adam", {"d0": 1e-3, "growth_rate": 1.02}, **DADAPT),
    Case("cocob", learning_rate=1.0, shapes=((8,), (6, 4))),
    Case("cocob", {"alpha": 3.0, "eps": 1e-3}, learning_rate=1.0, float32=1e-4),
    Case("cocob", {}, learning_rate=30.0, same_in_optax=False, reason=OPTAX_SCALES),
    *(
        Case("momo", kwargs, **MOMO | more)
        for kwargs, more in (
            ({}, {"shapes": ((8,), (6, 4))}),
            ({"beta": 0.5, "lower_bound": 0.5}, {}),
            ({"adapt_lower_bound": True}, {}),
            ({"adapt_lower_bound": True, "lower_bound": -3.0}, {}),
            (
                {"bias_correction": True, "adapt_lower_bound": True},
                {"same_in_optax": False, "reason": OPTAX_NO_CORRECTION},
            ),
            (
                {"weight_decay": 0.1, "adapt_lower_bound": True},
                {"same_in_optax": False, "reason": OPTAX_BESIDE},
            ),
        )
    ),
    *(
        Case("momo_adam", kwargs, **MOMO_ADAM | more)
        for kwargs, more in (
            ({}, {"shapes": ((8,), (6, 4))}),
            ({"b1": 0.5, "b2": 0.9, "eps": 1e-3, "lower_bound": 0.5}, {}),
            ({"adapt_lower_bound": True, "lower_bound": -3.0}, {}),
            (
                {"weight_decay": 0.1, "adapt_lower_bound": True},
                {"same_in_optax": False, "reason": OPTAX_BESIDE},
            ),
        )
    ),
]

# One per public optimizer, plus those whose state differs: for contracts that options do not touch.
PLAIN = list(
    {(c.name, "momentum" in c.kwargs, "centered" in c.kwargs): c for c in CASES[::-1]}.values()
)[::-1]

# One of each kind that a wrapper can tell apart: by state, by what leaves and coordinates know of
# each other, by what `update` needs.
KINDS = [
    c
    for c in PLAIN
    if os.environ.get("EVERY_OPTIMIZER")
    or c.name
    in {
        *("sgd", "adam", "adamw", "lamb", "novograd", "adafactor", "sm3", "adahessian", "soap"),
        *("muon", "adam_mini", "prodigy", "ldog", "cocob", "momo", "schedule_free_adamw"),
    }
]


def problem(shape=(8,), steps=60, seed=0, decades=2, turns=False):
    """A start and gradients over many decades, with zeros and changes of sign.

    `decades` lie between the first and the last slice along an axis, but of a vector of 8. At first
    the gradients have a direction, which may turn, then they are noise.
    """
    rng = np.random.default_rng(seed)
    along = np.cos(np.arange(steps // 2) / 3) if turns else np.ones(steps // 2)
    if shape != (8,):  # every row and every column of another size
        scale = np.ones(shape)
        for axis, n in enumerate(shape):
            sizes = 10.0 ** (decades / 2 * np.linspace(-1, 1, n))
            scale *= sizes.reshape([-1 if k == axis else 1 for k in range(len(shape))])
        gradients = rng.normal(size=(steps, *shape)) * scale
        gradients[: steps // 2] += 0.5 * np.multiply.outer(along, scale)
        gradients[rng.random(gradients.shape) < 0.1] = 0.0
        return rng.normal(size=shape), gradients
    scale = 10.0 ** np.linspace(-6, 2, 8)
    gradients = rng.normal(size=(steps, 8)) * scale
    gradients[: steps // 2] += 0.5 * np.multiply.outer(along, scale)
    gradients[:, 3] = 0.0  # never
    gradients[:7, 4] = 0.0  # late
    gradients[rng.random(steps) < 0.8, 5] = 0.0  # sparse
    gradients[steps // 2 :, 6] *= 1e-3  # an early giant
    start = rng.normal(size=8)
    return start, gradients
