"""QHAdam, Adam with quasi-hyperbolic averages of both moments.

Ma and Yarats, "Quasi-hyperbolic momentum and Adam for deep learning", ICLR 2019.
https://arxiv.org/abs/1810.06801

The paper's nu1 and nu2 are v1 and v2 here. It gives them no defaults; these are those that the
documentation of the authors' package begins with.
"""

import numpy as np


def qhadam(
    x, gradients, learning_rate, *, b1=0.995, b2=0.999, v1=0.7, v2=1.0, eps=1e-8, weight_decay=0.0
):
    mu = np.zeros_like(x)
    nu = np.zeros_like(x)
    for step, g in enumerate(gradients):
        rate = learning_rate(step) if callable(learning_rate) else learning_rate
        t = step + 1
        mu = b1 * mu + (1 - b1) * g
        nu = b2 * nu + (1 - b2) * g**2
        mu_hat = mu / (1 - b1**t)
        nu_hat = nu / (1 - b2**t)
        numerator = (1 - v1) * g + v1 * mu_hat
        direction = numerator / (np.sqrt((1 - v2) * g**2 + v2 * nu_hat) + eps)
        x = x - rate * (direction + weight_decay * x)
        yield x
