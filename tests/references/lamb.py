"""LAMB: Adam whose steps are as long as the parameters of their layer.

You, Li, Reddi, Hseu, Kumar, Bhojanapalli, Song, Demmel, Keutzer and Hsieh, "Large Batch
Optimization for Deep Learning: Training BERT in 76 minutes", ICLR 2020, algorithm 2.
https://arxiv.org/abs/1904.00962

The function phi of the paper is the identity, and where a norm is 0 the ratio is 1, as in optax.
The decay is part of the direction.
"""

import numpy as np


def lamb(
    x, gradients, learning_rate, *, b1=0.9, b2=0.999, eps=1e-6, eps_root=0.0, weight_decay=0.0
):
    mu = np.zeros_like(x)
    nu = np.zeros_like(x)
    for step, g in enumerate(gradients):
        rate = learning_rate(step) if callable(learning_rate) else learning_rate
        t = step + 1
        mu = b1 * mu + (1 - b1) * g
        nu = b2 * nu + (1 - b2) * g**2
        u = mu / (1 - b1**t) / (np.sqrt(nu / (1 - b2**t) + eps_root) + eps) + weight_decay * x
        length, target = np.linalg.norm(u), np.linalg.norm(x)
        ratio = target / length if length > 0 and target > 0 else 1.0
        x = x - rate * ratio * u
        yield x
