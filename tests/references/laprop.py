"""LaProp: the mean of the normalised gradients, where Adam normalises the mean.

Ziyin, Wang and Ueda, "LaProp: Separating Momentum and Adaptivity in Adam", arXiv 2020, algorithm 1.
https://arxiv.org/abs/2002.04839

The learning rate is outside the mean, as in the paper; the authors' code has it inside, which is
another rule where the rate changes.
"""

import numpy as np


def laprop(x, gradients, learning_rate, *, b1=0.9, b2=0.999, eps=1e-15, weight_decay=0.0):
    n = np.zeros_like(x)
    m = np.zeros_like(x)
    for step, g in enumerate(gradients):
        rate = learning_rate(step) if callable(learning_rate) else learning_rate
        t = step + 1
        n = b2 * n + (1 - b2) * g**2
        m = b1 * m + (1 - b1) * g / (np.sqrt(n / (1 - b2**t)) + eps)
        x = x - rate * (m / (1 - b1**t) + weight_decay * x)
        yield x
