"""AdaMod: Adam, its rates held below a running mean of themselves.

Ding, Ren, Luo and Sun, "An Adaptive and Momental Bound Method for Stochastic Learning", arXiv 2019,
algorithm 1. https://arxiv.org/abs/1910.12249

As in the authors' code eps is compared with the uncorrected root. The mean is of rates for a
learning rate of 1, and so a schedule does not enter it; for a constant rate it is all the same.
"""

import numpy as np


def adamod(x, gradients, learning_rate, *, b1=0.9, b2=0.999, b3=0.999, eps=1e-8, weight_decay=0.0):
    mu = np.zeros_like(x)
    nu = np.zeros_like(x)
    smoothed = np.zeros_like(x)
    for step, g in enumerate(gradients):
        rate = learning_rate(step) if callable(learning_rate) else learning_rate
        t = step + 1
        mu = b1 * mu + (1 - b1) * g
        nu = b2 * nu + (1 - b2) * g**2
        eta = np.sqrt(1 - b2**t) / (1 - b1**t) / (np.sqrt(nu) + eps)
        smoothed = b3 * smoothed + (1 - b3) * eta
        x = x - rate * (np.minimum(eta, smoothed) * mu + weight_decay * x)
        yield x
