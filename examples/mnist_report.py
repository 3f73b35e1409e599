"""What mnist.py shows and keeps: the table, the figure, the file of results."""

import json
import os
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator
from rich.box import SIMPLE_HEAD
from rich.table import Table

# Okabe and Ito's colours, which stay apart for colour-blind readers; then again, dashed.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
STYLE = {
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlelocation": "left",
    "axes.titlesize": 11,
    "axes.grid": True,
    "grid.color": "#e6e6e6",
    "figure.dpi": 150,
}
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
    """Training loss and test accuracy over the epochs; a band spans the seeds."""
    cell, epochs = results[0]["cell"], results[0]["cell"]["epochs"]
    with mpl.rc_context(STYLE):
        found = groups(results)
        size = (11, 4.6 + 0.15 * max(0, len(found) - 7))
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
        drawn = [_draw(left, found, epochs, "train_loss")]
        drawn += [_draw(right, found, epochs, "test_accuracy")]
        what = "MNIST" if cell["data"] == "mnist" else "the digits of scikit-learn"
        seeds = len({result["cell"]["seed"] for result in results})
        title = f"One convolutional network, {what}, {len(found)} optimizers"
        title += f", mean and range of {seeds} seeds" if seeds > 1 else ""
        drawing.suptitle(title, x=0.01, ha="left", weight="bold")
        for axes, ends in zip((left, right), drawn, strict=True):
            _label_ends(axes, ends)
        drawing.savefig(path)
        plt.close(drawing)


def _draw(axes: Any, found: dict[str, Any], epochs: int, key: str) -> list[Any]:
    """Draw the mean and the range of each label's curves; return their names, ends and colours."""
    ends = []
    for number, (label, runs) in enumerate(found.items()):
        colour = COLOURS[number % len(COLOURS)]
        line = "-" if number < len(COLOURS) else "--"
        recorded = [np.array(run["curves"][key], float) for run in runs]  # null becomes NaN
        # Runs of different versions of the script may differ in how often they recorded.
        times = [np.arange(1, len(curve) + 1) * epochs / len(curve) for curve in recorded]
        x = min(times, key=len)
        curves = np.array([np.interp(x, *run) for run in zip(times, recorded, strict=True)])
        curves = np.maximum(1 - curves if key == "test_accuracy" else curves, 1e-4)
        axes.plot(x, curves.mean(0), line, lw=1.8, color=colour)
        axes.fill_between(x, curves.min(0), curves.max(0), color=colour, alpha=0.15, lw=0)
        finite = np.flatnonzero(np.isfinite(curves.mean(0)))
        if finite.size:
            name = label if finite[-1] == len(x) - 1 else f"{label}, diverged"
            ends.append((name, x[finite[-1]], curves.mean(0)[finite[-1]], colour))
    return ends


def _label_ends(axes: Any, ends: Sequence[tuple[str, float, float, str]]) -> None:
    """Name each curve at its end, moved just enough that names do not overlap."""
    axes.figure.canvas.draw()
    to_axes = axes.transData + axes.transAxes.inverted()
    heights = np.array([to_axes.transform((x, y))[1] for _, x, y, _ in ends])
    order = np.argsort(heights)
    placed, gap = heights[order], min(0.25 / axes.figure.get_figheight(), 1 / len(ends))
    for _ in range(500):  # push neighbours apart by half of what is missing, inside the axes
        overlap = np.maximum(gap - np.diff(placed), 0) / 2
        placed[:-1] -= overlap
        placed[1:] += overlap
        placed = np.clip(placed, 0, 1)
    for (label, x, y, colour), height in zip([ends[i] for i in order], placed, strict=True):
        axes.annotate(
            label,
            xy=(x, y),
            xytext=(1.06, height),
            textcoords="axes fraction",
            color=colour,
            va="center",
            arrowprops={"arrowstyle": "-", "color": colour, "lw": 0.7, "relpos": (0, 0.5)},
            annotation_clip=False,
        )
