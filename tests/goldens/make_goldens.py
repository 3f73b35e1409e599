"""Make the JSON files: what the real frameworks and packages do on `problem()`.

    python tests/goldens/make_goldens.py torch
    python tests/goldens/make_goldens.py keras
    python tests/goldens/make_goldens.py pytorch_optimizer

and so on for every name of PACKAGES. Each needs a throw-away virtual environment, not the one of
the tests, with numpy==2.4.6 and

    keras             keras==3.15.1 jax==0.10.2
    all others        torch==2.13.0 and the package, its version as in the JSON

Everything runs in float64. Keras runs on its JAX backend, whose hyperparameters are then float64
too; on its TensorFlow and torch backends they pass through float32. Old releases run unchanged on
this torch, with warnings about argument orders that torch has deprecated; if a later torch refuses
them, install an earlier one.

Floats are written by repr, which reads back to the same bits.
"""

import argparse
import importlib
import json
import os
import platform
import re
import warnings
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

import numpy as np
from problem import problem

HERE = Path(__file__).parent

# The rate is divided by ten before this step, counted from 0, in the cases named *_drop.
DROP_AT = 20

# Far below every gradient: where eps is put differently from ours, it shows that the rest agrees.
NO_EPS = 1e-30

TORCH = {
    "sgd": ("SGD", {"lr": 0.01}),
    "sgd_momentum": ("SGD", {"lr": 0.01, "momentum": 0.9}),
    "sgd_momentum_drop": ("SGD", {"lr": 0.01, "momentum": 0.9}),
    "sgd_nesterov": ("SGD", {"lr": 0.01, "momentum": 0.9, "nesterov": True}),
    "adagrad": ("Adagrad", {"lr": 0.01}),
    "adagrad_initial": ("Adagrad", {"lr": 0.01, "initial_accumulator_value": 0.1}),
    "adagrad_no_eps": ("Adagrad", {"lr": 0.01, "eps": NO_EPS}),
    "adadelta": ("Adadelta", {}),
    "adadelta_rho": ("Adadelta", {"lr": 1.0, "rho": 0.95}),
    "rmsprop": ("RMSprop", {"lr": 0.01}),
    "rmsprop_centered": ("RMSprop", {"lr": 0.01, "centered": True}),
    "rmsprop_momentum": ("RMSprop", {"lr": 0.01, "momentum": 0.9}),
    "rmsprop_momentum_drop": ("RMSprop", {"lr": 0.01, "momentum": 0.9}),
    "adam": ("Adam", {"lr": 1e-3}),
    "adam_eps": ("Adam", {"lr": 1e-3, "eps": 1e-3}),
    "adam_drop": ("Adam", {"lr": 1e-3}),
    "adam_amsgrad": ("Adam", {"lr": 1e-3, "amsgrad": True}),
    "adamw": ("AdamW", {"lr": 1e-3, "weight_decay": 0.1}),
    "nadam": ("NAdam", {"lr": 2e-3}),
    "nadam_no_schedule": ("NAdam", {"lr": 2e-3, "momentum_decay": 1e6}),
    "adamax": ("Adamax", {"lr": 2e-3}),
    "radam": ("RAdam", {"lr": 1e-3}),
    "radam_no_eps": ("RAdam", {"lr": 1e-3, "eps": NO_EPS}),
}

KERAS = {
    "sgd_momentum": ("SGD", {"learning_rate": 0.01, "momentum": 0.9}),
    "sgd_momentum_drop": ("SGD", {"learning_rate": 0.01, "momentum": 0.9}),
    "sgd_nesterov": ("SGD", {"learning_rate": 0.01, "momentum": 0.9, "nesterov": True}),
    "adagrad": ("Adagrad", {"learning_rate": 0.01}),
    "adadelta": ("Adadelta", {}),
    "adadelta_rate_1": ("Adadelta", {"learning_rate": 1.0}),
    "rmsprop": ("RMSprop", {"learning_rate": 1e-3}),
    "rmsprop_centered": ("RMSprop", {"learning_rate": 1e-3, "centered": True}),
    "rmsprop_momentum": ("RMSprop", {"learning_rate": 1e-3, "momentum": 0.9}),
    "rmsprop_momentum_drop": ("RMSprop", {"learning_rate": 1e-3, "momentum": 0.9}),
    "adam": ("Adam", {"learning_rate": 1e-3}),
    "adam_no_eps": ("Adam", {"learning_rate": 1e-3, "epsilon": NO_EPS}),
    "adam_amsgrad": ("Adam", {"learning_rate": 1e-3, "amsgrad": True}),
    "adam_amsgrad_no_eps": (
        "Adam",
        {"learning_rate": 1e-3, "amsgrad": True, "epsilon": NO_EPS},
    ),
    "adamw": ("AdamW", {"learning_rate": 1e-3, "weight_decay": 0.1}),
    "adamw_no_eps": (
        "AdamW",
        {"learning_rate": 1e-3, "weight_decay": 0.1, "epsilon": NO_EPS},
    ),
    "adamax": ("Adamax", {"learning_rate": 1e-3}),
    "adamax_no_eps": ("Adamax", {"learning_rate": 1e-3, "epsilon": NO_EPS}),
    "nadam": ("Nadam", {"learning_rate": 1e-3}),
}

ADABOUND = {
    "adabound": ("AdaBound", {}),
    "adabound_band": ("AdaBound", {"final_lr": 0.5, "gamma": 0.01}),
    "adabound_drop": ("AdaBound", {}),
    "adabound_weight_decay": ("AdaBound", {"weight_decay": 0.01}),
    "amsbound": ("AdaBound", {"amsbound": True}),
}

PYTORCH_OPTIMIZER_F = {
    "shampoo": ("Shampoo", {"lr": 0.01, "matrix_eps": 1e-4}, (4, 3)),
    "shampoo_tensor": ("Shampoo", {"lr": 0.01, "matrix_eps": 1e-2}, (2, 3, 4)),
    "soap": (
        "SOAP",
        {"lr": 3e-3, "weight_decay": 0.0, "precondition_frequency": 5},
        (3, 3),
    ),
    "soap_tensor": (
        "SOAP",
        {
            "lr": 3e-3,
            "betas": (0.9, 0.95),
            "weight_decay": 0.0,
            "shampoo_beta": 0.9,
            "normalize_gradient": True,
        },
        (2, 3, 4),
    ),
    "soap_adam": ("SOAP", {"lr": 3e-3, "weight_decay": 0.0}),
}

TORCH_OPTIMIZER_F = {
    "shampoo": ("Shampoo", {"lr": 0.01, "epsilon": 1e-2}, (4, 3)),
    "shampoo_vector": ("Shampoo", {"lr": 0.01, "epsilon": 1e-2, "update_freq": 3}, (5,)),
}


class Package(NamedTuple):
    """A package of torch optimizers, and the cases to run with it."""

    module: str
    distribution: str  # its name on PyPI
    licence: str
    cases: dict  # name -> (optimizer, arguments) or (optimizer, arguments, shape)


PACKAGES = {
    "torch": Package("torch.optim", "torch", "BSD-3-Clause", TORCH),
    "adabound": Package("adabound", "adabound", "Apache-2.0", ADABOUND),
    "pytorch_optimizer": Package(
        "pytorch_optimizer", "pytorch_optimizer", "Apache-2.0", PYTORCH_OPTIMIZER_F
    ),
    "torch_optimizer": Package(
        "torch_optimizer", "torch-optimizer", "Apache-2.0", TORCH_OPTIMIZER_F
    ),
}


def torch_trajectory(make, arguments, drop, shape):
    import torch

    start, gradients = problem(shape)
    x = torch.nn.Parameter(torch.tensor(start))
    optimizer = make([x], **arguments)
    trajectory = []
    for step, gradient in enumerate(gradients):
        if drop and step == DROP_AT:
            optimizer.param_groups[0]["lr"] /= 10
        x.grad = torch.tensor(gradient)
        optimizer.step()
        trajectory.append(x.detach().tolist())
    return trajectory


def torch_package(name):
    import torch

    package = PACKAGES[name]
    # Otherwise some keep a product of momenta in float32.
    torch.set_default_dtype(torch.float64)
    warnings.filterwarnings("ignore", message="(?s)This overload of .* is deprecated")
    on_torch = torch.__version__.split("+")[0]
    version = metadata.version(package.distribution).split("+")[0]
    version += "" if name == "torch" else f" on torch {on_torch}"
    return importlib.import_module(package.module), package, version


def keras_trajectory(make, arguments, drop, shape):
    import keras

    start, gradients = problem(shape)
    x = keras.Variable(start, dtype="float64")
    optimizer = make(**arguments)
    trajectory = []
    for step, gradient in enumerate(gradients):
        if drop and step == DROP_AT:
            optimizer.learning_rate = arguments["learning_rate"] / 10
        optimizer.apply_gradients([(keras.ops.convert_to_tensor(gradient), x)])
        trajectory.append(np.asarray(x.value).tolist())
    return trajectory


def keras_package(_):
    os.environ.update(KERAS_BACKEND="jax", JAX_ENABLE_X64="1", JAX_PLATFORMS="cpu")
    import jax
    import keras

    keras.config.set_floatx("float64")
    version = f"{keras.__version__} on jax {jax.__version__}"
    package = Package("keras.optimizers", "keras", "Apache-2.0", KERAS)
    return keras.optimizers, package, version


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("package", choices=["keras", *PACKAGES])
    name = parser.parse_args().package

    load, run = (
        (keras_package, keras_trajectory) if name == "keras" else (torch_package, torch_trajectory)
    )
    module, package, version = load(name)
    cases = {}
    for case, (optimizer, arguments, *shape) in package.cases.items():
        drop = case.endswith("_drop")
        (of,) = shape or [(8,)]
        cases[case] = {
            "optimizer": f"{package.module}.{optimizer}",
            "arguments": arguments,
            "shape": list(of),
            "rate_divided_by_10_at": DROP_AT if drop else None,
            "parameters": run(getattr(module, optimizer), arguments, drop, of),
        }
    start, gradients = problem()
    golden = {
        "framework": name,
        "version": version,
        "python": platform.python_version(),
        "licence": package.licence,
        "problem": {"start": start.tolist(), "gradients": gradients.tolist()},
        "cases": cases,
    }
    text = json.dumps(golden, indent=1, allow_nan=False)
    # A list of numbers on one line, so that one step is one line of a diff.
    text = re.sub(r"\[[^][{}\"]+\]", lambda row: " ".join(row[0].split()), text)
    text = text.replace("[ ", "[").replace(" ]", "]")
    (HERE / f"{name}.json").write_text(text + "\n")


if __name__ == "__main__":
    main()
