"""How much does the learning rate matter? The same small job at every rate, for every optimizer.

A network with one hidden layer learns the 1,797 digits of scikit-learn: ten epochs, learning rates
from 1e-5 to 100, five seeds; a quarter of the digits is held out. Prints the table of
docs/choosing.md, puts it there, and draws docs/figures/sensitivity.svg. Needs the extra `examples`.

    python docs/sensitivity.py
"""

import functools
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import matplotlib as mpl
import numpy as np
import optax
from fill import fill
from sklearn.datasets import load_digits

import optax_adaptive as oa

mpl.use("svg")
from matplotlib import pyplot as plt

HERE = Path(__file__).parent
RATES = 10.0 ** np.arange(-5, 2.25, 0.25)
BATCH, EPOCHS, HIDDEN, SEEDS = 32, 10, 64, 5
POINTS = 1.0  # what counts as equally good, in percentage points of the held-out digits
OPTIMIZERS: dict[str, Any] = {
    "sgd": oa.sgd,
    "sgd(momentum=0.9)": functools.partial(oa.sgd, momentum=0.9),
    "adagrad": oa.adagrad,
    "rmsprop": oa.rmsprop,
    "rmsprop(centered=True)": functools.partial(oa.rmsprop, centered=True),
    "adadelta": oa.adadelta,
    "adam": oa.adam,
    "nadam": oa.nadam,
    "adamax": oa.adamax,
    "amsgrad": oa.amsgrad,
    "radam": oa.radam,
    "adabound": oa.adabound,
    "amsbound": oa.amsbound,
}
PANELS = (
    ("sgd", "sgd(momentum=0.9)", "adagrad", "adadelta"),
    ("rmsprop", "rmsprop(centered=True)", "adam"),
    ("adam", "nadam", "adamax", "amsgrad", "radam"),
    ("adam", "sgd(momentum=0.9)", "adabound", "amsbound"),
)
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#000000")  # Okabe and Ito
STYLES = ("-", "-", "-", "--", ":")


def digits() -> Any:
    """Images in [0, 1] and labels: three quarters to train, a quarter held out."""
    images, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(images))
    images, labels = jnp.asarray(images[order] / 16, jnp.float32), jnp.asarray(labels[order])
    cut = len(images) * 3 // 4
    return (images[:cut], labels[:cut]), (images[cut:], labels[cut:])


def logits(params: Any, images: jax.Array) -> jax.Array:
    return jax.nn.relu(images @ params["w1"] + params["b1"]) @ params["w2"] + params["b2"]


def loss(params: Any, images: jax.Array, labels: jax.Array) -> jax.Array:
    cross_entropy = optax.softmax_cross_entropy_with_integer_labels
    return cross_entropy(logits(params, images), labels).mean()


def accuracy(make: Any, train: Any, test: Any, rate: jax.Array, seed: jax.Array) -> jax.Array:
    """Percent of the held-out digits, after training at this rate from this seed."""
    key1, key2, order_key = jax.random.split(jax.random.key(seed), 3)
    params = {
        "w1": jax.nn.initializers.glorot_uniform()(key1, (64, HIDDEN)),
        "b1": jnp.zeros(HIDDEN),
        "w2": jax.nn.initializers.glorot_uniform()(key2, (HIDDEN, 10)),
        "b2": jnp.zeros(10),
    }
    steps = len(train[0]) // BATCH
    order = jnp.concatenate(
        [
            jax.random.permutation(key, len(train[0]))[: steps * BATCH].reshape(steps, BATCH)
            for key in jax.random.split(order_key, EPOCHS)
        ]
    )
    tx = make(rate)

    def step(carry: Any, batch: jax.Array) -> Any:
        params, state = carry
        grads = jax.grad(loss)(params, train[0][batch], train[1][batch])
        updates, state = tx.update(grads, state, params)
        return (optax.apply_updates(params, updates), state), None

    (params, _), _ = jax.lax.scan(step, (params, tx.init(params)), order)
    answers = logits(params, test[0])
    right = (answers.argmax(-1) == test[1]) & jnp.isfinite(answers).all(-1)
    return 100 * right.mean()


def main() -> None:
    train, test = digits()
    rows, curves = [], {}
    for name, make in OPTIMIZERS.items():
        run = functools.partial(accuracy, make, train, test)
        grid = jax.vmap(jax.vmap(run, (None, 0)), (0, None))
        table = np.asarray(jax.jit(grid)(jnp.asarray(RATES, jnp.float32), jnp.arange(SEEDS)))
        curve = curves[name] = table.mean(axis=1)
        best = curve.argmax()
        low = high = best  # the run of rates around the best that are as good
        while low > 0 and curve[low - 1] >= curve[best] - POINTS:
            low -= 1
        while high < len(RATES) - 1 and curve[high + 1] >= curve[best] - POINTS:
            high += 1
        at = curve[np.isclose(RATES, 1e-3)][0]
        rows.append(
            f"| `{name}` | {RATES[best]:.2g} | {curve[best]:.1f} | {RATES[low]:.2g} to "
            f"{RATES[high]:.2g} | {RATES[high] / RATES[low]:.0f} | {at:.1f} |"
        )
        print(rows[-1], flush=True)
    head = "| optimizer | best rate | accuracy there, % | as good from ... to | a factor of "
    head += "| accuracy at 0.001, % |"
    fill(HERE / "choosing.md", "SENSITIVITY", [head, "|---|---|---|---|---|---|", *rows])

    mpl.rcParams["svg.hashsalt"] = "sensitivity"  # the same picture, the same bytes
    figure, grid = plt.subplots(
        2, 2, figsize=(8, 5.5), sharex=True, sharey=True, layout="constrained"
    )
    for axes, names in zip(grid.flat, PANELS, strict=True):
        for name, colour, style in zip(names, COLOURS, STYLES, strict=False):
            axes.semilogx(RATES, curves[name], color=colour, ls=style, label=name)
        axes.axvline(1e-3, color="gray", lw=0.8, ls=":")
        axes.set(ylim=(0, 102), yticks=(0, 25, 50, 75, 100))
        axes.legend(fontsize=7, loc="lower center", bbox_to_anchor=(0.5, 1), ncols=3, frameon=False)
    figure.supxlabel("learning rate", fontsize=10)
    figure.supylabel("held-out accuracy, %", fontsize=10)
    figure.savefig(HERE / "figures" / "sensitivity.svg", metadata={"Date": None})


if __name__ == "__main__":
    main()
