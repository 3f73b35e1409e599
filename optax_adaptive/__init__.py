"""Adaptive optimizers for JAX, each an `optax.GradientTransformation`."""

from optax_adaptive._algorithms.adabound import AdaboundState as AdaboundState
from optax_adaptive._algorithms.adabound import AmsboundState as AmsboundState
from optax_adaptive._algorithms.adabound import adabound as adabound
from optax_adaptive._algorithms.adabound import amsbound as amsbound
from optax_adaptive._algorithms.adabound import scale_by_adabound as scale_by_adabound
from optax_adaptive._algorithms.adabound import scale_by_amsbound as scale_by_amsbound
from optax_adaptive._algorithms.adadelta import AdadeltaState as AdadeltaState
from optax_adaptive._algorithms.adadelta import adadelta as adadelta
from optax_adaptive._algorithms.adadelta import scale_by_adadelta as scale_by_adadelta
from optax_adaptive._algorithms.adagrad import AdagradState as AdagradState
from optax_adaptive._algorithms.adagrad import adagrad as adagrad
from optax_adaptive._algorithms.adagrad import scale_by_adagrad as scale_by_adagrad
from optax_adaptive._algorithms.adam import AdamState as AdamState
from optax_adaptive._algorithms.adam import adam as adam
from optax_adaptive._algorithms.adam import adamw as adamw
from optax_adaptive._algorithms.adam import nadam as nadam
from optax_adaptive._algorithms.adam import nadamw as nadamw
from optax_adaptive._algorithms.adam import scale_by_adam as scale_by_adam
from optax_adaptive._algorithms.adam import scale_by_nadam as scale_by_nadam
from optax_adaptive._algorithms.adam_mini import AdamMiniState as AdamMiniState
from optax_adaptive._algorithms.adam_mini import adam_mini as adam_mini
from optax_adaptive._algorithms.adam_mini import adam_mini_roles as adam_mini_roles
from optax_adaptive._algorithms.adam_mini import scale_by_adam_mini as scale_by_adam_mini
from optax_adaptive._algorithms.adamax import AdamaxState as AdamaxState
from optax_adaptive._algorithms.adamax import adamax as adamax
from optax_adaptive._algorithms.adamax import adamaxw as adamaxw
from optax_adaptive._algorithms.adamax import scale_by_adamax as scale_by_adamax
from optax_adaptive._algorithms.amsgrad import AmsgradState as AmsgradState
from optax_adaptive._algorithms.amsgrad import amsgrad as amsgrad
from optax_adaptive._algorithms.amsgrad import scale_by_amsgrad as scale_by_amsgrad
from optax_adaptive._algorithms.lamb import LambState as LambState
from optax_adaptive._algorithms.lamb import lamb as lamb
from optax_adaptive._algorithms.lamb import scale_by_lamb as scale_by_lamb
from optax_adaptive._algorithms.lion import LionState as LionState
from optax_adaptive._algorithms.lion import lion as lion
from optax_adaptive._algorithms.lion import scale_by_lion as scale_by_lion
from optax_adaptive._algorithms.muon import MuonState as MuonState
from optax_adaptive._algorithms.muon import muon as muon
from optax_adaptive._algorithms.muon import muon_roles as muon_roles
from optax_adaptive._algorithms.muon import scale_by_muon as scale_by_muon
from optax_adaptive._algorithms.radam import RadamState as RadamState
from optax_adaptive._algorithms.radam import radam as radam
from optax_adaptive._algorithms.radam import scale_by_radam as scale_by_radam
from optax_adaptive._algorithms.rmsprop import CenteredRmspropState as CenteredRmspropState
from optax_adaptive._algorithms.rmsprop import RmspropState as RmspropState
from optax_adaptive._algorithms.rmsprop import rmsprop as rmsprop
from optax_adaptive._algorithms.rmsprop import (
    scale_by_centered_rmsprop as scale_by_centered_rmsprop,
)
from optax_adaptive._algorithms.rmsprop import scale_by_rmsprop as scale_by_rmsprop
from optax_adaptive._algorithms.sgd import scale_by_sgd as scale_by_sgd
from optax_adaptive._algorithms.sgd import sgd as sgd
from optax_adaptive._core import DescentState as DescentState
from optax_adaptive._core import descend as descend
from optax_adaptive._momentum import TraceState as TraceState
from optax_adaptive._momentum import trace as trace
from optax_adaptive._optimizers import Optimizer as Optimizer
from optax_adaptive._optimizers import optimizers as optimizers

__version__ = "0.1.0"
