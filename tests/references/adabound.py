"""AdaBound and AMSBound: rates of single coordinates, clipped into a band that closes.

Luo, Xiong, Liu and Sun, "Adaptive Gradient Methods with Dynamic Bound of Learning Rate", ICLR 2019,
algorithms 2 and 3. https://openreview.net/forum?id=Bkg3g2R9FX

These follow the authors' published code (https://github.com/Luolc/AdaBound), which everyone uses,
not the listing: it corrects the bias, has an eps, and does not divide by the root of the step. A
schedule scales the band too, by the rate over `base_lr`, the rate at step 0 unless given.
"""

import numpy as np


def adabound(
    x,
    gradients,
    learning_rate=1e-3,
    *,
    b1=0.9,
    b2=0.999,
    final_lr=0.1,
    gamma=1e-3,
    eps=1e-8,
    base_lr=None,
    weight_decay=0.0,
):
    mu = np.zeros_like(x)
    nu = np.zeros_like(x)
    for step, g in enumerate(gradients):
        rate = learning_rate(step) if callable(learning_rate) else learning_rate
        if base_lr is None:
            base_lr = rate
        t = step + 1
        mu = b1 * mu + (1 - b1) * g
        nu = b2 * nu + (1 - b2) * g**2
        final = final_lr * rate / base_lr
        lower = final * (1 - 1 / (gamma * t + 1))
        upper = final * (1 + 1 / (gamma * t))
        corrected = rate * np.sqrt(1 - b2**t) / (1 - b1**t)
        rates = np.clip(corrected / (np.sqrt(nu) + eps), lower, upper)
        x = x - (rates * mu + rate * weight_decay * x)
        yield x


def amsbound(
    x,
    gradients,
    learning_rate=1e-3,
    *,
    b1=0.9,
    b2=0.999,
    final_lr=0.1,
    gamma=1e-3,
    eps=1e-8,
    base_lr=None,
    weight_decay=0.0,
):
    mu = np.zeros_like(x)
    nu = np.zeros_like(x)
    nu_max = np.zeros_like(x)
    for step, g in enumerate(gradients):
        rate = learning_rate(step) if callable(learning_rate) else learning_rate
        if base_lr is None:
            base_lr = rate
        t = step + 1
        mu = b1 * mu + (1 - b1) * g
        nu = b2 * nu + (1 - b2) * g**2
        nu_max = np.maximum(nu_max, nu)
        final = final_lr * rate / base_lr
        lower = final * (1 - 1 / (gamma * t + 1))
        upper = final * (1 + 1 / (gamma * t))
        corrected = rate * np.sqrt(1 - b2**t) / (1 - b1**t)
        rates = np.clip(corrected / (np.sqrt(nu_max) + eps), lower, upper)
        x = x - (rates * mu + rate * weight_decay * x)
        yield x
