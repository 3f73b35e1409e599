"""The gradients every golden trajectory was made with, for the frameworks and for the tests."""

import numpy as np

STEPS = 40

# Exact powers: the gradients must not depend on the pow of a machine.
_DECADES = np.array([1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1e0, 1e1])


def problem():
    """The start, shape (8,), and the gradients, shape (40, 8), both float64.

    One coordinate per difficulty; together they span 1e-6 to 1e2:

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
