"""Adan: Adam with Nesterov's momentum, from means of the gradients and of their differences.

Xie, Zhou, Li, Lin and Yan, "Adan: Adaptive Nesterov Momentum Algorithm for Faster Optimizing Deep
Models", IEEE TPAMI 2024, algorithm 1. https://arxiv.org/abs/2208.06677

As in the authors' code, https://github.com/sail-sg/Adan: every beta is 1 less that of the paper,
the means start at 0 and are corrected for it, and the first difference is 0. The extrapolation is
by the share that the mean of differences keeps, as in paper and code; optax has 1 less that share.
"""

import numpy as np


def adan(
    x,
    gradients,
    learning_rate,
    *,
    b1=0.98,
    b2=0.92,
    b3=0.99,
    eps=1e-8,
    eps_root=1e-8,
    weight_decay=0.0,
):
    beta1, beta2, beta3 = 1 - b1, 1 - b2, 1 - b3  # the paper's
    m = np.zeros_like(x)
    v = np.zeros_like(x)
    n = np.zeros_like(x)
    last = None
    for step, g in enumerate(gradients):
        rate = learning_rate(step) if callable(learning_rate) else learning_rate
        t = step + 1
        difference = g - (g if last is None else last)
        m = (1 - beta1) * m + beta1 * g
        v = (1 - beta2) * v + beta2 * difference
        n = (1 - beta3) * n + beta3 * (g + (1 - beta2) * difference) ** 2
        last = g
        m_hat = m / (1 - (1 - beta1) ** t)
        v_hat = v / (1 - (1 - beta2) ** t)
        n_hat = n / (1 - (1 - beta3) ** t)
        direction = (m_hat + (1 - beta2) * v_hat) / (np.sqrt(n_hat + eps_root) + eps)
        x = x - rate * (direction + weight_decay * x)
        yield x
