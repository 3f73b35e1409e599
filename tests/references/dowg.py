"""Khaled, Mishchenko and Jin, "DoWG Unleashed: An Efficient Universal Parameter-Free
Gradient Descent Method", NeurIPS 2023.

Algorithm 1, with a number added to the root as in practice.
"""

import numpy as np


def dowg(x, gradients, learning_rate=1.0, init_estim_sq_dist=None, eps=1e-4, weight_decay=0.0):
    x0, v, r = x, 0.0, np.sqrt(eps if init_estim_sq_dist is None else init_estim_sq_dist)
    for step, g in enumerate(gradients):
        gamma = learning_rate(step) if callable(learning_rate) else learning_rate
        r = max(r, np.linalg.norm(x - x0))
        v = v + r**2 * np.linalg.norm(g) ** 2
        if v > 0:
            x = x - gamma * r**2 / (np.sqrt(v) + eps) * (g + weight_decay * x)
        yield x
