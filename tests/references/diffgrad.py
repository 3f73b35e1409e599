"""DiffGrad: Adam, its steps halved where the gradient no longer changes.

Dubey, Chakraborty, Roy, Mukherjee, Singh and Chaudhuri, "diffGrad: An Optimization Method for
Convolutional Neural Networks", IEEE Transactions on Neural Networks and Learning Systems 31 (11),
2020. https://arxiv.org/abs/1909.11015

As in the authors' code eps is compared with the uncorrected root.
"""

import numpy as np


def diffgrad(x, gradients, learning_rate, *, b1=0.9, b2=0.999, eps=1e-8, weight_decay=0.0):
    mu = np.zeros_like(x)
    nu = np.zeros_like(x)
    before = np.zeros_like(x)
    for step, g in enumerate(gradients):
        rate = learning_rate(step) if callable(learning_rate) else learning_rate
        t = step + 1
        mu = b1 * mu + (1 - b1) * g
        nu = b2 * nu + (1 - b2) * g**2
        xi = 1 / (1 + np.exp(-np.abs(before - g)))
        direction = xi * (mu / (1 - b1**t)) * np.sqrt(1 - b2**t) / (np.sqrt(nu) + eps)
        before = g
        x = x - rate * (direction + weight_decay * x)
        yield x
