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

# A "parameter" is no argument of the optimizer: what it wants to know of its one parameter, as a
# group of parameters (a dict) or by its name.
TORCH_G = {
    "muon": ("Muon", {"lr": 0.02, "weight_decay": 0.0}, (6, 4)),
    "muon_plain": ("Muon", {"lr": 0.02, "weight_decay": 0.1, "nesterov": False}, (6, 4)),
}

KERAS_G = {
    "muon": ("Muon", {"learning_rate": 0.02}, (6, 4)),
    "muon_plain": ("Muon", {"learning_rate": 0.02, "nesterov": False}, (6, 4)),
    "muon_unscaled": (
        "Muon",
        {"learning_rate": 0.02, "nesterov": False, "rms_rate": None, "momentum": 0.8},
        (6, 4),
    ),
}

PYTORCH_OPTIMIZER_G = {
    "muon": ("Muon", {"parameter": {"use_muon": True}, "nesterov": False}, (6, 4)),
    "muon_adjusted": (
        "Muon",
        {"parameter": {"use_muon": True}, "nesterov": False, "use_adjusted_lr": True},
        (4, 6),
    ),
}

_MINI = {"lr": 1e-3, "verbose": False}
ADAM_MINI = {
    "adam_mini_query": (
        "Adam_mini",
        _MINI | {"parameter": "attn.wq.weight", "dim": 4, "n_heads": 2},
        (4, 4),
    ),
    "adam_mini_mlp": (
        "Adam_mini",
        _MINI | {"parameter": "mlp.fc1.weight", "weight_decay": 0.1},
        (6, 4),
    ),
    "adam_mini_embedding": ("Adam_mini", _MINI | {"parameter": "embed.weight"}, (6, 4)),
    "adam_mini_norm": ("Adam_mini", _MINI | {"parameter": "norm.weight", "eps": 1e-3}),
    "adam_mini_bias": ("Adam_mini", _MINI | {"parameter": "mlp.fc1.bias"}),
}


class Package(NamedTuple):
    """A package of torch optimizers, and the cases to run with it."""

    module: str
    distribution: str  # its name on PyPI
    licence: str
    cases: dict  # name -> (optimizer, arguments) or (optimizer, arguments, shape)


PACKAGES = {
    "torch": Package("torch.optim", "torch", "BSD-3-Clause", TORCH | TORCH_G),
    "adabound": Package("adabound", "adabound", "Apache-2.0", ADABOUND),
    "adam_mini": Package("adam_mini", "adam-mini", "MIT", ADAM_MINI),
    "pytorch_optimizer": Package(
        "pytorch_optimizer", "pytorch_optimizer", "Apache-2.0", PYTORCH_OPTIMIZER_G
    ),
}


def torch_trajectory(make, arguments, drop, shape):
    import torch

    start, gradients = problem(shape)
    x = torch.nn.Parameter(torch.tensor(start))
    arguments = dict(arguments)
    parameter = arguments.pop("parameter", {})
    named = (parameter, x) if isinstance(parameter, str) else {"params": [x], **parameter}
    optimizer = make([named], **arguments)
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
    package = Package("keras.optimizers", "keras", "Apache-2.0", KERAS | KERAS_G)
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
