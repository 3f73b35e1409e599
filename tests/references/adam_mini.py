"""Adam-mini: Adam with one second moment for every block of parameters that belong together.

Zhang, Chen, Li, Ding, Wu, Kingma, Ye, Luo and Sun, "Adam-mini: Use Fewer Learning Rates To Gain
More", ICLR 2025, algorithm 1. https://arxiv.org/abs/2406.16793

A block is a list of flat indices here; `roles` says which, as in the package under test.
"""

import numpy as np


def adam_mini(
    x, gradients, learning_rate, *, b1=0.9, b2=0.999, eps=1e-8, roles=None, weight_decay=0.0
):
    shape = x.shape
    blocks = partition(roles("", shape) if roles else "tensor", shape)
    x = x.ravel()
    mu = np.zeros_like(x)
    nu = np.zeros(len(blocks))
    for step, g in enumerate(gradients):
        rate = learning_rate(step) if callable(learning_rate) else learning_rate
        t = step + 1
        flat = g.ravel()
        mu = b1 * mu + (1 - b1) * flat
        direction = np.zeros_like(x)
        for k, block in enumerate(blocks):
            nu[k] = b2 * nu[k] + (1 - b2) * np.mean(flat[block] ** 2)
            root = np.sqrt(nu[k] / (1 - b2**t))
            direction[block] = mu[block] / (1 - b1**t) / (root + eps)
        x = x - rate * (direction + weight_decay * x)
        yield x.reshape(shape)


def partition(role, shape):
    """The blocks: flat indices, gathered by what they have in common."""
    kind, _, number = role.partition(":")
    blocks = {}
    for flat, index in enumerate(np.ndindex(*shape)):
        common = {
            "adam": index,
            "tensor": (),
            "rows": index[: int(number or 1)],
            "neurons": index[-int(number or 1) :],
            "row_heads": index[:1] and index[0] // max(1, shape[0] // int(number or 1)),
            "heads": index[-1] // (shape[-1] // int(number or 1)) if number else index[1:2],
        }[kind]
        blocks.setdefault(common, []).append(flat)
    return list(blocks.values())
