"""Mishchenko and Defazio, "Prodigy: An Expeditiously Adaptive Parameter-Free Learner", 2024.

Algorithm 4, with the options of the authors' package: correction of Adam's bias, a bound on the
growth of d, sums without the learning rate, sums over a part of the coordinates.
"""

import numpy as np


def prodigy(
    x,
    gradients,
    learning_rate=1.0,
    b1=0.9,
    b2=0.999,
    b3=None,
    eps=1e-8,
    d0=1e-6,
    d_coef=1.0,
    growth_rate=np.inf,
    use_bias_correction=False,
    safeguard_warmup=False,
    slice_p=None,
    weight_decay=0.0,
):
    b3 = np.sqrt(b2) if b3 is None else b3
    x0, d, d_max, r, t = x, d0, d0, 0.0, 0
    m, v, s = np.zeros_like(x), np.zeros_like(x), np.zeros_like(x.ravel()[::slice_p])
    for step, g in enumerate(gradients):
        gamma = learning_rate(step) if callable(learning_rate) else learning_rate
        if use_bias_correction:
            gamma = gamma * np.sqrt(1 - b2 ** (t + 1)) / (1 - b1 ** (t + 1))
        gs, xs, x0s = (z.ravel()[::slice_p] for z in (g, x, x0))
        r_next = b3 * r + d / d0 * d * gamma * np.dot(gs, x0s - xs)
        s_next = b3 * s + d / d0 * d * (1 if safeguard_warmup else gamma) * gs
        if np.sum(np.abs(s_next)) > 0:
            r, s, t = r_next, s_next, t + 1
            m = b1 * m + (1 - b1) * d * g
            v = b2 * v + (1 - b2) * d**2 * g**2
            d_hat, rate = d_coef * r / np.sum(np.abs(s)), d * gamma
            if d == d0:
                d = max(d, d_hat)
            d_max = max(d_max, d_hat)
            d = min(d_max, d * growth_rate)
            x = x - rate * (m / (np.sqrt(v) + d * eps) + weight_decay * x)
        yield x
