"""RAdam, Adam with its first steps rectified.

Liu, Jiang, He, Chen, Liu, Gao and Han, "On the Variance of the Adaptive Learning Rate and Beyond",
ICLR 2020, algorithm 2. https://arxiv.org/abs/1908.03265

The paper rectifies from rho > 4 on; its authors' code, torch and optax from 5 on, hence
`threshold`. As in optax, eps is added after the bias correction; in torch before: `eps_hat`. The
paper has none.
"""

import numpy as np


def radam(
    x,
    gradients,
    learning_rate,
    *,
    b1=0.9,
    b2=0.999,
    eps=1e-8,
    eps_root=0.0,
    threshold=5.0,
    nesterov=False,
    eps_hat=False,
    weight_decay=0.0,
):
    mu = np.zeros_like(x)
    nu = np.zeros_like(x)
    rho_inf = 2 / (1 - b2) - 1
    for step, g in enumerate(gradients):
        rate = learning_rate(step) if callable(learning_rate) else learning_rate
        t = step + 1
        mu = b1 * mu + (1 - b1) * g
        nu = b2 * nu + (1 - b2) * g**2
        if nesterov:
            mu_hat = b1 * mu / (1 - b1 ** (t + 1)) + (1 - b1) * g / (1 - b1**t)
        else:
            mu_hat = mu / (1 - b1**t)
        rho = rho_inf - 2 * t * b2**t / (1 - b2**t)
        if rho >= threshold:
            r = np.sqrt((rho - 4) * (rho - 2) * rho_inf / ((rho_inf - 4) * (rho_inf - 2) * rho))
            correction = np.sqrt(1 - b2**t)
            root = np.sqrt(nu / correction**2 + eps_root)
            direction = r * mu_hat / (root + (eps / correction if eps_hat else eps))
        else:
            direction = mu_hat
        x = x - rate * (direction + weight_decay * x)
        yield x
