"""Defazio and Mishchenko, "Learning-Rate-Free Learning by D-Adaptation", ICML 2023.

SGD, AdaGrad and Adam with D-Adaptation, as in the authors' package.
"""

import numpy as np


def dadapt_sgd(
    x,
    gradients,
    learning_rate=1.0,
    momentum=0.0,
    d0=1e-6,
    growth_rate=np.inf,
    weight_decay=0.0,
):
    # With x0 - s the iterate of dual averaging, m is (1 - momentum) (x - x0 + s): what is missing.
    s, m, d, r, g0 = np.zeros_like(x), np.zeros_like(x), d0, 0.0, 0.0
    for step, g in enumerate(gradients):
        gamma = learning_rate(step) if callable(learning_rate) else learning_rate
        g0 = g0 or np.linalg.norm(g)
        if g0 > 0:
            weight = d * gamma / g0
            r = r + weight * np.vdot(g, s)
            s = s + weight * g
            m = momentum * m + (1 - momentum) * weight * g
            x = x - m - weight * weight_decay * x
            if gamma > 0:
                d = max(d, min(2 * r / np.linalg.norm(s), d * growth_rate))
        yield x


def dadapt_adagrad(
    x,
    gradients,
    learning_rate=1.0,
    momentum=0.0,
    eps=1e-6,
    d0=1e-6,
    growth_rate=np.inf,
    weight_decay=0.0,
):
    x0, s, alpha, d, own = x, np.zeros_like(x), np.full_like(x, 1e-6), d0, 0.0
    for step, g in enumerate(gradients):
        gamma = learning_rate(step) if callable(learning_rate) else learning_rate
        h = g + weight_decay * x
        s = s + d * gamma * h
        alpha = alpha + h**2
        a = np.sqrt(alpha) + eps
        if np.sum(np.abs(s)) > 0:
            own = own + (d * gamma) ** 2 * np.sum(h**2 / a)
            if gamma > 0:
                d_hat = (np.sum(s**2 / a) - own) / np.sum(np.abs(s))
                d = max(d, min(d_hat, d * growth_rate))
            x = momentum * x + (1 - momentum) * (x0 - s / a)
        yield x


def dadapt_adam(
    x,
    gradients,
    learning_rate=1.0,
    b1=0.9,
    b2=0.999,
    eps=1e-8,
    d0=1e-6,
    growth_rate=np.inf,
    use_bias_correction=False,
    weight_decay=0.0,
):
    m, v, s = np.zeros_like(x), np.zeros_like(x), np.zeros_like(x)
    d, r, t, root = d0, 0.0, 1, np.sqrt(b2)
    for step, g in enumerate(gradients):
        gamma = learning_rate(step) if callable(learning_rate) else learning_rate
        if use_bias_correction:
            gamma = gamma * np.sqrt(1 - b2**t) / (1 - b1**t)
        if (gamma > 0 and np.any(g)) or np.any(s):
            r = root * r + (1 - root) * d * gamma * np.vdot(g, s / (np.sqrt(v) + eps))
            m = b1 * m + (1 - b1) * d * gamma * g
            v = b2 * v + (1 - b2) * g**2
            s = root * s + (1 - root) * d * gamma * g
            x = x - d * gamma * weight_decay * x - m / (np.sqrt(v) + eps)
            d_hat = r / ((1 - root) * np.sum(np.abs(s)))
            if gamma > 0:
                d = max(d, min(d_hat, d * growth_rate))
            t += 1
        yield x
