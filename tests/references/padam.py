"""Padam: AMSGrad with a smaller power of the second moment.

Chen, Zhou, Tang, Yang, Cao and Gu, "Closing the Generalization Gap of Adaptive Gradient Methods in
Training Deep Neural Networks", IJCAI 2020, algorithm 1. https://arxiv.org/abs/1806.06763

With the bias corrections and the eps of the authors' code.
"""

import numpy as np


def padam(
    x, gradients, learning_rate, *, b1=0.9, b2=0.999, partial=0.125, eps=1e-8, weight_decay=0.0
):
    mu = np.zeros_like(x)
    nu = np.zeros_like(x)
    largest = np.zeros_like(x)
    for step, g in enumerate(gradients):
        rate = learning_rate(step) if callable(learning_rate) else learning_rate
        t = step + 1
        mu = b1 * mu + (1 - b1) * g
        nu = b2 * nu + (1 - b2) * g**2
        largest = np.maximum(largest, nu)
        power = ((np.sqrt(largest) + eps) ** 2) ** partial
        direction = mu / (1 - b1**t) * np.sqrt(1 - b2**t) / power
        x = x - rate * (direction + weight_decay * x)
        yield x
