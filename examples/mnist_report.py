"""What mnist.py shows and keeps: the table, the figure, the file of results."""

import functools
import json
import os
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pictures
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator
from rich.box import SIMPLE_HEAD
from rich.table import Table

LINES = ("-", "--", ":", "-.")  # of the second seven curves, the third, ...
ERRORS = (0.9, 0.5, 0.3, 0.2, 0.1, 0.05, 0.03, 0.02, 0.01, 0.005, 0.003, 0.002, 0.001)


def read(path: Path) -> list[dict[str, Any]]:
    """The results in `path`; none if there is no such file."""
    return json.loads(path.read_text()) if path.exists() else []


def write(path: Path, content: Any) -> Any:
    """Write JSON so that a kill leaves the old file or the new one; NaN and Inf become null."""
    content = json.loads(json.dumps(content), parse_constant=lambda _: None)
    part = path.with_suffix(".part")
    part.write_text(json.dumps(content, indent=1, allow_nan=False) + "\n")
    os.replace(part, path)
    return content


def groups(results: Sequence[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """The runs of each label, in order of appearance."""
    found: dict[str, list[dict[str, Any]]] = {}
    for result in results:
        found.setdefault(result["cell"]["label"], []).append(result)
    return found


def table(results: Sequence[dict[str, Any]]) -> Table:
    """One row per optimizer: means over the seeds, ± half the range of their accuracies."""
    cell = results[0]["cell"]
    table = Table(
        title=f"{cell['data']}, {cell['epochs']} epochs of batches of {cell['batch']}",
        caption="state: bytes the optimizer keeps per parameter",
        box=SIMPLE_HEAD,
    )
    table.add_column("optimizer", no_wrap=True)
    for name in ("rate", "train\nloss", "test\nloss", "test\naccuracy", "s per\nepoch", "state"):
        table.add_column(name, justify="right", no_wrap=True)
    for label, runs in groups(results).items():

        def mean(key: str, form: str, runs: list[dict[str, Any]] = runs) -> str:
            values = [run[key] for run in runs]
            return "diverged" if None in values else format(statistics.fmean(values), form)

        found = [run["test_accuracy"] for run in runs]
        spread = f" ±{(max(found) - min(found)) / 2:.4f}" if len(runs) > 1 else ""
        table.add_row(
            label,
            f"{runs[0]['cell']['arguments']['learning_rate']:g}",
            mean("train_loss", ".4f"),
            mean("test_loss", ".4f"),
            mean("test_accuracy", ".4f") + spread,
            mean("seconds_per_epoch", ".2f"),
            mean("state_bytes_per_parameter", ".1f"),
        )
    return table


def figure(results: Sequence[dict[str, Any]], path: Path) -> None:
    """Training loss and test accuracy over the epochs, for light and dark pages."""
    pictures.save(functools.partial(_figure, results), path)


def _figure(results: Sequence[dict[str, Any]]) -> Figure:
    """A band spans the seeds; names are at the right, in the order of the last accuracies."""
    cell, epochs = results[0]["cell"], results[0]["cell"]["epochs"]
    found = groups(results)
    size = (pictures.WIDTH, 3.4 + 0.19 * max(0, len(found) - 14))
    drawing, (left, right) = plt.subplots(1, 2, figsize=size, layout="constrained")
    left.set_title("Training loss")
    right.set_title("Accuracy on the test images")
    for axes in (left, right):
        axes.set(yscale="log", xlim=(0, epochs), xlabel="epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    left.yaxis.set_major_formatter(FuncFormatter(lambda loss, _: f"{loss:g}"))
    # The axis is the error's, upside down: 98 % and 99 % are as far apart as 80 % and 90 %.
    right.invert_yaxis()
    right.yaxis.set_major_locator(FixedLocator(ERRORS))
    right.yaxis.set_minor_locator(NullLocator())
    right.yaxis.set_major_formatter(FuncFormatter(lambda e, _: f"{100 * (1 - e):.4g} %"))
    diverged = {name for name, *_, whole in _draw(left, found, epochs, "train_loss") if not whole}
    ends = [
        (f"{name}, diverged" if name in diverged or not whole else name, x, y, look)
        for name, x, y, look, whole in _draw(right, found, epochs, "test_accuracy")
    ]
    what = "MNIST" if cell["data"] == "mnist" else "the digits of scikit-learn"
    seeds = len({result["cell"]["seed"] for result in results})
    title = f"One convolutional network, {what}, {len(found)} optimizers"
    title += f", mean and range of {seeds} seeds" if seeds > 1 else ""
    drawing.suptitle(title, x=0.01, ha="left")
    _label_ends(right, ends)
    return drawing


def _draw(axes: Axes, found: dict[str, Any], epochs: int, key: str) -> list[Any]:
    """Draw each label's mean and range; return names, ends, looks, and if all of it is finite."""
    colours = (*pictures.COLOURS, plt.rcParams["text.color"])
    ends = []
    for number, (label, runs) in enumerate(found.items()):
        colour = colours[number % len(colours)]
        look = {"color": colour, "ls": LINES[number // len(colours) % len(LINES)]}
        recorded = [np.array(run["curves"][key], float) for run in runs]  # null becomes NaN
        # Runs of different versions of the script may differ in how often they recorded.
        times = [np.arange(1, len(curve) + 1) * epochs / len(curve) for curve in recorded]
        x = min(times, key=len)
        curves = np.array([np.interp(x, *run) for run in zip(times, recorded, strict=True)])
        curves = np.maximum(1 - curves if key == "test_accuracy" else curves, 1e-4)
        axes.plot(x, curves.mean(0), lw=1.6, **look)
        axes.fill_between(x, curves.min(0), curves.max(0), color=colour, alpha=0.2, lw=0)
        finite = np.flatnonzero(np.isfinite(curves.mean(0)))
        last = finite[-1] if finite.size else 0
        ends.append((label, x[last], curves.mean(0)[last], look, last == len(x) - 1))
    return ends


def _label_ends(axes: Axes, ends: Sequence[tuple[str, float, float, dict[str, Any]]]) -> None:
    """Name each curve at its end, moved just enough that names do not overlap."""
    axes.figure.canvas.draw()
    to_axes = axes.transData + axes.transAxes.inverted()
    heights = np.nan_to_num([to_axes.transform((x, y))[1] for _, x, y, _ in ends])
    order = np.argsort(heights)
    placed, gap = heights[order], min(0.2 / axes.figure.get_figheight(), 1 / len(ends))
    for _ in range(500):  # push neighbours apart by half of what is missing, inside the axes
        overlap = np.maximum(gap - np.diff(placed), 0) / 2
        placed[:-1] -= overlap
        placed[1:] += overlap
        placed = np.clip(placed, 0, 1)
    for (label, x, y, look), height in zip([ends[i] for i in order], placed, strict=True):
        axes.annotate(
            label,
            xy=(x, y),
            xytext=(1.09, height),
            textcoords="axes fraction",
            va="center",
            arrowprops={"arrowstyle": "-", "lw": 1.6, "relpos": (0, 0.5), **look},
            annotation_clip=False,
        )
