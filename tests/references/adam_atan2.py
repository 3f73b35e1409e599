"""Adam-atan2, Adam with an arctangent in place of its quotient.

Everett, Xiao, Wortsman, Alemi, Novak, Liu, Gur, Sohl-Dickstein, Kaelbling, Lee and Pennington,
"Scaling Exponents Across Parameterizations and Optimizers", ICML 2024.
https://arxiv.org/abs/2407.05872

The factors a and b, and the default b2, are those of the package adam_atan2_pytorch.
"""

import numpy as np


def adam_atan2(x, gradients, learning_rate, *, b1=0.9, b2=0.99, a=1.27, b=1.0, weight_decay=0.0):
    mu = np.zeros_like(x)
    nu = np.zeros_like(x)
    for step, g in enumerate(gradients):
        rate = learning_rate(step) if callable(learning_rate) else learning_rate
        t = step + 1
        mu = b1 * mu + (1 - b1) * g
        nu = b2 * nu + (1 - b2) * g**2
        mu_hat = mu / (1 - b1**t)
        nu_hat = nu / (1 - b2**t)
        direction = a * np.arctan2(mu_hat, b * np.sqrt(nu_hat))
        x = x - rate * (direction + weight_decay * x)
        yield x
