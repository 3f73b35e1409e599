"""NAdam.

Dozat, "Incorporating Nesterov Momentum into Adam", ICLR 2016 workshop, algorithm 2.
https://openreview.net/forum?id=OM0jvwB8jIp57ZJjtNEZ

As in torch, Keras and TensorFlow the first moment itself follows a constant b1, and there is no b2
before the second moment. Without `momentum_decay` b1 is constant everywhere, as in optax.
"""

import numpy as np


def nadam(
    x,
    gradients,
    learning_rate,
    *,
    b1=0.9,
    b2=0.999,
    eps=1e-8,
    eps_root=0.0,
    momentum_decay=None,
    weight_decay=0.0,
):
    def momentum(t):
        return b1 if momentum_decay is None else b1 * (1 - 0.5 * 0.96 ** (t * momentum_decay))

    m = np.zeros_like(x)
    n = np.zeros_like(x)
    product = 1.0
    for step, g in enumerate(gradients):
        rate = learning_rate(step) if callable(learning_rate) else learning_rate
        t = step + 1
        product = product * momentum(t)
        m = b1 * m + (1 - b1) * g
        n = b2 * n + (1 - b2) * g**2
        m_hat = momentum(t + 1) * m / (1 - product * momentum(t + 1))
        m_hat = m_hat + (1 - momentum(t)) * g / (1 - product)
        n_hat = n / (1 - b2**t)
        x = x - rate * (m_hat / (np.sqrt(n_hat + eps_root) + eps) + weight_decay * x)
        yield x
