"""AMSGrad.

Reddi, Kale and Kumar, "On the Convergence of Adam and Beyond", ICLR 2018, algorithm 2.
https://openreview.net/forum?id=ryQu7f-RZ

The paper corrects no bias: both flags False. Otherwise the maximum runs over the raw second moment
and is corrected afterwards, as torch, Keras and TensorFlow do. optax takes the maximum of the
corrected second moment, where the inflated first steps can win for ever. `eps_hat` adds eps to
the root of the raw one.
"""

import numpy as np


def amsgrad(
    x,
    gradients,
    learning_rate,
    *,
    b1=0.9,
    b2=0.999,
    eps=1e-8,
    eps_root=0.0,
    bias_correction_mu=True,
    bias_correction_nu=True,
    eps_hat=False,
    weight_decay=0.0,
):
    mu = np.zeros_like(x)
    nu = np.zeros_like(x)
    nu_max = np.zeros_like(x)
    for step, g in enumerate(gradients):
        rate = learning_rate(step) if callable(learning_rate) else learning_rate
        t = step + 1
        mu = b1 * mu + (1 - b1) * g
        nu = b2 * nu + (1 - b2) * g**2
        nu_max = np.maximum(nu_max, nu)
        mu_hat = mu / (1 - b1**t) if bias_correction_mu else mu
        correction = np.sqrt(1 - b2**t) if bias_correction_nu else 1.0
        root = np.sqrt(nu_max / correction**2 + eps_root)
        direction = mu_hat / (root + (eps / correction if eps_hat else eps))
        x = x - rate * (direction + weight_decay * x)
        yield x
