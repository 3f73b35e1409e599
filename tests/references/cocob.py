"""Orabona and Tommasi, "Training Deep Networks without Learning Rates Through Coin Betting", 2017.

Algorithm 2, with the learning rate as the wealth of the start, in units of the largest gradient.
"""

import numpy as np


def cocob(x, gradients, learning_rate=1.0, alpha=100.0, eps=1e-8, weight_decay=0.0):
    w1 = x
    largest, total = np.full_like(x, eps), np.zeros_like(x)
    reward, theta = np.zeros_like(x), np.zeros_like(x)
    for step, gradient in enumerate(gradients):
        gamma = learning_rate(step) if callable(learning_rate) else learning_rate
        g = -(gradient + weight_decay * x)  # the paper's is negative
        largest = np.maximum(largest, np.abs(g))
        total = total + np.abs(g)
        reward = np.maximum(reward + (x - w1) * g, 0)
        theta = theta + g
        x = w1 + theta / (largest * np.maximum(total + largest, alpha * largest)) * (
            gamma * largest + reward
        )
        yield x
