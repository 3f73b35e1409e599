"""What is known about every optimizer without running it."""

import inspect
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import optax

from optax_adaptive._algorithms.adabound import adabound, amsbound
from optax_adaptive._algorithms.adadelta import adadelta
from optax_adaptive._algorithms.adagrad import adagrad
from optax_adaptive._algorithms.adam import adam, adamw, nadam, nadamw
from optax_adaptive._algorithms.adam_mini import adam_mini
from optax_adaptive._algorithms.adamax import adamax, adamaxw
from optax_adaptive._algorithms.amsgrad import amsgrad
from optax_adaptive._algorithms.lamb import lamb
from optax_adaptive._algorithms.lion import lion
from optax_adaptive._algorithms.muon import muon
from optax_adaptive._algorithms.radam import radam
from optax_adaptive._algorithms.rmsprop import rmsprop
from optax_adaptive._algorithms.sgd import sgd


class Optimizer(NamedTuple):
    """The record of one optimizer."""

    make: Callable[..., optax.GradientTransformationExtraArgs]  # the constructor
    paper: str  # its title
    year: int  # of publication
    url: str  # of the paper
    state_words: float  # per parameter of a large matrix, with the default arguments
    elementwise: bool = True  # no coordinate's step depends on another's gradient
    needs: tuple[str, ...] = ()  # arguments that `update` cannot do without, beside gradients

    @property
    def learning_rate(self) -> Any:
        """The default, or None where it must be given."""
        default = inspect.signature(self.make).parameters["learning_rate"].default
        return None if default is inspect.Parameter.empty else default


_ADAM = ("Adam: A Method for Stochastic Optimization", 2015, "https://arxiv.org/abs/1412.6980")
_DOZAT = "https://openreview.net/forum?id=OM0jvwB8jIp57ZJjtNEZ"
_NADAM = ("Incorporating Nesterov Momentum into Adam", 2016, _DOZAT)
_LUO = "https://openreview.net/forum?id=Bkg3g2R9FX"
_ADABOUND = ("Adaptive Gradient Methods with Dynamic Bound of Learning Rate", 2019, _LUO)
_ARXIV = "https://arxiv.org/abs/"

_RECORDS = (
    Optimizer(
        sgd,
        "A Stochastic Approximation Method",
        1951,
        "https://doi.org/10.1214/aoms/1177729586",
        state_words=0,
    ),
    Optimizer(
        adagrad,
        "Adaptive Subgradient Methods for Online Learning and Stochastic Optimization",
        2011,
        "https://jmlr.org/papers/v12/duchi11a.html",
        state_words=1,
    ),
    Optimizer(
        rmsprop,
        "Lecture 6.5: rmsprop",
        2012,
        "https://www.cs.toronto.edu/~tijmen/csc321/slides/lecture_slides_lec6.pdf",
        state_words=1,
    ),
    Optimizer(
        adadelta,
        "ADADELTA: An Adaptive Learning Rate Method",
        2012,
        _ARXIV + "1212.5701",
        state_words=2,
    ),
    Optimizer(adam, *_ADAM, state_words=2),
    Optimizer(
        adamw,
        "Decoupled Weight Decay Regularization",
        2019,
        _ARXIV + "1711.05101",
        state_words=2,
        needs=("params",),
    ),
    Optimizer(nadam, *_NADAM, state_words=2),
    Optimizer(nadamw, *_NADAM, state_words=2, needs=("params",)),
    Optimizer(adamax, *_ADAM, state_words=2),
    Optimizer(adamaxw, *_ADAM, state_words=2, needs=("params",)),
    Optimizer(
        amsgrad,
        "On the Convergence of Adam and Beyond",
        2018,
        "https://openreview.net/forum?id=ryQu7f-RZ",
        state_words=3,
    ),
    Optimizer(
        radam,
        "On the Variance of the Adaptive Learning Rate and Beyond",
        2020,
        _ARXIV + "1908.03265",
        state_words=2,
    ),
    Optimizer(adabound, *_ADABOUND, state_words=2),
    Optimizer(amsbound, *_ADABOUND, state_words=3),
    Optimizer(
        lion,
        "Symbolic Discovery of Optimization Algorithms",
        2023,
        _ARXIV + "2302.06675",
        state_words=1,
        needs=("params",),
    ),
    Optimizer(
        lamb,
        "Large Batch Optimization for Deep Learning: Training BERT in 76 minutes",
        2020,
        _ARXIV + "1904.00962",
        state_words=2,
        elementwise=False,
        needs=("params",),
    ),
    Optimizer(
        muon,
        "Muon: An optimizer for hidden layers in neural networks",
        2024,
        "https://kellerjordan.github.io/posts/muon/",
        state_words=1,
        elementwise=False,
        needs=("params",),
    ),
    Optimizer(
        adam_mini,
        "Adam-mini: Use Fewer Learning Rates To Gain More",
        2025,
        _ARXIV + "2406.16793",
        state_words=1,
        elementwise=False,
    ),
)

optimizers: Mapping[str, Optimizer] = MappingProxyType(
    {record.make.__name__: record for record in _RECORDS}
)
