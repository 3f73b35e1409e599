"""RMSprop, optionally centered, with momentum, or with the bias correction of Adam.

Tieleman and Hinton, "Lecture 6.5 - rmsprop: Divide the gradient by a running average of its recent
magnitude", COURSERA: Neural Networks for Machine Learning, 2012.
https://www.cs.toronto.edu/~tijmen/csc321/slides/lecture_slides_lec6.pdf
Centered, with momentum: Graves, "Generating Sequences With Recurrent Neural Networks", 2013,
equations 38 to 41. https://arxiv.org/abs/1308.0850

As in optax the learning rate is inside the velocity: a new rate leaves the velocity gathered so far
as it is. Unlike optax the centered variance is clamped at 0, which rounding can cross. Weight decay
stays out of the velocity.
"""

import numpy as np


def rmsprop(
    x,
    gradients,
    learning_rate,
    *,
    decay=0.9,
    eps=1e-8,
    initial_scale=0.0,
    eps_in_sqrt=True,
    centered=False,
    momentum=None,
    nesterov=False,
    bias_correction=False,
    weight_decay=0.0,
):
    mu = np.zeros_like(x)
    nu = np.full_like(x, initial_scale)
    velocity = np.zeros_like(x)
    for step, g in enumerate(gradients):
        rate = learning_rate(step) if callable(learning_rate) else learning_rate
        t = step + 1
        mu = decay * mu + (1 - decay) * g
        nu = decay * nu + (1 - decay) * g**2
        mu_hat, nu_hat = mu, nu
        if bias_correction:
            mu_hat = mu / (1 - decay**t)
            nu_hat = nu / (1 - decay**t)
        variance = np.maximum(nu_hat - mu_hat**2, 0.0) if centered else nu_hat
        root = np.sqrt(variance + eps) if eps_in_sqrt else np.sqrt(variance) + eps
        move = rate * g / root
        if momentum is not None:
            velocity = momentum * velocity + move
            move = momentum * velocity + move if nesterov else velocity
        x = x - (move + rate * weight_decay * x)
        yield x
