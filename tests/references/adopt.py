"""ADOPT.

Taniguchi, Harada, Minegishi, Oshima, Jeong, Nagahara, Iiyama, Suzuki, Iwasawa and Matsuo, "ADOPT:
Modified Adam Can Converge with Any β2 with the Optimal Rate", NeurIPS 2024.
https://arxiv.org/abs/2411.02853

The first gradient only starts the second moment. Nesterov's momentum is optax's addition: the mean
is moved once more towards the same scaled gradient.
"""

import numpy as np


def adopt(
    x,
    gradients,
    learning_rate,
    *,
    b1=0.9,
    b2=0.9999,
    eps=1e-6,
    nesterov=False,
    use_clipping=True,
    clip_value_fn=lambda t: t**0.25,
    weight_decay=0.0,
):
    mu = np.zeros_like(x)
    nu = None
    for t, g in enumerate(gradients):
        rate = learning_rate(t) if callable(learning_rate) else learning_rate
        direction = np.zeros_like(x)
        if nu is None:
            nu = g**2
        else:
            normed = g / np.maximum(np.sqrt(nu), eps)
            if use_clipping:
                c = clip_value_fn(t) if callable(clip_value_fn) else clip_value_fn
                normed = np.minimum(np.maximum(normed, -c), c)
            mu = b1 * mu + (1 - b1) * normed
            direction = b1 * mu + (1 - b1) * normed if nesterov else mu
            nu = b2 * nu + (1 - b2) * g**2
        x = x - rate * (direction + weight_decay * x)
        yield x
