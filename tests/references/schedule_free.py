"""Defazio, Yang, Mehta, Mishchenko, Khaled and Cutkosky, "The Road Less Scheduled", 2024.

Algorithm 1, with the weights of the authors' code: t^r times a power of the largest rate so far.
x is the average, z the iterate, y, which is yielded, where the gradient is taken.
"""

import numpy as np


def schedule_free(
    y,
    gradients,
    step_of,
    learning_rate,
    b1=0.9,
    warmup_steps=None,
    weight_decay=0.0,
    weight_lr_power=2.0,
    r=0.0,
    averages=None,
):
    """`step_of(g, t)` is the direction at step t and a factor of the rate."""
    x, z, total, largest = y, y, 0.0, 0.0
    for step, g in enumerate(gradients):
        t = step + 1
        rate = learning_rate(step) if callable(learning_rate) else learning_rate
        rate = rate * min(1.0, t / warmup_steps) if warmup_steps else rate
        u, factor = step_of(g, t)
        rate = rate * factor
        z = z - rate * (u + weight_decay * y)
        largest = max(largest, rate)
        weight = t**r * largest**weight_lr_power
        total += weight
        x = x + (weight / total if total else 0.0) * (z - x)
        y = (1 - b1) * z + b1 * x
        if averages is not None:
            averages.append(x)
        yield y


def schedule_free_sgd(y, gradients, learning_rate=1.0, **options):
    yield from schedule_free(y, gradients, lambda g, t: (g, 1.0), learning_rate, **options)


def schedule_free_adamw(y, gradients, learning_rate=0.0025, b2=0.999, eps=1e-8, **options):
    v = np.zeros_like(y)

    def step_of(g, t):
        nonlocal v
        v = b2 * v + (1 - b2) * g**2
        return g / (np.sqrt(v / (1 - b2**t)) + eps), 1.0

    yield from schedule_free(y, gradients, step_of, learning_rate, **options)


def schedule_free_radam(
    y, gradients, learning_rate=0.0025, b2=0.999, eps=1e-8, silent_sgd_phase=True, **options
):
    v = np.zeros_like(y)
    rho_inf = 2 / (1 - b2) - 1

    def step_of(g, t):
        nonlocal v
        v = b2 * v + (1 - b2) * g**2
        rho = rho_inf - 2 * t * b2**t / (1 - b2**t)
        if rho <= 4:
            return g, float(not silent_sgd_phase)
        top = (rho - 4) * (rho - 2) * rho_inf
        rectifier = np.sqrt(top / ((rho_inf - 4) * (rho_inf - 2) * rho))
        return g / (np.sqrt(v / (1 - b2**t)) + eps), rectifier

    yield from schedule_free(y, gradients, step_of, learning_rate, **options)
