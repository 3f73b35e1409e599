"""Cutkosky, Defazio and Mehta, "Mechanic: A Learning Rate Tuner", NeurIPS 2023.

Algorithm 1, with what the authors added in optax: h is clipped, and a reward may be negative.
"""

import numpy as np


def mechanize(
    x, gradients, updates, weight_decay=1e-2, eps=1e-8, s_init=1e-6, num_betas=6
):  # fmt: skip
    """`updates` are those of the wrapped optimizer, which here do not depend on x."""
    reference = x
    bets = [{"m": 0.0, "v": 0.0, "r": 0.0, "s": s_init} for _ in range(num_betas)]
    for g, u in zip(gradients, updates, strict=True):
        total = sum(bet["s"] for bet in bets)
        delta = (reference - x) / (total + eps)
        decay = weight_decay * total * np.linalg.norm(g) / (np.linalg.norm(x) + eps)
        h = np.sum(delta * (g + decay * x))
        for k, bet in enumerate(bets, 1):
            beta = 1 - 10.0**-k
            bet["r"] = beta * bet["r"] + bet["s"] * min(max(h, -bet["m"]), bet["m"])
            bet["m"] = max(beta * bet["m"], abs(h) + eps)
            bet["v"] = beta**2 * bet["v"] + h**2
            wealth = bet["m"] * s_init / num_betas + max(bet["r"], 0.0)
            bet["s"] = wealth / (np.sqrt(bet["v"]) + eps)
        x = reference - sum(bet["s"] for bet in bets) * (delta - u)
        yield x
