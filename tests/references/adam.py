"""Adam, with Nesterov momentum too.

Kingma and Ba, "Adam: A Method for Stochastic Optimization", ICLR 2015, algorithm 1.
https://arxiv.org/abs/1412.6980
Decoupled weight decay: Loshchilov and Hutter, "Decoupled Weight Decay Regularization", ICLR 2019.
https://arxiv.org/abs/1711.05101

`eps_hat`: the last lines of its section 2, where the rate takes the corrections.
"""

import numpy as np


def adam(
    x,
    gradients,
    learning_rate,
    *,
    b1=0.9,
    b2=0.999,
    eps=1e-8,
    eps_root=0.0,
    nesterov=False,
    eps_hat=False,
    weight_decay=0.0,
):
    mu = np.zeros_like(x)
    nu = np.zeros_like(x)
    for step, g in enumerate(gradients):
        rate = learning_rate(step) if callable(learning_rate) else learning_rate
        t = step + 1
        mu = b1 * mu + (1 - b1) * g
        nu = b2 * nu + (1 - b2) * g**2
        if nesterov:
            mu_hat = b1 * mu / (1 - b1 ** (t + 1)) + (1 - b1) * g / (1 - b1**t)
        else:
            mu_hat = mu / (1 - b1**t)
        if eps_hat:
            correction = np.sqrt(1 - b2**t)
            direction = correction * mu_hat / (np.sqrt(nu + correction**2 * eps_root) + eps)
        else:
            nu_hat = nu / (1 - b2**t)
            direction = mu_hat / (np.sqrt(nu_hat + eps_root) + eps)
        x = x - rate * (direction + weight_decay * x)
        yield x
