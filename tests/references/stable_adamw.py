"""StableAdamW: AdamW whose rate is divided, leaf by leaf, as AdaFactor clips its updates.

Wortsman, Dettmers, Zettlemoyer, Morcos, Farhadi and Schmidt, "Stable and low-precision training for
large-scale vision-language models", NeurIPS 2023, algorithm 2. https://arxiv.org/abs/2304.13013

The paper has no threshold, or one of 1; the authors' code has the threshold.
"""

import numpy as np


def stable_adamw(
    x,
    gradients,
    learning_rate,
    *,
    b1=0.9,
    b2=0.99,
    eps=1e-8,
    clipping_threshold=1.0,
    weight_decay=0.01,
):
    v = np.zeros_like(x)
    u = np.zeros_like(x)
    for step, g in enumerate(gradients):
        rate = learning_rate(step) if callable(learning_rate) else learning_rate
        t = step + 1
        b1_hat = b1 * (1 - b1 ** (t - 1)) / (1 - b1**t)
        b2_hat = b2 * (1 - b2 ** (t - 1)) / (1 - b2**t)
        v = b1_hat * v + (1 - b1_hat) * g
        u = b2_hat * u + (1 - b2_hat) * g**2
        ratio = np.sqrt(np.mean(g**2 / np.maximum(u, eps**2)))
        rate = rate / max(1.0, ratio / clipping_threshold)
        x = x - rate * weight_decay * x - rate * v / (np.sqrt(u) + eps)
        yield x
