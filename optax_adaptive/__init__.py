"""Adaptive optimizers for JAX, each an `optax.GradientTransformation`."""

from optax_adaptive._algorithms.adabelief import AdabeliefState as AdabeliefState
from optax_adaptive._algorithms.adabelief import adabelief as adabelief
from optax_adaptive._algorithms.adabelief import scale_by_adabelief as scale_by_adabelief
from optax_adaptive._algorithms.adabound import AdaboundState as AdaboundState
from optax_adaptive._algorithms.adabound import AmsboundState as AmsboundState
from optax_adaptive._algorithms.adabound import adabound as adabound
from optax_adaptive._algorithms.adabound import amsbound as amsbound
from optax_adaptive._algorithms.adabound import scale_by_adabound as scale_by_adabound
from optax_adaptive._algorithms.adabound import scale_by_amsbound as scale_by_amsbound
from optax_adaptive._algorithms.adadelta import AdadeltaState as AdadeltaState
from optax_adaptive._algorithms.adadelta import adadelta as adadelta
from optax_adaptive._algorithms.adadelta import scale_by_adadelta as scale_by_adadelta
from optax_adaptive._algorithms.adafactor import AdafactorState as AdafactorState
from optax_adaptive._algorithms.adafactor import adafactor as adafactor
from optax_adaptive._algorithms.adafactor import scale_by_adafactor as scale_by_adafactor
from optax_adaptive._algorithms.adagrad import AdagradState as AdagradState
from optax_adaptive._algorithms.adagrad import adagrad as adagrad
from optax_adaptive._algorithms.adagrad import scale_by_adagrad as scale_by_adagrad
from optax_adaptive._algorithms.adahessian import AdahessianState as AdahessianState
from optax_adaptive._algorithms.adahessian import adahessian as adahessian
from optax_adaptive._algorithms.adahessian import scale_by_adahessian as scale_by_adahessian
from optax_adaptive._algorithms.adam import AdamState as AdamState
from optax_adaptive._algorithms.adam import adam as adam
from optax_adaptive._algorithms.adam import adamw as adamw
from optax_adaptive._algorithms.adam import nadam as nadam
from optax_adaptive._algorithms.adam import nadamw as nadamw
from optax_adaptive._algorithms.adam import scale_by_adam as scale_by_adam
from optax_adaptive._algorithms.adam import scale_by_nadam as scale_by_nadam
from optax_adaptive._algorithms.adam_atan2 import AdamAtan2State as AdamAtan2State
from optax_adaptive._algorithms.adam_atan2 import adam_atan2 as adam_atan2
from optax_adaptive._algorithms.adam_atan2 import scale_by_adam_atan2 as scale_by_adam_atan2
from optax_adaptive._algorithms.adam_mini import AdamMiniState as AdamMiniState
from optax_adaptive._algorithms.adam_mini import adam_mini as adam_mini
from optax_adaptive._algorithms.adam_mini import adam_mini_roles as adam_mini_roles
from optax_adaptive._algorithms.adam_mini import scale_by_adam_mini as scale_by_adam_mini
from optax_adaptive._algorithms.adamax import AdamaxState as AdamaxState
from optax_adaptive._algorithms.adamax import adamax as adamax
from optax_adaptive._algorithms.adamax import adamaxw as adamaxw
from optax_adaptive._algorithms.adamax import scale_by_adamax as scale_by_adamax
from optax_adaptive._algorithms.adamod import AdamodState as AdamodState
from optax_adaptive._algorithms.adamod import adamod as adamod
from optax_adaptive._algorithms.adamod import scale_by_adamod as scale_by_adamod
from optax_adaptive._algorithms.adamp import AdampState as AdampState
from optax_adaptive._algorithms.adamp import adamp as adamp
from optax_adaptive._algorithms.adamp import scale_by_adamp as scale_by_adamp
from optax_adaptive._algorithms.adan import AdanState as AdanState
from optax_adaptive._algorithms.adan import adan as adan
from optax_adaptive._algorithms.adan import scale_by_adan as scale_by_adan
from optax_adaptive._algorithms.ademamix import AdemamixState as AdemamixState
from optax_adaptive._algorithms.ademamix import ademamix as ademamix
from optax_adaptive._algorithms.ademamix import scale_by_ademamix as scale_by_ademamix
from optax_adaptive._algorithms.adopt import AdoptState as AdoptState
from optax_adaptive._algorithms.adopt import adopt as adopt
from optax_adaptive._algorithms.adopt import scale_by_adopt as scale_by_adopt
from optax_adaptive._algorithms.amsgrad import AmsgradState as AmsgradState
from optax_adaptive._algorithms.amsgrad import amsgrad as amsgrad
from optax_adaptive._algorithms.amsgrad import scale_by_amsgrad as scale_by_amsgrad
from optax_adaptive._algorithms.came import CameState as CameState
from optax_adaptive._algorithms.came import came as came
from optax_adaptive._algorithms.came import scale_by_came as scale_by_came
from optax_adaptive._algorithms.dadapt import DadaptAdagradState as DadaptAdagradState
from optax_adaptive._algorithms.dadapt import DadaptAdamState as DadaptAdamState
from optax_adaptive._algorithms.dadapt import DadaptSgdState as DadaptSgdState
from optax_adaptive._algorithms.dadapt import dadapt_adagrad as dadapt_adagrad
from optax_adaptive._algorithms.dadapt import dadapt_adam as dadapt_adam
from optax_adaptive._algorithms.dadapt import dadapt_sgd as dadapt_sgd
from optax_adaptive._algorithms.diffgrad import DiffgradState as DiffgradState
from optax_adaptive._algorithms.diffgrad import diffgrad as diffgrad
from optax_adaptive._algorithms.diffgrad import scale_by_diffgrad as scale_by_diffgrad
from optax_adaptive._algorithms.dog import DogState as DogState
from optax_adaptive._algorithms.dog import dog as dog
from optax_adaptive._algorithms.dog import ldog as ldog
from optax_adaptive._algorithms.dowg import DowgState as DowgState
from optax_adaptive._algorithms.dowg import dowg as dowg
from optax_adaptive._algorithms.lamb import LambState as LambState
from optax_adaptive._algorithms.lamb import lamb as lamb
from optax_adaptive._algorithms.lamb import scale_by_lamb as scale_by_lamb
from optax_adaptive._algorithms.laprop import LapropState as LapropState
from optax_adaptive._algorithms.laprop import laprop as laprop
from optax_adaptive._algorithms.laprop import scale_by_laprop as scale_by_laprop
from optax_adaptive._algorithms.lion import LionState as LionState
from optax_adaptive._algorithms.lion import lion as lion
from optax_adaptive._algorithms.lion import scale_by_lion as scale_by_lion
from optax_adaptive._algorithms.muon import MuonState as MuonState
from optax_adaptive._algorithms.muon import muon as muon
from optax_adaptive._algorithms.muon import muon_roles as muon_roles
from optax_adaptive._algorithms.muon import scale_by_muon as scale_by_muon
from optax_adaptive._algorithms.novograd import NovogradState as NovogradState
from optax_adaptive._algorithms.novograd import novograd as novograd
from optax_adaptive._algorithms.novograd import scale_by_novograd as scale_by_novograd
from optax_adaptive._algorithms.padam import PadamState as PadamState
from optax_adaptive._algorithms.padam import padam as padam
from optax_adaptive._algorithms.padam import scale_by_padam as scale_by_padam
from optax_adaptive._algorithms.prodigy import ProdigyState as ProdigyState
from optax_adaptive._algorithms.prodigy import prodigy as prodigy
from optax_adaptive._algorithms.qhadam import QhadamState as QhadamState
from optax_adaptive._algorithms.qhadam import qhadam as qhadam
from optax_adaptive._algorithms.qhadam import scale_by_qhadam as scale_by_qhadam
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
from optax_adaptive._algorithms.shampoo import ShampooState as ShampooState
from optax_adaptive._algorithms.shampoo import scale_by_shampoo as scale_by_shampoo
from optax_adaptive._algorithms.shampoo import shampoo as shampoo
from optax_adaptive._algorithms.sm3 import Sm3State as Sm3State
from optax_adaptive._algorithms.sm3 import scale_by_sm3 as scale_by_sm3
from optax_adaptive._algorithms.sm3 import sm3 as sm3
from optax_adaptive._algorithms.soap import SoapState as SoapState
from optax_adaptive._algorithms.soap import scale_by_soap as scale_by_soap
from optax_adaptive._algorithms.soap import soap as soap
from optax_adaptive._algorithms.stable_adamw import StableAdamwState as StableAdamwState
from optax_adaptive._algorithms.stable_adamw import scale_by_stable_adamw as scale_by_stable_adamw
from optax_adaptive._algorithms.stable_adamw import stable_adamw as stable_adamw
from optax_adaptive._algorithms.swats import SwatsState as SwatsState
from optax_adaptive._algorithms.swats import scale_by_swats as scale_by_swats
from optax_adaptive._algorithms.swats import swats as swats
from optax_adaptive._algorithms.yogi import YogiState as YogiState
from optax_adaptive._algorithms.yogi import scale_by_yogi as scale_by_yogi
from optax_adaptive._algorithms.yogi import yogi as yogi
from optax_adaptive._core import DescentState as DescentState
from optax_adaptive._core import Others as Others
from optax_adaptive._core import descend as descend
from optax_adaptive._free import FreeDescentState as FreeDescentState
from optax_adaptive._hutchinson import hutchinson as hutchinson
from optax_adaptive._momentum import TraceState as TraceState
from optax_adaptive._momentum import trace as trace
from optax_adaptive._optimizers import Optimizer as Optimizer
from optax_adaptive._optimizers import optimizers as optimizers
from optax_adaptive._wrappers.cautious import cautious as cautious
from optax_adaptive._wrappers.clip_update_rms import clip_update_rms as clip_update_rms
from optax_adaptive._wrappers.grokfast import GrokfastMaState as GrokfastMaState
from optax_adaptive._wrappers.grokfast import GrokfastState as GrokfastState
from optax_adaptive._wrappers.grokfast import grokfast as grokfast
from optax_adaptive._wrappers.grokfast import grokfast_ma as grokfast_ma
from optax_adaptive._wrappers.mars import MarsState as MarsState
from optax_adaptive._wrappers.mars import mars as mars
from optax_adaptive._wrappers.polynomial_averaging import (
    PolynomialAveragingState as PolynomialAveragingState,
)
from optax_adaptive._wrappers.polynomial_averaging import averaged_params as averaged_params
from optax_adaptive._wrappers.polynomial_averaging import (
    polynomial_averaging as polynomial_averaging,
)
from optax_adaptive._wrappers.schedule_free import ScheduleFreeState as ScheduleFreeState
from optax_adaptive._wrappers.schedule_free import schedule_free as schedule_free
from optax_adaptive._wrappers.schedule_free import schedule_free_adamw as schedule_free_adamw
from optax_adaptive._wrappers.schedule_free import (
    schedule_free_eval_params as schedule_free_eval_params,
)
from optax_adaptive._wrappers.schedule_free import schedule_free_radam as schedule_free_radam
from optax_adaptive._wrappers.schedule_free import schedule_free_sgd as schedule_free_sgd

__version__ = "0.1.0"
