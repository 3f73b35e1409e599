"""Schaipp, Ohana, Eickenberg, Defazio and Gower, "MoMo: Momentum Models for Adaptive Learning
Rates", 2024.

Both methods, their estimates of the lower bound, and their proximal weight decay.
"""

import numpy as np


def momo(
    x,
    gradients,
    values,
    learning_rate=1.0,
    beta=0.9,
    lower_bound=0.0,
    weight_decay=0.0,
    adapt_lower_bound=False,
    bias_correction=False,
):
    """The means are weighted sums over the whole past."""
    past = []
    low = lower_bound
    for step, (g, f) in enumerate(zip(gradients, values, strict=True)):
        alpha = learning_rate(step) if callable(learning_rate) else learning_rate
        past.append((f, g, np.sum(g * x)))
        weights = (1 - beta) * beta ** np.arange(step, -1.0, -1.0)
        if not bias_correction:
            weights[0] = beta**step
        f_mean, d, gamma = (
            sum(w * part for w, part in zip(weights, column, strict=True))
            for column in zip(*past, strict=True)
        )
        scale = np.ones_like(x)
        x, low = _step(
            x, d, scale, f_mean, gamma, np.sum(weights), low, alpha, weight_decay,
            lower_bound if adapt_lower_bound else None,
        )  # fmt: skip
        yield x


def momo_adam(
    x,
    gradients,
    values,
    learning_rate=1e-2,
    b1=0.9,
    b2=0.999,
    eps=1e-8,
    lower_bound=0.0,
    weight_decay=0.0,
    adapt_lower_bound=False,
):
    f_mean, d, v, gamma = 0.0, np.zeros_like(x), np.zeros_like(x), 0.0
    low = lower_bound
    for step, (g, f) in enumerate(zip(gradients, values, strict=True)):
        alpha = learning_rate(step) if callable(learning_rate) else learning_rate
        f_mean = b1 * f_mean + (1 - b1) * f
        d = b1 * d + (1 - b1) * g
        v = b2 * v + (1 - b2) * g**2
        gamma = b1 * gamma + (1 - b1) * np.sum(g * x)
        scale = eps + np.sqrt(v / (1 - b2 ** (step + 1)))
        x, low = _step(
            x, d, scale, f_mean, gamma, 1 - b1 ** (step + 1), low, alpha, weight_decay,
            lower_bound if adapt_lower_bound else None,
        )  # fmt: skip
        yield x


def _step(x, d, scale, f_mean, gamma, rho, low, alpha, decay, floor):
    s = 1 + alpha * decay
    norm = np.sum(d**2 / scale)
    if floor is not None:
        cap = s * (f_mean - gamma) + np.sum(d * x)
        if cap < s * rho * low:
            low = max(cap / (2 * s * rho), floor)
    top = s * (f_mean - rho * low - gamma) + np.sum(d * x)
    tau = min(alpha / rho, max(top, 0) / norm)
    if floor is not None:
        low = max((f_mean + np.sum(d * x) - gamma - tau * norm / 2) / rho, floor)
    return (x - tau * d / scale) / s, low
