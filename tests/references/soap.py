"""SOAP: Adam in the coordinates in which Shampoo's matrices are diagonal.

Vyas, Morwani, Zhao, Kwun, Shapira, Brandfonbrener, Janson and Kakade, "SOAP: Improving and
Stabilizing Shampoo using Adam", ICLR 2025, algorithms 3 and 4. https://arxiv.org/abs/2409.11321

Like the authors' code: the first step only makes the bases, those are sorted by eigenvalue and the
second moment with them, and eps is added to the root of the uncorrected second moment. Unlike it
the first step decays the weights, too.
"""

import numpy as np


def soap(
    x,
    gradients,
    learning_rate,
    *,
    b1=0.95,
    b2=0.95,
    shampoo_beta=None,
    eps=1e-8,
    precondition_frequency=10,
    max_precond_dim=10000,
    merge_dims=False,
    precondition_1d=False,
    normalize_grads=False,
    correct_bias=True,
    weight_decay=0.0,
):
    b3 = b2 if shampoo_beta is None else shampoo_beta
    shape = _merge(x.shape, max_precond_dim) if merge_dims and x.ndim > 1 else list(x.shape)
    axes = [i for i, n in enumerate(shape) if n <= max_precond_dim]
    if x.ndim == 1 and not precondition_1d:
        axes = []
    mean, mean_sq = np.zeros(shape), np.zeros(shape)
    matrices = {i: np.zeros((shape[i], shape[i])) for i in axes}
    bases = {}

    def project(array, back=False):
        for i in axes:
            basis = bases[i].T if back else bases[i]
            array = np.moveaxis(np.moveaxis(array, i, -1) @ basis, -1, i)
        return array

    for step, gradient in enumerate(gradients):
        rate = learning_rate(step) if callable(learning_rate) else learning_rate
        g = gradient.reshape(shape)
        u = np.zeros(shape)
        if step > 0:
            mean = b1 * mean + (1 - b1) * g
            mean_sq = b2 * mean_sq + (1 - b2) * project(g) ** 2
            u = project(project(mean) / (np.sqrt(mean_sq) + eps), back=True)
            if normalize_grads:
                u = u / np.sqrt(np.mean(u**2))
            if correct_bias:
                u = u * np.sqrt(1 - b2**step) / (1 - b1**step)
        x = x - rate * (u.reshape(x.shape) + weight_decay * x)
        yield x

        for i in axes:
            others = [k for k in range(len(shape)) if k != i]
            outer = np.tensordot(g, g, axes=(others, others))
            matrices[i] = b3 * matrices[i] + (1 - b3) * outer
            if step == 0:
                bases[i] = np.linalg.eigh(matrices[i])[1][:, ::-1]
            elif step % precondition_frequency == 0:
                estimates = np.diag(bases[i].T @ matrices[i] @ bases[i])
                order = np.argsort(-estimates)
                mean_sq = np.take(mean_sq, order, axis=i)
                bases[i] = np.linalg.qr(matrices[i] @ bases[i][:, order])[0]


def _merge(shape, limit):
    merged, current = [], 1
    for n in shape:
        if current * n > limit:
            if current > 1:
                merged.append(current)
                current = n
            else:
                merged.append(n)
                current = 1
        else:
            current = current * n
    if current > 1 or not merged:
        merged.append(current)
    return merged
