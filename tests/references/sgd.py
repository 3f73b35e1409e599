"""Gradient descent, with classical or Nesterov momentum.

Sutskever, Martens, Dahl and Hinton, "On the importance of initialization and momentum in deep
learning", ICML 2013, section 2. https://proceedings.mlr.press/v28/sutskever13.html

The learning rate stays outside the velocity (the paper has it inside), so a new rate acts at once.
Nesterov's gradient is taken at the point the parameters are kept at, which is the paper's
look-ahead point renamed.
"""

import numpy as np


def sgd(x, gradients, learning_rate, *, momentum=None, nesterov=False, weight_decay=0.0):
    velocity = np.zeros_like(x)
    for step, g in enumerate(gradients):
        rate = learning_rate(step) if callable(learning_rate) else learning_rate
        if momentum is None:
            direction = g
        else:
            velocity = momentum * velocity + g
            direction = momentum * velocity + g if nesterov else velocity
        x = x - rate * (direction + weight_decay * x)
        yield x
