"""AdaBelief: Adam whose steps are long where the gradient is what its mean foretold.

Zhuang, Tang, Ding, Tatikonda, Dvornek, Papademetris and Duncan, "AdaBelief Optimizer: Adapting
Stepsizes by the Belief in Observed Gradients", NeurIPS 2020, algorithm 2.
https://arxiv.org/abs/2010.07468

As in optax the eps within the recurrence and the one beside the root are two numbers, and the mean
may look ahead as NAdam's does.
"""

import numpy as np


def adabelief(
    x,
    gradients,
    learning_rate,
    *,
    b1=0.9,
    b2=0.999,
    eps=1e-16,
    eps_root=1e-16,
    nesterov=False,
    weight_decay=0.0,
):
    mean = np.zeros_like(x)
    distance = np.zeros_like(x)
    for step, g in enumerate(gradients):
        rate = learning_rate(step) if callable(learning_rate) else learning_rate
        t = step + 1
        mean = b1 * mean + (1 - b1) * g
        distance = b2 * distance + (1 - b2) * (g - mean) ** 2 + eps_root
        if nesterov:
            mean_hat = b1 * mean / (1 - b1 ** (t + 1)) + (1 - b1) * g / (1 - b1**t)
        else:
            mean_hat = mean / (1 - b1**t)
        direction = mean_hat / (np.sqrt(distance / (1 - b2**t)) + eps)
        x = x - rate * (direction + weight_decay * x)
        yield x
