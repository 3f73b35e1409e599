"""What wrappers do to gradients or with parameters, as NumPy loops over them.

Each takes an iterable of gradients and yields those that the wrapped optimizer is to be given, but
for `polynomial_averaging` and `exponential_averaging`, which take the parameters after each step
and yield their average.

MARS: Yuan, Liu, Wu, Zhou and Gu, "MARS: Unleashing the Power of Variance Reduction for Training
Large Models", 2024, algorithm 2. https://arxiv.org/abs/2411.10438
Grokfast: Lee, Kang, Kim and Lee, "Grokfast: Accelerated Grokking by Amplifying Slow Gradients",
2024, algorithms 1 and 2. https://arxiv.org/abs/2405.20233
Polynomial averaging: Shamir and Zhang, "Stochastic Gradient Descent for Non-smooth Optimization:
Convergence Results and Optimal Averaging Schemes", ICML 2013. https://arxiv.org/abs/1212.1824
Exponential averaging: Morales-Brotons, Vogels and Hendrikx, "Exponential Moving Average of Weights
in Deep Learning: Dynamics and Benefits", TMLR 2024. https://arxiv.org/abs/2411.18704
"""

import numpy as np


def mars(gradients, *, gamma=0.025, b1=0.95, max_norm=1.0):
    last = None
    for g in gradients:
        c = g if last is None else g + gamma * b1 / (1 - b1) * (g - last)
        length = np.linalg.norm(c)
        yield c * max_norm / length if length > max_norm else c
        last = g


def grokfast(gradients, *, alpha=0.98, lamb=2.0):
    mean = None
    for g in gradients:
        mean = g if mean is None else alpha * mean + (1 - alpha) * g
        yield g + lamb * mean


def grokfast_ma(gradients, *, window=100, lamb=5.0, warmup=True):
    seen = []
    for g in gradients:
        seen = [*seen, g][-window:]
        full = len(seen) == window
        yield g + lamb * np.mean(seen, axis=0) if full or not warmup else g


def polynomial_averaging(path, *, gamma=8.0):
    average = None
    for t, x in enumerate(path, start=1):
        share = (1 + gamma) / (t + gamma)
        average = x if average is None else (1 - share) * average + share * x
        yield average


def exponential_averaging(path, *, decay=0.99, start=1):
    average = None
    for t, x in enumerate(path, start=1):
        average = x if t <= start else decay * average + (1 - decay) * x
        yield average


def accumulate(gradients, *, every):
    gathered = []
    for g in gradients:
        gathered.append(g)
        if len(gathered) == every:
            yield np.mean(gathered, axis=0)
            gathered = []


def guard(gradients, *, skip_above=None, clip_above=None, decay=0.99, warmup=100):
    """What becomes of each gradient: the one that is given on, None where the step is skipped."""
    usual_sum, finite = 0.0, 0
    for g in gradients:
        if not np.all(np.isfinite(g)):
            yield None
            continue
        norm, entering, given = float(np.sqrt(np.sum(g**2))), None, g
        if finite >= warmup and usual_sum > 0:
            usual = usual_sum / (1 - decay**finite)
            if clip_above is not None and norm > clip_above * usual:
                entering, given = clip_above * usual, g * (clip_above * usual / norm)
            if skip_above is not None and norm > skip_above * usual:
                entering, given = entering or skip_above * usual, None
        usual_sum = decay * usual_sum + (1 - decay) * (norm if entering is None else entering)
        finite += 1
        yield given
