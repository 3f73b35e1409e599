"""The optimizers as NumPy float64 loops, written from their papers.

Every function is a generator: it takes the start `x`, an iterable of gradients shaped like `x`, a
`learning_rate` (a number, or a function of the step counted from 0) and the hyperparameters by
keyword, and yields `x` after each step. The gradients are drawn one at a time, so a generator of
gradients may look at the last `x`.

`weight_decay` is decoupled everywhere: the rate times `weight_decay * x` is subtracted besides the
step.

Where a paper leaves a choice, the choice is that of the function of the same name in optax 0.2.8.
Each file says where it leaves optax, and why. Nothing here imports JAX, optax or the package under
test.
"""

from .adabelief import adabelief
from .adabound import adabound, amsbound
from .adadelta import adadelta
from .adafactor import adafactor
from .adagrad import adagrad
from .adahessian import adahessian
from .adam import adam
from .adam_atan2 import adam_atan2
from .adam_mini import adam_mini
from .adamax import adamax
from .adamod import adamod
from .adamp import adamp
from .adan import adan
from .ademamix import ademamix
from .adopt import adopt
from .amsgrad import amsgrad
from .came import came
from .cocob import cocob
from .dadapt import dadapt_adagrad, dadapt_adam, dadapt_sgd
from .diffgrad import diffgrad
from .dog import dog, ldog
from .dowg import dowg
from .lamb import lamb
from .laprop import laprop
from .lion import lion
from .mechanize import mechanize
from .momo import momo, momo_adam
from .muon import muon
from .nadam import nadam
from .novograd import novograd
from .padam import padam
from .prodigy import prodigy
from .qhadam import qhadam
from .radam import radam
from .rmsprop import rmsprop
from .schedule_free import schedule_free_adamw, schedule_free_radam, schedule_free_sgd
from .sgd import sgd
from .shampoo import shampoo
from .sm3 import sm3
from .soap import soap
from .stable_adamw import stable_adamw
from .swats import swats
from .yogi import yogi

__all__ = [
    "adabelief",
    "adabound",
    "adadelta",
    "adafactor",
    "adagrad",
    "adahessian",
    "adam",
    "adam_atan2",
    "adam_mini",
    "adamax",
    "adamod",
    "adamp",
    "adan",
    "ademamix",
    "adopt",
    "amsbound",
    "amsgrad",
    "came",
    "cocob",
    "dadapt_adagrad",
    "dadapt_adam",
    "dadapt_sgd",
    "diffgrad",
    "dog",
    "dowg",
    "lamb",
    "laprop",
    "ldog",
    "lion",
    "mechanize",
    "momo",
    "momo_adam",
    "muon",
    "nadam",
    "novograd",
    "padam",
    "prodigy",
    "qhadam",
    "radam",
    "rmsprop",
    "schedule_free_adamw",
    "schedule_free_radam",
    "schedule_free_sgd",
    "sgd",
    "shampoo",
    "sm3",
    "soap",
    "stable_adamw",
    "swats",
    "yogi",
]
