"""AdaMax, Adam with the infinity norm.

Kingma and Ba, "Adam: A Method for Stochastic Optimization", ICLR 2015, algorithm 2.
https://arxiv.org/abs/1412.6980

The paper has no eps. As in optax and torch it is added to |g| before the maximum; in Keras to nu in
the division: `eps_in_max=False`.
"""

import numpy as np


def adamax(
    x, gradients, learning_rate, *, b1=0.9, b2=0.999, eps=1e-8, eps_in_max=True, weight_decay=0.0
):
    mu = np.zeros_like(x)
    nu = np.zeros_like(x)
    for step, g in enumerate(gradients):
        rate = learning_rate(step) if callable(learning_rate) else learning_rate
        t = step + 1
        mu = b1 * mu + (1 - b1) * g
        if eps_in_max:
            nu = np.maximum(b2 * nu, np.abs(g) + eps)
            direction = mu / (1 - b1**t) / nu
        else:
            nu = np.maximum(b2 * nu, np.abs(g))
            direction = mu / (1 - b1**t) / (nu + eps)
        x = x - rate * (direction + weight_decay * x)
        yield x
