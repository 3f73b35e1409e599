"""AdaGrad with diagonal matrices.

Duchi, Hazan and Singer, "Adaptive Subgradient Methods for Online Learning and Stochastic
Optimization", Journal of Machine Learning Research 12, 2011, pages 2121-2159.
https://jmlr.org/papers/v12/duchi11a.html

As in optax: eps is inside the root (the paper's delta is outside: `eps_in_sqrt=False`), the sum
starts above zero, and a coordinate that has seen nothing does not move, even with eps = 0.
"""

import numpy as np


def adagrad(
    x,
    gradients,
    learning_rate,
    *,
    initial_accumulator_value=0.1,
    eps=1e-7,
    eps_in_sqrt=True,
    weight_decay=0.0,
):
    sum_sq = np.full_like(x, initial_accumulator_value)
    for step, g in enumerate(gradients):
        rate = learning_rate(step) if callable(learning_rate) else learning_rate
        sum_sq = sum_sq + g**2
        seen = sum_sq > 0
        denominator = np.sqrt(sum_sq + eps) if eps_in_sqrt else np.sqrt(sum_sq) + eps
        direction = np.where(seen, g / np.where(seen, denominator, 1.0), 0.0)
        x = x - rate * (direction + weight_decay * x)
        yield x
