"""Adafactor: RMSprop that keeps of a matrix of squares only the sums of its rows and columns.

Shazeer and Stern, "Adafactor: Adaptive Learning Rates with Sublinear Memory Cost", ICML 2018,
algorithms 4 and 5. https://arxiv.org/abs/1804.04235

As in optax the two largest axes are the matrix, the learning rate is given and not that of the
paper's schedule, and the momentum is one of steps. The offset makes no step number less than 1.
"""

import numpy as np


def adafactor(
    x,
    gradients,
    learning_rate,
    *,
    min_dim_size_to_factor=128,
    decay_rate=0.8,
    decay_offset=0,
    multiply_by_parameter_scale=True,
    clipping_threshold=1.0,
    momentum=None,
    eps=1e-30,
    factored=True,
    weight_decay=0.0,
):
    order = np.argsort(x.shape, kind="stable")
    matrix = factored and x.ndim > 1 and x.shape[order[-2]] >= min_dim_size_to_factor
    v = rows = columns = velocity = 0.0
    for step, g in enumerate(gradients):
        rate = learning_rate(step) if callable(learning_rate) else learning_rate
        beta = 1 - max(step + 1 - decay_offset, 1) ** -float(decay_rate)
        square = g**2 + eps
        if matrix:
            square = np.moveaxis(square, order[-2:], (-2, -1))
            rows = beta * rows + (1 - beta) * square.sum(-1)
            columns = beta * columns + (1 - beta) * square.sum(-2)
            v = np.einsum("...i,...j->...ij", rows, columns) / rows.sum(-1)[..., None, None]
            v = np.moveaxis(v, (-2, -1), order[-2:])
        else:
            v = beta * v + (1 - beta) * square
        u = g / np.sqrt(v)
        if clipping_threshold is not None:
            u = u / max(1.0, root_mean_square(u) / clipping_threshold)
        size = max(1e-3, root_mean_square(x)) if multiply_by_parameter_scale else 1.0
        velocity = (
            rate * size * u
            if momentum is None
            else momentum * velocity + (1 - momentum) * rate * size * u
        )
        x = x - velocity - rate * weight_decay * x
        yield x


def root_mean_square(x):
    return np.sqrt(np.mean(x**2))
