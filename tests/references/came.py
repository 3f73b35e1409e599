"""CAME: Adafactor with momentum, which goes slower where its steps disagree with it.

Luo, Ren, Zheng, Jiang, Jiang and You, "CAME: Confidence-guided Adaptive Memory Efficient
Optimization", ACL 2023, algorithm 2. https://arxiv.org/abs/2307.02047

Vectors, of which the paper does not speak, as in the authors' code: no factors, no confidence.
"""

import numpy as np


def came(
    x,
    gradients,
    learning_rate,
    *,
    b1=0.9,
    b2=0.999,
    b3=0.9999,
    eps=1e-30,
    eps_residual=1e-16,
    clipping_threshold=1.0,
    weight_decay=0.0,
):
    m = np.zeros_like(x)
    v = r = c = residual_r = residual_c = 0.0
    for step, g in enumerate(gradients):
        rate = learning_rate(step) if callable(learning_rate) else learning_rate
        square = g**2 + eps
        if x.ndim > 1:
            r = b2 * r + (1 - b2) * square.mean(-1)
            c = b2 * c + (1 - b2) * square.mean(-2)
            v = product(r, c)
        else:
            v = b2 * v + (1 - b2) * square
        u = g / np.sqrt(v)
        u = u / max(1.0, np.sqrt(np.mean(u**2)) / clipping_threshold)
        m = b1 * m + (1 - b1) * u
        direction = m
        if x.ndim > 1:
            instability = (u - m) ** 2 + eps_residual
            residual_r = b3 * residual_r + (1 - b3) * instability.mean(-1)
            residual_c = b3 * residual_c + (1 - b3) * instability.mean(-2)
            direction = m / np.sqrt(product(residual_r, residual_c))
        x = x - rate * (direction + weight_decay * x)
        yield x


def product(r, c):
    """The matrix with rows of means r and columns of means c, of rank 1."""
    return r[..., :, None] * c[..., None, :] / r.mean(-1)[..., None, None]
