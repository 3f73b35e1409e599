"""Train one convolutional network on handwritten digits with each optimizer, and compare them.

    python examples/mnist.py                                 # six optimizers, no network, a minute
    python examples/mnist.py --optimizer adam radam --data mnist
    python examples/mnist.py --recipe article --data mnist   # as the tutorials set them, 3 seeds
    python examples/mnist.py --sweep                         # find the rates in tuned.json again

A table is printed; results.json and comparison.png go to --output-dir. A killed run goes on where
it stopped. A fifth of the training images is held out in every recipe; only --sweep looks at it.
"""

import argparse
import datetime
import functools
import itertools
import json
import math
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import digits_data
import flax.linen as nn
import jax
import jax.numpy as jnp
import mnist_report
import numpy as np
import optax
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

import optax_adaptive as oa

OPTIMIZERS = tuple(oa.optimizers)
SHOWN = ("sgd", "adagrad", "rmsprop", "adadelta", "adam", "adabound")
ARTICLE = {  # label -> arguments; the label's first word is the optimizer
    "adagrad": {"learning_rate": 0.001, "initial_accumulator_value": 0.1, "eps": 1e-7},
    "adadelta": {"learning_rate": 0.001, "rho": 0.95, "eps": 1e-7},
    "adadelta (lr 1)": {"learning_rate": 1.0, "rho": 0.95, "eps": 1e-6},
    "adam": {"learning_rate": 0.01, "eps": 1e-7},
    "adabound": {"learning_rate": 0.001, "final_lr": 0.1},
}
TUNED = Path(__file__).with_name("tuned.json")
GRID = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 0.1, 0.3, 1.0, 3.0, 10.0)

# What some must be told: which leaf is what, that there is batch norm.
GIVEN: dict[str, dict[str, Any]] = {
    "muon": {"roles": {"Conv_*/kernel": "conv", "Dense_0/kernel": "matrix", "Dense_1/*": "adam"}},
    "adam_mini": {"roles": {"*/kernel": "neurons"}},
    "dog": {"reps_rel": 1e-4},
    "ldog": {"reps_rel": 1e-4},
}

GLOROT = nn.initializers.glorot_uniform()


class Conv(nn.Module):
    """A 3x3 convolution, unpadded, as one matrix product over all 3x3 patches.

    `nn.Conv` computes the same and suits a GPU; XLA's CPU convolution is 15 times slower in a scan.
    """

    features: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        kernel = self.param("kernel", GLOROT, (3, 3, x.shape[-1], self.features))
        bias = self.param("bias", nn.initializers.zeros, (self.features,))
        h, w = x.shape[1] - 2, x.shape[2] - 2
        shifted = [x[:, i : i + h, j : j + w] for i in range(3) for j in range(3)]
        patches = jnp.concatenate(shifted, axis=-1).reshape(-1, 9 * x.shape[-1])
        y = patches @ kernel.reshape(-1, self.features) + bias
        return y.reshape(-1, h, w, self.features)


def max_pool(x: jax.Array) -> jax.Array:
    """The maxima of 2x2 squares, by reshape: the gradient of `nn.max_pool` is slow on CPU."""
    n, h, w, c = x.shape
    x = x[:, : h // 2 * 2, : w // 2 * 2]
    return x.reshape(n, h // 2, 2, w // 2, 2, c).max((2, 4))


class Network(nn.Module):
    """The network of the tutorials; batch norm's running statistics keep `momentum` a step."""

    momentum: float

    @nn.compact
    def __call__(self, images: jax.Array, train: bool) -> jax.Array:
        def norm(x: jax.Array) -> jax.Array:
            return nn.BatchNorm(not train, momentum=self.momentum, epsilon=1e-3)(x)

        x = images / jnp.float32(255)
        for features in (32, 64):
            x = norm(nn.relu(Conv(features)(x)))
            x = norm(max_pool(x))
        x = x.reshape(len(x), -1)
        x = norm(nn.relu(nn.Dense(256, kernel_init=GLOROT)(x)))
        return nn.Dense(10, kernel_init=GLOROT)(x)


def batch_statistics(variables: Any, images: jax.Array, batches: jax.Array) -> Any:
    """What batch norm sees with these parameters: the means over the batches of each one's own."""

    def of_one(batch: jax.Array) -> Any:
        network = Network(momentum=0.0)  # keeps nothing of the batch before
        return network.apply(variables, images[batch], train=True, mutable="batch_stats")[1]

    return jax.tree.map(lambda x: x.mean(0), jax.lax.map(of_one, batches))


def with_rate_in_state(make: Callable) -> Callable:
    """The rate alone, for the signature, is part of the state: one compilation serves a sweep."""
    return optax.inject_hyperparams(lambda learning_rate: make(learning_rate))  # noqa: PLW0108


class Trainer:
    """Trains `Network` with one optimizer; compiled once for all seeds."""

    def __init__(
        self, tx: optax.GradientTransformation, momentum: float, record: oa.Optimizer
    ) -> None:
        self.tx, self.network = optax.with_extra_args_support(tx), Network(momentum)
        self.record = record
        self.trained = jax.jit(self._trained)
        self.advance = jax.jit(self._advance, donate_argnums=0)
        self.measure = jax.jit(self._measure)

    def init(self, seed: int) -> tuple[Any, optax.OptState]:
        variables = self.network.init(jax.random.key(seed), jnp.zeros((1, 28, 28, 1)), train=False)
        return variables, self.tx.init(variables["params"])

    def _advance(self, state: Any, images: jax.Array, labels: jax.Array, batches: jax.Array) -> Any:
        """Several steps in one call: XLA on CPU allocates the activations once, not every step."""

        def step(state: Any, batch: jax.Array) -> Any:
            variables, opt_state = state
            params = variables["params"]

            def loss_fn(params: Any) -> Any:
                logits, stats = self.network.apply(
                    {**variables, "params": params},
                    images[batch],
                    train=True,
                    mutable="batch_stats",
                )
                losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels[batch])
                return losses.mean(), stats

            extra = {}
            if "hessian_diagonal" in self.record.needs:
                key = jax.random.fold_in(jax.random.key(0), optax.tree.get(opt_state, "step"))
                curvature = oa.hutchinson(loss_fn, has_aux=True)
                (loss, stats), grads, extra["hessian_diagonal"] = curvature(key, params)
            else:
                (loss, stats), grads = jax.value_and_grad(loss_fn, has_aux=True)(params)
            updates, opt_state = self.tx.update(grads, opt_state, params, value=loss, **extra)
            return ({"params": optax.apply_updates(params, updates), **stats}, opt_state), loss

        return jax.lax.scan(step, state, batches)

    def _trained(self, state: Any, images: jax.Array, batches: jax.Array) -> Any:
        """The network to evaluate: of Schedule-Free the average, with statistics of its own."""
        variables, opt_state = state
        if self.record.eval_params is None:
            return variables
        average = {**variables, "params": self.record.eval_params(opt_state, variables["params"])}
        return average | batch_statistics(average, images, batches)

    def _measure(self, variables: Any, images: jax.Array, labels: jax.Array) -> jax.Array:
        logits = self.network.apply(variables, images, train=False)
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
        return jnp.array([losses.sum(), (logits.argmax(-1) == labels).sum()])

    def run(
        self, state: Any, train: Any, test: Any, cell: dict[str, Any], show: Callable
    ) -> dict[str, Any]:
        """Train, and return the curves, the time and the size of the optimizer's state."""
        seed, epochs, batch = cell["seed"], cell["epochs"], cell["batch"]
        steps = len(train[0]) // batch
        call = max(n for n in range(1, 17) if steps % n == 0)  # the steps of one compiled call
        seconds, curve, tested = [], [], []
        for epoch in range(epochs):
            # By (seed, epoch): every optimizer sees the same batches in the same order.
            order = np.random.default_rng((seed, epoch)).permutation(len(train[0]))
            start = time.perf_counter()
            for batches in order[: steps * batch].reshape(-1, call, batch):
                state, losses = self.advance(state, *train, batches)
                curve.append(float(losses.mean()))
                show(call / steps, curve[-1])
            seconds.append(time.perf_counter() - start)
            variables = self.trained(state, train[0], order[: steps * batch].reshape(-1, batch))
            chunks = range(0, len(test[0]), 500)
            sums = [self.measure(variables, *(x[i : i + 500] for x in test)) for i in chunks]
            tested.append((sum(sums) / len(test[0])).tolist())
        arrays, params = jax.tree.leaves(state[1]), jax.tree.leaves(state[0]["params"])
        return {
            "train_loss": statistics.fmean(curve[-steps // call :]),
            "test_loss": tested[-1][0],
            "test_accuracy": tested[-1][1],
            "seconds_per_epoch": statistics.median(seconds),
            "state_bytes_per_parameter": sum(x.nbytes for x in arrays)
            / sum(x.size for x in params),
            "curves": {
                "train_loss": curve,
                "test_loss": [loss for loss, _ in tested],
                "test_accuracy": [accuracy for _, accuracy in tested],
            },
        }


def plan(args: argparse.Namespace, dataset: str) -> list[dict[str, Any]]:
    """One cell per optimizer and seed (and rate, in a sweep): all that its result depends on."""
    article = args.recipe == "article" and not args.sweep
    digits = dataset == "digits"
    if args.sweep:
        names = args.optimizer or OPTIMIZERS
        runs = [
            (name, {"learning_rate": rate} | GIVEN.get(name, {})) for name in names for rate in GRID
        ]
    elif article:
        names = args.optimizer or ARTICLE
        runs = [(label, given) for label, given in ARTICLE.items() if label.split()[0] in names]
    else:
        rates = json.loads(TUNED.read_text())
        rates = rates["digits"] | rates.get(dataset, {})
        names = args.optimizer or SHOWN
        defaults = {name: record.learning_rate for name, record in oa.optimizers.items()}
        rate_of = defaults | {name: tuned["learning_rate"] for name, tuned in rates.items()}
        runs = [(name, {"learning_rate": rate_of[name]} | GIVEN.get(name, {})) for name in names]
    shared = {
        "data": dataset,
        "epochs": args.epochs or (5 if article or not digits else 10),
        "batch": 250 if article or not digits else 50,
        "batch_norm_momentum": 0.99 if article else 0.9,
        "measured_on": "held-out images" if args.sweep else "test images",
    }
    seeds = args.seeds or ((0, 1, 2) if article else (0,))
    return [
        {"label": label, "arguments": given, "seed": seed, **shared}
        for (label, given), seed in itertools.product(runs, seeds)
    ]


def run(
    cells: list[dict[str, Any]], data: digits_data.Digits, results_file: Path, console: Console
) -> list[dict[str, Any]]:
    """Run the cells that `results_file` does not hold yet, and store each as it ends."""
    cut = len(data.train_images) * 4 // 5
    train = jnp.asarray(data.train_images[:cut]), jnp.asarray(data.train_labels[:cut])
    held_out = jnp.asarray(data.train_images[cut:]), jnp.asarray(data.train_labels[cut:])
    test = jnp.asarray(data.test_images), jnp.asarray(data.test_labels)
    results = mnist_report.read(results_file)
    bar = (TextColumn("{task.description}"), BarColumn(None), TimeElapsedColumn())
    trainer = trained = None
    with Progress(*bar, TextColumn("left"), TimeRemainingColumn(), console=console) as progress:
        task = progress.add_task("", total=sum(cell["epochs"] for cell in cells))
        for cell in cells:
            if any(result["cell"] == cell for result in results):
                progress.advance(task, cell["epochs"])
                continue
            sweep, label = cell["measured_on"] != "test images", cell["label"]
            if trained != label:
                record, given = oa.optimizers[label.split()[0]], dict(cell["arguments"])
                rate, make = given.pop("learning_rate"), functools.partial(record.make, **given)
                make = with_rate_in_state(make) if sweep else make
                trainer = Trainer(make(rate), cell["batch_norm_momentum"], record)
                trained = label
            state = trainer.init(cell["seed"])
            if sweep:
                state = optax.tree.set(state, learning_rate=cell["arguments"]["learning_rate"])

            def show(epochs: float, loss: float, cell: dict[str, Any] = cell) -> None:
                name = f"{cell['label']}, seed {cell['seed']}".ljust(26)
                progress.update(task, advance=epochs, description=f"{name} loss {loss:6.3f}")

            result = trainer.run(state, train, held_out if sweep else test, cell, show)
            results = mnist_report.write(results_file, [*results, {"cell": cell, **result}])
    return [result for cell in cells for result in results if result["cell"] == cell]


def store_rates(results: list[dict[str, Any]]) -> None:
    """Keep the best rate of one optimizer's sweep in tuned.json, with how it was found."""
    cell = results[0]["cell"]
    losses: dict[float, list[float]] = {}
    for result in results:
        loss = math.inf if result["test_loss"] is None else result["test_loss"]
        losses.setdefault(result["cell"]["arguments"]["learning_rate"], []).append(loss)
    means = {rate: statistics.fmean(found) for rate, found in losses.items()}
    tuned = json.loads(TUNED.read_text()) if TUNED.exists() else {}
    tuned.setdefault(cell["data"], {})[cell["label"]] = {
        "learning_rate": min(means, key=lambda rate: means[rate]),
        "held_out_loss": {f"{rate:g}": round(mean, 4) for rate, mean in means.items()},
        **{key: cell[key] for key in ("epochs", "batch", "batch_norm_momentum")},
        "seeds": sorted({result["cell"]["seed"] for result in results}),
        "date": datetime.date.today().isoformat(),
        "optax_adaptive": oa.__version__,
    }
    mnist_report.write(TUNED, tuned)


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--optimizer", nargs="+", choices=OPTIMIZERS, metavar="NAME", help=", ".join(OPTIMIZERS))
    add("--recipe", choices=("tuned", "article"), default="tuned")
    digits_data.add_options(parser)
    add("--epochs", type=int, help="default 10 on the embedded digits, else 5")
    add("--seeds", type=int, nargs="+", help="default 0; in the article's recipe 0 1 2")
    add("--output-dir", type=Path, default=Path("outputs/mnist"))
    add("--sweep", action="store_true", help="find the learning rates of tuned.json")
    args = parser.parse_args(argv)
    if args.epochs is not None and args.epochs < 1:
        parser.error("--epochs: at least 1")
    known = {label.split()[0] for label in ARTICLE}
    if args.recipe == "article" and not known.issuperset(args.optimizer or ()):
        parser.error(f"--recipe article sets only {', '.join(sorted(known))}")
    return args


def main(argv: list[str] | None = None) -> None:
    """Run what the command line asks for, and show it."""
    args = parse(argv)
    console = Console()
    data = digits_data.of_options(args, "mnist.py")
    train, test = len(data.train_images), len(data.test_images)
    sizes = (
        f"{train * 4 // 5:,} images to train, {train - train * 4 // 5:,} held out, {test:,} to test"
    )
    console.print(f"Data: {data.source}: {sizes}.", highlight=False)
    if args.data == "auto" and data.name == "digits":
        console.print("For MNIST: --data mnist downloads it, --data-dir says where it is.")
    args.output_dir.mkdir(parents=True, exist_ok=True)
    cells, results_file = plan(args, data.name), args.output_dir / "results.json"
    if args.sweep:
        for _, some in itertools.groupby(cells, lambda cell: cell["label"]):
            store_rates(run(list(some), data, results_file, console))
        console.print(f"Rates written to {TUNED}.")
        return
    if args.recipe == "tuned" and data.name not in json.loads(TUNED.read_text()):
        console.print(f"tuned.json has no rates for {data.name}: those of the digits serve.")
    results = run(cells, data, results_file, console)
    console.print(mnist_report.table(results))
    picture = args.output_dir / "comparison.png"
    mnist_report.figure(results, picture)
    console.print(f"Written: {results_file} and {picture}.", highlight=False)


if __name__ == "__main__":
    main()
