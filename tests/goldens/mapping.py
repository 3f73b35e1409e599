"""Which of our optimizers each golden case is, with which arguments, and how close it comes.

`deviation` of a row is at most its `rtol`. Rows without a `reason` are the same rule, and agree to
rounding. Rows with a `reason` are another rule in a known way: their `rtol` is a little above the
deviation measured, and a test asks that it is not much smaller.
"""

import json
from pathlib import Path
from typing import NamedTuple

import numpy as np

HERE = Path(__file__).parent


class Row(NamedTuple):
    """One golden case and its counterpart, named and called as in tests/references."""

    golden: str  # the file, without .json
    case: str
    optimizer: str
    kwargs: dict
    rtol: float = 1e-12
    reason: str = ""  # why it differs; empty where it must not
    l2: float = 0.0  # times the parameters, to be added to the gradients (coupled weight decay)


def load(golden):
    """The contents of one golden file."""
    return json.loads((HERE / f"{golden}.json").read_text())


def rate(row, case):
    """The learning rate of a row: a number, or a function of the step counted from 0."""
    base, drop_at = row.kwargs["learning_rate"], case["rate_divided_by_10_at"]
    if drop_at is None:
        return base
    return lambda step: base / (1 + 9 * (step >= drop_at))  # no branch: it works on a tracer too


def deviation(ours, golden, start):
    """Largest distance between two trajectories, per coordinate, over the distance it travelled.

    Relative to the way and not to the parameter, because a parameter hides small steps.
    """
    ours, golden = np.asarray(ours), np.asarray(golden)
    distance = np.abs(ours - golden).max(axis=0)
    travelled = np.abs(golden - np.asarray(start)).max(axis=0)
    still = (distance == 0) & (travelled == 0)
    with np.errstate(divide="ignore"):
        return float(np.where(still, 0.0, distance / np.where(still, 1.0, travelled)).max())


# Where eps can be made negligible the cases *_no_eps show that the rest of the rule agrees.
EPS_OUTSIDE = "eps is added to the root, ours is inside it"
EPS_HAT = "eps is added to the root of the raw second moment, ours to that of the corrected one"
EPS_AFTER_MAX = "eps is added to the running maximum, ours to |g| before it"
MOMENTUM_SCHEDULE = "Dozat's schedule of momentum (in Keras 250 times as fast), ours is constant"
RATE_INSIDE = "the velocity keeps the rates it was gathered with, ours takes the new rate at once"
RATE_OUTSIDE = "the velocity takes the new rate at once, ours keeps the rates it was gathered with"
BFLOAT16 = "the iteration runs in bfloat16, ours in the dtype of the parameters"
UNCORRECTED = "the look-ahead mixes uncorrected means, ours corrected ones as optax's"
MUON_EPS = "1e-7 is added to the norm of a sum of gradients, our eps to that of their mean"

# fmt: off
ROWS = [
    Row("torch", "sgd", "sgd", {"learning_rate": 0.01}),
    Row("torch", "sgd_momentum", "sgd", {"learning_rate": 0.01, "momentum": 0.9}),
    Row("torch", "sgd_momentum_drop", "sgd", {"learning_rate": 0.01, "momentum": 0.9}),
    Row("torch", "sgd_nesterov", "sgd", {"learning_rate": 0.01, "momentum": 0.9, "nesterov": True}),
    Row(
        "torch", "adagrad", "adagrad",
        {"learning_rate": 0.01, "initial_accumulator_value": 0.0, "eps": 1e-10},
        3.7e-1, EPS_OUTSIDE,
    ),
    Row(
        "torch", "adagrad_initial", "adagrad",
        {"learning_rate": 0.01, "initial_accumulator_value": 0.1, "eps": 1e-10},
        2.0e-10, EPS_OUTSIDE,
    ),
    Row(
        "torch", "adagrad_no_eps", "adagrad",
        {"learning_rate": 0.01, "initial_accumulator_value": 0.0, "eps": 1e-30},
    ),
    Row("torch", "adadelta", "adadelta", {"learning_rate": 1.0, "rho": 0.9, "eps": 1e-6}),
    Row("torch", "adadelta_rho", "adadelta", {"learning_rate": 1.0, "rho": 0.95, "eps": 1e-6}),
    Row(
        "torch", "rmsprop", "rmsprop",
        {"learning_rate": 0.01, "decay": 0.99, "eps": 1e-8, "eps_in_sqrt": False},
    ),
    Row(
        "torch", "rmsprop_centered", "rmsprop",
        {"learning_rate": 0.01, "decay": 0.99, "eps": 1e-8, "eps_in_sqrt": False, "centered": True},
    ),
    Row(
        "torch", "rmsprop_momentum", "rmsprop",
        {"learning_rate": 0.01, "decay": 0.99, "eps": 1e-8, "eps_in_sqrt": False, "momentum": 0.9},
    ),
    Row(
        "torch", "rmsprop_momentum_drop", "rmsprop",
        {"learning_rate": 0.01, "decay": 0.99, "eps": 1e-8, "eps_in_sqrt": False, "momentum": 0.9},
        8.0e-1, RATE_OUTSIDE,
    ),
    Row("torch", "adam", "adam", {"learning_rate": 1e-3}),
    Row("torch", "adam_eps", "adam", {"learning_rate": 1e-3, "eps": 1e-3}),
    Row("torch", "adam_drop", "adam", {"learning_rate": 1e-3}),
    Row("torch", "adam_amsgrad", "amsgrad", {"learning_rate": 1e-3}),
    Row("torch", "adamw", "adam", {"learning_rate": 1e-3, "weight_decay": 0.1}),
    Row("torch", "nadam", "nadam", {"learning_rate": 2e-3}, 9.9e-1, MOMENTUM_SCHEDULE),
    Row("torch", "nadam_no_schedule", "nadam", {"learning_rate": 2e-3}),
    Row("torch", "adamax", "adamax", {"learning_rate": 2e-3}),
    Row("torch", "radam", "radam", {"learning_rate": 1e-3}, 1.4e-2, EPS_HAT),
    Row("torch", "radam_no_eps", "radam", {"learning_rate": 1e-3, "eps": 1e-30}),

    Row("keras", "sgd_momentum", "sgd", {"learning_rate": 0.01, "momentum": 0.9}),
    Row(
        "keras", "sgd_momentum_drop", "sgd",
        {"learning_rate": 0.01, "momentum": 0.9},
        5.5e-1, RATE_INSIDE,
    ),
    Row("keras", "sgd_nesterov", "sgd", {"learning_rate": 0.01, "momentum": 0.9, "nesterov": True}),
    Row(
        "keras", "adagrad", "adagrad",
        {"learning_rate": 0.01, "initial_accumulator_value": 0.1, "eps": 1e-7},
    ),
    Row("keras", "adadelta", "adadelta", {"learning_rate": 1e-3, "rho": 0.95, "eps": 1e-7}),
    Row("keras", "adadelta_rate_1", "adadelta", {"learning_rate": 1.0, "rho": 0.95, "eps": 1e-7}),
    Row("keras", "rmsprop", "rmsprop", {"learning_rate": 1e-3, "decay": 0.9, "eps": 1e-7}),
    Row(
        "keras", "rmsprop_centered", "rmsprop",
        {"learning_rate": 1e-3, "decay": 0.9, "eps": 1e-7, "centered": True},
    ),
    Row(
        "keras", "rmsprop_momentum", "rmsprop",
        {"learning_rate": 1e-3, "decay": 0.9, "eps": 1e-7, "momentum": 0.9},
    ),
    Row(
        "keras", "rmsprop_momentum_drop", "rmsprop",
        {"learning_rate": 1e-3, "decay": 0.9, "eps": 1e-7, "momentum": 0.9},
    ),
    Row("keras", "adam", "adam", {"learning_rate": 1e-3, "eps": 1e-7}, 1.4e-1, EPS_HAT),
    Row("keras", "adam_no_eps", "adam", {"learning_rate": 1e-3, "eps": 1e-30}),
    Row("keras", "adam_amsgrad", "amsgrad", {"learning_rate": 1e-3, "eps": 1e-7}, 1.4e-1, EPS_HAT),
    Row("keras", "adam_amsgrad_no_eps", "amsgrad", {"learning_rate": 1e-3, "eps": 1e-30}),
    Row(
        "keras", "adamw", "adam",
        {"learning_rate": 1e-3, "eps": 1e-7, "weight_decay": 0.1},
        1.4e-1, EPS_HAT,
    ),
    Row(
        "keras", "adamw_no_eps", "adam",
        {"learning_rate": 1e-3, "eps": 1e-30, "weight_decay": 0.1},
    ),
    Row("keras", "adamax", "adamax", {"learning_rate": 1e-3, "eps": 1e-7}, 2.3e-4, EPS_AFTER_MAX),
    Row("keras", "adamax_no_eps", "adamax", {"learning_rate": 1e-3, "eps": 1e-30}),
    Row("keras", "nadam", "nadam", {"learning_rate": 1e-3, "eps": 1e-7}, 7.7e-1, MOMENTUM_SCHEDULE),

    Row("adabound", "adabound", "adabound", {"learning_rate": 1e-3}),
    Row(
        "adabound", "adabound_band", "adabound",
        {"learning_rate": 1e-3, "final_lr": 0.5, "gamma": 0.01},
    ),
    Row("adabound", "adabound_drop", "adabound", {"learning_rate": 1e-3}),
    Row("adabound", "adabound_weight_decay", "adabound", {"learning_rate": 1e-3}, l2=0.01),
    Row("adabound", "amsbound", "amsbound", {"learning_rate": 1e-3}),

    Row(
        "torch", "muon", "muon",
        {"learning_rate": 0.02, "roles": {"*": "transposed"}},
        8.0e-2, f"{UNCORRECTED}; {BFLOAT16}",
    ),
    Row(
        "torch", "muon_plain", "muon",
        {
            "learning_rate": 0.02, "roles": {"*": "transposed"}, "nesterov": False,
            "weight_decay": 0.1,
        },
        1.0e-2, BFLOAT16,
    ),
    Row(
        "pytorch_optimizer", "muon", "muon",
        {"learning_rate": 0.02, "roles": {"*": "transposed"}, "nesterov": False},
        1.5e-2, BFLOAT16,
    ),
    Row(
        "pytorch_optimizer", "muon_adjusted", "muon",
        {
            "learning_rate": 0.02, "roles": {"*": "transposed"}, "nesterov": False,
            "consistent_rms": 0.2,
        },
        1.6e-2, BFLOAT16,
    ),
    Row(
        "keras", "muon", "muon",
        {
            "learning_rate": 0.02, "roles": {"*": "matrix"}, "consistent_rms": 0.2,
            "weight_decay": 0.004,
        },
        1.1e-1, UNCORRECTED,
    ),
    Row(
        "keras", "muon_plain", "muon",
        {
            "learning_rate": 0.02, "roles": {"*": "matrix"}, "consistent_rms": 0.2,
            "weight_decay": 0.004, "nesterov": False,
        },
        6.0e-8, MUON_EPS,
    ),
    Row(
        "keras", "muon_unscaled", "muon",
        {
            "learning_rate": 0.02, "roles": {"*": "matrix"}, "beta": 0.8,
            "weight_decay": 0.004, "nesterov": False,
        },
        1.0e-7, MUON_EPS,
    ),
    Row(
        "adam_mini", "adam_mini_query", "adam_mini",
        {"learning_rate": 1e-3, "roles": {"*": "row_heads:2"}},
    ),
    Row(
        "adam_mini", "adam_mini_mlp", "adam_mini",
        {"learning_rate": 1e-3, "roles": {"*": "rows"}, "weight_decay": 0.1},
    ),
    Row(
        "adam_mini", "adam_mini_embedding", "adam_mini",
        {"learning_rate": 1e-3, "roles": {"*": "rows"}},
    ),
    Row("adam_mini", "adam_mini_norm", "adam_mini", {"learning_rate": 1e-3, "eps": 1e-3}),
    Row(
        "adam_mini", "adam_mini_bias", "adam_mini",
        {"learning_rate": 1e-3, "roles": {"*": "adam"}},
    ),
]
# fmt: on
