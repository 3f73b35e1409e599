"""Which of our optimizers each golden case is, with which arguments, and how close it comes.

`deviation` of a row is at most its `rtol`. Rows without a `reason` are the same rule, and agree to
rounding. Rows with a `reason` are another rule in a known way: their `rtol` is a little above the
deviation measured, and a test asks that it is not much smaller.
"""

import json
import math
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
    wrap: tuple[str, dict] | None = None  # a wrapper around it, and its arguments

    def make(self, factory, learning_rate):
        """Our counterpart; `factory` finds constructors by their names."""
        arguments = self.kwargs | {"learning_rate": learning_rate}
        decayed = {}
        if self.optimizer.startswith("scale_by_"):  # the wrapper around the direction alone
            decayed = {k: arguments.pop(k) for k in ("learning_rate", "weight_decay")}
        tx = factory(self.optimizer)(**arguments)
        tx = factory(self.wrap[0])(tx, **self.wrap[1]) if self.wrap else tx
        return factory("descend")(tx, **decayed) if decayed else tx


def load(golden):
    """The contents of one golden file."""
    return json.loads((HERE / f"{golden}.json").read_text())


def rate(row, case):
    """The learning rate of a row: a number, or a function of the step counted from 0."""
    base, drop_at = row.kwargs["learning_rate"], case["rate_divided_by_10_at"]
    if drop_at is None:
        return base
    return lambda step: base / (1 + 9 * (step >= drop_at))  # no branch: it works on a tracer too


def deviation(ours, golden, start, floor=0.0):
    """Largest distance between two trajectories, per coordinate, over the distance it travelled.

    Relative to the way and not to the parameter, because a parameter hides small steps; or to
    `floor`, where that is more and the golden parameters were themselves rounded at each step.
    """
    ours, golden = np.asarray(ours), np.asarray(golden)
    distance = np.abs(ours - golden).max(axis=0)
    travelled = np.maximum(np.abs(golden - np.asarray(start)).max(axis=0), floor)
    still = (distance == 0) & (travelled == 0)
    with np.errstate(divide="ignore"):
        return float(np.where(still, 0.0, distance / np.where(still, 1.0, travelled)).max())


# Where eps can be made negligible the cases *_no_eps show that the rest of the rule agrees.
EPS_HAT = "eps is added to the root of the raw second moment, ours to that of the corrected one"
RATE_INSIDE = "the velocity keeps the rates it was gathered with, ours takes the new rate at once"
FIRST_FROM_0 = "the gradient before the first is 0, ours the first itself"
RATE_OUTSIDE = "the velocity takes the new rate at once, ours keeps the rates it was gathered with"

RECTIFIED = "the steps are rectified as RAdam's, without bias correction of the variance"
NOT_THE_FIRST = "the first gradient does not enter the means"
PROXIMAL = "the parameters are divided by 1 + rate x decay, ours lose rate x decay of themselves"
RATE_IN_MEAN = "the mean weighs gradients by the rates they came at, ours by their age alone"
SECOND_EPS = "1e-15 is added under the root, too"

BOUND_NEXT = "the gradient is clipped to the bound of the next step"
WEIGHTS_IN_FLOAT32 = "the weights of its bias corrections are float32"


def b3_warm_up(step):
    """The paper's schedule of b3 for AdEMAMix, from 0.8 to 0.97 in 25 steps: of half-lives."""
    done = (step + 1) / 25.0
    b3 = 0.8 ** (1 / (1 - done + done * math.log(0.8) / math.log(0.97)))
    return 0.97 + (b3 - 0.97) * (done < 1)


def alpha_warm_up(step):
    """The paper's schedule of alpha for AdEMAMix, to 5 in 25 steps."""
    done = (step + 1) / 25.0
    return 5 + 5 * (done - 1) * (done < 1)


EPS_RAW = "eps is added to the root of the raw second moment, whose bias cancels in LAMB"
BIAS_TWICE = "its rate is divided by 1 - b1^t, though this bias has cancelled in the ratio of norms"
CLIPPED = "the gradients are clipped to a norm of 1"
DECAY_BESIDE = "the decay is beside the direction, ours in it"

TWO_RATES = "the mean of rates holds the learning rate and lags behind its schedule, ours does not"
EPS_TWICE = "1e-15 is added under the root, too"
NO_MAX = "nu itself, ours and the authors' the largest so far"

FLOAT32_QR = "it factorises in float32 even when all else is float64"
FED_BACK = "the statistics of an axis are of the gradient already multiplied along those before it"

DECAY_FIRST = "the parameters whose rms scales the step have decayed already, ours have not"
MEANS_IN_FLOAT32 = "Keras takes the means of rows and columns in float32"
SM3_EPS = {"eps": 1e-30}
NOVOGRAD = {"b1": 0.95, "b2": 0.98, "eps": 1e-8}
FACTORED = {"min_dim_size_to_factor": 1}

BFLOAT16 = "the iteration runs in bfloat16, ours in the dtype of the parameters"
UNCORRECTED = "the look-ahead mixes uncorrected means, ours corrected ones as optax's"
MUON_EPS = "1e-7 is added to the norm of a sum of gradients, our eps to that of their mean"

UNCLIPPED = "h is not clipped, and a reward that would be negative is forgotten"

EPS_OUTSIDE = {"eps_in_sqrt": False}
KERAS = {"learning_rate": 1e-3, "eps": 1e-7}

# fmt: off
FIRST_UNDECAYED = "the norm of the first gradient leaves the decay out"

ROWS = [
    Row("torch", "sgd", "sgd", {"learning_rate": 0.01}),
    Row("torch", "sgd_momentum", "sgd", {"learning_rate": 0.01, "momentum": 0.9}),
    Row("torch", "sgd_momentum_drop", "sgd", {"learning_rate": 0.01, "momentum": 0.9}),
    Row("torch", "sgd_nesterov", "sgd", {"learning_rate": 0.01, "momentum": 0.9, "nesterov": True}),
    Row(
        "torch", "adagrad", "adagrad",
        {"learning_rate": 0.01, "initial_accumulator_value": 0.0, "eps": 1e-10, **EPS_OUTSIDE},
    ),
    Row(
        "torch", "adagrad_initial", "adagrad",
        {"learning_rate": 0.01, "initial_accumulator_value": 0.1, "eps": 1e-10, **EPS_OUTSIDE},
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
    Row("torch", "adamw", "adamw", {"learning_rate": 1e-3, "weight_decay": 0.1}),
    Row("torch", "nadam", "nadam", {"learning_rate": 2e-3, "momentum_decay": 0.004}),
    Row("torch", "nadam_no_schedule", "nadam", {"learning_rate": 2e-3}),
    Row(
        "torch", "nadamw_no_schedule", "nadamw",
        {"learning_rate": 2e-3, "weight_decay": 0.1},
    ),
    Row("torch", "adamax", "adamax", {"learning_rate": 2e-3}),
    Row("torch", "radam", "radam", {"learning_rate": 1e-3, "eps_hat": True}),
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
    Row("keras", "adam", "adam", KERAS | {"eps_hat": True}),
    Row("keras", "adam_no_eps", "adam", {"learning_rate": 1e-3, "eps": 1e-30}),
    Row("keras", "adam_amsgrad", "amsgrad", KERAS | {"eps_hat": True}),
    Row("keras", "adam_amsgrad_no_eps", "amsgrad", {"learning_rate": 1e-3, "eps": 1e-30}),
    Row("keras", "adamw", "adamw", KERAS | {"weight_decay": 0.1, "eps_hat": True}),
    Row(
        "keras", "adamw_no_eps", "adamw",
        {"learning_rate": 1e-3, "eps": 1e-30, "weight_decay": 0.1},
    ),
    Row("keras", "adamax", "adamax", KERAS | {"eps_in_max": False}),
    Row("keras", "adamax_no_eps", "adamax", {"learning_rate": 1e-3, "eps": 1e-30}),
    Row(
        "keras", "adamaxw_no_eps", "adamaxw",
        {"learning_rate": 1e-3, "eps": 1e-30, "weight_decay": 0.1},
    ),
    Row("keras", "nadam", "nadam", KERAS | {"momentum_decay": 1.0}),
    Row(
        "keras", "adam_ema", "adam",
        {"learning_rate": 1e-3, "eps": 1e-30},
        wrap=("exponential_averaging", {"decay": 0.875}),
    ),
    Row(
        "keras", "sgd_ema_overwrite", "sgd",
        {"learning_rate": 0.01, "momentum": 0.9},
        wrap=("exponential_averaging", {"decay": 0.75, "overwrite_every": 7}),
    ),
    Row(
        "keras", "sgd_accumulation", "sgd",
        {"learning_rate": 0.01, "momentum": 0.9},
        wrap=("accumulate", {"every": 3}),
    ),
    Row(
        "keras", "adamw_accumulation", "adamw",
        {"learning_rate": 1e-3, "eps": 1e-30, "weight_decay": 0.1},
        wrap=("accumulate", {"every": 4}),
    ),

    Row("adabound", "adabound", "adabound", {"learning_rate": 1e-3}),
    Row(
        "adabound", "adabound_band", "adabound",
        {"learning_rate": 1e-3, "final_lr": 0.5, "gamma": 0.01},
    ),
    Row("adabound", "adabound_drop", "adabound", {"learning_rate": 1e-3}),
    Row("adabound", "adabound_weight_decay", "adabound", {"learning_rate": 1e-3}, l2=0.01),
    Row("adabound", "amsbound", "amsbound", {"learning_rate": 1e-3}),

    Row("timm", "adamw_caution", "adam", {"learning_rate": 1e-3}, wrap=("cautious", {})),
    Row(
        "timm", "adamw_caution_decay", "scale_by_adam",
        {"learning_rate": 1e-3, "weight_decay": 0.1},
        wrap=("cautious", {"descends": False}),
    ),
    Row("timm", "mars", "adam", {"learning_rate": 3e-3, "b1": 0.95, "b2": 0.99}, wrap=("mars", {})),
    Row(
        "timm", "mars_gamma", "adamw",
        {"learning_rate": 3e-3, "b1": 0.95, "b2": 0.99, "weight_decay": 0.1},
        wrap=("mars", {"gamma": 0.5}),
    ),

    Row(
        "pytorch_optimizer", "mars", "adam",
        {"learning_rate": 3e-3, "b1": 0.95, "b2": 0.99},
        2.6e-3, FIRST_FROM_0, wrap=("mars", {}),
    ),
    Row(
        "pytorch_optimizer", "grokfast", "adam",
        {"learning_rate": 1e-3, "b2": 0.99},
        7.3e-4, EPS_HAT, wrap=("grokfast", {}),
    ),
    Row(
        "pytorch_optimizer", "grokfast_no_eps", "adam",
        {"learning_rate": 1e-3, "b2": 0.99, "eps": 1e-30},
        wrap=("grokfast", {}),
    ),
    Row(
        "pytorch_optimizer", "grokfast_ma", "adam",
        {"learning_rate": 1e-3},
        wrap=("grokfast_ma", {"window": 7, "lamb": 0.5}),
    ),
    Row("adabelief_pytorch", "adabelief", "adabelief", {"learning_rate": 1e-3}),
    Row(
        "adabelief_pytorch", "adabelief_weight_decay", "adabelief",
        {"learning_rate": 1e-3, "b1": 0.8, "b2": 0.99, "weight_decay": 0.1},
    ),
    Row(
        "adabelief_pytorch", "adabelief_rectified", "adabelief",
        {"learning_rate": 1e-3},
        1.4e1, RECTIFIED,
    ),
    Row(
        "adan_pytorch", "adan", "adan",
        {"learning_rate": 1e-3, "eps_root": 0.0},
        2.3, NOT_THE_FIRST,
    ),
    Row("pytorch_optimizer", "yogi", "yogi", {"learning_rate": 0.01}),
    Row(
        "pytorch_optimizer", "yogi_weight_decay", "yogi",
        {"learning_rate": 0.01, "b1": 0.8, "b2": 0.99, "eps": 1e-5, "weight_decay": 0.1},
    ),
    Row("pytorch_optimizer", "adan", "adan", {"learning_rate": 1e-3, "eps_root": 0.0}),
    Row("pytorch_optimizer", "laprop", "laprop", {"learning_rate": 4e-4}, 6.5e-3, SECOND_EPS),
    Row(
        "pytorch_optimizer", "adabelief", "adabelief",
        {"learning_rate": 1e-3, "eps": 1e-8, "eps_root": 1e-8},
    ),
    Row(
        "timm", "adan_weight_decay", "adan",
        {"learning_rate": 1e-3, "eps_root": 0.0, "weight_decay": 0.1},
    ),
    Row(
        "timm", "adan_prox", "adan",
        {"learning_rate": 1e-3, "eps_root": 0.0, "weight_decay": 0.1},
        1.1e-4, PROXIMAL,
    ),
    Row(
        "timm", "adan_drop", "adan",
        {"learning_rate": 1e-3, "b1": 0.9, "b2": 0.8, "b3": 0.95, "eps": 1e-3, "eps_root": 0.0},
    ),
    Row("timm", "laprop", "laprop", {"learning_rate": 4e-4}),
    Row(
        "timm", "laprop_betas", "laprop",
        {"learning_rate": 4e-4, "b1": 0.8, "b2": 0.99, "eps": 1e-3},
    ),
    Row("timm", "laprop_drop", "laprop", {"learning_rate": 4e-4}, 2.3e-1, RATE_IN_MEAN),
    Row("torch_optimizer", "yogi", "yogi", {"learning_rate": 0.01}),
    Row(
        "torch_optimizer", "yogi_initial_drop", "yogi",
        {"learning_rate": 0.01, "initial_accumulator_value": 0.1},
    ),
    Row(
        "torch_optimizer", "adabelief_weight_decay", "adabelief",
        {"learning_rate": 1e-3, "eps": 1e-8, "eps_root": 1e-8, "weight_decay": 0.1},
    ),
    Row("pytorch_optimizer", "adopt", "adopt", {"learning_rate": 1e-3}, 1.7e-1, BOUND_NEXT),
    Row(
        "pytorch_optimizer", "adopt_unclipped", "adopt",
        {"learning_rate": 1e-3, "use_clipping": False, "eps": 1e-2},
    ),
    Row("timm", "adopt", "adopt", {"learning_rate": 1e-3}),
    Row("timm", "adopt_drop", "adopt", {"learning_rate": 1e-3, "b1": 0.8, "b2": 0.9, "eps": 1e-3}),
    Row("timm", "adopt_weight_decay", "adopt", {"learning_rate": 1e-3}, l2=0.01),
    Row("pytorch_optimizer", "ademamix", "ademamix", {"learning_rate": 1e-3}),
    Row(
        "pytorch_optimizer", "ademamix_warm_up", "ademamix",
        {"learning_rate": 1e-3, "b1": 0.8, "b2": 0.99, "b3": b3_warm_up, "alpha": alpha_warm_up},
    ),
    Row("qhoptim", "qhadam", "qhadam", {"learning_rate": 1e-3}),
    Row(
        "qhoptim", "qhadam_drop", "qhadam",
        {"learning_rate": 1e-3, "b1": 0.8, "b2": 0.9, "v1": 0.4, "v2": 0.6, "eps": 1e-3},
    ),
    Row("qhoptim", "qhadamw", "qhadam", {"learning_rate": 1e-3, "weight_decay": 0.1}),
    Row("torch_optimizer", "qhadam", "qhadam", {"learning_rate": 1e-3}),
    Row(
        "torch_optimizer", "qhadam_nus", "qhadam",
        {"learning_rate": 1e-3, "b1": 0.8, "b2": 0.9, "v1": 0.4, "v2": 0.6, "eps": 1e-3},
    ),
    Row(
        "pytorch_optimizer", "qhadam", "qhadam",
        {"learning_rate": 1e-3}, 1.5e-7, WEIGHTS_IN_FLOAT32,
    ),
    Row("adam_atan2_pytorch", "adam_atan2", "adam_atan2", {"learning_rate": 1e-4}),
    Row(
        "adam_atan2_pytorch", "adam_atan2_factors", "adam_atan2",
        {"learning_rate": 1e-4, "b1": 0.8, "b2": 0.9, "a": 2.0, "b": 3.0},
    ),
    Row(
        "adam_atan2_pytorch", "adam_atan2_weight_decay", "adam_atan2",
        {"learning_rate": 1e-3, "weight_decay": 1.0},
    ),
    Row("keras", "lion", "lion", {"learning_rate": 1e-3, "weight_decay": None}),
    Row(
        "keras", "lion_betas", "lion",
        {"learning_rate": 1e-3, "b1": 0.95, "b2": 0.98, "weight_decay": 0.1},
    ),
    Row("keras", "lamb", "lamb", {"learning_rate": 0.01, "eps": 1e-7}),
    Row("keras", "lamb_matrix", "lamb", {"learning_rate": 0.01, "eps": 1e-7}),
    Row(
        "keras", "lamb_weight_decay", "lamb",
        {"learning_rate": 0.01, "eps": 1e-7, "weight_decay": 0.1},
        4.6e0, DECAY_BESIDE,
    ),
    Row("lion_pytorch", "lion", "lion", {"learning_rate": 1e-3, "weight_decay": None}),
    Row(
        "lion_pytorch", "lion_betas", "lion",
        {"learning_rate": 1e-3, "b1": 0.95, "b2": 0.98, "weight_decay": 0.1},
    ),
    Row("timm", "lion", "lion", {"learning_rate": 1e-3, "weight_decay": 0.1}),
    Row("pytorch_optimizer", "lion", "lion", {"learning_rate": 1e-3, "weight_decay": 0.1}),
    Row("timm", "lamb", "lamb", {"learning_rate": 0.01, "weight_decay": 0.1}),
    Row("timm", "lamb_matrix", "lamb", {"learning_rate": 0.01}),
    Row(
        "timm", "lamb_clipped", "lamb",
        {"learning_rate": 0.01, "weight_decay": 0.01},
        5.9e0, CLIPPED,
    ),
    Row("pytorch_optimizer", "lamb", "lamb", {"learning_rate": 0.01}, 1.2e0, BIAS_TWICE),
    Row("pytorch_optimizer", "lamb_no_eps", "lamb", {"learning_rate": 0.01, "eps": 1e-30}),
    Row("torch_optimizer", "lamb", "lamb", {"learning_rate": 0.01}, 8.8e-1, EPS_RAW),
    Row("torch_optimizer", "lamb_no_eps", "lamb", {"learning_rate": 0.01, "eps": 1e-30}),
    Row("timm", "adahessian", "adahessian", {"learning_rate": 0.1, "eps": 1e-8}),
    Row(
        "timm", "adahessian_kernel", "adahessian",
        {"learning_rate": 0.1, "eps": 1e-8, "averaged_axes": {4: (2, 3)}},
    ),
    Row(
        "pytorch_optimizer", "adahessian", "adahessian",
        {"learning_rate": 0.1, "hessian_power": 0.5, "weight_decay": 0.1},
    ),
    Row(
        "torch_optimizer", "adahessian", "adahessian",
        {"learning_rate": 0.1, "hessian_power": 0.5},
    ),
    Row(
        "torch_optimizer", "adahessian_kernel", "adahessian",
        {"learning_rate": 0.1, "averaged_axes": {4: (2, 3)}},
    ),
    # Where only the decay moves a coordinate, they round p (1 - 1e-5) to 16 digits.
    Row("optimi", "stable_adamw", "stable_adamw", {"learning_rate": 1e-3, "eps": 1e-6}, 1e-11),
    Row(
        "optimi", "stable_adamw_drop", "stable_adamw",
        {"learning_rate": 1e-3, "b1": 0.8, "b2": 0.9, "eps": 1e-6, "weight_decay": 0.1},
    ),
    Row("optimi", "stable_adamw_matrix", "stable_adamw", {"learning_rate": 1e-3, "eps": 1e-6}),
    Row("pytorch_optimizer", "stable_adamw", "stable_adamw", {"learning_rate": 1e-3}, 1e-11),
    Row(
        "pytorch_optimizer", "stable_adamw_matrix", "stable_adamw",
        {"learning_rate": 1e-3, "b1": 0.8, "b2": 0.9, "weight_decay": 0.2},
    ),
    Row("adamod", "adamod", "adamod", {"learning_rate": 1e-3}),
    Row(
        "adamod", "adamod_beta3", "adamod",
        {"learning_rate": 1e-3, "b3": 0.9, "weight_decay": 0.1},
    ),
    Row("adamod", "adamod_drop", "adamod", {"learning_rate": 1e-3, "b3": 0.9}, 2.5e-3, TWO_RATES),
    Row("pytorch_optimizer", "adamod", "adamod", {"learning_rate": 1e-3, "b2": 0.99, "b3": 0.9999}),
    Row("torch_optimizer", "diffgrad", "diffgrad", {"learning_rate": 1e-3}),
    Row("pytorch_optimizer", "diffgrad", "diffgrad", {"learning_rate": 1e-3}, 3e-3, EPS_TWICE),
    Row(
        "pytorch_optimizer", "diffgrad_eps", "diffgrad",
        {"learning_rate": 1e-3, "eps": 0.01},
        7e-8, EPS_TWICE,
    ),
    Row(
        "keras", "adam_amsgrad", "padam",
        {"learning_rate": 1e-3, "partial": 0.5, "eps": 1e-7},
    ),
    Row(
        "pytorch_optimizer", "padam", "padam", {"learning_rate": 0.1, "partial": 0.25},
        1e-3, NO_MAX,
    ),
    Row(
        "pytorch_optimizer", "padam_growing", "padam",
        {"learning_rate": 0.1, "b2": 0.9999999},
        2.5e-8, NO_MAX,
    ),
    Row("adamp", "adamp", "adamp", {"learning_rate": 1e-3, "outputs_last": False}),
    Row(
        "adamp", "adamp_delta", "adamp",
        {
            "learning_rate": 1e-3, "delta": 1.5, "weight_decay": 0.1, "nesterov": True,
            "outputs_last": False,
        },
        1e-11,
    ),
    Row(
        "adamp", "adamp_3d", "adamp",
        {
            "learning_rate": 1e-3, "delta": 1.5, "weight_decay": 0.1, "wd_ratio": 0.5,
            "outputs_last": False,
        },
        1e-11,
    ),
    Row(
        "timm", "adamp_delta", "adamp",
        {"learning_rate": 1e-3, "delta": 1.5, "weight_decay": 0.1, "outputs_last": False},
        1e-11,
    ),
    Row("torch_optimizer", "swats", "swats", {"learning_rate": 1e-3, "eps": 1e-3}),
    Row(
        "pytorch_optimizer", "swats_switch", "swats",
        {"learning_rate": 1e-3, "eps": 0.2, "tolerance": 0.2},
        1e-8, EPS_TWICE,
    ),
    Row(
        "pytorch_optimizer", "swats_switch_matrix", "swats",
        {"learning_rate": 1e-3, "b2": 0.99, "eps": 0.2, "tolerance": 0.2},
        3e-11, EPS_TWICE,
    ),
    # Two ways to a root of a matrix of condition 1e9 round differently: 2e-12.
    Row("pytorch_optimizer", "shampoo", "shampoo", {"learning_rate": 0.01}, 1e-11),
    Row("pytorch_optimizer", "shampoo_tensor", "shampoo", {"learning_rate": 0.01, "eps": 1e-2}),
    Row(
        "pytorch_optimizer", "soap", "soap",
        {"learning_rate": 3e-3, "weight_decay": 0.0, "precondition_frequency": 5},
        6.0e-6, FLOAT32_QR,
    ),
    Row(
        "pytorch_optimizer", "soap_tensor", "soap",
        {
            "learning_rate": 3e-3, "weight_decay": 0.0, "b1": 0.9, "shampoo_beta": 0.9,
            "normalize_grads": True,
        },
        4.0e-5, FLOAT32_QR,
    ),
    Row("pytorch_optimizer", "soap_adam", "soap", {"learning_rate": 3e-3, "weight_decay": 0.0}),
    Row(
        "torch_optimizer", "shampoo", "shampoo",
        {"learning_rate": 0.01, "eps": 1e-2, "alpha": 1.0},
        1.2, FED_BACK,
    ),
    Row(
        "torch_optimizer", "shampoo_vector", "shampoo",
        {"learning_rate": 0.01, "eps": 1e-2, "alpha": 1.0, "precondition_frequency": 3},
    ),
    Row("pytorch_optimizer", "novograd", "novograd", {"learning_rate": 0.01} | NOVOGRAD),
    Row(
        "pytorch_optimizer", "novograd_matrix", "novograd",
        {"learning_rate": 0.01, "b1": 0.9, "b2": 0.25, "eps": 1e-8, "weight_decay": 0.1},
    ),
    Row("torch_optimizer", "novograd", "novograd", {"learning_rate": 0.01} | NOVOGRAD),
    Row(  # weighs what enters the trace by 1 - b1
        "torch_optimizer", "novograd_matrix", "novograd",
        {"learning_rate": 0.01 * 0.05, "weight_decay": 0.1} | NOVOGRAD,
    ),
    Row(
        "timm", "nvnovograd_matrix", "novograd",
        {"learning_rate": 0.01, "weight_decay": 0.1} | NOVOGRAD,
    ),
    Row("torch", "adafactor", "adafactor", {"learning_rate": 0.01}),
    Row(
        "torch", "adafactor_matrix", "adafactor",
        {"learning_rate": 0.01, "weight_decay": 0.1} | FACTORED,
    ),
    Row(
        "keras", "adafactor_matrix", "adafactor",
        {"learning_rate": 0.01, "clipping_threshold": 0.5, "decay_rate": 0.6} | FACTORED,
        1.4e-7, MEANS_IN_FLOAT32,
    ),
    Row(
        "keras", "adafactor_decay", "adafactor",
        {"learning_rate": 0.01, "weight_decay": 0.1} | FACTORED,
        1.7e-3, DECAY_FIRST,
    ),
    Row(
        "keras", "adafactor_tensor", "adafactor", {"learning_rate": 0.01} | FACTORED,
        1.3e-7, MEANS_IN_FLOAT32,
    ),
    Row("pytorch_optimizer", "adafactor_matrix", "adafactor", {"learning_rate": 0.01} | FACTORED),
    Row("pytorch_optimizer", "adafactor_relative", "adafactor", {"learning_rate": 0.01} | FACTORED),
    Row(
        "torch_optimizer", "adafactor_matrix", "adafactor",
        {"learning_rate": 0.01, "momentum": 0.9} | FACTORED,
    ),
    Row(
        "timm", "adafactor_momentum_drop", "adafactor",
        {
            "learning_rate": 0.01, "momentum": 0.9, "multiply_by_parameter_scale": False,
            "weight_decay": 0.1,
        } | FACTORED,
    ),
    Row(
        "timm", "adafactor_big_vision", "adafactor",
        {
            "learning_rate": 0.01, "multiply_by_parameter_scale": False,
            "clipping_threshold": None, "decay_rate": 0.6,
        } | FACTORED,
    ),
    Row("torch_sm3", "sm3", "sm3", {"learning_rate": 0.1, "momentum": None} | SM3_EPS),
    Row("torch_sm3", "sm3_matrix", "sm3", {"learning_rate": 0.1, "momentum": 0.9} | SM3_EPS),
    Row("torch_sm3", "sm3_tensor", "sm3", {"learning_rate": 0.1, "momentum": None} | SM3_EPS),
    Row(
        "pytorch_optimizer", "sm3_matrix", "sm3",
        {"learning_rate": 0.1, "momentum": None} | SM3_EPS,
    ),
    Row(
        "pytorch_optimizer", "sm3_tensor_momentum", "sm3",
        {"learning_rate": 0.1, "momentum": 0.9} | SM3_EPS,
    ),
    Row("came_pytorch", "came", "came", {"learning_rate": 1e-3, "weight_decay": 0.1}),
    Row(
        "came_pytorch", "came_matrix", "came",
        {
            "learning_rate": 1e-3, "b1": 0.8, "b2": 0.99, "b3": 0.95,
            "eps": 1e-6, "eps_residual": 1e-4, "weight_decay": 0.1,
        },
    ),
    Row(
        "came_pytorch", "came_tensor_drop", "came",
        {"learning_rate": 1e-3, "clipping_threshold": 0.5},
    ),
    Row("pytorch_optimizer", "came", "came", {"learning_rate": 1e-3}),
    Row("pytorch_optimizer", "came_matrix", "came", {"learning_rate": 1e-3}),
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
    Row("prodigyopt", "prodigy", "prodigy", {"learning_rate": 1.0, "d0": 1e-3}),
    Row(
        "prodigyopt", "prodigy_drop", "prodigy",
        {
            "learning_rate": 1.0, "d0": 1e-3, "safeguard_warmup": True,
            "use_bias_correction": True, "d_coef": 0.5,
        },
    ),
    Row(
        "prodigyopt", "prodigy_matrix", "prodigy",
        {
            "learning_rate": 1.0, "d0": 1e-3, "slice_p": 5, "growth_rate": 1.1,
            "weight_decay": 0.01,
        },
    ),
    Row("prodigyopt", "prodigy_l2", "prodigy", {"learning_rate": 1.0, "d0": 1e-3}, l2=0.01),
    Row(
        "schedulefree", "schedule_free_sgd", "schedule_free_sgd",
        {"learning_rate": 1.0, "warmup_steps": 10, "weight_decay": 0.1},
    ),
    Row(
        "schedulefree", "schedule_free_sgd_drop", "schedule_free_sgd",
        {"learning_rate": 1.0, "b1": 0.7, "r": 1.5},
    ),
    Row(
        "schedulefree", "schedule_free_adamw", "schedule_free_adamw",
        {"learning_rate": 0.1, "warmup_steps": 10, "weight_decay": 0.1},
    ),
    Row(
        "schedulefree", "schedule_free_adamw_drop", "schedule_free_adamw",
        {
            "learning_rate": 0.1, "b1": 0.7, "b2": 0.99, "eps": 1e-3, "r": 1.5,
            "weight_lr_power": 1.0,
        },
    ),
    Row(
        "schedulefree", "schedule_free_radam", "schedule_free_radam",
        {"learning_rate": 0.1, "weight_decay": 0.1}, 1e-11,
    ),
    Row(
        "schedulefree", "schedule_free_radam_drop", "schedule_free_radam",
        {"learning_rate": 0.1, "b1": 0.7, "b2": 0.9, "silent_sgd_phase": False},
    ),
    Row(
        "schedulefree", "schedule_free", "sgd", {"learning_rate": 1.0},
        wrap=("schedule_free", {"weight_decay": 0.1}),
    ),
    Row(
        "schedulefree", "schedule_free_prodigy", "prodigy",
        {"learning_rate": 1.0, "d0": 1e-3}, wrap=("schedule_free", {}),
    ),
    Row("dog", "dog_drop", "dog", {"learning_rate": 1.0, "reps_rel": 1e-3}),
    Row("dog", "dog_matrix", "dog", {"learning_rate": 1.0, "init_eta": 1e-4, "eps": 1e3}),
    Row("dog", "dog_l2", "dog", {"learning_rate": 1.0, "reps_rel": 1e-3}, l2=0.01),
    Row("dog", "ldog_drop", "ldog", {"learning_rate": 1.0, "reps_rel": 1e-3}),
    Row("dog", "ldog_l2", "ldog", {"learning_rate": 1.0, "reps_rel": 1e-2, "eps": 1.0}, l2=0.01),
    # Averages of parameters are known to the rounding of parameters, not of steps.
    Row(
        "dog", "dog_averaged", "dog", {"learning_rate": 1.0, "reps_rel": 1e-2}, 1e-10,
        wrap=("polynomial_averaging", {}),
    ),
    Row(
        "dog", "dog_averaged_gamma", "dog", {"learning_rate": 1.0, "reps_rel": 1e-2}, 1e-10,
        wrap=("polynomial_averaging", {"gamma": 2.0}),
    ),
    Row("dowg", "dowg", "dowg", {"learning_rate": 1.0}),
    Row("dowg", "dowg_matrix", "dowg", {"learning_rate": 1.0, "eps": 0.5}),
    Row("dadaptation", "dadapt_sgd_drop", "dadapt_sgd", {"learning_rate": 1.0, "d0": 0.1}),
    Row(
        "dadaptation", "dadapt_sgd_matrix", "dadapt_sgd",
        {"learning_rate": 1.0, "d0": 10.0, "momentum": 0.9, "growth_rate": 1.02},
    ),
    Row(
        "dadaptation", "dadapt_sgd_l2", "dadapt_sgd", {"learning_rate": 1.0, "d0": 0.1},
        rtol=3e-4, reason=FIRST_UNDECAYED, l2=0.01,
    ),
    Row("dadaptation", "dadapt_adagrad_drop", "dadapt_adagrad", {"learning_rate": 1.0, "d0": 0.1}),
    Row(
        "dadaptation", "dadapt_adagrad_matrix", "dadapt_adagrad",
        {
            "learning_rate": 1.0, "d0": 0.1, "momentum": 0.9, "eps": 1e-3, "growth_rate": 1.02,
            "weight_decay": 0.01,
        },
    ),
    Row("dadaptation", "dadapt_adam", "dadapt_adam", {"learning_rate": 1.0, "d0": 1e-3}),
    Row(
        "dadaptation", "dadapt_adam_drop", "dadapt_adam",
        {
            "learning_rate": 1.0, "d0": 1e-3, "b1": 0.8, "b2": 0.99, "eps": 1e-3,
            "use_bias_correction": True,
        },
    ),
    Row(
        "dadaptation", "dadapt_adam_matrix", "dadapt_adam",
        {"learning_rate": 1.0, "d0": 1e-3, "growth_rate": 1.02, "weight_decay": 0.01},
    ),
    Row(
        "dadaptation", "dadapt_adam_l2", "dadapt_adam", {"learning_rate": 1.0, "d0": 1e-3},
        l2=0.01,
    ),
    Row("parameterfree", "cocob", "cocob", {"learning_rate": 1.0}),
    Row(
        "parameterfree", "cocob_matrix", "cocob",
        {"learning_rate": 1.0, "alpha": 5.0, "eps": 1e-3, "weight_decay": 0.01},
    ),
    Row(
        "mechanic_pytorch", "mechanic_sgd", "sgd", {"learning_rate": 1.0}, 0.56, UNCLIPPED,
        wrap=("mechanize", {"weight_decay": 0.0, "s_init": 1e-3, "eps": 1e-6}),
    ),
    Row(
        "mechanic_pytorch", "mechanic_adam", "adam", {"learning_rate": 1.0}, 0.65, UNCLIPPED,
        wrap=("mechanize", {"s_init": 1e-3, "eps": 1e-6}),
    ),
    Row("momo_opt", "momo", "momo", {"learning_rate": 1.0}),
    Row(
        "momo_opt", "momo_drop", "momo",
        {"learning_rate": 1.0, "weight_decay": 0.1, "adapt_lower_bound": True},
    ),
    Row(
        "momo_opt", "momo_matrix", "momo",
        {"learning_rate": 1.0, "beta": 0.5, "lower_bound": 0.5, "bias_correction": True},
    ),
    Row("momo_opt", "momo_adam", "momo_adam", {"learning_rate": 0.1}),
    Row(
        "momo_opt", "momo_adam_drop", "momo_adam",
        {
            "learning_rate": 0.1, "weight_decay": 0.1, "adapt_lower_bound": True,
            "lower_bound": -2.0,
        },
    ),
]
# fmt: on
