"""What is known about every optimizer without running it."""

import inspect
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import optax

from optax_adaptive._algorithms.adabelief import adabelief
from optax_adaptive._algorithms.adabound import adabound, amsbound
from optax_adaptive._algorithms.adadelta import adadelta
from optax_adaptive._algorithms.adafactor import adafactor
from optax_adaptive._algorithms.adagrad import adagrad
from optax_adaptive._algorithms.adahessian import adahessian
from optax_adaptive._algorithms.adam import adam, adamw
from optax_adaptive._algorithms.adam_atan2 import adam_atan2
from optax_adaptive._algorithms.adam_mini import adam_mini
from optax_adaptive._algorithms.adamax import adamax, adamaxw
from optax_adaptive._algorithms.adamod import adamod
from optax_adaptive._algorithms.adamp import adamp
from optax_adaptive._algorithms.adan import adan
from optax_adaptive._algorithms.ademamix import ademamix
from optax_adaptive._algorithms.adopt import adopt
from optax_adaptive._algorithms.amsgrad import amsgrad
from optax_adaptive._algorithms.came import came
from optax_adaptive._algorithms.cocob import cocob
from optax_adaptive._algorithms.dadapt import dadapt_adagrad, dadapt_adam, dadapt_sgd
from optax_adaptive._algorithms.diffgrad import diffgrad
from optax_adaptive._algorithms.dog import dog, ldog
from optax_adaptive._algorithms.dowg import dowg
from optax_adaptive._algorithms.lamb import lamb
from optax_adaptive._algorithms.laprop import laprop
from optax_adaptive._algorithms.lion import lion
from optax_adaptive._algorithms.momo import momo, momo_adam
from optax_adaptive._algorithms.muon import muon
from optax_adaptive._algorithms.nadam import nadam, nadamw
from optax_adaptive._algorithms.novograd import novograd
from optax_adaptive._algorithms.padam import padam
from optax_adaptive._algorithms.prodigy import prodigy
from optax_adaptive._algorithms.qhadam import qhadam
from optax_adaptive._algorithms.radam import radam
from optax_adaptive._algorithms.rmsprop import rmsprop
from optax_adaptive._algorithms.sgd import sgd
from optax_adaptive._algorithms.shampoo import shampoo
from optax_adaptive._algorithms.sm3 import sm3
from optax_adaptive._algorithms.soap import soap
from optax_adaptive._algorithms.stable_adamw import stable_adamw
from optax_adaptive._algorithms.swats import swats
from optax_adaptive._algorithms.yogi import yogi
from optax_adaptive._wrappers.schedule_free import (
    schedule_free_adamw,
    schedule_free_eval_params,
    schedule_free_radam,
    schedule_free_sgd,
)


class Optimizer(NamedTuple):
    """The record of one optimizer."""

    make: Callable[..., optax.GradientTransformationExtraArgs]  # the constructor
    paper: str  # its title
    year: int  # of publication
    url: str  # of the paper
    state_words: float  # per parameter of a large matrix, with the default arguments
    elementwise: bool = True  # no coordinate's step depends on another's gradient
    needs: tuple[str, ...] = ()  # arguments that `update` cannot do without, beside gradients
    eval_params: Callable[..., Any] | None = None  # (state, params) -> those to evaluate, if others

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
_MOMO = "MoMo: Momentum Models for Adaptive Learning Rates"
_ARXIV = "https://arxiv.org/abs/"
_ROAD = ("The Road Less Scheduled", 2024, _ARXIV + "2405.15682")

_DOG = (
    "DoG is SGD's Best Friend: A Parameter-Free Dynamic Step Size Schedule",
    2023,
    _ARXIV + "2302.12022",
)
_DADAPT = ("Learning-Rate-Free Learning by D-Adaptation", 2023, _ARXIV + "2301.07733")

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
        adabelief,
        "AdaBelief Optimizer: Adapting Stepsizes by the Belief in Observed Gradients",
        2020,
        _ARXIV + "2010.07468",
        state_words=2,
    ),
    Optimizer(
        yogi,
        "Adaptive Methods for Nonconvex Optimization",
        2018,
        "https://papers.nips.cc/paper/8186-adaptive-methods-for-nonconvex-optimization",
        state_words=2,
    ),
    Optimizer(
        adan,
        "Adan: Adaptive Nesterov Momentum Algorithm for Faster Optimizing Deep Models",
        2024,
        _ARXIV + "2208.06677",
        state_words=4,
    ),
    Optimizer(
        laprop,
        "LaProp: Separating Momentum and Adaptivity in Adam",
        2020,
        _ARXIV + "2002.04839",
        state_words=2,
    ),
    Optimizer(
        qhadam,
        "Quasi-hyperbolic momentum and Adam for deep learning",
        2019,
        _ARXIV + "1810.06801",
        state_words=2,
    ),
    Optimizer(
        adopt,
        "ADOPT: Modified Adam Can Converge with Any β2 with the Optimal Rate",
        2024,
        _ARXIV + "2411.02853",
        state_words=2,
    ),
    Optimizer(
        adam_atan2,
        "Scaling Exponents Across Parameterizations and Optimizers",
        2024,
        _ARXIV + "2407.05872",
        state_words=2,
    ),
    Optimizer(
        ademamix,
        "The AdEMAMix Optimizer: Better, Faster, Older",
        2025,
        _ARXIV + "2409.03137",
        state_words=3,
    ),
    Optimizer(
        adahessian,
        "ADAHESSIAN: An Adaptive Second Order Optimizer for Machine Learning",
        2021,
        _ARXIV + "2006.00719",
        state_words=2,
        needs=("hessian_diagonal",),
    ),
    Optimizer(
        stable_adamw,
        "Stable and low-precision training for large-scale vision-language models",
        2023,
        _ARXIV + "2304.13013",
        state_words=2,
        elementwise=False,
        needs=("params",),
    ),
    Optimizer(
        adamod,
        "An Adaptive and Momental Bound Method for Stochastic Learning",
        2019,
        _ARXIV + "1910.12249",
        state_words=3,
    ),
    Optimizer(
        diffgrad,
        "diffGrad: An Optimization Method for Convolutional Neural Networks",
        2020,
        _ARXIV + "1909.11015",
        state_words=3,
    ),
    Optimizer(
        padam,
        "Closing the Generalization Gap of Adaptive Gradient Methods in Training Deep Neural "
        "Networks",
        2020,
        _ARXIV + "1806.06763",
        state_words=3,
    ),
    Optimizer(
        adamp,
        "AdamP: Slowing Down the Slowdown for Momentum Optimizers on Scale-invariant Weights",
        2021,
        _ARXIV + "2006.08217",
        state_words=2,
        elementwise=False,
        needs=("params",),
    ),
    Optimizer(
        swats,
        "Improving Generalization Performance by Switching from Adam to SGD",
        2017,
        _ARXIV + "1712.07628",
        state_words=2,
        elementwise=False,
    ),
    Optimizer(
        shampoo,
        "Shampoo: Preconditioned Stochastic Tensor Optimization",
        2018,
        _ARXIV + "1802.09568",
        state_words=5,
        elementwise=False,
    ),
    Optimizer(
        soap,
        "SOAP: Improving and Stabilizing Shampoo using Adam",
        2025,
        _ARXIV + "2409.11321",
        state_words=6,
        elementwise=False,
        needs=("params",),
    ),
    Optimizer(
        novograd,
        "Stochastic Gradient Methods with Layer-wise Adaptive Moments for Training of Deep "
        "Networks",
        2019,
        _ARXIV + "1905.11286",
        state_words=1,
        elementwise=False,
    ),
    Optimizer(
        adafactor,
        "Adafactor: Adaptive Learning Rates with Sublinear Memory Cost",
        2018,
        _ARXIV + "1804.04235",
        state_words=0,
        elementwise=False,
        needs=("params",),
    ),
    Optimizer(
        sm3,
        "Memory-Efficient Adaptive Optimization",
        2019,
        _ARXIV + "1901.11150",
        state_words=1,
        elementwise=False,
    ),
    Optimizer(
        came,
        "CAME: Confidence-guided Adaptive Memory Efficient Optimization",
        2023,
        _ARXIV + "2307.02047",
        state_words=1,
        elementwise=False,
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
    Optimizer(
        prodigy,
        "Prodigy: An Expeditiously Adaptive Parameter-Free Learner",
        2024,
        _ARXIV + "2306.06101",
        state_words=4,
        elementwise=False,
        needs=("params",),
    ),
    *(
        Optimizer(make, *_ROAD, words, needs=("params",), eval_params=schedule_free_eval_params)
        for make, words in (
            (schedule_free_sgd, 1),
            (schedule_free_adamw, 2),
            (schedule_free_radam, 2),
        )
    ),
    Optimizer(dog, *_DOG, state_words=1, elementwise=False, needs=("params",)),
    Optimizer(ldog, *_DOG, state_words=1, elementwise=False, needs=("params",)),
    Optimizer(
        dowg,
        "DoWG Unleashed: An Efficient Universal Parameter-Free Gradient Descent Method",
        2023,
        _ARXIV + "2305.16284",
        state_words=1,
        elementwise=False,
        needs=("params",),
    ),
    Optimizer(dadapt_sgd, *_DADAPT, state_words=2, elementwise=False),
    Optimizer(dadapt_adagrad, *_DADAPT, state_words=3, elementwise=False, needs=("params",)),
    Optimizer(dadapt_adam, *_DADAPT, state_words=3, elementwise=False),
    Optimizer(
        cocob,
        "Training Deep Networks without Learning Rates Through Coin Betting",
        2017,
        _ARXIV + "1705.07795",
        state_words=5,
        needs=("params",),
    ),
    *(
        Optimizer(
            make,
            _MOMO,
            2024,
            _ARXIV + "2305.07583",
            state_words=words,
            elementwise=False,
            needs=("params", "value"),
        )
        for make, words in ((momo, 1), (momo_adam, 2))
    ),
)

optimizers: Mapping[str, Optimizer] = MappingProxyType(
    {record.make.__name__: record for record in _RECORDS}
)
