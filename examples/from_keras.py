"""Two networks of the tutorials, trained with the same line in Keras and here: the same curves.

    python examples/from_keras.py                  # no network needed, seconds
    python examples/from_keras.py --data mnist     # MNIST in place of scikit-learn's digits
    python examples/from_keras.py --record         # with Keras: its losses for recorded/

Both sides start from the same weights and see the same batches in the same order. Where Keras is
installed it is run, on JAX unless $KERAS_BACKEND names another backend; where it is not, its
recorded losses stand in. A table is printed; from_keras.png goes to --output-dir.
"""

import argparse
import functools
import importlib
import importlib.util
import itertools
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import digits_data
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import mnist_report
import numpy as np
import optax
import pictures
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from sklearn.datasets import load_breast_cancer

from optax_adaptive import compat

RECORDED = Path(__file__).with_name("recorded") / "from_keras.json"
STEPS = 300  # of a recorded curve
THERE, HERE = "keras.optimizers", "compat.keras"

Batches = Iterator[tuple[np.ndarray, np.ndarray]]


class Problem(NamedTuple):
    """A network of two dense layers, its data, and the optimizers as they are pasted."""

    name: str
    data: str
    x: np.ndarray
    y: np.ndarray
    batch: int
    units: tuple[int, int]
    activation: str  # of the last layer, and Keras' loss behind it
    loss: str
    logit_loss: Callable[[jax.Array, jax.Array], jax.Array]  # the two in one, of optax
    calls: tuple[tuple[str, dict[str, float]], ...]

    def described(self) -> str:
        """Data, network and batches in a line."""
        hidden, last = self.units
        network = f"Dense({hidden}, relu) -> Dense({last}, {self.activation})"
        return f"{self.data}, {self.batch} a batch: {network}"

    def weights(self) -> list[np.ndarray]:
        """Glorot's uniform kernels and biases of 0, in the order of `model.get_weights()`."""
        rng, weights = np.random.default_rng(0), []
        sizes = (self.x[0].size, *self.units)
        for n, m in itertools.pairwise(sizes):
            limit = np.sqrt(6 / (n + m))
            weights += [rng.uniform(-limit, limit, (n, m)).astype(np.float32)]
            weights += [np.zeros(m, np.float32)]
        return weights

    def batches(self, steps: int) -> Batches:
        """The first `steps` batches, every epoch in an order of its own."""
        per_epoch = len(self.x) // self.batch
        for step in range(steps):
            epoch, i = divmod(step, per_epoch)
            if i == 0:
                order = np.random.default_rng((0, epoch)).permutation(len(self.x))
            chosen = order[i * self.batch : (i + 1) * self.batch]
            yield self.x[chosen], self.y[chosen]


def problems(digits: digits_data.Digits) -> tuple[Problem, Problem]:
    """The binary classifier of the tutorials, and their first network for digits."""
    x, y = load_breast_cancer(return_X_y=True)
    classifier = Problem(
        name="breast cancer",
        data="Breast cancer",
        x=((x - x.mean(0)) / x.std(0)).astype(np.float32),
        y=y.astype(np.float32)[:, None],
        batch=128,
        units=(10, 1),
        activation="sigmoid",
        loss="binary_crossentropy",
        logit_loss=optax.sigmoid_binary_cross_entropy,
        calls=(("Adadelta", {}), ("Adadelta", {"learning_rate": 1.0})),
    )
    mnist = digits.name == "mnist"
    images = Problem(
        name=digits.name,
        data="MNIST" if mnist else "Digits",
        x=digits.train_images.astype(np.float32) / 255,
        y=digits.train_labels,
        batch=250 if mnist else 50,
        units=(128, 10),
        activation="softmax",
        loss="sparse_categorical_crossentropy",
        logit_loss=optax.softmax_cross_entropy_with_integer_labels,
        calls=(("Adadelta", {}), ("Adam", {})),
    )
    return classifier, images


def written(name: str, arguments: dict[str, float]) -> str:
    """The call as one writes it."""
    return f"{name}({', '.join(f'{key}={value}' for key, value in arguments.items())})"


def in_jax(
    problem: Problem, name: str, arguments: dict[str, float], batches: Batches
) -> list[float]:
    """The losses of training in JAX; the parameters are the list of weights itself."""
    optimizer = getattr(compat.keras, name)(**arguments)

    def loss_fn(params: list[jax.Array], x: jax.Array, y: jax.Array) -> jax.Array:
        kernel_1, bias_1, kernel_2, bias_2 = params
        hidden = jax.nn.relu(x.reshape(len(x), -1) @ kernel_1 + bias_1)
        return problem.logit_loss(hidden @ kernel_2 + bias_2, y).mean()

    @jax.jit
    def step(params: Any, state: Any, x: jax.Array, y: jax.Array) -> Any:
        loss, grads = jax.value_and_grad(loss_fn)(params, x, y)
        updates, state = optimizer.update(grads, state, params)
        return optax.apply_updates(params, updates), state, loss

    params = [jnp.asarray(w) for w in problem.weights()]
    state, losses = optimizer.init(params), []
    for x, y in batches:
        params, state, loss = step(params, state, x, y)
        losses.append(float(loss))
    return losses


def in_keras(
    problem: Problem, name: str, arguments: dict[str, float], batches: Batches
) -> list[float]:
    """The losses of training in Keras."""
    keras = importlib.import_module("keras")
    hidden, last = problem.units
    model = keras.Sequential(
        [
            keras.Input(problem.x.shape[1:]),
            keras.layers.Flatten(),
            keras.layers.Dense(hidden, activation="relu"),
            keras.layers.Dense(last, activation=problem.activation),
        ]
    )
    model.compile(optimizer=getattr(keras.optimizers, name)(**arguments), loss=problem.loss)
    model.set_weights(problem.weights())
    losses = []
    for x, y in batches:
        model.reset_metrics()  # or the loss is a mean over all steps so far
        losses.append(float(model.train_on_batch(x, y)))
    return losses


class Run(NamedTuple):
    """One line, in Keras and here."""

    problem: Problem
    line: str
    there: np.ndarray  # the loss of every step
    here: np.ndarray

    @property
    def apart(self) -> np.ndarray:
        """The difference of the two, at every step."""
        return np.abs(self.there - self.here)


def compare(
    problem: Problem, steps: int, recorded: dict[str, list[float]] | None, console: Console
) -> list[Run]:
    """Train with each line, in Keras unless its losses are recorded, and here."""
    runs = []
    with Progress(console=console, transient=True) as progress:

        def batches(line: str) -> Batches:
            return progress.track(problem.batches(steps), total=steps, description=line)

        for call in problem.calls:
            line = written(*call)
            if recorded is None:
                there = in_keras(problem, *call, batches(f"{THERE}.{line}"))
            else:
                there = recorded[line][:steps]
            here = in_jax(problem, *call, batches(f"{HERE}.{line}"))
            runs.append(Run(problem, line, np.float32(there), np.float32(here)))
    return runs


def table(runs: list[Run]) -> Table:
    """Each line as it is there and as it is here, and how far apart the curves are."""
    caption = "means of 50 losses; apart: the largest difference"
    shown = Table(box=SIMPLE_HEAD, caption=caption)
    shown.add_column("optimizer", no_wrap=True)
    for name in ("first", "last", "apart"):
        shown.add_column(name, justify="right", no_wrap=True)
    for run in runs:
        for module, curve in ((THERE, run.there), (HERE, run.here)):
            apart = f"{run.apart.max():.1e}" if module == HERE else ""
            means = (f"{part.mean(dtype=float):.4f}" for part in (curve[:50], curve[-50:]))
            shown.add_row(f"{module}.{run.line}", *means, apart)
        shown.add_section()
    return shown


def figure(comparisons: list[list[Run]], source: str, path: Path) -> None:
    """The curves and what is between them, for light and dark pages."""
    pictures.save(functools.partial(_figure, comparisons, source), path)


def _figure(comparisons: list[list[Run]], source: str) -> Figure:
    """Above, Keras broad and ours dashed upon it; below, what is between the two."""
    drawing, axes = plt.subplots(
        *(2, len(comparisons)),
        figsize=(pictures.WIDTH, 5),
        height_ratios=(2.5, 1),
        layout="constrained",
    )
    for (losses, apart), runs in zip(axes.T, comparisons, strict=True):
        losses.set_title(f"{runs[0].problem.data}: loss of each batch")
        apart.set_title("Difference (lower edge: equal)")
        for colour, run in zip(pictures.COLOURS, runs, strict=False):
            steps = np.arange(1, len(run.here) + 1)
            losses.plot(steps, run.there, color=colour, lw=4, alpha=0.4)
            losses.plot(steps, run.here, color=colour, ls="--", lw=1)
            losses.plot([], [], color=colour, lw=2, label=run.line)
            # A logarithmic axis has no 0.
            apart.plot(steps, np.maximum(run.apart, 1e-9), ".", ms=2.5, color=colour)
        highest = max(run.here.max() for run in runs)
        losses.set(ylim=(0, 1.4 * highest), xlim=(0, len(steps)))
        losses.legend(loc="upper right")
        apart.set(yscale="log", ylim=(5e-10, 1), xlim=(0, len(steps)), xlabel="step")
    grey = plt.rcParams["axes.edgecolor"]
    drawn = (
        Line2D([], [], color=grey, lw=4, alpha=0.6, label=f"broad: {THERE} ({source})"),
        Line2D([], [], color=grey, ls="--", lw=1, label=f"dashed: {HERE}"),
    )
    drawing.legend(handles=drawn, loc="outside lower left", ncols=2)
    drawing.suptitle("The line you have, the curve you had", x=0.01, ha="left")
    return drawing


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    digits_data.add_options(parser)
    add("--steps", type=int, default=STEPS, help=f"at most {STEPS}, which is the default")
    add("--output-dir", type=Path, default=Path("outputs/from_keras"))
    add("--recorded", action="store_true", help="do not run Keras even where it is installed")
    add("--record", action="store_true", help=f"write {RECORDED.name} again; needs Keras")
    args = parser.parse_args(argv)
    if not 1 <= args.steps <= STEPS:
        parser.error(f"--steps: from 1 to {STEPS}")
    args.live = importlib.util.find_spec("keras") is not None and not args.recorded
    if args.record and (not args.live or args.steps < STEPS):
        parser.error(f"--record: needs Keras, and all {STEPS} steps")
    return args


def main(argv: list[str] | None = None) -> list[Run]:
    """Run what the command line asks for, and show it."""
    args = parse(argv)
    console = Console()
    digits = digits_data.of_options(args, "from_keras.py")
    kept = json.loads(RECORDED.read_text())
    if args.live:
        os.environ.setdefault("KERAS_BACKEND", "jax")
        keras = importlib.import_module("keras")
        source = f"Keras {keras.__version__} on {keras.backend.backend()}"
        console.print(f"{source} is installed, and is run.", highlight=False)
    else:
        source = kept[digits.name]["source"]
        line = f"Keras is not run; {RECORDED.name} stands in, recorded with {source}."
        console.print(line, highlight=False)
    comparisons = []
    for problem in problems(digits):
        recorded = None if args.live else kept[problem.name]["losses"]
        runs = compare(problem, args.steps, recorded, console)
        console.print("", problem.described(), table(runs), sep="\n", highlight=False)
        comparisons.append(runs)
        # A float32 in as few digits as tell it from its neighbours.
        losses = {run.line: [float(str(loss)) for loss in run.there] for run in runs}
        kept[problem.name] = {"source": source, "losses": losses}
    if args.record:
        mnist_report.write(RECORDED, kept)
        console.print(f"Recorded: {RECORDED}.", highlight=False)
    args.output_dir.mkdir(parents=True, exist_ok=True)
    picture = args.output_dir / "from_keras.png"
    figure(comparisons, source, picture)
    console.print(f"Written: {picture}.", highlight=False)
    return [run for runs in comparisons for run in runs]


if __name__ == "__main__":
    main()
