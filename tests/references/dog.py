"""Ivgi, Hinder and Carmon, "DoG is SGD's Best Friend: A Parameter-Free Dynamic Step Size Schedule".

ICML 2023, equation 1 with the first distance of section 4: for the whole of x, which is one leaf.
LDoG is the same in every leaf.
"""

import numpy as np


def dog(
    x,
    gradients,
    learning_rate=1.0,
    reps_rel=1e-6,
    init_eta=None,
    eps=1e-8,
    weight_decay=0.0,
):
    path, size = [], eps
    for step, g in enumerate(gradients):
        gamma = learning_rate(step) if callable(learning_rate) else learning_rate
        if np.any(g) or path:
            size = size + np.linalg.norm(g) ** 2
            path.append(x)
            r = max(np.linalg.norm(y - path[0]) for y in path)
            if init_eta is None:
                r = max(r, reps_rel * (1 + np.linalg.norm(path[0])))
            eta = init_eta if init_eta and len(path) == 1 else gamma * r / np.sqrt(size)
            x = x - eta * (g + weight_decay * x)
        yield x


ldog = dog
