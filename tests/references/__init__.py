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

from .adabound import adabound, amsbound
from .adadelta import adadelta
from .adagrad import adagrad
from .adam import adam, nadam
from .adam_mini import adam_mini
from .adamax import adamax
from .amsgrad import amsgrad
from .lamb import lamb
from .lion import lion
from .muon import muon
from .radam import radam
from .rmsprop import rmsprop
from .sgd import sgd

__all__ = [
    "adabound",
    "adadelta",
    "adagrad",
    "adam",
    "adam_mini",
    "adamax",
    "amsbound",
    "amsgrad",
    "lamb",
    "lion",
    "muon",
    "nadam",
    "radam",
    "rmsprop",
    "sgd",
]
