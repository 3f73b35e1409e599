"""Muon: hidden matrices step along the nearest orthogonal matrix, everything else by Adam.

Jordan, Jin, Boza, You, Cesista, Newhouse and Bernstein, "Muon: An optimizer for hidden layers in
neural networks", 2024. https://kellerjordan.github.io/posts/muon/
Liu et al., "Muon is Scalable for LLM Training", 2025. https://arxiv.org/abs/2502.16982

The iteration of the authors is a polynomial of the singular values, and here it is that: from the
singular value decomposition, without a product of matrices. As in optax the means are corrected,
and all that is no matrix steps by Adam, which looks ahead where Muon does.
"""

import numpy as np

from .adam import adam

DION = (
    (4.0848, -6.8946, 2.9270),
    (3.9505, -6.3029, 2.6377),
    (3.7418, -5.5913, 2.3037),
    (2.8769, -3.1427, 1.2046),
    (2.8366, -3.0525, 1.2012),
)


def muon(
    x,
    gradients,
    learning_rate,
    ns_coeffs=(3.4445, -4.7750, 2.0315),
    ns_steps=5,
    beta=0.95,
    eps=1e-8,
    *,
    nesterov=True,
    adaptive=False,
    preconditioning="frobenius",
    adam_b1=0.9,
    adam_b2=0.999,
    adam_eps_root=0.0,
    adam_weight_decay=0.0,
    adam_learning_rate=None,
    consistent_rms=None,
    roles=None,
    weight_decay=0.0,
):
    role = roles("", x.shape)
    if role == "adam":
        yield from adam(
            x,
            gradients,
            learning_rate if adam_learning_rate is None else adam_learning_rate,
            b1=adam_b1,
            b2=adam_b2,
            eps=eps,
            eps_root=adam_eps_root,
            nesterov=nesterov,
            weight_decay=adam_weight_decay,
        )
        return
    if ns_coeffs == "dion":
        ns_coeffs = DION
    threes = ns_coeffs if isinstance(ns_coeffs[0], tuple) else [ns_coeffs] * ns_steps
    mu = np.zeros_like(x)
    for step, g in enumerate(gradients):
        rate = learning_rate(step) if callable(learning_rate) else learning_rate
        t = step + 1
        mu = beta * mu + (1 - beta) * g
        if nesterov:
            m = beta * mu / (1 - beta ** (t + 1)) + (1 - beta) * g / (1 - beta**t)
        else:
            m = mu / (1 - beta**t)
        update = np.zeros_like(x)
        for where, fan_in_first in matrices(role, x.shape):
            matrix = m[where].reshape(fan_in_first)
            u = orthogonal(matrix, threes, preconditioning, eps)
            if adaptive:
                u = u * np.vdot(matrix, u)
            rows, columns = matrix.shape
            fan_in, fan_out = (columns, rows) if role == "transposed" else (rows, columns)
            if consistent_rms is None:
                u = u * np.sqrt(max(1, fan_out / fan_in))
            else:
                u = u * consistent_rms * np.sqrt(max(fan_in, fan_out))
            update[where] = u.reshape(m[where].shape)
        x = x - rate * (update + weight_decay * x)
        yield x


def matrices(role, shape):
    """Where the matrices of an array are, and the shape of each."""
    if role == "stack":
        return [(index, shape[-2:]) for index in np.ndindex(*shape[:-2])]
    if role == "conv":
        return [(..., (-1, shape[-1]))]
    return [(..., (shape[0], -1))]  # matrix, transposed, heads


def orthogonal(m, threes, preconditioning, eps):
    if m.shape[0] > m.shape[1]:
        return orthogonal(m.T, threes, preconditioning, eps).T
    s = np.linalg.svd(m, compute_uv=False)
    if preconditioning == "frobenius":
        m = m / (np.sqrt(np.sum(s**2)) + eps)
    elif preconditioning == "spectral":
        m = m / (s.max() + eps)
    elif preconditioning == "schatten":  # the norm of m m' is the root of the sum of s^4
        m = m / np.sqrt(max(np.sqrt(np.sum(s**4)), eps))
    else:
        rows = [sum(abs(np.dot(one, other)) for other in m) for one in m]
        m = np.array([one / np.sqrt(max(total, eps)) for one, total in zip(m, rows, strict=True)])
    u, s, v = np.linalg.svd(m, full_matrices=False)
    for a, b, c in threes:
        s = a * s + b * s**3 + c * s**5
    return u @ np.diag(s) @ v
