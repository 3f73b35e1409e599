"""AdEMAMix.

Pagliardini, Ablin and Grangier, "The AdEMAMix Optimizer: Better, Faster, Older", ICLR 2025,
algorithm 1. https://arxiv.org/abs/2409.03137

As in optax there is an eps_root, and the schedules of b3 and alpha count steps from 0, where the
paper counts them from 1.
"""

import numpy as np


def ademamix(
    x,
    gradients,
    learning_rate,
    *,
    b1=0.9,
    b2=0.999,
    b3=0.9999,
    alpha=5.0,
    eps=1e-8,
    eps_root=0.0,
    weight_decay=0.0,
):
    fast = np.zeros_like(x)
    slow = np.zeros_like(x)
    nu = np.zeros_like(x)
    for step, g in enumerate(gradients):
        rate = learning_rate(step) if callable(learning_rate) else learning_rate
        beta3 = b3(step) if callable(b3) else b3
        mix = alpha(step) if callable(alpha) else alpha
        t = step + 1
        fast = b1 * fast + (1 - b1) * g
        slow = beta3 * slow + (1 - beta3) * g
        nu = b2 * nu + (1 - b2) * g**2
        fast_hat = fast / (1 - b1**t)
        nu_hat = nu / (1 - b2**t)
        direction = (fast_hat + mix * slow) / (np.sqrt(nu_hat + eps_root) + eps)
        x = x - rate * (direction + weight_decay * x)
        yield x
