"""Look inside of AdaGrad, AdaBound and AdaDelta while they train a network on handwritten digits.

    python examples/diagnose.py                   # no network needed, some minutes
    python examples/diagnose.py --data mnist      # the figure of docs/diagnose.md
    python examples/diagnose.py --short           # a tenth of the steps

Every optimizer is wrapped in `oa.monitor`, and `oa.scalars` is read every tenth step. A table of
what was found is printed; results.json and diagnose.png go to --output-dir. Runs that results.json
holds are not made again.
"""

import argparse
import functools
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import digits_data
import jax.numpy as jnp
import matplotlib.pyplot as plt
import mnist
import mnist_report
import numpy as np
import optax
import pictures
from matplotlib.figure import Figure
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

import optax_adaptive as oa

RUNS: dict[str, dict[str, Any]] = {  # label -> arguments; the label's first word is the optimizer
    "adagrad": {"learning_rate": 0.01, "initial_accumulator_value": 0.0, "eps": 1e-10},
    "adagrad (Keras)": {"learning_rate": 0.001, "initial_accumulator_value": 0.1, "eps": 1e-7},
    "adabound": {"learning_rate": 0.001, "final_lr": 0.1, "gamma": 0.001},
    "adadelta (lr 1)": {"learning_rate": 1.0, "rho": 0.95, "eps": 1e-6},
    "adadelta (lr 0.001)": {"learning_rate": 0.001, "rho": 0.95, "eps": 1e-6},
    "adam": {"learning_rate": 0.001},
}
EVERY = 10  # steps between two measurements
RATES = ("effective_lr_05", "effective_lr_50", "effective_lr_95")
KEPT = ("grad_norm", "update_rms", "update_ratio", *RATES)
PER_MU = {name: name.replace("effective_lr", "per_mu") for name in RATES}
COLOUR = dict(zip(RUNS, pictures.COLOURS, strict=False))


class Watched(NamedTuple):
    """The state of `watched`: of two monitors."""

    steps: Any  # around the optimizer
    per_mu: Any  # beside it


def watched(tx: optax.GradientTransformation) -> optax.GradientTransformationExtraArgs:
    """`tx`, measured twice: its updates against the gradients, and against their mean `mu`.

    The rates of Adam and AdaBound are rates per unit of `mu`: |u| / |mu|. A second monitor measures
    that when it is given `mu` for gradients, around what returns the updates that were made.
    """

    def made_before(grads: Any, state: Any, params: Any = None, *, made: Any, **_: Any) -> Any:
        return made, state

    made = optax.GradientTransformationExtraArgs(lambda _: optax.EmptyState(), made_before)
    steps, per_mu = oa.monitor(tx, every=EVERY), oa.monitor(made, every=EVERY)

    def init(params: Any) -> Watched:
        return Watched(steps.init(params), per_mu.init(params))

    def update(grads: Any, state: Watched, params: Any = None, **extra: Any) -> Any:
        updates, new_steps = steps.update(grads, state.steps, params, **extra)
        mu = optax.tree.get(new_steps, "mu")
        _, new_per_mu = per_mu.update(mu, state.per_mu, params, made=updates)
        return updates, Watched(new_steps, new_per_mu)

    return optax.GradientTransformationExtraArgs(init, update)


def plan(data: str, steps: int) -> list[dict[str, Any]]:
    """One cell per run: all that its result depends on."""
    shared = {"data": data, "steps": steps, "batch": 64 if data == "mnist" else 50, "seed": 0}
    return [{"label": label, "arguments": given, **shared} for label, given in RUNS.items()]


def batches(cell: dict[str, Any], images: int) -> Iterator[np.ndarray]:
    """Those of EVERY steps at a time, every epoch in an order of its own."""
    per_epoch, orders = images // cell["batch"], []
    for epoch in range(math.ceil(cell["steps"] / per_epoch)):
        order = np.random.default_rng((cell["seed"], epoch)).permutation(images)
        orders.append(order[: per_epoch * cell["batch"]])
    chosen = np.concatenate(orders)[: cell["steps"] * cell["batch"]]
    yield from chosen.reshape(-1, EVERY, cell["batch"])


def train(
    cell: dict[str, Any], data: tuple[Any, Any], show: Callable[[float], None]
) -> tuple[dict[str, list[float]], Any]:
    """What was measured along one run, and the state of the monitor at its end."""
    record = oa.optimizers[cell["label"].split()[0]]
    tx = record.make(**cell["arguments"])
    has_mu = record.make in (oa.adam, oa.adabound)
    tx = watched(tx) if has_mu else oa.monitor(tx, every=EVERY)
    trainer = mnist.Trainer(tx, 0.9, record)
    state, curves = trainer.init(cell["seed"]), {}
    for several in batches(cell, len(data[0])):
        # The first of these steps is measured.
        state, losses = trainer.advance(state, *data, several)
        monitor = state[1].steps if has_mu else state[1]
        found = {"step": int(monitor.measured), "loss": float(losses.mean())}
        numbers = oa.scalars(monitor)
        found |= {name: numbers[name] for name in KEPT}
        if has_mu:
            numbers = oa.scalars(state[1].per_mu)
            found |= {PER_MU[name]: numbers[name] for name in RATES}
        for name, value in found.items():
            curves.setdefault(name, []).append(float(f"{value:.4g}"))
        show(found["loss"])
    return curves, monitor


def run(
    cells: list[dict[str, Any]], data: digits_data.Digits, results_file: Path, console: Console
) -> tuple[list[dict[str, Any]], Any]:
    """The results of all cells, each stored as it ends, and the state of the last one run here."""
    cut = len(data.train_images) * 4 // 5
    arrays = jnp.asarray(data.train_images[:cut]), jnp.asarray(data.train_labels[:cut])
    results, last = mnist_report.read(results_file), None
    with Progress(console=console) as progress:
        task = progress.add_task("", total=sum(cell["steps"] for cell in cells))
        for cell in cells:
            if any(result["cell"] == cell for result in results):
                progress.advance(task, cell["steps"])
                continue

            def show(loss: float, label: str = cell["label"]) -> None:
                description = f"{label.ljust(21)} loss {loss:6.3f}"
                progress.update(task, advance=EVERY, description=description)

            curves, last = train(cell, arrays, show)
            results = mnist_report.write(results_file, [*results, {"cell": cell, "curves": curves}])
    return [result for cell in cells for result in results if result["cell"] == cell], last


def curve(results: list[dict[str, Any]], label: str, name: str) -> np.ndarray:
    """What was measured of one run; null becomes NaN."""
    (result,) = (result for result in results if result["cell"]["label"] == label)
    return np.array(result["curves"][name], float)


def band(step: Any) -> tuple[Any, Any]:
    """The least and the largest rate of AdaBound per unit of mu, from its formula."""
    final, x = RUNS["adabound"]["final_lr"], RUNS["adabound"]["gamma"] * step
    return final * (1 - 1 / (x + 1)), final * (1 + 1 / x)


def at_the_end(values: np.ndarray) -> float:
    """The mean over the last tenth of the run: losses and gradients jump about."""
    return float(values[-max(1, len(values) // 10) :].mean())


def rows(results: list[dict[str, Any]]) -> Iterator[tuple[str, ...]]:
    """What was measured first and last, as text: the run, what of it, the two."""
    at = (0, -1)

    def number(x: float) -> str:
        return f"{float(f'{x:.2g}'):g}"

    for label in RUNS:
        for name in ("update_ratio", "update_rms"):
            yield label, name, *(number(curve(results, label, name)[i]) for i in at)
        kinds = {"|u| / |g|": RATES}
        if label in ("adabound", "adam"):
            kinds["|u| / |mu|"] = tuple(PER_MU.values())
        for said, names in kinds.items():
            quantiles = [[number(curve(results, label, name)[i]) for name in names] for i in at]
            yield label, said, *map("/".join, quantiles)
        if label == "adabound":
            ends = (band(curve(results, label, "step")[i]) for i in at)
            yield label, "its band", *("/".join(map(number, end)) for end in ends)
        loss = curve(results, label, "loss")
        yield label, "loss", f"{loss[0]:.3f}", f"{at_the_end(loss):.3f}"


def table(results: list[dict[str, Any]]) -> Table:
    """The rows, for people."""
    caption = f"5/50/95 % of the coordinates; losses of {EVERY} steps, and of the last tenth"
    shown = Table(box=SIMPLE_HEAD, caption=caption)
    first, last = (f"{curve(results, 'adam', 'step')[i]:.0f}" for i in (0, -1))
    for name in ("", f"step {first}", f"step {last}"):
        shown.add_column(name, no_wrap=True)
    before = ""
    for label, *cells in rows(results):
        if label != before:
            shown.add_section()
            shown.add_row(label, style="bold")
        shown.add_row(*cells)
        before = label
    return shown


def smooth(step: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Means of what lies together on a logarithmic axis of steps."""
    where = np.floor(12 * np.log10(step)).astype(int)
    parts = [where == part for part in np.unique(where)]
    return tuple(np.array([x[part].mean() for part in parts]) for x in (step, values))


def figure(results: list[dict[str, Any]], path: Path) -> None:
    """A panel for each of the three, and the losses of all, for light and dark pages."""
    pictures.save(functools.partial(_figure, results), path)


def _figure(results: list[dict[str, Any]]) -> Figure:
    cell, step = results[0]["cell"], curve(results, "adam", "step")
    grey = {"color": plt.rcParams["axes.edgecolor"], "lw": 1.2}
    drawing, ((left, right), (below, losses)) = plt.subplots(
        2, 2, figsize=(pictures.WIDTH, 7.2), layout="constrained"
    )
    for axes in (left, right, below, losses):
        axes.set(xscale="log", yscale="log", xlim=(1, step[-1]), xlabel="step")

    def quantiles(axes: Any, label: str, names: tuple[str, ...], said: str) -> None:
        low, middle, high = (curve(results, label, name) for name in names)
        axes.fill_between(step, low, high, color=COLOUR[label], alpha=0.2, lw=0)
        axes.plot(step, middle, color=COLOUR[label], lw=1.8, label=said)

    left.set_title("AdaGrad: rates, |u| / |g|")
    for label, said in (
        ("adagrad", "rate 0.01, sum from 0"),
        ("adagrad (Keras)", "rate 0.001, sum from 0.1: Keras"),
    ):
        quantiles(left, label, RATES, said)
    start = curve(results, "adagrad", "effective_lr_50")[0]
    left.plot(step, start / np.sqrt(step), ls="--", **grey, label="1 / sqrt(step)")
    left.set_ylim(1e-3, 500)

    right.set_title("AdaBound: rates per unit of mu, |u| / |mu|")
    for name, width in zip(PER_MU.values(), (0.8, 1.8, 0.8), strict=True):
        said = "adam, the same learning rate" if width > 1 else None
        adam = {"color": COLOUR["adam"], "lw": width, "label": said}
        right.plot(step, curve(results, "adam", name), **adam)
    quantiles(right, "adabound", tuple(PER_MU.values()), "adabound")
    lower, upper = band(step)
    right.plot(step, upper, ls="--", **grey, label="edges of AdaBound's band")
    right.plot(step, lower, ls="--", **grey)
    right.axhline(RUNS["adabound"]["final_lr"], ls=":", **grey, label="final_lr")
    right.set_ylim(5e-3, 500)

    below.set_title("AdaDelta: size of steps")
    for label in ("adadelta (lr 1)", "adadelta (lr 0.001)"):
        given, of = RUNS[label], {"color": COLOUR[label], "lw": 1.8}
        below.plot([], [], **of, label=f"learning rate {given['learning_rate']:g}")
        for name, said, line in (
            ("effective_lr_50", "median |u| / |g|", "-."),
            ("update_ratio", "update_ratio", "--"),
            ("update_rms", "update_rms", "-"),
        ):
            if name != "effective_lr_50" or given["learning_rate"] == 1:
                values = curve(results, label, name)
                below.plot(*smooth(step, values), ls=line, **of)
                below.text(1.2, 1.6 * values[0], said, size=8)
        bound = given["learning_rate"] * given["eps"] ** 0.5
        below.axhline(bound, ls=":", **grey)
        below.text(1.2, bound / 1.3, "learning rate sqrt(eps)", va="top", size=8)
    below.set_ylim(2e-7, 100)

    losses.set_title("Training loss")
    for label in RUNS:
        loss = smooth(step, curve(results, label, "loss"))
        losses.plot(*loss, color=COLOUR[label], lw=1.8, label=label)
    for axes in (left, right, below):
        axes.legend(loc="upper right", fontsize=8)
    losses.legend(loc="lower left", fontsize=8)
    what = "MNIST" if cell["data"] == "mnist" else "the digits of scikit-learn"
    title = f"Inside of a run: {what}, {cell['steps']:,} steps of {cell['batch']} images\n"
    title += "Lines are medians; bands go from 5 to 95 % of the coordinates"
    drawing.suptitle(title, x=0.01, ha="left")
    return drawing


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    digits_data.add_options(parser)
    add("--steps", type=int, default=2000, help="of every run, a multiple of 10; default 2000")
    add("--short", action="store_true", help="200 steps")
    add("--output-dir", type=Path, default=Path("outputs/diagnose"))
    args = parser.parse_args(argv)
    if args.short:
        args.steps = 200
    if args.steps < 2 * EVERY or args.steps % EVERY:
        parser.error(f"--steps: a multiple of {EVERY}, at least {2 * EVERY}")
    return args


def main(argv: list[str] | None = None) -> None:
    """Run what the command line asks for, and show it."""
    args = parse(argv)
    console = Console()
    data = digits_data.of_options(args, "diagnose.py")
    console.print(f"Data: {data.source}.", highlight=False)
    args.output_dir.mkdir(parents=True, exist_ok=True)
    results_file = args.output_dir / "results.json"
    cells = plan(data.name, args.steps)
    results, last = run(cells, data, results_file, console)
    console.print(table(results))
    picture = args.output_dir / "diagnose.png"
    figure(results, picture)
    console.print(f"Written: {results_file} and {picture}.", highlight=False)
    if last is not None:
        console.print("\nThe last run, leaf by leaf:")
        oa.report(last)
    else:
        console.print("No run was left to make; in another --output-dir all are made again.")


if __name__ == "__main__":
    main()
