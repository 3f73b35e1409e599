"""AdamP: Adam that does not lengthen weights whose length has no effect.

Heo, Chun, Oh, Han, Yun, Kim, Uh and Ha, "AdamP: Slowing Down the Slowdown for Momentum Optimizers
on Scale-invariant Weights", ICLR 2021, algorithm 2. https://arxiv.org/abs/2006.08217

As in the authors' code the neurons are tried first and the whole array after them, arrays of one
axis are left alone, and the lookahead of Nesterov's momentum is divided by 1 - b1^t.
"""

import numpy as np


def adamp(
    x,
    gradients,
    learning_rate,
    *,
    b1=0.9,
    b2=0.999,
    eps=1e-8,
    delta=0.1,
    wd_ratio=0.1,
    nesterov=False,
    outputs_last=True,
    weight_decay=0.0,
    visits=None,
):
    """`visits`, where given, is a list that takes the kind of every step."""
    mu = np.zeros_like(x)
    nu = np.zeros_like(x)
    for step, g in enumerate(gradients):
        rate = learning_rate(step) if callable(learning_rate) else learning_rate
        t = step + 1
        mu = b1 * mu + (1 - b1) * g
        nu = b2 * nu + (1 - b2) * g**2
        u = b1 * mu + (1 - b1) * g if nesterov else mu
        u = u / (1 - b1**t) / (np.sqrt(nu) / np.sqrt(1 - b2**t) + eps)
        ratio, kind = 1.0, "free"
        if x.ndim > 1:
            for view in ("neurons", "layer"):
                rows = [_rows(a, view, outputs_last) for a in (g, x, u)]
                if max(_cosines(rows[0], rows[1], eps)) < delta / np.sqrt(rows[0].shape[1]):
                    u = _unrows(_tangent(rows[1], rows[2], eps), x, view, outputs_last)
                    ratio, kind = wd_ratio, view
                    break
        if visits is not None:
            visits.append(kind)
        x = x - rate * (u + weight_decay * ratio * x)
        yield x


def _rows(a, view, outputs_last):
    """A matrix with a neuron, or everything, in each row."""
    if view == "layer":
        return a.reshape(1, -1)
    first = np.moveaxis(a, -1, 0) if outputs_last else a
    return first.reshape(first.shape[0], -1)


def _unrows(rows, x, view, outputs_last):
    if view == "layer":
        return rows.reshape(x.shape)
    if not outputs_last:
        return rows.reshape(x.shape)
    return np.moveaxis(rows.reshape(x.shape[-1], *x.shape[:-1]), 0, -1)


def _cosines(a, b, eps):
    for p, q in zip(a, b, strict=True):
        yield abs(p @ q) / (max(np.linalg.norm(p), eps) * max(np.linalg.norm(q), eps))


def _tangent(x, u, eps):
    unit = x / (np.linalg.norm(x, axis=1, keepdims=True) + eps)
    return u - unit * (unit * u).sum(axis=1, keepdims=True)
