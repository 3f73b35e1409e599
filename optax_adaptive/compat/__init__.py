"""The optimizers of other frameworks: their constructors, and their checkpoints."""

from optax_adaptive.compat import keras as keras
from optax_adaptive.compat import keras_legacy as keras_legacy
from optax_adaptive.compat import tf1 as tf1
from optax_adaptive.compat import tfjs as tfjs
from optax_adaptive.compat import torch as torch
