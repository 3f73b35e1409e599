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
from problem import hessian, problem, value

HERE = Path(__file__).parent

# The rate is divided by ten before this step, counted from 0, in the cases named *_drop.
DROP_AT = 20

# Far below every gradient: where eps is put differently from ours, it shows that the rest agrees.
NO_EPS = 1e-30


ADABOUND = {
    "adabound": ("AdaBound", {}),
    "adabound_band": ("AdaBound", {"final_lr": 0.5, "gamma": 0.01}),
    "adabound_drop": ("AdaBound", {}),
    "adabound_weight_decay": ("AdaBound", {"weight_decay": 0.01}),
    "amsbound": ("AdaBound", {"amsbound": True}),
}


class Package(NamedTuple):
    """A package of torch optimizers, and the cases to run with it."""

    module: str
    distribution: str  # its name on PyPI
    licence: str
    cases: dict  # name -> (optimizer, arguments) or (optimizer, arguments, shape)


ADABELIEF_PYTORCH = {
    "adabelief": ("AdaBelief", {"rectify": False, "print_change_log": False}),
    "adabelief_weight_decay": (
        "AdaBelief",
        {"betas": (0.8, 0.99), "weight_decay": 0.1, "rectify": False, "print_change_log": False},
    ),
    "adabelief_rectified": ("AdaBelief", {"print_change_log": False}),
}
ADAN_PYTORCH = {"adan": ("Adan", {})}

QHOPTIM = {
    "qhadam": ("QHAdam", {"betas": (0.995, 0.999), "nus": (0.7, 1.0)}),
    "qhadam_drop": ("QHAdam", {"betas": (0.8, 0.9), "nus": (0.4, 0.6), "eps": 1e-3}),
    "qhadamw": (
        "QHAdam",
        {
            "betas": (0.995, 0.999),
            "nus": (0.7, 1.0),
            "weight_decay": 0.1,
            "decouple_weight_decay": True,
        },
    ),
}
ADAM_ATAN2_PYTORCH = {
    "adam_atan2": ("AdamAtan2", {}),
    "adam_atan2_factors": ("AdamAtan2", {"betas": (0.8, 0.9), "a": 2.0, "b": 3.0}),
    "adam_atan2_weight_decay": ("AdamAtan2", {"lr": 1e-3, "weight_decay": 1.0}),
}

LION_PYTORCH = {
    "lion": ("Lion", {"lr": 1e-3}),
    "lion_betas": ("Lion", {"lr": 1e-3, "betas": (0.95, 0.98), "weight_decay": 0.1}),
}
TIMM = {
    "adamw_caution": ("AdamWLegacy", {"lr": 1e-3, "weight_decay": 0.0, "caution": True}),
    "adamw_caution_decay": ("AdamWLegacy", {"lr": 1e-3, "weight_decay": 0.1, "caution": True}),
    "mars": ("Mars", {"betas": [0.95, 0.99]}, (6, 4)),
    "mars_gamma": ("Mars", {"betas": [0.95, 0.99], "gamma": 0.5, "weight_decay": 0.1}, (6, 4)),
    "adan_weight_decay": ("Adan", {"weight_decay": 0.1, "no_prox": True}),
    "adan_prox": ("Adan", {"weight_decay": 0.1}),
    "adan_drop": ("Adan", {"betas": (0.9, 0.8, 0.95), "eps": 1e-3}),
    "laprop": ("LaProp", {"lr": 4e-4}),
    "laprop_betas": ("LaProp", {"lr": 4e-4, "betas": (0.8, 0.99), "eps": 1e-3}),
    "laprop_drop": ("LaProp", {"lr": 4e-4}),
    "adopt": ("Adopt", {"clip_exp": 0.25}),
    "adopt_drop": ("Adopt", {"clip_exp": 0.25, "betas": (0.8, 0.9), "eps": 1e-3}),
    "adopt_weight_decay": ("Adopt", {"clip_exp": 0.25, "weight_decay": 0.01}),
    "adamp_delta": ("AdamP", {"delta": 1.5, "weight_decay": 0.1}, (4, 6)),
    "nvnovograd_matrix": ("NvNovoGrad", {"lr": 0.01, "weight_decay": 0.1}, (6, 4)),
    "adafactor_momentum_drop": (
        "Adafactor",
        {"lr": 0.01, "betas": (0.9, 0.999), "min_dim_size_to_factor": 2, "weight_decay": 0.1},
        (6, 4),
    ),
    "adafactor_big_vision": (
        "AdafactorBigVision",
        {"lr": 0.01, "momentum": None, "min_dim_size_to_factor": 2, "decay_rate": 0.6},
        (3, 6, 4),
    ),
    "lion": ("Lion", {"lr": 1e-3, "weight_decay": 0.1}),
    "lamb": ("Lamb", {"lr": 0.01, "weight_decay": 0.1, "max_grad_norm": None}),
    "lamb_matrix": (
        "Lamb",
        {"lr": 0.01, "weight_decay": 0.0, "always_adapt": True, "max_grad_norm": None},
        (6, 4),
    ),
    "lamb_clipped": ("Lamb", {"lr": 0.01}),
    "adahessian": ("Adahessian", {"lr": 0.1}),
    "adahessian_kernel": ("Adahessian", {"lr": 0.1, "avg_conv_kernel": True}, (2, 1, 3, 2)),
}
OPTIMI = {
    "stable_adamw": ("StableAdamW", {"lr": 1e-3}),
    "stable_adamw_drop": ("StableAdamW", {"lr": 1e-3, "betas": (0.8, 0.9), "weight_decay": 0.1}),
    "stable_adamw_matrix": ("StableAdamW", {"lr": 1e-3}, (6, 4)),
}

ADAMOD = {
    "adamod": ("AdaMod", {}),
    "adamod_beta3": ("AdaMod", {"beta3": 0.9, "weight_decay": 0.1}),
    "adamod_drop": ("AdaMod", {"beta3": 0.9}),
}
ADAMP = {
    "adamp": ("AdamP", {}, (6, 4)),
    "adamp_delta": ("AdamP", {"delta": 1.5, "weight_decay": 0.1, "nesterov": True}, (4, 6)),
    "adamp_3d": ("AdamP", {"delta": 1.5, "weight_decay": 0.1, "wd_ratio": 0.5}, (4, 3, 3)),
}

TORCH_OPTIMIZER = {
    "yogi": ("Yogi", {"lr": 0.01}),
    "yogi_initial_drop": ("Yogi", {"lr": 0.01, "initial_accumulator": 0.1}),
    "adabelief_weight_decay": (
        "AdaBelief",
        {"lr": 1e-3, "eps": 1e-8, "weight_decay": 0.1, "weight_decouple": True},
    ),
    "qhadam": ("QHAdam", {"betas": (0.995, 0.999), "nus": (0.7, 1.0)}),
    "qhadam_nus": ("QHAdam", {"betas": (0.8, 0.9), "nus": (0.4, 0.6), "eps": 1e-3}),
    "diffgrad": ("DiffGrad", {}),
    "swats": ("SWATS", {}),
    "novograd": ("NovoGrad", {"lr": 0.01, "betas": (0.95, 0.98)}),
    "novograd_matrix": (
        "NovoGrad",
        {"lr": 0.01, "betas": (0.95, 0.98), "weight_decay": 0.1, "grad_averaging": True},
        (6, 4),
    ),
    "adafactor_matrix": (
        "Adafactor",
        {"lr": 0.01, "beta1": 0.9, "relative_step": False, "eps2": (1e-30, 1e-3)},
        (6, 4),
    ),
    "lamb": ("Lamb", {"lr": 0.01}),
    "lamb_no_eps": ("Lamb", {"lr": 0.01, "eps": NO_EPS}),
    "adahessian": ("Adahessian", {"lr": 0.1}),
    "adahessian_kernel": ("Adahessian", {"lr": 0.1, "hessian_power": 1.0}, (2, 1, 3, 2)),
    "shampoo": ("Shampoo", {"lr": 0.01, "epsilon": 1e-2}, (4, 3)),
    "shampoo_vector": ("Shampoo", {"lr": 0.01, "epsilon": 1e-2, "update_freq": 3}, (5,)),
}

TORCH_SM3 = {
    "sm3": ("SM3", {}),
    "sm3_matrix": ("SM3", {"momentum": 0.9}, (6, 4)),
    "sm3_tensor": ("SM3", {}, (3, 2, 4)),
}
CAME_PYTORCH = {
    "came": ("CAME", {"lr": 1e-3, "weight_decay": 0.1}),
    "came_matrix": (
        "CAME",
        {"lr": 1e-3, "betas": (0.8, 0.99, 0.95), "eps": (1e-6, 1e-4), "weight_decay": 0.1},
        (6, 4),
    ),
    "came_tensor_drop": ("CAME", {"lr": 1e-3, "clip_threshold": 0.5}, (3, 2, 4)),
}

# A "parameter" is no argument of the optimizer: what it wants to know of its one parameter, as a
# group of parameters (a dict) or by its name.
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
    "nadamw_no_schedule": (
        "NAdam",
        {"lr": 2e-3, "momentum_decay": 1e6, "weight_decay": 0.1, "decoupled_weight_decay": True},
    ),
    "adamax": ("Adamax", {"lr": 2e-3}),
    "radam": ("RAdam", {"lr": 1e-3}),
    "radam_no_eps": ("RAdam", {"lr": 1e-3, "eps": NO_EPS}),
    "adafactor": ("Adafactor", {"lr": 0.01}),
    "adafactor_matrix": ("Adafactor", {"lr": 0.01, "weight_decay": 0.1}, (6, 4)),
    "muon": ("Muon", {"lr": 0.02, "weight_decay": 0.0}, (6, 4)),
    "muon_plain": ("Muon", {"lr": 0.02, "weight_decay": 0.1, "nesterov": False}, (6, 4)),
}
EMA = {"use_ema": True, "ema_momentum": 0.75}
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
    "adamaxw_no_eps": (
        "Adamax",
        {"learning_rate": 1e-3, "weight_decay": 0.1, "epsilon": NO_EPS},
    ),
    "nadam": ("Nadam", {"learning_rate": 1e-3}),
    "lion": ("Lion", {"learning_rate": 1e-3}),
    "lion_betas": (
        "Lion",
        {"learning_rate": 1e-3, "beta_1": 0.95, "beta_2": 0.98, "weight_decay": 0.1},
    ),
    "lamb": ("Lamb", {"learning_rate": 0.01}),
    "lamb_matrix": ("Lamb", {"learning_rate": 0.01}, (6, 4)),
    "lamb_weight_decay": ("Lamb", {"learning_rate": 0.01, "weight_decay": 0.1}),
    "adafactor_matrix": (
        "Adafactor",
        {"learning_rate": 0.01, "clip_threshold": 0.5, "beta_2_decay": -0.6},
        (6, 4),
    ),
    "adafactor_decay": ("Adafactor", {"learning_rate": 0.01, "weight_decay": 0.1}, (6, 4)),
    "adafactor_tensor": ("Adafactor", {"learning_rate": 0.01}, (2, 3, 4)),
    "muon": ("Muon", {"learning_rate": 0.02}, (6, 4)),
    "muon_plain": ("Muon", {"learning_rate": 0.02, "nesterov": False}, (6, 4)),
    "muon_unscaled": (
        "Muon",
        {"learning_rate": 0.02, "nesterov": False, "rms_rate": None, "momentum": 0.8},
        (6, 4),
    ),
    # Of momenta whose products are exact: a parameter that stays is its own average.
    "adam_ema": ("Adam", {"learning_rate": 1e-3, "epsilon": NO_EPS, **EMA, "ema_momentum": 0.875}),
    "sgd_ema_overwrite": (
        "SGD",
        {"learning_rate": 0.01, "momentum": 0.9, **EMA, "ema_overwrite_frequency": 7},
    ),
    "sgd_accumulation": (
        "SGD",
        {"learning_rate": 0.01, "momentum": 0.9, "gradient_accumulation_steps": 3},
    ),
    "adamw_accumulation": (
        "AdamW",
        {
            "learning_rate": 1e-3,
            "weight_decay": 0.1,
            "epsilon": NO_EPS,
            "gradient_accumulation_steps": 4,
        },
    ),
}
PYTORCH_OPTIMIZER = {
    "mars": ("MARS", {"weight_decay": 0.0}, (6, 4)),
    "grokfast": ("GrokFastAdamW", {"lr": 1e-3, "normalize_lr": False}),
    "grokfast_no_eps": ("GrokFastAdamW", {"lr": 1e-3, "normalize_lr": False, "eps": NO_EPS}),
    "grokfast_ma": (
        "gradfilter_ma",
        {"optimizer": "AdamW", "lr": 1e-3, "weight_decay": 0.0, "window_size": 7, "lamb": 0.5},
    ),
    "yogi": ("Yogi", {"lr": 0.01}),
    "yogi_weight_decay": (
        "Yogi",
        {"lr": 0.01, "betas": (0.8, 0.99), "eps": 1e-5, "weight_decay": 0.1},
    ),
    "adan": ("Adan", {"lr": 1e-3}),
    "laprop": ("LaProp", {"lr": 4e-4}),
    "adabelief": ("AdaBelief", {"lr": 1e-3, "eps": 1e-8}),
    "adopt": ("ADOPT", {}),
    "adopt_unclipped": ("ADOPT", {"clip_lambda": None, "eps": 1e-2}),
    "ademamix": ("AdEMAMix", {}),
    "ademamix_warm_up": ("AdEMAMix", {"betas": (0.8, 0.99, 0.97), "t_alpha_beta3": 25}),
    "qhadam": ("QHAdam", {"betas": (0.995, 0.999), "nus": (0.7, 1.0)}),
    "adamod": ("AdaMod", {}),
    "diffgrad": ("DiffGrad", {}),
    "diffgrad_eps": ("DiffGrad", {"eps": 0.01}),
    "padam": ("PAdam", {}),
    "padam_growing": ("PAdam", {"betas": (0.9, 0.9999999), "partial": 0.125}),
    "swats_switch": ("SWATS", {"eps": 0.2}),
    "swats_switch_matrix": ("SWATS", {"eps": 0.2, "betas": (0.9, 0.99)}, (6, 4)),
    "novograd": ("NovoGrad", {"lr": 0.01, "betas": (0.95, 0.98), "eps": 1e-8}),
    "novograd_matrix": (
        "NovoGrad",
        {"lr": 0.01, "betas": (0.9, 0.25), "eps": 1e-8, "weight_decay": 0.1},
        (6, 4),
    ),
    "adafactor_matrix": (
        "AdaFactor",
        {"lr": 0.01, "betas": (None, 0.999), "relative_step": False, "scale_parameter": True},
        (6, 4),
    ),
    "adafactor_relative": ("AdaFactor", {"lr": 0.01, "betas": (None, 0.999)}, (6, 4)),
    "sm3_matrix": ("SM3", {"lr": 0.1}, (6, 4)),
    "sm3_tensor_momentum": ("SM3", {"lr": 0.1, "momentum": 0.9}, (3, 2, 4)),
    "came_matrix": ("CAME", {"lr": 1e-3}, (6, 4)),
    "came": ("CAME", {"lr": 1e-3}),
    "lion": ("Lion", {"lr": 1e-3, "weight_decay": 0.1}),
    "lamb": ("Lamb", {"lr": 0.01}),
    "lamb_no_eps": ("Lamb", {"lr": 0.01, "eps": NO_EPS, "adam_debias": True}),
    "adahessian": (
        "AdaHessian",
        {"lr": 0.1, "hessian_power": 0.5, "eps": 1e-4, "weight_decay": 0.1},
    ),
    "stable_adamw": ("StableAdamW", {"lr": 1e-3}),
    "stable_adamw_matrix": (
        "StableAdamW",
        {"lr": 1e-3, "betas": (0.8, 0.9), "weight_decay": 0.2},
        (6, 4),
    ),
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
PRODIGYOPT = {
    "prodigy": ("Prodigy", {"d0": 1e-3}),
    "prodigy_drop": (
        "Prodigy",
        {"d0": 1e-3, "safeguard_warmup": True, "use_bias_correction": True, "d_coef": 0.5},
    ),
    "prodigy_matrix": (
        "Prodigy",
        {"d0": 1e-3, "slice_p": 5, "growth_rate": 1.1, "weight_decay": 0.01},
        (6, 4),
    ),
    "prodigy_l2": ("Prodigy", {"d0": 1e-3, "decouple": False, "weight_decay": 0.01}),
}
SCHEDULEFREE = {
    "schedule_free_sgd": ("SGDScheduleFree", {"lr": 1.0, "warmup_steps": 10, "weight_decay": 0.1}),
    "schedule_free_sgd_drop": ("SGDScheduleFree", {"lr": 1.0, "momentum": 0.7, "r": 1.5}),
    "schedule_free_adamw": (
        "AdamWScheduleFree",
        {"lr": 0.1, "warmup_steps": 10, "weight_decay": 0.1},
    ),
    "schedule_free_adamw_drop": (
        "AdamWScheduleFree",
        {"lr": 0.1, "betas": (0.7, 0.99), "eps": 1e-3, "r": 1.5, "weight_lr_power": 1.0},
    ),
    "schedule_free_radam": ("RAdamScheduleFree", {"lr": 0.1, "weight_decay": 0.1}),
    "schedule_free_radam_drop": (
        "RAdamScheduleFree",
        {"lr": 0.1, "betas": (0.7, 0.9), "silent_sgd_phase": False},
    ),
    "schedule_free": ("wrapped", {"base": "SGD", "lr": 1.0, "weight_decay_at_y": 0.1}),
    "schedule_free_prodigy": ("wrapped", {"base": "Prodigy", "d0": 1e-3}),
}
DOG = {
    "dog_drop": ("DoG", {"reps_rel": 1e-3}),
    "dog_matrix": ("DoG", {"init_eta": 1e-4, "eps": 1e3}, (6, 4)),
    "dog_l2": ("DoG", {"reps_rel": 1e-3, "weight_decay": 0.01}),
    "ldog_drop": ("LDoG", {"reps_rel": 1e-3}),
    "ldog_l2": ("LDoG", {"reps_rel": 1e-2, "eps": 1.0, "weight_decay": 0.01}, (6, 4)),
    "dog_averaged": ("averaged_dog", {"reps_rel": 1e-2}),
    "dog_averaged_gamma": ("averaged_dog", {"reps_rel": 1e-2, "gamma": 2.0}, (6, 4)),
}
# Its eps is 1 minus the one it is given; the default clips every gradient to 1/2.
DOWG = {
    "dowg": ("scalar_dowg", {"eps": 1 - 1e-4, "clip": 1e300}),
    "dowg_matrix": ("scalar_dowg", {"eps": 0.5, "clip": 1e300}, (6, 4)),
}
DADAPTATION = {
    "dadapt_sgd_drop": ("DAdaptSGD", {"d0": 0.1}),
    "dadapt_sgd_matrix": ("DAdaptSGD", {"d0": 10.0, "momentum": 0.9, "growth_rate": 1.02}, (6, 4)),
    "dadapt_sgd_l2": ("DAdaptSGD", {"d0": 0.1, "weight_decay": 0.01}, (6, 4)),
    "dadapt_adagrad_drop": ("DAdaptAdaGrad", {"d0": 0.1}),
    "dadapt_adagrad_matrix": (
        "DAdaptAdaGrad",
        {"d0": 0.1, "momentum": 0.9, "eps": 1e-3, "growth_rate": 1.02, "weight_decay": 0.01},
        (6, 4),
    ),
    "dadapt_adam": ("DAdaptAdam", {"d0": 1e-3}),
    "dadapt_adam_drop": (
        "DAdaptAdam",
        {"d0": 1e-3, "betas": (0.8, 0.99), "eps": 1e-3, "use_bias_correction": True},
    ),
    "dadapt_adam_matrix": (
        "DAdaptAdam",
        {"d0": 1e-3, "growth_rate": 1.02, "weight_decay": 0.01, "decouple": True},
        (6, 4),
    ),
    "dadapt_adam_l2": ("DAdaptAdam", {"d0": 1e-3, "weight_decay": 0.01}),
}

PARAMETERFREE = {
    "cocob": ("COCOB", {}),
    "cocob_matrix": ("COCOB", {"alpha": 5.0, "eps": 1e-3, "weight_decay": 0.01}, (6, 4)),
}
MOMO_OPT = {
    "momo": ("momo", {"optimizer": "Momo"}),
    "momo_drop": ("momo", {"optimizer": "Momo", "weight_decay": 0.1, "use_fstar": True}),
    "momo_matrix": (
        "momo",
        {"optimizer": "Momo", "beta": 0.5, "lb": 0.5, "bias_correction": True},
        (6, 4),
    ),
    "momo_adam": ("momo", {"optimizer": "MomoAdam", "lr": 0.1}),
    "momo_adam_drop": (
        "momo",
        {"optimizer": "MomoAdam", "lr": 0.1, "weight_decay": 0.1, "use_fstar": True, "lb": -2.0},
    ),
}

MECHANIC_PYTORCH = {
    "mechanic_sgd": (
        "mechanic",
        {"optimizer": "SGD", "lr": 1.0, "s_decay": 0.0, "s_init": 1e-3, "eps": 1e-6},
    ),
    "mechanic_adam": ("mechanic", {"optimizer": "Adam", "lr": 1.0, "s_init": 1e-3, "eps": 1e-6}),
}

PACKAGES = {
    "torch": Package("torch.optim", "torch", "BSD-3-Clause", TORCH),
    "pytorch_optimizer": Package(
        "pytorch_optimizer", "pytorch_optimizer", "Apache-2.0", PYTORCH_OPTIMIZER
    ),
    "timm": Package("timm.optim", "timm", "Apache-2.0", TIMM),
    "torch_optimizer": Package("torch_optimizer", "torch-optimizer", "Apache-2.0", TORCH_OPTIMIZER),
    "optimi": Package("optimi", "torch-optimi", "MIT", OPTIMI),
    "adabound": Package("adabound", "adabound", "Apache-2.0", ADABOUND),
    "adabelief_pytorch": Package(
        "adabelief_pytorch", "adabelief-pytorch", "MIT", ADABELIEF_PYTORCH
    ),
    "adan_pytorch": Package("adan_pytorch", "adan-pytorch", "MIT", ADAN_PYTORCH),
    "qhoptim": Package("qhoptim.pyt", "qhoptim", "MIT", QHOPTIM),
    "adam_atan2_pytorch": Package(
        "adam_atan2_pytorch", "adam_atan2_pytorch", "MIT", ADAM_ATAN2_PYTORCH
    ),
    "lion_pytorch": Package("lion_pytorch", "lion-pytorch", "MIT", LION_PYTORCH),
    "adamod": Package("adamod", "adamod", "Apache-2.0", ADAMOD),
    "adamp": Package("adamp", "adamp", "MIT", ADAMP),
    "torch_sm3": Package("SM3", "torch-SM3", "Apache-2.0", TORCH_SM3),
    "came_pytorch": Package("came_pytorch", "came-pytorch", "MIT", CAME_PYTORCH),
    "adam_mini": Package("adam_mini", "adam-mini", "MIT", ADAM_MINI),
    "schedulefree": Package("schedulefree", "schedulefree", "Apache-2.0", SCHEDULEFREE),
    "prodigyopt": Package("prodigyopt", "prodigyopt", "MIT", PRODIGYOPT),
    "dog": Package("dog", "dog-optimizer", "MIT", DOG),
    "dowg": Package("dowg", "dowg", "MIT", DOWG),
    "dadaptation": Package("dadaptation", "dadaptation", "MIT", DADAPTATION),
    "parameterfree": Package("parameterfree", "parameterfree", "MIT", PARAMETERFREE),
    "mechanic_pytorch": Package(
        "mechanic_pytorch", "mechanic-pytorch", "Apache-2.0", MECHANIC_PYTORCH
    ),
    "momo_opt": Package("momo", "momo-opt", "MIT", MOMO_OPT),
}


def gradfilter_ma(params, *, optimizer, window_size, lamb, **arguments):
    """An optimizer of torch behind pytorch_optimizer's filter, as users put it into their loop."""
    import torch
    from pytorch_optimizer.optimizer import grokfast

    model = torch.nn.Module()
    (model.x,) = params[0]["params"]

    class Filtered(getattr(torch.optim, optimizer)):
        queues = None

        def step(self):
            filtered = {"window_size": window_size, "lamb": lamb}
            self.queues = grokfast.gradfilter_ma(model, self.queues, **filtered)
            super().step()

    return Filtered(params, **arguments)


def wrapped(params, *, base, weight_decay_at_y=0.0, **arguments):
    """An optimizer of torch or prodigyopt in the wrapper of schedulefree."""
    import prodigyopt
    import schedulefree
    import torch

    make = getattr(prodigyopt, base, None) or getattr(torch.optim, base)
    tx = make(params, **arguments)
    return schedulefree.ScheduleFreeWrapper(tx, weight_decay_at_y=weight_decay_at_y)


def averaged_dog(params, *, gamma=8.0, **arguments):
    """DoG with the averager behind it; in the place of the parameters it shows their average."""
    import torch
    from dog import DoG, PolynomialDecayAverager

    (shown,) = params[0]["params"]
    model = torch.nn.Module()
    model.x = torch.nn.Parameter(shown.detach().clone())
    averager = PolynomialDecayAverager(model, gamma=gamma)

    class Averaged(DoG):
        def step(self):
            model.x.grad = shown.grad
            super().step()
            averager.step()
            shown.data.copy_(averager.averaged_model.x)

    return Averaged([model.x], **arguments)


def scalar_dowg(params, **arguments):
    """ScalarDoWG steps only where it is given a closure."""
    from dowg import ScalarDoWG

    class Stepping(ScalarDoWG):
        def step(self):
            super().step(lambda: None)

    return Stepping(params, **arguments)


def momo(params, *, optimizer, **arguments):
    """An optimizer of momo-opt, given a loss at each step."""
    import momo
    import torch

    class WithLoss(getattr(momo, optimizer)):
        def step(self):
            (x,) = self.param_groups[0]["params"]
            super().step(loss=torch.tensor(value(x.grad.numpy())))

    return WithLoss(params, **arguments)


def mechanic(params, *, optimizer, s_decay=1e-2, s_init=1e-8, eps=1e-8, **arguments):
    """An optimizer of torch in mechanic-pytorch's wrapper."""
    import torch
    from mechanic_pytorch import mechanize

    base = getattr(torch.optim, optimizer)
    return mechanize(base, s_decay=s_decay, s_init=s_init, eps=eps)(params, **arguments)


# What is no class of its package.
ADAPTERS = {
    "gradfilter_ma": gradfilter_ma,
    "wrapped": wrapped,
    "averaged_dog": averaged_dog,
    "scalar_dowg": scalar_dowg,
    "mechanic": mechanic,
    "momo": momo,
}


def torch_trajectory(make, arguments, drop, shape):
    import torch

    start, gradients = problem(shape)
    x = torch.nn.Parameter(torch.tensor(start))
    arguments = dict(arguments)
    parameter = arguments.pop("parameter", {})
    named = (parameter, x) if isinstance(parameter, str) else {"params": [x], **parameter}
    optimizer = make([named], **arguments)
    if hasattr(optimizer, "train"):  # Schedule-Free
        optimizer.train()
    trajectory = []
    for step, gradient in enumerate(gradients):
        if drop and step == DROP_AT:
            optimizer.param_groups[0]["lr"] /= 10
        x.grad = torch.tensor(gradient)
        if "hessian" in make.__name__.lower():  # it differentiates the gradient
            x.grad = x.grad + hessian(x.grad) * (x - x.detach())
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
        trained = x.value
        optimizer.finalize_variable_values([x])  # of those that average, to show it
        trajectory.append(np.asarray(x.value).tolist())
        x.assign(trained)
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
        make = ADAPTERS.get(optimizer) or getattr(module, optimizer)
        cases[case] = {
            "optimizer": f"{package.module}.{optimizer}",
            "arguments": arguments,
            "shape": list(of),
            "rate_divided_by_10_at": DROP_AT if drop else None,
            "parameters": run(make, arguments, drop, of),
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
