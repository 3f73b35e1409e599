"""SM3: AdaGrad that keeps of a matrix of sums only the largest of each row and each column.

Anil, Gupta, Koren and Singer, "Memory-Efficient Adaptive Optimization", NeurIPS 2019, algorithm
SM3-II. https://arxiv.org/abs/1901.11150

The sets of the cover are the slices along each axis. As in optax there is an eps under the root.
"""

import numpy as np


def sm3(x, gradients, learning_rate, *, momentum=0.9, eps=1e-8, weight_decay=0.0):
    bounds = [np.zeros(n) for n in x.shape]  # mu of the paper, of the sets in order
    mean = 0.0
    beta = 0.0 if momentum is None else momentum
    for step, g in enumerate(gradients):
        rate = learning_rate(step) if callable(learning_rate) else learning_rate
        new = [np.zeros(n) for n in x.shape]
        direction = np.zeros_like(x)
        for i in np.ndindex(x.shape):
            nu = min(bounds[axis][k] for axis, k in enumerate(i)) + g[i] ** 2
            direction[i] = g[i] / np.sqrt(nu + eps) if nu > 0 else 0.0
            for axis, k in enumerate(i):
                new[axis][k] = max(new[axis][k], nu)
        bounds = new
        mean = beta * mean + (1 - beta) * direction
        x = x - rate * (mean + weight_decay * x)
        yield x
