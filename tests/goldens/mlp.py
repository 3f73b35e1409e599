"""The network that every checkpoint was trained on, for the frameworks and for the tests.

tanh(x @ k0 + b0) @ k1 + b1 with three inputs, four hidden units and two outputs; the loss is the
mean, over all entries, of the squared errors; every step sees all sixteen inputs.
"""

import numpy as np

# An optimizer's state was saved after this many steps; the run went on, and after these, counted
# from its start, the parameters are shown.
SAVED_AT = 15
SHOWN = (16, 17, 20, 25, 35)


def _waves(shape, speed, phase):
    """Sines of the index, to four decimals: they must not depend on the sin of a machine."""
    index = np.arange(np.prod(shape), dtype=np.float64)
    return np.round(np.sin(speed * index + phase), 4).reshape(shape)


def data():
    """The inputs, (16, 3), and the targets, (16, 2), both float64."""
    x = _waves((16, 3), 1.7, 0.3)
    a, b, c = x.T
    return x, np.round(np.stack([a * b + 0.5 * c, np.cos(2.0 * a) - c], axis=1), 4)


def start():
    """The parameters before the first step, float64."""
    return {
        "d0": {"kernel": 0.7 * _waves((3, 4), 2.3, 0.1), "bias": 0.1 * _waves((4,), 1.1, 0.5)},
        "d1": {"kernel": 0.6 * _waves((4, 2), 2.9, 0.8), "bias": 0.1 * _waves((2,), 1.3, 0.2)},
    }
