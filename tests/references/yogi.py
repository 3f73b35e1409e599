"""Yogi: Adam whose mean of squared gradients moves by a bounded amount.

Zaheer, Reddi, Sachan, Kale and Kumar, "Adaptive Methods for Nonconvex Optimization", NeurIPS 2018,
algorithm 2. https://papers.nips.cc/paper/8186-adaptive-methods-for-nonconvex-optimization

The corrections of the bias, which the paper does not have, and the start of both accumulators are
those of optax.
"""

import numpy as np


def yogi(
    x,
    gradients,
    learning_rate,
    *,
    b1=0.9,
    b2=0.999,
    eps=1e-3,
    eps_root=0.0,
    initial_accumulator_value=1e-6,
    weight_decay=0.0,
):
    m = np.full_like(x, initial_accumulator_value)
    v = np.full_like(x, initial_accumulator_value)
    for step, g in enumerate(gradients):
        rate = learning_rate(step) if callable(learning_rate) else learning_rate
        t = step + 1
        m = b1 * m + (1 - b1) * g
        up, down = g**2 > v, g**2 < v
        v = v + (1 - b2) * np.where(up, g**2, 0) - (1 - b2) * np.where(down, g**2, 0)
        m_hat, v_hat = m / (1 - b1**t), v / (1 - b2**t)
        x = x - rate * (m_hat / (np.sqrt(v_hat + eps_root) + eps) + weight_decay * x)
        yield x
