"""AdaDelta.

Zeiler, "ADADELTA: An Adaptive Learning Rate Method", 2012, algorithm 1.
https://arxiv.org/abs/1212.5701

The paper has no learning rate: it is 1 here by default, and never enters the mean of squared steps.
"""

import numpy as np


def adadelta(x, gradients, learning_rate=1.0, *, rho=0.9, eps=1e-6, weight_decay=0.0):
    mean_sq_gradient = np.zeros_like(x)
    mean_sq_step = np.zeros_like(x)
    for step, g in enumerate(gradients):
        rate = learning_rate(step) if callable(learning_rate) else learning_rate
        mean_sq_gradient = rho * mean_sq_gradient + (1 - rho) * g**2
        direction = np.sqrt(mean_sq_step + eps) / np.sqrt(mean_sq_gradient + eps) * g
        mean_sq_step = rho * mean_sq_step + (1 - rho) * direction**2
        x = x - rate * (direction + weight_decay * x)
        yield x
