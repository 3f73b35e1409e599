"""The gradients every golden trajectory was made with, for the frameworks and for the tests."""

import numpy as np

STEPS = 40

# Exact powers: the gradients must not depend on the pow of a machine.
_DECADES = np.array([1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1e0, 1e1])


def matrix(rng, shape):
    """A start and gradients of another shape: rows and columns of many sizes, a tenth zeros."""
    scale = np.ones(shape)
    for axis, n in enumerate(shape):
        sizes = np.array([0.1, 3.0, 0.5, 10.0, 1.0, 0.02, 30.0, 2.0])[np.arange(n) % 8]
        scale *= sizes.reshape([-1 if k == axis else 1 for k in range(len(shape))])
    gradients = (rng.random((STEPS, *shape)) - 0.4) * scale
    gradients[rng.random((STEPS, *shape)) < 0.1] = 0.0
    return 2 * rng.random(shape) - 1, gradients


def problem(shape=(8,)):
    """The start, of `shape`, and the 40 gradients, both float64.

    Of the vector of 8: one coordinate per difficulty; together they span 1e-6 to 1e2:

    0. always zero
    1. zero on the first six steps (the gradient has a history only later)
    2. zero but for every fifth step
    3. large, 10 to 100
    4. tiny, 1e-6 to 1e-5, where every eps shows
    5. of any size in the eight decades, at random
    6. about 1e-3, its sign alternating (the mean is far below the root mean square)
    7. falling from 1e2 to 1e-6 (a running maximum and a running mean part)

    Signs are random except for coordinates 6 and 7. Small gradients start from small parameters, so
    that rounding of the parameter does not hide their steps.
    """
    rng = np.random.Generator(np.random.PCG64(20190226))
    if shape != (8,):
        return matrix(rng, shape)
    mantissa = 1.0 + 9.0 * rng.random((STEPS, 8))
    sign = np.where(rng.random((STEPS, 8)) < 0.5, -1.0, 1.0)
    any_decade = _DECADES[np.floor(8.0 * rng.random(STEPS)).astype(int)]
    step = np.arange(STEPS)

    sign[:, 6] = np.where(step % 2 == 0, 1.0, -1.0)
    sign[:, 7] = 1.0
    scale = np.empty((STEPS, 8))
    scale[:, 0] = 0.0
    scale[:, 1] = np.where(step < 6, 0.0, 1e-1)
    scale[:, 2] = np.where(step % 5 == 3, 1e0, 0.0)
    scale[:, 3] = 1e1
    scale[:, 4] = 1e-6
    scale[:, 5] = any_decade
    scale[:, 6] = 1e-3
    scale[:, 7] = _DECADES[7 - step // 5]
    start = np.array([0.5, -1.25, 0.75, 3.0, 2e-6, -0.5, 1e-3, -2.0])
    return start, sign * mantissa * scale + 0.0  # + 0.0: no negative zeros


def value(g):
    """Stands for the loss where only the arithmetic is tested: positive, small where g is."""
    return (abs(g)).sum() / 4 + 0.01


def hessian(g):
    """Stands for the diagonal of a Hessian where only the arithmetic is tested: finite as g is."""
    return g / 2
