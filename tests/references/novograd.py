"""NovoGrad: momentum of gradients that are divided by the norm of their layer.

Ginsburg, Castonguay, Hrinchuk, Kuchaiev, Lavrukhin, Leary, Li, Nguyen, Zhang and Cohen, "Stochastic
Gradient Methods with Layer-wise Adaptive Moments for Training of Deep Networks", arXiv 2019,
algorithm 1. https://arxiv.org/abs/1905.11286

The decay is part of the momentum.
"""

import numpy as np


def novograd(
    x, gradients, learning_rate, *, b1=0.9, b2=0.25, eps=1e-6, eps_root=0.0, weight_decay=0.0
):
    m = v = None
    for step, g in enumerate(gradients):
        rate = learning_rate(step) if callable(learning_rate) else learning_rate
        square = np.linalg.norm(g.ravel()) ** 2
        v = square if v is None else b2 * v + (1 - b2) * square
        term = g / (np.sqrt(v + eps_root) + eps) + weight_decay * x
        m = term if m is None else b1 * m + term
        x = x - rate * m
        yield x
