"""Shampoo: the gradient times an inverse root of a matrix of gradients, along every axis.

Gupta, Koren and Singer, "Shampoo: Preconditioned Stochastic Tensor Optimization", ICML 2018,
algorithm 2. https://arxiv.org/abs/1802.09568

In the paper the matrices start at eps I and alpha is 1/2. As in the authors' code momentum sums
gradients, and axes longer than `max_precond_dim` have diagonals, whose roots are always new. As in
later work the matrices may be means, corrected for their bias.
"""

import numpy as np


def shampoo(
    x,
    gradients,
    learning_rate,
    *,
    momentum=0.0,
    b2=None,
    eps=1e-4,
    alpha=0.5,
    precondition_frequency=1,
    max_precond_dim=768,
    weight_decay=0.0,
):
    k = x.ndim
    matrices = [np.zeros((n, n)) for n in x.shape]
    powers = [np.eye(n) for n in x.shape]
    total = np.zeros_like(x)
    for step, g in enumerate(gradients):
        rate = learning_rate(step) if callable(learning_rate) else learning_rate
        total = momentum * total + g
        direction = total
        for i, n in enumerate(x.shape):
            unfolded = np.moveaxis(g, i, 0).reshape(n, -1)
            square = unfolded @ unfolded.T
            if n > max_precond_dim:
                square = np.diag(np.diag(square))
            if b2 is None:
                matrices[i] = matrices[i] + square
                damped = matrices[i] + eps * np.eye(n)
            else:
                matrices[i] = b2 * matrices[i] + (1 - b2) * square
                damped = matrices[i] / (1 - b2 ** (step + 1)) + eps * np.eye(n)
            if step % precondition_frequency == 0 or n > max_precond_dim:
                values, vectors = np.linalg.eigh(damped)
                powers[i] = vectors @ np.diag(values ** (-alpha / k)) @ vectors.T
            direction = np.moveaxis(np.tensordot(powers[i], direction, axes=(1, i)), 0, i)
        x = x - rate * (direction + weight_decay * x)
        yield x
