"""Make the files of compat/: what a line pasted from another framework does, and its checkpoints.

    python tests/goldens/make_compat.py torch
    python tests/goldens/make_compat.py keras

and so on for every name of FILES. Each needs, in a throw-away virtual environment and not the one
of the tests, numpy==2.4.6 and

    torch            torch==2.13.0
    adabound         torch==2.13.0 adabound==0.0.5
    keras            keras==3.15.1 jax==0.10.2
    keras_legacy     tensorflow==2.21.0 tf_keras==2.21.0
    keras_adabound   the same, and in KERAS_ADABOUND the folder of keras-adabound 0.6.0's source
    tf1              tensorflow==2.21.0
    tfjs             node, and in NODE_PATH a node_modules with @tensorflow/tfjs 4.22.0

Of `problem()`, of 8 numbers, the first six are a kernel of shape (2, 3), the last two a bias: so
norms over one array and over all differ. Everything runs in float64 but tfjs, which has only
float32, and the checkpoints named *_float32 and *_bfloat16. A float is written by the repr of its
own type, which reads back to the same bits; null stands for NaN.
"""

import argparse
import importlib
import json
import os
import subprocess
import sys
import types
import warnings
from importlib import metadata
from pathlib import Path

import numpy as np
from mlp import SAVED_AT, SHOWN, data, start
from problem import problem

HERE = Path(__file__).parent

# The rate is divided by ten before this step, counted from 0, in the cases named *_drop.
DROP_AT = 20

# ---------------------------------------------------------------------------- what to run: torch

TORCH = {
    "sgd": ("SGD", {}),
    "sgd_momentum": ("SGD", {"lr": 0.01, "momentum": 0.9}),
    "sgd_momentum_drop": ("SGD", {"lr": 0.01, "momentum": 0.9}),
    "sgd_dampening": ("SGD", {"lr": 0.01, "momentum": 0.9, "dampening": 0.5}),
    "sgd_nesterov": ("SGD", {"lr": 0.01, "momentum": 0.9, "nesterov": True}),
    "sgd_weight_decay": ("SGD", {"lr": 0.01, "momentum": 0.9, "weight_decay": 0.1}),
    "sgd_maximize": ("SGD", {"lr": 0.01, "weight_decay": 0.1, "maximize": True}),
    "adagrad": ("Adagrad", {}),
    "adagrad_lr_decay": ("Adagrad", {"lr": 0.1, "lr_decay": 0.05}),
    "adagrad_initial": ("Adagrad", {"initial_accumulator_value": 0.1}),
    "adagrad_eps": ("Adagrad", {"eps": 1e-2}),
    "adagrad_weight_decay": ("Adagrad", {"weight_decay": 0.1}),
    "adagrad_maximize": ("Adagrad", {"weight_decay": 0.1, "maximize": True}),
    "adadelta": ("Adadelta", {}),
    "adadelta_rho_drop": ("Adadelta", {"lr": 0.5, "rho": 0.95, "eps": 1e-4}),
    "adadelta_weight_decay": ("Adadelta", {"weight_decay": 0.1}),
    "adadelta_maximize": ("Adadelta", {"weight_decay": 0.1, "maximize": True}),
    "rmsprop": ("RMSprop", {}),
    "rmsprop_alpha": ("RMSprop", {"alpha": 0.9, "eps": 1e-3}),
    "rmsprop_centered": ("RMSprop", {"centered": True}),
    "rmsprop_momentum": ("RMSprop", {"momentum": 0.9}),
    "rmsprop_momentum_drop": ("RMSprop", {"lr": 0.01, "momentum": 0.9}),
    "rmsprop_all": ("RMSprop", {"momentum": 0.8, "centered": True, "weight_decay": 0.1}),
    "rmsprop_weight_decay": ("RMSprop", {"weight_decay": 0.1}),
    "rmsprop_maximize": ("RMSprop", {"weight_decay": 0.1, "maximize": True}),
    "adam": ("Adam", {}),
    "adam_betas": ("Adam", {"lr": 0.01, "betas": [0.8, 0.99], "eps": 1e-3}),
    "adam_drop": ("Adam", {"lr": 1e-3}),
    "adam_amsgrad": ("Adam", {"amsgrad": True}),
    "adam_weight_decay": ("Adam", {"weight_decay": 0.1}),
    "adam_decoupled": ("Adam", {"weight_decay": 0.1, "decoupled_weight_decay": True}),
    "adam_maximize": ("Adam", {"weight_decay": 0.1, "maximize": True}),
    "adamw": ("AdamW", {}),
    "adamw_amsgrad": ("AdamW", {"lr": 0.01, "weight_decay": 0.1, "amsgrad": True}),
    "adamw_maximize": ("AdamW", {"lr": 0.01, "betas": [0.8, 0.99], "maximize": True}),
    "adamax": ("Adamax", {}),
    "adamax_betas": ("Adamax", {"lr": 0.01, "betas": [0.8, 0.99], "eps": 1e-3}),
    "adamax_weight_decay": ("Adamax", {"weight_decay": 0.1}),
    "adamax_maximize": ("Adamax", {"weight_decay": 0.1, "maximize": True}),
    "nadam": ("NAdam", {}),
    "nadam_momentum_decay": (
        "NAdam",
        {"lr": 0.01, "betas": [0.8, 0.99], "eps": 1e-3, "momentum_decay": 0.1},
    ),
    "nadam_weight_decay": ("NAdam", {"weight_decay": 0.1}),
    "nadam_decoupled": ("NAdam", {"weight_decay": 0.1, "decoupled_weight_decay": True}),
    "nadam_maximize": ("NAdam", {"weight_decay": 0.1, "maximize": True}),
    "radam": ("RAdam", {}),
    "radam_eps": ("RAdam", {"lr": 0.01, "eps": 1e-2}),
    "radam_betas": ("RAdam", {"betas": [0.8, 0.9]}),
    "radam_weight_decay": ("RAdam", {"weight_decay": 0.1}),
    "radam_decoupled": ("RAdam", {"weight_decay": 0.1, "decoupled_weight_decay": True}),
    "radam_maximize": ("RAdam", {"weight_decay": 0.1, "maximize": True}),
}
TORCH_CHECKPOINTS = {
    "sgd": ("SGD", {"lr": 0.3}),
    "momentum": ("SGD", {"lr": 0.05, "momentum": 0.9}),
    "dampening": ("SGD", {"lr": 0.1, "momentum": 0.9, "dampening": 0.5}),
    "nesterov_weight_decay": (
        "SGD",
        {"lr": 0.05, "momentum": 0.9, "nesterov": True, "weight_decay": 0.01},
    ),
    "adagrad": ("Adagrad", {"lr": 0.1}),
    "adagrad_lr_decay": ("Adagrad", {"lr": 0.1, "lr_decay": 0.05}),
    "adadelta": ("Adadelta", {}),
    "adadelta_rho": ("Adadelta", {"lr": 0.7, "rho": 0.95, "eps": 1e-4, "weight_decay": 0.01}),
    "rmsprop": ("RMSprop", {"lr": 0.01}),
    "rmsprop_centered_momentum": (
        "RMSprop",
        {"lr": 0.003, "alpha": 0.9, "momentum": 0.8, "centered": True},
    ),
    "adam": ("Adam", {"lr": 0.02}),
    "adam_l2": ("Adam", {"lr": 0.02, "betas": [0.8, 0.99], "weight_decay": 0.01}),
    "adam_tensor_rate": ("Adam", {"lr": 0.02}),
    "adam_frozen": ("Adam", {"lr": 0.02}),
    "amsgrad": ("Adam", {"lr": 0.02, "betas": [0.9, 0.8], "amsgrad": True}),
    "adamw": ("AdamW", {"lr": 0.02, "weight_decay": 0.1}),
    "adamw_groups": ("AdamW", {"lr": 0.02}),
    "adamw_steplr": ("AdamW", {"lr": 0.03, "weight_decay": 0.1}),
    "adamax": ("Adamax", {"lr": 0.03}),
    "nadam": ("NAdam", {"lr": 0.01}),
    "nadam_decoupled": (
        "NAdam",
        {"lr": 0.01, "weight_decay": 0.1, "decoupled_weight_decay": True},
    ),
    "radam": ("RAdam", {"lr": 0.03}),
    "radam_decoupled": (
        "RAdam",
        {"lr": 0.03, "weight_decay": 0.1, "decoupled_weight_decay": True},
    ),
    "momentum_float32": ("SGD", {"lr": 0.05, "momentum": 0.9}),
    "adagrad_float32": ("Adagrad", {"lr": 0.1}),
    "rmsprop_centered_momentum_float32": (
        "RMSprop",
        {"lr": 0.003, "alpha": 0.9, "momentum": 0.8, "centered": True},
    ),
    "adam_float32": ("Adam", {"lr": 0.02}),
    "adamw_float32": ("AdamW", {"lr": 0.02, "weight_decay": 0.1}),
    "nadam_float32": ("NAdam", {"lr": 0.01}),
    "adam_bfloat16": ("Adam", {"lr": 0.02}),
}
# Another order than the network's, another rate and decay for the biases.
TORCH_GROUPS = [
    {"names": ["0.weight", "2.weight"], "weight_decay": 0.1},
    {"names": ["0.bias", "2.bias"], "lr": 0.005, "weight_decay": 0.0},
]
STEP_LR = {"step_size": 10, "gamma": 0.3}

ADABOUND = {
    "adabound": ("AdaBound", {}),
    "adabound_band": ("AdaBound", {"final_lr": 0.5, "gamma": 0.01}),
    "adabound_betas": ("AdaBound", {"lr": 0.01, "betas": [0.8, 0.99], "eps": 1e-3}),
    "adabound_drop": ("AdaBound", {"lr": 1e-3}),
    "adabound_weight_decay": ("AdaBound", {"weight_decay": 0.01}),
    "amsbound": ("AdaBound", {"amsbound": True}),
    "adaboundw": ("AdaBoundW", {"weight_decay": 0.01}),
    "amsboundw_drop": ("AdaBoundW", {"lr": 1e-3, "weight_decay": 0.01, "amsbound": True}),
}
ADABOUND_CHECKPOINTS = {
    "adabound": ("AdaBound", {"lr": 0.01}),
    "adabound_steplr": ("AdaBound", {"lr": 0.01, "gamma": 0.01}),
    "amsbound": ("AdaBound", {"lr": 0.01, "betas": [0.9, 0.8], "amsbound": True}),
    "adaboundw": ("AdaBoundW", {"lr": 0.01, "weight_decay": 0.001}),
    "adabound_float32": ("AdaBound", {"lr": 0.01}),
}
ADABOUNDW_NOTE = (
    "AdaBoundW is in the authors' repository (Luolc/AdaBound, commit 2e928c3) but in no release. "
    "Here a subclass of the released AdaBound takes its step with no weight decay and then "
    "subtracts weight_decay times the parameter before the step, not times the rate, as theirs."
)

# ---------------------------------------------------------------------------- what to run: keras

SCHEDULES = {
    "exponential": (
        "ExponentialDecay",
        {"initial_learning_rate": 0.02, "decay_steps": 10, "decay_rate": 0.5},
    ),
    "exponential_staircase": (
        "ExponentialDecay",
        {"initial_learning_rate": 0.02, "decay_steps": 10, "decay_rate": 0.5, "staircase": True},
    ),
    "inverse_time": (
        "InverseTimeDecay",
        {"initial_learning_rate": 0.02, "decay_steps": 8, "decay_rate": 0.7},
    ),
    "inverse_time_staircase": (
        "InverseTimeDecay",
        {"initial_learning_rate": 0.02, "decay_steps": 8, "decay_rate": 0.7, "staircase": True},
    ),
    "piecewise": (
        "PiecewiseConstantDecay",
        {"boundaries": [10, 25], "values": [0.02, 0.005, 0.01]},
    ),
    "polynomial": (
        "PolynomialDecay",
        {"initial_learning_rate": 0.02, "decay_steps": 25, "end_learning_rate": 0.002},
    ),
    "polynomial_power": (
        "PolynomialDecay",
        {
            "initial_learning_rate": 0.02,
            "decay_steps": 25,
            "end_learning_rate": 0.002,
            "power": 2.0,
        },
    ),
    "polynomial_cycle": (
        "PolynomialDecay",
        {
            "initial_learning_rate": 0.02,
            "decay_steps": 15,
            "end_learning_rate": 0.002,
            "power": 0.5,
            "cycle": True,
        },
    ),
    "cosine": ("CosineDecay", {"initial_learning_rate": 0.02, "decay_steps": 30}),
    "cosine_warmup": (
        "CosineDecay",
        {
            "initial_learning_rate": 0.002,
            "decay_steps": 25,
            "alpha": 0.1,
            "warmup_target": 0.02,
            "warmup_steps": 8,
        },
    ),
    "cosine_restarts": (
        "CosineDecayRestarts",
        {"initial_learning_rate": 0.02, "first_decay_steps": 7},
    ),
    "cosine_restarts_factors": (
        "CosineDecayRestarts",
        {
            "initial_learning_rate": 0.02,
            "first_decay_steps": 9,
            "t_mul": 1.0,
            "m_mul": 0.8,
            "alpha": 0.1,
        },
    ),
}


def schedule_of(name):
    return {"class_name": SCHEDULES[name][0], "config": SCHEDULES[name][1]}


KERAS = {
    "sgd": ("SGD", {}),
    "sgd_momentum": ("SGD", {"learning_rate": 0.01, "momentum": 0.9}),
    "sgd_momentum_drop": ("SGD", {"learning_rate": 0.01, "momentum": 0.9}),
    "sgd_nesterov": ("SGD", {"learning_rate": 0.01, "momentum": 0.9, "nesterov": True}),
    "adagrad": ("Adagrad", {}),
    "adagrad_options": (
        "Adagrad",
        {"learning_rate": 0.01, "initial_accumulator_value": 0.01, "epsilon": 1e-3},
    ),
    "adadelta": ("Adadelta", {}),
    "adadelta_rate_1": ("Adadelta", {"learning_rate": 1.0}),
    "adadelta_rho": ("Adadelta", {"learning_rate": 1.0, "rho": 0.9, "epsilon": 1e-4}),
    "rmsprop": ("RMSprop", {}),
    "rmsprop_rho": ("RMSprop", {"learning_rate": 0.01, "rho": 0.8, "epsilon": 1e-3}),
    "rmsprop_momentum": ("RMSprop", {"momentum": 0.9}),
    "rmsprop_centered": ("RMSprop", {"centered": True}),
    "rmsprop_centered_momentum": ("RMSprop", {"momentum": 0.8, "centered": True}),
    "rmsprop_momentum_drop": ("RMSprop", {"learning_rate": 1e-3, "momentum": 0.9}),
    "adam": ("Adam", {}),
    "adam_betas": ("Adam", {"learning_rate": 0.01, "beta_1": 0.8, "beta_2": 0.99}),
    "adam_amsgrad": ("Adam", {"amsgrad": True}),
    "adam_epsilon": ("Adam", {"epsilon": 1e-3}),
    "adamw": ("AdamW", {}),
    "adamw_weight_decay": ("AdamW", {"learning_rate": 0.01, "weight_decay": 0.1}),
    "adamw_amsgrad": ("AdamW", {"learning_rate": 0.01, "amsgrad": True}),
    "adamax": ("Adamax", {}),
    "adamax_betas": (
        "Adamax",
        {"learning_rate": 0.01, "beta_1": 0.8, "beta_2": 0.99, "epsilon": 1e-3},
    ),
    "nadam": ("Nadam", {}),
    "nadam_betas": (
        "Nadam",
        {"learning_rate": 0.01, "beta_1": 0.8, "beta_2": 0.99, "epsilon": 1e-3},
    ),
    # What every constructor takes.
    "sgd_weight_decay": ("SGD", {"learning_rate": 0.01, "momentum": 0.9, "weight_decay": 0.1}),
    "rmsprop_weight_decay": ("RMSprop", {"learning_rate": 0.01, "weight_decay": 0.1}),
    "sgd_clipnorm": ("SGD", {"learning_rate": 0.01, "clipnorm": 30.0}),
    "adam_clipnorm": ("Adam", {"clipnorm": 30.0}),
    "sgd_clipvalue": ("SGD", {"learning_rate": 0.01, "momentum": 0.9, "clipvalue": 30.0}),
    "adagrad_global_clipnorm": ("Adagrad", {"global_clipnorm": 60.0}),
    "sgd_global_clipnorm_weight_decay": (
        "SGD",
        {"learning_rate": 0.01, "global_clipnorm": 60.0, "weight_decay": 0.1},
    ),
    "adam_accumulation": ("Adam", {"gradient_accumulation_steps": 4}),
    "sgd_accumulation": (
        "SGD",
        {"learning_rate": 0.01, "momentum": 0.9, "gradient_accumulation_steps": 4},
    ),
    "nadam_accumulation_clipnorm": (
        "Nadam",
        {"weight_decay": 0.1, "clipnorm": 15.0, "gradient_accumulation_steps": 4},
    ),
    "sgd_accumulation_schedule": (
        "SGD",
        {"learning_rate": schedule_of("exponential"), "gradient_accumulation_steps": 4},
    ),
    "adam_ema": ("Adam", {"learning_rate": 0.01, "use_ema": True}),
    "sgd_ema_overwrite": (
        "SGD",
        {
            "learning_rate": 0.01,
            "momentum": 0.9,
            "use_ema": True,
            "ema_momentum": 0.8,
            "ema_overwrite_frequency": 3,
        },
    ),
    "adam_ema_accumulation": (
        "Adam",
        {
            "learning_rate": 0.01,
            "use_ema": True,
            "ema_momentum": 0.9,
            "gradient_accumulation_steps": 4,
        },
    ),
    "sgd_ema_overwrite_accumulation": (
        "SGD",
        {
            "learning_rate": 0.01,
            "use_ema": True,
            "ema_momentum": 0.9,
            "ema_overwrite_frequency": 3,
            "gradient_accumulation_steps": 4,
        },
    ),
    "adamw_schedule": (
        "AdamW",
        {"learning_rate": schedule_of("exponential"), "weight_decay": 0.1},
    ),
    "sgd_loss_scale": ("SGD", {"learning_rate": 0.01, "loss_scale_factor": 8.0}),
    "sgd_exponential": ("SGD", {"learning_rate": schedule_of("exponential"), "momentum": 0.9}),
    "adam_exponential_staircase": ("Adam", {"learning_rate": schedule_of("exponential_staircase")}),
    "rmsprop_inverse_time": ("RMSprop", {"learning_rate": schedule_of("inverse_time")}),
    "sgd_inverse_time_staircase": (
        "SGD",
        {"learning_rate": schedule_of("inverse_time_staircase")},
    ),
    "adam_piecewise": ("Adam", {"learning_rate": schedule_of("piecewise")}),
    "adagrad_polynomial": ("Adagrad", {"learning_rate": schedule_of("polynomial")}),
    "sgd_polynomial_cycle": ("SGD", {"learning_rate": schedule_of("polynomial_cycle")}),
    "adamax_cosine": ("Adamax", {"learning_rate": schedule_of("cosine")}),
    "nadam_cosine_warmup": ("Nadam", {"learning_rate": schedule_of("cosine_warmup")}),
    "adadelta_cosine_restarts": ("Adadelta", {"learning_rate": schedule_of("cosine_restarts")}),
}
KERAS_CONFIGS = [
    "sgd_nesterov",
    "adagrad_options",
    "adadelta_rho",
    "rmsprop_centered_momentum",
    "adam",
    "adam_amsgrad",
    "adamw_weight_decay",
    "adamax_betas",
    "nadam_betas",
    "adam_clipnorm",
    "sgd_ema_overwrite_accumulation",
    "adam_exponential_staircase",
    "nadam_cosine_warmup",
]
KERAS_CHECKPOINTS = {
    "sgd": ("SGD", {"learning_rate": 0.3}),
    "momentum": ("SGD", {"learning_rate": 0.05, "momentum": 0.9}),
    "nesterov": ("SGD", {"learning_rate": 0.05, "momentum": 0.9, "nesterov": True}),
    "adagrad": ("Adagrad", {"learning_rate": 0.1}),
    "adadelta": ("Adadelta", {"learning_rate": 1.0, "epsilon": 1e-4}),
    "rmsprop": ("RMSprop", {"learning_rate": 0.005}),
    "rmsprop_centered_momentum": (
        "RMSprop",
        {"learning_rate": 0.003, "momentum": 0.8, "centered": True},
    ),
    "adam": ("Adam", {"learning_rate": 0.02}),
    "amsgrad": ("Adam", {"learning_rate": 0.02, "beta_2": 0.8, "amsgrad": True}),
    "adamw": ("AdamW", {"learning_rate": 0.02, "weight_decay": 0.1}),
    "nadam": ("Nadam", {"learning_rate": 0.01}),
    "adamax": ("Adamax", {"learning_rate": 0.03}),
    "adam_schedule": (
        "Adam",
        {
            "learning_rate": {
                "class_name": "ExponentialDecay",
                "config": {"initial_learning_rate": 0.03, "decay_steps": 10, "decay_rate": 0.5},
            }
        },
    ),
    "adam_ema": ("Adam", {"learning_rate": 0.02, "use_ema": True, "ema_momentum": 0.9}),
    "momentum_ema_overwrite": (
        "SGD",
        {
            "learning_rate": 0.05,
            "momentum": 0.9,
            "use_ema": True,
            "ema_momentum": 0.5,
            "ema_overwrite_frequency": 4,
        },
    ),
    "adam_accumulation": ("Adam", {"learning_rate": 0.05, "gradient_accumulation_steps": 4}),
    "nadam_ema_accumulation": (
        "Nadam",
        {
            "learning_rate": 0.05,
            "use_ema": True,
            "ema_momentum": 0.9,
            "gradient_accumulation_steps": 4,
        },
    ),
    "adam_clipnorm": ("Adam", {"learning_rate": 0.02, "clipnorm": 0.03}),
    "momentum_float32": ("SGD", {"learning_rate": 0.05, "momentum": 0.9}),
    "rmsprop_centered_momentum_float32": (
        "RMSprop",
        {"learning_rate": 0.003, "momentum": 0.8, "centered": True},
    ),
    "adam_float32": ("Adam", {"learning_rate": 0.02}),
    "adamw_float32": ("AdamW", {"learning_rate": 0.02, "weight_decay": 0.1}),
    "nadam_float32": ("Nadam", {"learning_rate": 0.01}),
}

KERAS_NOTE = (
    "keras.ops.cos and keras.ops.tanh take float64 to float32 (keras 3.15.1, any floatx), and with "
    "them the cosine schedules; all else is float64."
)

# ---------------------------------------------------------------------------- what to run: others

KERAS_LEGACY = {
    "sgd": ("SGD", {}),
    "sgd_momentum": ("SGD", {"learning_rate": 0.01, "momentum": 0.9}),
    "sgd_momentum_drop": ("SGD", {"learning_rate": 0.01, "momentum": 0.9}),
    "sgd_nesterov_decay": (
        "SGD",
        {"learning_rate": 0.01, "momentum": 0.9, "nesterov": True, "decay": 0.05},
    ),
    "sgd_clipnorm": ("SGD", {"learning_rate": 0.01, "clipnorm": 30.0}),
    "sgd_global_clipnorm": ("SGD", {"learning_rate": 0.01, "global_clipnorm": 60.0}),
    "sgd_clipvalue_clipnorm": (
        "SGD",
        {"learning_rate": 0.01, "clipvalue": 20.0, "clipnorm": 25.0},
    ),
    "adam_clipvalue": ("Adam", {"clipvalue": 30.0}),
    "adagrad": ("Adagrad", {}),
    "adagrad_options": (
        "Adagrad",
        {
            "learning_rate": 0.01,
            "initial_accumulator_value": 0.01,
            "epsilon": 1e-3,
            "decay": 0.05,
        },
    ),
    "adadelta": ("Adadelta", {}),
    "adadelta_rho": ("Adadelta", {"learning_rate": 1.0, "rho": 0.9, "epsilon": 1e-4}),
    "adadelta_decay": ("Adadelta", {"learning_rate": 1.0, "decay": 0.05}),
    "rmsprop": ("RMSprop", {}),
    "rmsprop_rho": ("RMSprop", {"rho": 0.8, "epsilon": 1e-3, "decay": 0.05}),
    "rmsprop_momentum": ("RMSprop", {"momentum": 0.9}),
    "rmsprop_momentum_drop": ("RMSprop", {"learning_rate": 1e-3, "momentum": 0.9}),
    "rmsprop_centered": ("RMSprop", {"centered": True}),
    "rmsprop_centered_momentum": (
        "RMSprop",
        {"momentum": 0.8, "epsilon": 1e-5, "centered": True, "decay": 0.05},
    ),
    "adam": ("Adam", {}),
    "adam_betas": (
        "Adam",
        {"learning_rate": 0.01, "beta_1": 0.8, "beta_2": 0.99, "epsilon": 1e-3, "decay": 0.05},
    ),
    "adam_amsgrad": ("Adam", {"amsgrad": True}),
    "adam_schedule": ("Adam", {"learning_rate": schedule_of("exponential")}),
    "adamax": ("Adamax", {}),
    "adamax_betas": (
        "Adamax",
        {"learning_rate": 0.01, "beta_1": 0.8, "beta_2": 0.99, "epsilon": 1e-3, "decay": 0.05},
    ),
    "nadam": ("Nadam", {}),
    "nadam_betas": (
        "Nadam",
        {
            "learning_rate": 0.01,
            "beta_1": 0.8,
            "beta_2": 0.99,
            "epsilon": 1e-3,
            "schedule_decay": 0.1,
        },
    ),
}
KERAS_LEGACY_CONFIGS = [
    "sgd_nesterov_decay",
    "adagrad_options",
    "adadelta_rho",
    "rmsprop_centered_momentum",
    "adam_betas",
    "adam_amsgrad",
    "adam_schedule",
    "adamax_betas",
    "nadam_betas",
    "sgd_clipnorm",
]
# Those named new_* are of tf_keras.optimizers: the classes of Keras 2.11 and later.
KERAS_LEGACY_CHECKPOINTS = {
    "sgd": ("SGD", {"learning_rate": 0.3}),
    "momentum": ("SGD", {"learning_rate": 0.05, "momentum": 0.9}),
    "nesterov_decay": (
        "SGD",
        {"learning_rate": 0.05, "momentum": 0.9, "nesterov": True, "decay": 0.01},
    ),
    "adagrad": ("Adagrad", {"learning_rate": 0.1}),
    "adadelta": ("Adadelta", {"learning_rate": 1.0, "epsilon": 1e-4}),
    "rmsprop": ("RMSprop", {"learning_rate": 0.005}),
    "rmsprop_momentum": ("RMSprop", {"learning_rate": 0.003, "momentum": 0.8}),
    "rmsprop_centered_momentum": (
        "RMSprop",
        {"learning_rate": 0.003, "momentum": 0.8, "centered": True},
    ),
    "adam": ("Adam", {"learning_rate": 0.02}),
    "amsgrad": ("Adam", {"learning_rate": 0.02, "beta_2": 0.8, "amsgrad": True}),
    "adamax": ("Adamax", {"learning_rate": 0.03}),
    "nadam": ("Nadam", {"learning_rate": 0.01}),
    "adam_float32": ("Adam", {"learning_rate": 0.02}),
    "new_adam": ("Adam", {"learning_rate": 0.02}),
    "new_adadelta": ("Adadelta", {"learning_rate": 1.0, "epsilon": 1e-4}),
    "new_rmsprop_centered_momentum": (
        "RMSprop",
        {"learning_rate": 0.003, "momentum": 0.8, "centered": True},
    ),
    "new_nadam": ("Nadam", {"learning_rate": 0.01}),
}
KERAS_LEGACY_NOTE = (
    "The legacy optimizers keep their hyperparameters in float32 and compute in the parameters' "
    "type. Those named new_* keep the learning rate in floatx, here the parameters' type."
)
NEW_NADAM_NOTE = "The product of momenta is not among the variables, so it is not saved."

KERAS_ADABOUND = {
    "adabound": ("AdaBound", {}),
    "adabound_band": ("AdaBound", {"final_lr": 0.5, "gamma": 0.01}),
    "adabound_betas": (
        "AdaBound",
        {"learning_rate": 0.01, "beta_1": 0.8, "beta_2": 0.99, "epsilon": 1e-3},
    ),
    "adabound_amsgrad": ("AdaBound", {"amsgrad": True}),
    "adabound_weight_decay": ("AdaBound", {"weight_decay": 0.01}),
    "adabound_decay": ("AdaBound", {"decay": 0.05, "base_lr": 0.002}),
}
KERAS_ADABOUND_CHECKPOINTS = {
    "adabound": ("AdaBound", {"learning_rate": 0.01}),
    "amsgrad": ("AdaBound", {"learning_rate": 0.01, "beta_2": 0.8, "amsgrad": True}),
}
KERAS_ADABOUND_NOTE = (
    "It derives from the Keras 2 optimizer of before 2.11, here tf_keras.optimizers.legacy, which "
    "keeps hyperparameters in float32; checks of types by typeguard are switched off."
)

TF1 = {
    "gradient_descent": ("GradientDescentOptimizer", {"learning_rate": 0.01}),
    "momentum": ("MomentumOptimizer", {"learning_rate": 0.01, "momentum": 0.9}),
    "momentum_drop": ("MomentumOptimizer", {"learning_rate": 0.01, "momentum": 0.9}),
    "momentum_nesterov": (
        "MomentumOptimizer",
        {"learning_rate": 0.01, "momentum": 0.9, "use_nesterov": True},
    ),
    "adagrad": ("AdagradOptimizer", {"learning_rate": 0.01}),
    "adagrad_initial": (
        "AdagradOptimizer",
        {"learning_rate": 0.01, "initial_accumulator_value": 0.01},
    ),
    "adadelta": ("AdadeltaOptimizer", {}),
    "adadelta_rho": ("AdadeltaOptimizer", {"learning_rate": 1.0, "rho": 0.9, "epsilon": 1e-4}),
    "rmsprop": ("RMSPropOptimizer", {"learning_rate": 0.01}),
    "rmsprop_decay": ("RMSPropOptimizer", {"learning_rate": 0.01, "decay": 0.8, "epsilon": 1e-3}),
    "rmsprop_momentum_drop": ("RMSPropOptimizer", {"learning_rate": 0.01, "momentum": 0.9}),
    "rmsprop_centered": ("RMSPropOptimizer", {"learning_rate": 0.01, "centered": True}),
    "rmsprop_centered_momentum": (
        "RMSPropOptimizer",
        {"learning_rate": 0.01, "momentum": 0.8, "centered": True},
    ),
    "adam": ("AdamOptimizer", {}),
    "adam_betas": (
        "AdamOptimizer",
        {"learning_rate": 0.01, "beta1": 0.8, "beta2": 0.99, "epsilon": 1e-3},
    ),
}
TF1_NOTE = "Hyperparameters pass through float32, and Adam keeps the powers of its betas there."

# The arguments by the names of the parameters; tf.train takes them by position.
TFJS = {
    "sgd": ("sgd", {"learningRate": 0.01}),
    "momentum": ("momentum", {"learningRate": 0.01, "momentum": 0.9}),
    "momentum_drop": ("momentum", {"learningRate": 0.01, "momentum": 0.9}),
    "momentum_nesterov": (
        "momentum",
        {"learningRate": 0.01, "momentum": 0.9, "useNesterov": True},
    ),
    "adagrad": ("adagrad", {"learningRate": 0.01}),
    "adagrad_initial": ("adagrad", {"learningRate": 0.01, "initialAccumulatorValue": 0.01}),
    "adadelta": ("adadelta", {}),
    "adadelta_rho": ("adadelta", {"learningRate": 0.01, "rho": 0.9, "epsilon": 1e-4}),
    "rmsprop": ("rmsprop", {"learningRate": 0.01}),
    "rmsprop_decay": ("rmsprop", {"learningRate": 0.01, "decay": 0.8, "epsilon": 1e-3}),
    "rmsprop_momentum": ("rmsprop", {"learningRate": 0.01, "momentum": 0.9}),
    "rmsprop_momentum_drop": ("rmsprop", {"learningRate": 0.01, "momentum": 0.9}),
    "rmsprop_centered": ("rmsprop", {"learningRate": 0.01, "centered": True}),
    "rmsprop_centered_momentum": (
        "rmsprop",
        {"learningRate": 0.01, "momentum": 0.8, "epsilon": 1e-9, "centered": True},
    ),
    "adam": ("adam", {}),
    "adam_betas": ("adam", {"learningRate": 0.01, "beta1": 0.8, "beta2": 0.99, "epsilon": 1e-3}),
    "adamax": ("adamax", {}),
    "adamax_decay": (
        "adamax",
        {"learningRate": 0.01, "beta1": 0.8, "beta2": 0.99, "epsilon": 1e-3, "decay": 0.05},
    ),
}

TFJS_NOTE = (
    "Adadelta divides by the average of before the step; both averages then stay equal, and it is "
    "gradient descent whatever rho and epsilon. Centered RMSprop takes epsilon from under the root "
    "and is NaN where the variance is less."
)

# ---------------------------------------------------------------------------- how to write it


def number(x):
    """A JSON number that reads back to the same bits of x's own type, or null for NaN."""
    if isinstance(x, (bool, np.bool_)):
        return bool(x)
    if isinstance(x, (int, np.integer)):
        return int(x)
    if np.isnan(x):
        return None
    return float(str(x)) if isinstance(x, np.float32) else float(x)


def numbers(x):
    """An array as nested lists of JSON numbers."""
    return [numbers(row) for row in x] if np.ndim(x) else number(np.asarray(x)[()])


def array(x, dtype=None):
    """An array as JSON; its data nested by its first axis alone, flat beyond."""
    x = np.asarray(x)
    rows = x.reshape(len(x), -1) if x.ndim > 1 else x
    return {"dtype": dtype or x.dtype.name, "shape": list(x.shape), "data": numbers(rows)}


def flat(arrays):
    """The 8 numbers of a kernel and a bias."""
    return numbers(np.concatenate([np.asarray(x).ravel() for x in arrays]))


def text(value, depth=1):
    """JSON with a line for what is short, and for every row of numbers."""
    line = json.dumps(value, allow_nan=False)
    if len(line) > 100:
        line = json.dumps(value, allow_nan=False, separators=(",", ":"))
    numeric = isinstance(value, list) and not any(isinstance(x, (list, dict, str)) for x in value)
    if numeric or not isinstance(value, (dict, list)) or len(line) + depth <= 100:
        return line
    indent = "\n" + " " * depth
    if isinstance(value, list):
        inside = (text(x, depth + 1) for x in value)
        return "[" + indent + ("," + indent).join(inside) + indent[:-1] + "]"
    inside = (f"{json.dumps(key)}: {text(x, depth + 1)}" for key, x in value.items())
    return "{" + indent + ("," + indent).join(inside) + indent[:-1] + "}"


def kernel_and_bias(x):
    return [x[:6].reshape(2, 3), x[6:]]


def case(name, optimizer, arguments, run):
    """One case; `run` gives for (arguments, step of the drop) the 8 numbers after each step."""
    drop = DROP_AT if name.endswith("_drop") else None
    found = run(arguments, drop)
    found = found if isinstance(found, dict) else {"parameters": found}
    return {
        "optimizer": optimizer,
        "arguments": arguments,
        "rate_divided_by_10_at": drop,
        **found,
    }


def stacked(steps, names, dtype=None):
    """Of a list of {name: array}, one array per name with the steps along its first axis."""
    return {name: array(np.stack([step[name] for step in steps]), dtype) for name in names}


def dtype_of(name):
    return next((x for x in ("float32", "bfloat16") if name.endswith(x)), "float64")


# ---------------------------------------------------------------------------- torch, adabound


def torch_modules(name):
    """The optimizers by their names."""
    import torch

    # Otherwise NAdam keeps its product of momenta in float32.
    torch.set_default_dtype(torch.float64)
    warnings.filterwarnings("ignore", message="(?s)This overload of .* is deprecated")
    if name == "torch":
        return vars(torch.optim)
    from adabound import AdaBound

    class AdaBoundW(AdaBound):
        def step(self):
            decays = [group["weight_decay"] for group in self.param_groups]
            before = [[p.detach().clone() for p in g["params"]] for g in self.param_groups]
            for group in self.param_groups:
                group["weight_decay"] = 0.0
            super().step()
            for group, decay, values in zip(self.param_groups, decays, before, strict=True):
                group["weight_decay"] = decay
                for p, value in zip(group["params"], values, strict=True):
                    p.data.sub_(decay * value)

    return {"AdaBound": AdaBound, "AdaBoundW": AdaBoundW}


def torch_case(make):
    import torch

    def run(arguments, drop):
        first, gradients = problem()
        parameters = [torch.nn.Parameter(torch.tensor(x)) for x in kernel_and_bias(first)]
        optimizer = make(parameters, **arguments)
        trajectory = []
        for step, gradient in enumerate(gradients):
            if step == drop:
                optimizer.param_groups[0]["lr"] /= 10
            for p, g in zip(parameters, kernel_and_bias(gradient), strict=True):
                p.grad = torch.tensor(g)
            optimizer.step()
            trajectory.append(flat(p.detach().numpy() for p in parameters))
        return trajectory

    return run


def torch_json(value):
    """A state_dict as JSON."""
    import torch

    if isinstance(value, torch.Tensor):
        wide = value.detach().float() if value.dtype == torch.bfloat16 else value.detach()
        return array(wide.numpy(), str(value.dtype).removeprefix("torch."))
    if isinstance(value, dict):
        return {str(key): torch_json(x) for key, x in value.items()}
    if isinstance(value, (list, tuple)):
        return [torch_json(x) for x in value]
    return value


def torch_network(dtype):
    import torch

    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Tanh(), torch.nn.Linear(4, 2))
    first = start()
    with torch.no_grad():
        for layer, ours in ((model[0], first["d0"]), (model[2], first["d1"])):
            layer.weight.copy_(torch.tensor(ours["kernel"].T))
            layer.bias.copy_(torch.tensor(ours["bias"]))
    return model.to(dtype)


def torch_checkpoint(name, optimizer, make, arguments):
    import torch

    dtype = dtype_of(name)
    # A model of float32 is made under a default of float32, and so is its optimizer's state.
    torch.set_default_dtype(torch.float64 if dtype == "float64" else torch.float32)
    model = torch_network(getattr(torch, dtype))
    named = dict(model.named_parameters())
    entry = {"optimizer": optimizer, "arguments": arguments, "dtype": dtype}
    names = list(named)
    parameters = list(named.values())
    if name == "adamw_groups":
        names = [x for group in TORCH_GROUPS for x in group["names"]]
        parameters = [
            {"params": [named[x] for x in group["names"]]}
            | {key: x for key, x in group.items() if key != "names"}
            for group in TORCH_GROUPS
        ]
        entry["groups"] = TORCH_GROUPS
    if name == "adam_frozen":
        entry["frozen"] = ["0.weight", "0.bias"]
        for x in entry["frozen"]:
            named[x].requires_grad_(False)
    if name == "adam_tensor_rate":
        arguments = arguments | {"lr": torch.tensor(arguments["lr"])}
        entry["note"] = "lr was given as a tensor"
    tx = make(parameters, **arguments)
    schedule = None
    if name.endswith("_steplr"):
        schedule = torch.optim.lr_scheduler.StepLR(tx, **STEP_LR)
        entry["schedule"] = {"class_name": "StepLR", "config": STEP_LR}
    x, y = (torch.tensor(z).to(getattr(torch, dtype)) for z in data())

    def values():
        return (
            {n: p.detach().float().numpy().copy() for n, p in named.items()}
            if (dtype == "bfloat16")
            else {n: p.detach().numpy().copy() for n, p in named.items()}
        )

    losses, rates, after = [], [], []
    for step in range(SHOWN[-1]):
        if step == SAVED_AT:
            entry["names"] = names
            entry["state"] = torch_json(tx.state_dict())
            entry["start"] = {n: array(v, dtype) for n, v in values().items()}
        if step >= SAVED_AT:
            rates.append(float(tx.param_groups[0]["lr"]))
        tx.zero_grad()
        loss = ((model(x) - y) ** 2).mean()
        loss.backward()
        tx.step()
        if schedule:
            schedule.step()
        losses.append(loss.item())
        if step + 1 in SHOWN:
            after.append(values())
    torch.set_default_dtype(torch.float64)
    if schedule:
        entry["rates"] = rates
    entry["steps"] = list(SHOWN)
    entry["parameters"] = stacked(after, named, dtype)
    falls(name, losses)
    return entry


def falls(name, losses):
    """Tell a run that does not train: its state would show little."""
    print(f"{name}: loss {losses[0]:.4f}, {losses[SAVED_AT]:.4f}, {losses[-1]:.4f}")
    assert losses[-1] < losses[SAVED_AT] < losses[0], name


def torch_file(name):
    import torch

    modules = torch_modules(name)
    cases, checkpoints = {
        "torch": (TORCH, TORCH_CHECKPOINTS),
        "adabound": (ADABOUND, ADABOUND_CHECKPOINTS),
    }[name]
    on_torch = torch.__version__.partition("+")[0]
    version = metadata.version(name).partition("+")[0]
    file = {
        "framework": name,
        "version": version if name == "torch" else f"{version} on torch {on_torch}",
        "licence": {"torch": "BSD-3-Clause", "adabound": "Apache-2.0"}[name],
        "dtype": "float64",
        "cases": {},
        "checkpoints": {},
    }
    if name == "adabound":
        file["note"] = ADABOUNDW_NOTE
    for key, (optimizer, arguments) in cases.items():
        run = torch_case(modules[optimizer])
        file["cases"][key] = case(key, optimizer, arguments, run)
    for key, (optimizer, arguments) in checkpoints.items():
        entry = torch_checkpoint(key, optimizer, modules[optimizer], arguments)
        file["checkpoints"][key] = entry
    return file


# ---------------------------------------------------------------------------- keras


def keras_arguments(arguments, schedules):
    """Arguments with a schedule in the place of its serialization."""
    rate = arguments.get("learning_rate")
    if isinstance(rate, dict):
        rate = getattr(schedules, rate["class_name"])(**rate["config"])
        return arguments | {"learning_rate": rate}
    return arguments


def keras_case(make):
    import keras

    def run(arguments, drop):
        first, gradients = problem()
        variables = [
            keras.Variable(x, dtype="float64", name=name)
            for name, x in zip(("kernel", "bias"), kernel_and_bias(first), strict=True)
        ]
        optimizer = make(**keras_arguments(arguments, keras.optimizers.schedules))
        trajectory, averages = [], []
        for step, gradient in enumerate(gradients):
            if step == drop:
                optimizer.learning_rate = arguments["learning_rate"] / 10
            parts = [keras.ops.convert_to_tensor(g) for g in kernel_and_bias(gradient)]
            optimizer.apply_gradients(list(zip(parts, variables, strict=True)))
            trajectory.append(flat(v.value for v in variables))
            if optimizer.use_ema:
                moving = optimizer._model_variables_moving_average
                averages.append(flat(v.value for v in moving))
        found = {"parameters": trajectory}
        return found | {"averages": averages} if averages else found

    return run


def keras_checkpoint(name, optimizer, arguments):
    import jax
    import keras

    dtype = dtype_of(name)
    keras.config.set_floatx(dtype)
    jax.config.update("jax_enable_x64", dtype == "float64")
    keras.backend.clear_session()
    first = start()
    layers = [keras.layers.Dense(4, "tanh", name="d0"), keras.layers.Dense(2, name="d1")]
    model = keras.Sequential([keras.Input((3,)), *layers], name="net")
    for layer in layers:
        layer.set_weights([x.astype(dtype) for x in first[layer.name].values()])
    make = getattr(keras.optimizers, optimizer)
    tx = make(**keras_arguments(arguments, keras.optimizers.schedules))
    x, y = (jax.numpy.asarray(z, dtype) for z in data())

    # Not by the layers: Keras takes the tanh of float64 in float32.
    @jax.jit
    @jax.value_and_grad
    def loss_and_gradients(trainable):
        k0, b0, k1, b1 = trainable
        return ((jax.numpy.tanh(x @ k0 + b0) @ k1 + b1 - y) ** 2).mean()

    names = [v.path.partition("/")[2] for v in model.trainable_variables]
    entry = {"optimizer": optimizer, "arguments": arguments, "dtype": dtype, "names": names}

    def values(variables):
        return {n: np.array(v.value) for n, v in zip(names, variables, strict=True)}

    losses, after, averages = [], [], []
    for step in range(SHOWN[-1]):
        if step == SAVED_AT:
            entry["config"] = plain(tx.get_config())
            entry["variables"] = [{"name": v.name, **array(v.value)} for v in tx.variables]
            entry["start"] = {n: array(v) for n, v in values(model.trainable_variables).items()}
        loss, gradients = loss_and_gradients([v.value for v in model.trainable_variables])
        tx.apply(gradients, model.trainable_variables)
        losses.append(float(loss))
        if step + 1 in SHOWN:
            after.append(values(model.trainable_variables))
            if tx.use_ema:
                averages.append(values(tx._model_variables_moving_average))
    entry["steps"] = list(SHOWN)
    entry["parameters"] = stacked(after, names)
    if averages:
        entry["averages"] = stacked(averages, names)
    falls(name, losses)
    return entry


def plain(config):
    """A configuration as JSON."""
    return json.loads(json.dumps(config, default=lambda x: x.item()))


def keras_file(_):
    os.environ.update(KERAS_BACKEND="jax", JAX_ENABLE_X64="1", JAX_PLATFORMS="cpu")
    import jax
    import keras

    keras.config.set_floatx("float64")
    file = {
        "framework": "keras",
        "version": f"{keras.__version__} on jax {jax.__version__}",
        "licence": "Apache-2.0",
        "dtype": "float64",
        "note": KERAS_NOTE,
        "schedules": {},
        "configs": {},
        "cases": {},
        "checkpoints": {},
    }
    for key, (name, config) in SCHEDULES.items():
        schedule = getattr(keras.optimizers.schedules, name)(**config)
        values = [number(np.asarray(schedule(step))[()]) for step in range(61)]
        file["schedules"][key] = {"class_name": name, "config": config, "values": values}
    for key, (optimizer, arguments) in KERAS.items():
        make = getattr(keras.optimizers, optimizer)
        file["cases"][key] = case(key, optimizer, arguments, keras_case(make))
        if key in KERAS_CONFIGS:
            made = make(**keras_arguments(arguments, keras.optimizers.schedules))
            file["configs"][key] = plain(made.get_config())
    for key, (optimizer, arguments) in KERAS_CHECKPOINTS.items():
        file["checkpoints"][key] = keras_checkpoint(key, optimizer, arguments)
    return file


# ---------------------------------------------------------------------------- TensorFlow


def tensorflow():
    os.environ.update(TF_CPP_MIN_LOG_LEVEL="3", CUDA_VISIBLE_DEVICES="", TF_USE_LEGACY_KERAS="1")
    import tensorflow as tf

    return tf


def tensorflow_case(make, rated):
    """A case; `rated(optimizer, rate)` changes the rate of an optimizer."""
    tf = tensorflow()

    def run(arguments, drop):
        first, gradients = problem()
        variables = [
            tf.Variable(x, name=name)
            for name, x in zip(("kernel", "bias"), kernel_and_bias(first), strict=True)
        ]
        optimizer = make(arguments)
        trajectory = []
        for step, gradient in enumerate(gradients):
            if step == drop:
                rated(optimizer, arguments["learning_rate"] / 10)
            parts = [tf.constant(g) for g in kernel_and_bias(gradient)]
            optimizer.apply_gradients(list(zip(parts, variables, strict=True)))
            trajectory.append(flat(v.numpy() for v in variables))
        return trajectory

    return run


def set_rate(optimizer, rate):
    optimizer.learning_rate = rate


def tensorflow_checkpoint(name, optimizer, make, arguments):
    tf = tensorflow()
    import tf_keras

    dtype = dtype_of(name)
    tf_keras.backend.set_floatx(dtype)
    variables = {
        f"{layer}/{part}": tf.Variable(x.astype(dtype), name=f"{layer}/{part}")
        for layer, parts in start().items()
        for part, x in parts.items()
    }
    k0, b0, k1, b1 = variables.values()
    tx = make(**arguments)
    x, y = (tf.constant(z.astype(dtype)) for z in data())
    entry = {"optimizer": optimizer, "arguments": arguments, "dtype": dtype}
    entry["names"] = list(variables)

    def values():
        return {n: v.numpy() for n, v in variables.items()}

    losses, after = [], []
    for step in range(SHOWN[-1]):
        if step == SAVED_AT:
            entry["config"] = plain(tx.get_config())
            held = tx.variables() if callable(tx.variables) else tx.variables
            entry["variables"] = [{"name": v.name, **array(v.numpy())} for v in held]
            entry["start"] = {n: array(v) for n, v in values().items()}
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean((tf.tanh(x @ k0 + b0) @ k1 + b1 - y) ** 2)
        gradients = tape.gradient(loss, list(variables.values()))
        tx.apply_gradients(list(zip(gradients, variables.values(), strict=True)))
        losses.append(float(loss))
        if step + 1 in SHOWN:
            after.append(values())
    entry["steps"] = list(SHOWN)
    entry["parameters"] = stacked(after, variables)
    falls(name, losses)
    return entry


def keras_legacy_file(_):
    tf = tensorflow()
    import tf_keras

    legacy, schedules = tf_keras.optimizers.legacy, tf_keras.optimizers.schedules
    file = {
        "framework": "keras_legacy",
        "version": f"tf_keras {tf_keras.__version__} on tensorflow {tf.__version__}",
        "licence": "Apache-2.0",
        "dtype": "float64",
        "note": KERAS_LEGACY_NOTE,
        "configs": {},
        "cases": {},
        "checkpoints": {},
    }
    for key, (optimizer, arguments) in KERAS_LEGACY.items():

        def make(given, name=optimizer):
            return getattr(legacy, name)(**keras_arguments(given, schedules))

        run = tensorflow_case(make, set_rate)
        file["cases"][key] = case(key, optimizer, arguments, run)
        if key in KERAS_LEGACY_CONFIGS:
            file["configs"][key] = plain(make(arguments).get_config())
    for key, (optimizer, arguments) in KERAS_LEGACY_CHECKPOINTS.items():
        module = tf_keras.optimizers if key.startswith("new_") else legacy
        entry = tensorflow_checkpoint(key, optimizer, getattr(module, optimizer), arguments)
        if key == "new_nadam":
            entry["note"] = NEW_NADAM_NOTE
        file["checkpoints"][key] = entry
    return file


def keras_adabound_file(_):
    tf = tensorflow()
    import tf_keras

    stub = types.ModuleType("typeguard")
    stub.typechecked = lambda f: f
    sys.modules["typeguard"] = stub
    tf.keras.optimizers.Optimizer = tf_keras.optimizers.legacy.Optimizer
    sys.path.insert(0, os.environ["KERAS_ADABOUND"])
    module = importlib.import_module("keras_adabound")
    file = {
        "framework": "keras_adabound",
        "version": f"{module.__version__} on tf_keras {tf_keras.__version__}",
        "licence": "MIT",
        "dtype": "float64",
        "note": KERAS_ADABOUND_NOTE,
        "configs": {},
        "cases": {},
        "checkpoints": {},
    }
    for key, (optimizer, arguments) in KERAS_ADABOUND.items():
        run = tensorflow_case(lambda given: module.AdaBound(**given), set_rate)
        file["cases"][key] = case(key, optimizer, arguments, run)
        file["configs"][key] = plain(module.AdaBound(**arguments).get_config())
    for key, (optimizer, arguments) in KERAS_ADABOUND_CHECKPOINTS.items():
        entry = tensorflow_checkpoint(key, optimizer, module.AdaBound, arguments)
        file["checkpoints"][key] = entry
    return file


def tf1_file(_):
    tf = tensorflow()
    train = tf.compat.v1.train
    file = {
        "framework": "tf1",
        "version": f"tf.compat.v1.train of tensorflow {tf.__version__}",
        "licence": "Apache-2.0",
        "dtype": "float64",
        "note": TF1_NOTE,
        "cases": {},
        "checkpoints": {},
    }

    def rated(optimizer, rate):
        optimizer.rate = rate

    for key, (name, arguments) in TF1.items():

        def make(given, name=name):
            cls = getattr(train, name)
            if "learning_rate" not in given:
                return cls(**given)
            # Eager code gives a rate that changes as a function.
            optimizer = cls(**given | {"learning_rate": lambda: optimizer.rate})
            optimizer.rate = given["learning_rate"]
            return optimizer

        file["cases"][key] = case(key, name, arguments, tensorflow_case(make, rated))
    return file


def tfjs_file(_):
    first, gradients = problem()
    asked = {
        "start": first.tolist(),
        "gradients": gradients.tolist(),
        "drop_at": DROP_AT,
        "cases": TFJS,
    }
    script = [os.environ.get("NODE", "node"), str(HERE / "make_compat_tfjs.js")]
    done = subprocess.run(
        script, input=json.dumps(asked), check=True, stdout=subprocess.PIPE, text=True
    )
    found = json.loads(done.stdout)

    def run_of(key):
        # NaN reaches us as null.
        return lambda *_: numbers(np.array(found["cases"][key], dtype=np.float32))

    return {
        "framework": "tfjs",
        "version": found["version"],
        "licence": "Apache-2.0",
        "dtype": "float32",
        "note": TFJS_NOTE,
        "cases": {
            key: case(key, name, arguments, run_of(key)) for key, (name, arguments) in TFJS.items()
        },
        "checkpoints": {},
    }


FILES = {
    "torch": torch_file,
    "adabound": torch_file,
    "keras": keras_file,
    "keras_legacy": keras_legacy_file,
    "keras_adabound": keras_adabound_file,
    "tf1": tf1_file,
    "tfjs": tfjs_file,
}


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("framework", choices=FILES)
    name = parser.parse_args().framework
    (HERE / "compat").mkdir(exist_ok=True)
    (HERE / "compat" / f"{name}.json").write_text(text(FILES[name](name)) + "\n")


if __name__ == "__main__":
    main()
