"""What speed.py shows: tables for the terminal and for the page, a summary, the figure."""

import functools
import itertools
import json
import math
import statistics
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
from matplotlib.figure import Figure
from measuring import Shown

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "examples"))

import pictures

# Who is compared, in the order of the columns: the name of a contender, and what it is called.
OTHERS = {
    "optax": "optax",
    "torch fused": "torch fused",
    "torch foreach": "torch foreach",
    "torch for-loop": "torch loop",
    "keras jax": "Keras JAX",
    "keras torch": "Keras torch",
    "keras tensorflow": "Keras TF",
}
DRAWN = (
    *("sgd", "momentum", "adagrad", "rmsprop", "rmsprop centered", "adadelta"),
    *("adam", "adamw", "amsgrad", "nadam", "adamax", "radam", "adabound", "amsbound"),
    *("adabelief", "adan", "adopt", "ademamix", "lion", "yogi"),
)
# For the README: the best known, and those whose temporary arrays went.
FEW = ("adamw", "adam", "adagrad", "adadelta", "adabelief", "adan", "adopt", "lion")


def read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text())


def place(report: dict[str, Any]) -> str:
    """What was measured: AMD EPYC, 2 cores."""
    machine = report["settings"]["machine"]
    return machine.get("device", f"{machine['cpu']}, {machine['cores']} cores")


# --- the numbers ----------------------------------------------------------------------------------


def ideal_bytes(row: dict[str, Any]) -> float:
    """What the best program moves: reads parameters, gradients and k words of state, writes the
    first and the last."""
    return 4 * math.prod(row["shape"]) * (3 + 2 * row["words"])


def over_ideal(row: dict[str, Any], name: str, bandwidth: float) -> float:
    """The time of a step, in that of moving those bytes as fast as a copy does."""
    return row["seconds"][name] * bandwidth / ideal_bytes(row)


def others(report: dict[str, Any]) -> list[str]:
    """Who was measured beside ours, in any row."""
    return [k for k in OTHERS if any(k in row["seconds"] for row in report["rows"].values())]


def front(stages: dict[str, float]) -> float:
    """The seconds before the compiler's."""
    return stages["trace"] + stages["lower"]


# --- tables ---------------------------------------------------------------------------------------


def digits(x: float) -> str:
    """Three of them."""
    return f"{x:#.3g}".rstrip(".")


def steps(report: dict[str, Any]) -> Shown:
    """One step of every optimizer."""
    limit, names = report["copy_bytes_per_second"], others(report)
    size = f"{report['settings']['size'] / 1e6:g}"
    columns = ["optimizer", "ms", "GB/s", "of the\nlimit"]
    columns += ["/ " + OTHERS[k].replace(" ", "\n") for k in names]
    shown = Shown(f"One step of ours, {size}M float32; its time / that of others", columns, [])
    for name, row in report["rows"].items():
        seconds = row["seconds"]["ours"]
        ratios = (row["ratios"].get(f"ours/{k}") for k in names)
        shown.rows.append(
            [
                name,
                digits(1e3 * seconds),
                digits(ideal_bytes(row) / seconds / 1e9),
                f"{1 / over_ideal(row, 'ours', limit):.0%}",
                *("" if ratio is None else f"{ratio:.2f}" for ratio in ratios),
            ]
        )
    return shown


def compiling(report: dict[str, Any]) -> Shown:
    """Before the first step, of the optimizers that were asked for many arrays, too."""
    sizes = ("1", str(report["settings"]["leaves"]))
    columns = ["optimizer"]
    for stage in ("trace + lower", "compile"):
        columns += [f"{x}\n{size}" for size in sizes for x in (stage, "optax")]
    shown = Shown(f"CPU seconds before the first step, for 1 and {sizes[1]} arrays", columns, [])
    for name, row in report["rows"].items():
        if sizes[1] in row["stages"]:
            found = [row["stages"][size].get(who) for size in sizes for who in ("ours", "optax")]
            fronts = ["" if x is None else f"{front(x):.3f}" for x in found]
            compiled = ["" if x is None else f"{x['compile']:.2f}" for x in found]
            shown.rows.append([name, *fronts, *compiled])
    return shown


def tables(report: dict[str, Any]) -> list[Shown]:
    return [steps(report), compiling(report)]


def mean_and_worst(ratios: dict[str, float]) -> str:
    worst = max(ratios, key=lambda name: ratios[name])
    mean = statistics.geometric_mean(ratios.values())
    return f"geometric mean {mean:.2f} (rows: {len(ratios)}), largest {ratios[worst]:.2f} ({worst})"


def summary(report: dict[str, Any]) -> Iterator[str]:
    """What the tables come to, and how far the ratios can be trusted."""
    rows = report["rows"]
    yield f"Copy bandwidth, the limit: {report['copy_bytes_per_second'] / 1e9:.1f} GB/s."
    off = [abs(row["ratios"]["ours/control"] - 1) for row in rows.values()]
    yield (
        f"Control: the time of ours / that of a second copy of ours is off 1 by "
        f"{statistics.median(off):.1%} in the median, by {max(off):.1%} at most."
    )
    for name in others(report):
        key = f"ours/{name}"
        ratios = {n: row["ratios"][key] for n, row in rows.items() if key in row["ratios"]}
        yield f"A step, ours / {OTHERS[name]}: {mean_and_worst(ratios)}."
    many = str(report["settings"]["leaves"])
    both = {n: r["stages"][many] for n, r in rows.items() if "optax" in r["stages"].get(many, {})}
    if both:
        ratios = {n: front(s["ours"]) / front(s["optax"]) for n, s in both.items()}
        yield f"Trace + lower, {many} arrays, ours / optax: {mean_and_worst(ratios)}."
        ratios = {n: s["ours"]["compile"] / s["optax"]["compile"] for n, s in both.items()}
        yield f"Compile, {many} arrays, ours / optax: {mean_and_worst(ratios)}."


# --- the figure -----------------------------------------------------------------------------------


def series(rows: dict[str, Any]) -> Iterator[tuple[str, list[str], dict[str, Any]]]:
    """What is drawn: a label, the contenders of which the fastest counts, how it looks."""

    def look(marker: str, color: str, size: float, **more: Any) -> dict[str, Any]:
        return {"marker": marker, "color": color, "markersize": size, "linestyle": "none", **more}

    hollow = {"markerfacecolor": "none", "markeredgewidth": 1.6}
    yield "optax_adaptive", ["ours"], look("o", pictures.BLUE, 7, zorder=5)
    yield "optax", ["optax"], look("o", pictures.ORANGE, 11, zorder=4, **hollow)
    yield "torch fused", ["torch fused"], look("D", pictures.GREEN, 5.5, zorder=6)
    loops = ["torch foreach", "torch for-loop"]
    yield "torch foreach or loop", loops, look("D", pictures.GREEN, 6.5, **hollow)
    yield "Keras on JAX", ["keras jax"], look("s", pictures.PINK, 13, zorder=3, **hollow)
    others = ["keras torch", "keras tensorflow"]
    yield "Keras on torch or TensorFlow", others, look("s", pictures.PINK, 6)


def figure(report: dict[str, Any], names: Sequence[str] = DRAWN) -> Figure:
    """The time of a step in that of the limit: a row for an optimizer, a mark for who has it."""
    rows = {name: report["rows"][name] for name in names if name in report["rows"]}
    limit = report["copy_bytes_per_second"]
    drawn, axes = plt.subplots(
        figsize=(pictures.WIDTH, 1.6 + 0.255 * len(rows)), layout="constrained"
    )
    ink, behind = plt.rcParams["text.color"], plt.rcParams["grid.color"]
    found: dict[str, list[float]] = {name: [] for name in rows}
    for label, contenders, look in series(rows):
        at = []
        for y, (name, row) in enumerate(rows.items()):
            times = [over_ideal(row, k, limit) for k in contenders if k in row["seconds"]]
            if times:
                at.append((min(times), y))
                found[name].append(min(times))
        if at:
            axes.plot(*zip(*at, strict=True), label=label, **look)
    for y, times in enumerate(found.values()):
        axes.plot([min(times), max(times)], [y, y], color=behind, zorder=1)
    axes.axvline(1, color=ink, linewidth=1.2, zorder=2)
    axes.text(1, -0.7, "limit", ha="center", va="bottom")
    axes.set_xscale("log", base=2)
    times = [1.0, 2.0, *itertools.chain(*found.values())]  # the limit is seen, whatever they are
    ticks = [2**k for k in range(math.ceil(math.log2(max(times))) + 1)]
    axes.set_xticks(ticks, [str(tick) for tick in ticks])
    axes.set_xlim(0.87 * min(times), 1.15 * max(times))
    axes.set_yticks(range(len(rows)), list(rows))
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0, labelcolor=ink)
    axes.grid(visible=False, axis="y")
    axes.spines["left"].set_visible(False)
    size = f"{report['settings']['size'] / 1e6:g}M float32"
    axes.set_xlabel(
        f"time of a step; 1: its bytes moved once, as fast as a copy ({place(report)}, {size})"
    )
    drawn.legend(loc="outside upper left", ncols=3)
    return drawn


def save_figure(report: dict[str, Any], path: Path) -> None:
    """Light and dark, if any of what is drawn was measured; `path`-few for the README."""
    for names, where in ((DRAWN, path), (FEW, path.with_stem(f"{path.stem}-few"))):
        if set(names) & set(report["rows"]):
            pictures.save(functools.partial(figure, report, names), where)
