"""What lr_basin.py keeps and shows: the file of results, the table, the figure, the comparison."""

import functools
import itertools
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.colors import BoundaryNorm, ListedColormap, to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle
from rich.box import SIMPLE_HEAD
from rich.table import Table
from scipy import stats

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "examples"))

import pictures

POINT = 0.01  # of accuracy: what is within it counts as equally good
# They measure how far there is to go; their rate is a factor on what they find.
RATE_FREE = (
    *("dadapt_sgd", "dadapt_adagrad", "dadapt_adam", "prodigy", "dog", "ldog", "dowg", "cocob"),
    *("momo", "momo_adam"),
)
TITLES = {"digits": "digits, small convolutional network", "mnist": "part of MNIST, three layers"}

# Points of accuracy missing to the best optimizer, and their shares of its colour on the paper.
MISSING = (0, 1, 3, 10, 30, 100)
BEST, SHARES = "#1d63b8", (1, 0.65, 0.38, 0.17)
GOOD, BAD, FREE = "#00b482", "#e0491b", "#c2489c"


def key(result: dict[str, Any]) -> tuple[str, str]:
    return result["cell"]["task"], result["cell"]["optimizer"]


# --- the numbers ----------------------------------------------------------------------------------


class Basin(NamedTuple):
    """The rates around the best one that are as good, in decades: log10 of the rate."""

    low: float
    high: float
    cut: bool  # by an end of the grid: it may be wider

    @property
    def width(self) -> float:
        return self.high - self.low

    def __str__(self) -> str:
        return f"{'>= ' if self.cut else ''}{self.width:.1f}"


def basin(rates: Sequence[float], means: Sequence[float], within: float = POINT) -> Basin:
    """The contiguous range around the best rate, interpolated on the logarithmic axis."""
    x, best = np.log10(rates), int(np.argmax(means))
    level = means[best] - within

    def end(towards: int) -> tuple[float, bool]:
        at = best
        while 0 <= at + towards < len(x) and means[at + towards] >= level:
            at += towards
        after = at + towards
        if not 0 <= after < len(x):
            return float(x[at]), True
        share = (means[at] - level) / (means[at] - means[after])
        return float(x[at] + share * (x[after] - x[at])), False

    (low, cut_below), (high, cut_above) = end(-1), end(1)
    return Basin(low, high, cut_below or cut_above)


class Summary(NamedTuple):
    """One optimizer on one task."""

    rates: list[float]
    means: list[float]  # of the accuracy over the seeds, by rate
    best: float
    interval: float  # half of the 95 % t-interval of the best mean
    best_rate: float
    default: float
    at_default: float
    diverged: int  # rates of the grid at which a seed ended with what is not finite
    basin: Basin

    def alone(self, best_of_all: float) -> bool:
        """Whether its default may be left as it is."""
        inside = self.basin.low - 1e-9 <= math.log10(self.default) <= self.basin.high + 1e-9
        return inside and self.at_default >= best_of_all - POINT


def summary(result: dict[str, Any], rates: Sequence[float] | None = None) -> Summary:
    """The numbers of the table, of all rates or of some."""
    cell = result["cell"]
    kept = [i for i, rate in enumerate(cell["rates"]) if rates is None or rate in rates]
    accuracy = np.array(result["accuracy"])[kept]
    used, means = [cell["rates"][i] for i in kept], accuracy.mean(1)
    best, seeds = int(means.argmax()), accuracy.shape[1]
    error = accuracy[best].std(ddof=1) / math.sqrt(seeds)
    return Summary(
        rates=used,
        means=means.tolist(),
        best=float(means[best]),
        interval=float(stats.t.ppf(0.975, seeds - 1) * error),
        best_rate=used[best],
        default=cell["default"],
        at_default=float(means[used.index(cell["default"])]),
        diverged=sum(None in result["loss"][i] for i in kept),
        basin=basin(used, means.tolist()),
    )


def summaries(report: dict[str, Any]) -> dict[str, dict[str, Summary]]:
    """By task, then by optimizer."""
    found: dict[str, dict[str, Summary]] = {}
    for result in report["results"]:
        task, name = key(result)
        found.setdefault(task, {})[name] = summary(result)
    return found


def best_of(rows: dict[str, Summary]) -> float:
    return max(row.best for row in rows.values())


# --- the table ------------------------------------------------------------------------------------


def tables(report: dict[str, Any]) -> list[Table]:
    """One per task, the most accurate at their defaults first."""
    found = []
    for task, rows in summaries(report).items():
        top = best_of(rows)
        cell = next(r["cell"] for r in report["results"] if r["cell"]["task"] == task)
        table = Table(
            title=f"{TITLES[task]}: {cell['steps']} steps of {cell['batch']} images",
            caption="basin: decades of learning rates within a point of the optimizer's best; "
            "left alone: the default is in it and within a point of the best of all",
            box=SIMPLE_HEAD,
        )
        table.add_column("optimizer", no_wrap=True)
        for head in ("best accuracy, %", "at rate", "basin", "from", "to", "default", "there, %"):
            table.add_column(head, justify="right", no_wrap=True)
        table.add_column("left alone", justify="center")
        table.add_column("rates that diverged", justify="right")
        for name, row in sorted(rows.items(), key=lambda item: -item[1].at_default):
            table.add_row(
                name + (" *" if name in RATE_FREE else ""),
                f"{100 * row.best:.1f} ± {100 * row.interval:.1f}",
                f"{row.best_rate:.2g}",
                str(row.basin),
                f"{10**row.basin.low:.1g}",
                f"{10**row.basin.high:.1g}",
                f"{row.default:.2g}",
                f"{100 * row.at_default:.1f}",
                "yes" if row.alone(top) else "",
                str(row.diverged or ""),
            )
        found.append(table)
    return found


# --- the figure -----------------------------------------------------------------------------------


def groups(found: dict[str, dict[str, Summary]]) -> dict[str, list[str]]:
    """The optimizers under the headings of the figure, the best first."""
    tops = {task: best_of(rows) for task, rows in found.items()}
    names = list(dict.fromkeys(name for rows in found.values() for name in rows))

    def of(name: str) -> list[tuple[Summary, float]]:
        return [(rows[name], tops[task]) for task, rows in found.items() if name in rows]

    def misses(name: str) -> float:
        return max(top - row.at_default for row, top in of(name))

    def grade(name: str) -> int:
        verdicts = [row.alone(top) for row, top in of(name)]
        return 0 if all(verdicts) else 1 if any(verdicts) else 2

    heads = ("Good as they come on both tasks", "On one of the two", "Set the rate yourself")
    if len(found) == 1:
        heads = ("Good as they come", "", "Set the rate yourself")
    ranked = sorted(names, key=lambda name: (grade(name), misses(name)))
    return {heads[grade]: list(some) for grade, some in itertools.groupby(ranked, grade)}


def title(found: dict[str, dict[str, Summary]]) -> str:
    """The conclusion, from the numbers."""
    grouped = groups(found)
    names = [name for some in grouped.values() for name in some]
    alone = next((some for head, some in grouped.items() if head.startswith("Good")), [])
    free, good = [n for n in names if n in RATE_FREE], [n for n in alone if n in RATE_FREE]
    text = f"{len(alone)} of {len(names)} optimizers can be left at their default learning rate"
    if free:
        text += f"\n{len(good)} of the {len(free)} that find a rate by themselves are among them"
    return text


def figure(report: dict[str, Any], path: Path) -> None:
    """A strip per optimizer and task, for light and dark pages."""
    pictures.save(functools.partial(_figure, report), path)


def _figure(report: dict[str, Any]) -> Figure:
    """Colour by accuracy; an optimizer's basin is framed, its default a dot."""
    found = summaries(report)
    places, heads, y = {}, {}, 0.0
    for head, names in groups(found).items():
        heads[head] = y
        y += 1.0
        for name in names:
            places[name] = y
            y += 1.0
        y += 0.35
    size = (pictures.WIDTH, 2.1 + 0.182 * y)
    drawing, axes = plt.subplots(
        1, len(found), figsize=size, sharey=True, squeeze=False, layout="constrained"
    )
    for panel, (task, rows) in zip(axes[0], found.items(), strict=True):
        _panel(panel, rows, places)
        panel.set_title(TITLES[task], pad=16)
    first = axes[0, 0]
    first.set_yticks(list(places.values()), list(places))
    first.set_ylim(y - 0.6, -0.6)
    for label in first.get_yticklabels():
        free = label.get_text() in RATE_FREE
        label.set(color=FREE if free else plt.rcParams["text.color"])
        label.set(weight="bold" if free else "normal")
    for head, at in heads.items():
        number = f"{head} ({sum(n in places for n in groups(found)[head])})"
        first.text(-5.3, at + 0.1, number, weight="bold", va="center")
    drawing.suptitle(title(found), x=0.01, ha="left")
    _legend(drawing, any(name in RATE_FREE for name in places))
    return drawing


def _shades() -> list[Any]:
    """From what is best to what is lost in the paper."""
    paper, lost = to_rgb(plt.rcParams["axes.facecolor"]), to_rgb(plt.rcParams["grid.color"])
    mixed = [np.array(to_rgb(BEST)) * share + np.array(paper) * (1 - share) for share in SHARES]
    return [*map(tuple, mixed), tuple(0.4 * np.array(lost) + 0.6 * np.array(paper))]


def _panel(axes: Any, rows: dict[str, Summary], places: dict[str, float]) -> None:
    top, colours = best_of(rows), ListedColormap(_shades())
    ink, grey, paper = (
        plt.rcParams[name] for name in ("text.color", "axes.edgecolor", "axes.facecolor")
    )
    norm = BoundaryNorm(MISSING, colours.N)
    for name, row in rows.items():
        y, x = places[name], np.log10(row.rates)
        middle = (x[1:] + x[:-1]) / 2
        edges = np.concatenate([[x[0] - 0.25], middle, [x[-1] + 0.25]])
        missing = 100 * (top - np.array(row.means))[None]
        # A point exactly is within a point.
        axes.pcolormesh(edges, [y - 0.4, y + 0.4], missing - 1e-6, cmap=colours, norm=norm)
        low = edges[0] if row.basin.low <= x[0] else row.basin.low
        high = edges[-1] if row.basin.high >= x[-1] else row.basin.high
        frame = Rectangle((low, y - 0.4), high - low, 0.8, fill=False, ec=ink, lw=1.1, zorder=3)
        axes.add_patch(frame)
        alone = row.alone(top)
        look = {"marker": "o", "color": GOOD} if alone else {"marker": "X", "color": BAD}
        axes.plot(np.log10(row.default), y, ms=6, mec=paper, mew=0.8, zorder=4, **look)
        number = f"{100 * row.at_default:.1f}"
        axes.text(2.35, y, number, color=ink if alone else grey, va="center", size=8)
    axes.text(3.3, -0.62, "% at default", va="bottom", ha="right", size=8, color=grey)
    powers = (-5, -3, -1, 1)
    axes.set_xticks(powers, ["1e-5", "0.001", "0.1", "10"])
    axes.set(xlim=(-5.3, 3.3))
    axes.set_xlabel("learning rate", loc="left")
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.grid(visible=False)


def _legend(drawing: Any, free: bool) -> None:
    ink, beside, paper = (
        plt.rcParams[name] for name in ("text.color", "axes.edgecolor", "axes.facecolor")
    )
    dot = functools.partial(Line2D, [], [], ls="none", ms=7, mec=paper)
    ranges = ("within 1 point of the best optimizer", "1 to 3 below", "3 to 10", "10 to 30", "more")
    shades = [
        Patch(fc=c, ec=beside, lw=0.5, label=t) for c, t in zip(_shades(), ranges, strict=True)
    ]
    handles = [
        dot(marker="o", color=GOOD, label="default rate: leave it"),
        dot(marker="X", color=BAD, label="default rate: costs more than 1 point"),
        Patch(fc="none", ec=ink, lw=1.1, label="within 1 point of its own best"),
    ]
    if free:
        text = "finds its rate; the axis is a factor on it"
        handles.append(Line2D([], [], ls="none", ms=9, marker="$abc$", color=FREE, label=text))
    drawing.legend(handles=[*handles, *shades], loc="outside lower left", ncols=2)


# --- the comparison -------------------------------------------------------------------------------


def compare(ours: dict[str, Any], committed: dict[str, Any]) -> tuple[Table, str, bool]:
    """Whether the clear cases of the committed results come out in the same order.

    Clear are a decade between two basins, three points at the defaults, and best accuracies whose
    intervals do not meet.

    The committed results are read at the same rates, so that a coarser grid is no difference.
    """
    theirs = {key(result): result for result in committed["results"]}
    pairs = {
        key(result): (summary(result), summary(theirs[key(result)], result["cell"]["rates"]))
        for result in ours["results"]
        if key(result) in theirs and comparable(result["cell"], theirs[key(result)]["cell"])
    }
    table = Table(title="Now | committed, at the same rates", box=SIMPLE_HEAD)
    table.add_column("task, optimizer", no_wrap=True)
    for head in ("best accuracy, %", "at rate", "basin", "at default, %"):
        table.add_column(head, justify="right", no_wrap=True)
    for (task, name), (now, then) in pairs.items():
        table.add_row(
            f"{task}, {name}",
            " | ".join(f"{100 * s.best:.1f} ± {100 * s.interval:.1f}" for s in (now, then)),
            " | ".join(f"{s.best_rate:.2g}" for s in (now, then)),
            " | ".join(str(s.basin) for s in (now, then)),
            " | ".join(f"{100 * s.at_default:.1f}" for s in (now, then)),
        )
    clear, turned = 0, []
    for (a, (now_a, then_a)), (b, (now_b, then_b)) in itertools.permutations(pairs.items(), 2):
        if a[0] != b[0]:
            continue
        if then_a.basin.width > then_b.basin.width + 1:
            clear += 1
            if now_a.basin.width <= now_b.basin.width:
                turned.append(f"{a[0]}: the basin of {a[1]} is no longer wider than {b[1]}'s")
        if then_a.at_default > then_b.at_default + 3 * POINT:
            clear += 1
            if now_a.at_default <= now_b.at_default:
                turned.append(f"{a[0]}: {a[1]} is no longer better than {b[1]} at its default")
        if then_a.best - then_a.interval > then_b.best + then_b.interval:
            clear += 1
            if now_a.best <= now_b.best:
                turned.append(f"{a[0]}: {a[1]} is no longer more accurate than {b[1]}")
    if not clear:
        return (
            table,
            "No clear cases to compare: are the results committed, and as set here?",
            False,
        )
    if turned:
        words = f"{len(turned)} of {clear} clear cases came out otherwise: {'; '.join(turned)}."
        return table, words, False
    return table, f"The same ranking: all {clear} clear cases came out as committed.", True


def comparable(now: dict[str, Any], then: dict[str, Any]) -> bool:
    """The same but for the seeds and the rates, of which the committed ones may be more."""
    same = {k: v for k, v in now.items() if k not in ("rates", "seeds")}
    return same.items() <= then.items() and set(now["rates"]) <= set(then["rates"])
