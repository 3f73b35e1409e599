"""SWATS: Adam that becomes SGD, at a rate that it has found by itself.

Keskar and Socher, "Improving Generalization Performance by Switching from Adam to SGD", arXiv 2017,
algorithm 1. https://arxiv.org/abs/1712.07628

The steps p of the paper are those for a learning rate of 1, and the rates found are shares of it,
so that SGD follows the schedule. The tolerance is relative, and only a positive rate is taken.
"""

import numpy as np


def swats(
    x,
    gradients,
    learning_rate,
    *,
    b1=0.9,
    b2=0.999,
    eps=1e-9,
    tolerance=1e-6,
    weight_decay=0.0,
    visits=None,
):
    """`visits`, where given, is a list that takes the phase of every step."""
    m = np.zeros_like(x)
    a = np.zeros_like(x)
    average = 0.0
    v = np.zeros_like(x)
    phase, found = "Adam", 0.0
    for step, g in enumerate(gradients):
        alpha = learning_rate(step) if callable(learning_rate) else learning_rate
        k = step + 1
        if visits is not None:
            visits.append(phase)
        if phase == "SGD":
            v = b1 * v + g
            x = x - alpha * (found * (1 - b1) * v + weight_decay * x)
            yield x
            continue
        m = b1 * m + (1 - b1) * g
        a = b2 * a + (1 - b2) * g**2
        p = -np.sqrt(1 - b2**k) / (1 - b1**k) * m / (np.sqrt(a) + eps)
        x = x + alpha * (p - weight_decay * x)
        if np.sum(p * g) != 0:
            gamma = np.sum(p * p) / -np.sum(p * g)
            average = b2 * average + (1 - b2) * gamma
            corrected = average / (1 - b2**k)
            if k > 1 and corrected > 0 and abs(corrected - gamma) <= tolerance * abs(gamma):
                phase, found = "SGD", corrected
        yield x
