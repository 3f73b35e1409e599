"""Lion: steps of one size, their signs those of a mean of the gradients.

Chen, Liang, Huang, Real, Wang, Pham, Dong, Luong, Hsieh, Lu and Le, "Symbolic Discovery of
Optimization Algorithms", NeurIPS 2023, algorithm 2. https://arxiv.org/abs/2302.06675
"""

import numpy as np


def lion(x, gradients, learning_rate, *, b1=0.9, b2=0.99, weight_decay=1e-3):
    mu = np.zeros_like(x)
    for step, g in enumerate(gradients):
        rate = learning_rate(step) if callable(learning_rate) else learning_rate
        direction = np.sign(b1 * mu + (1 - b1) * g)
        mu = b2 * mu + (1 - b2) * g
        x = x - rate * (direction + weight_decay * x)
        yield x
