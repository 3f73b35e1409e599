"""AdaHessian: Adam whose second moment is of the Hessian's diagonal, not of the gradient.

Yao, Gholami, Shen, Mustafa, Keutzer and Mahoney, "ADAHESSIAN: An Adaptive Second Order Optimizer
for Machine Learning", AAAI 2021, algorithm 1. https://arxiv.org/abs/2006.00719

It is given the estimates of the diagonal, one per step. As in the authors' code their sizes are
averaged, where the paper averages the estimates, and eps is beside the root. Kernels have their
spatial axes first.
"""

import numpy as np


def adahessian(
    x,
    gradients,
    learning_rate,
    *,
    hessian_diagonals,
    b1=0.9,
    b2=0.999,
    eps=1e-4,
    hessian_power=1.0,
    averaged_axes=None,
    weight_decay=0.0,
):
    if averaged_axes is None:
        averaged_axes = {4: (0, 1)}
    m = np.zeros_like(x)
    v = np.zeros_like(x)
    for step, (g, diagonal) in enumerate(zip(gradients, hessian_diagonals, strict=True)):
        rate = learning_rate(step) if callable(learning_rate) else learning_rate
        t = step + 1
        block = np.abs(diagonal)
        for axis in averaged_axes.get(x.ndim, ()):
            block = np.repeat(block.mean(axis=axis, keepdims=True), x.shape[axis], axis=axis)
        m = b1 * m + (1 - b1) * g
        v = b2 * v + (1 - b2) * block**2
        v_hat = v / (1 - b2**t)
        direction = m / (1 - b1**t) / (v_hat ** (hessian_power / 2) + eps)
        x = x - rate * (direction + weight_decay * x)
        yield x
