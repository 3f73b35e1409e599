"""What convergence.py shows: the numbers, the tables, the figures."""

import functools
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib.pyplot as plt
import numpy as np
from lr_basin_report import RATE_FREE
from matplotlib.colors import BoundaryNorm, ListedColormap
from matplotlib.patches import Patch
from measuring import Shown
from scipy import stats

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "examples"))

import pictures  # noqa: E402
import tasks  # noqa: E402

LEVEL = 0.05  # of the test that tells two optimizers apart
FAR = 10.0  # a ratio counts as this at most: one failure shall not decide everything
CLEAR = 1.1  # a ratio of losses beyond the luck of most searches
EDGE = 0.1  # of a range: a best rate so near to its end might have been beyond it
REFERENCE = "adam"
CLASSICS = ("sgd", "adagrad", "rmsprop", "adadelta", "adam", "adamax")  # what all have, up to 2015

# --- the numbers ----------------------------------------------------------------------------------


class Ending(NamedTuple):
    """How the seeds of one setting end."""

    values: np.ndarray  # by seed; what diverged or grew counts as what it started from
    mean: float
    interval: float  # half of the 95 % t-interval of the mean
    success: float  # the share of seeds that ended near to where Adam does


def values_of(result: dict[str, Any], which: str) -> np.ndarray:
    start = np.array(result["start"])
    found = np.array([np.inf if x is None else x for x in result[which]["test"]])
    return np.minimum(found, start)


class Numbers(NamedTuple):
    """Of all results: by task and optimizer."""

    tasks: list[str]
    optimizers: list[str]  # the best first, of those that were trained on every task
    tuned: dict[tuple[str, str], Ending]
    default: dict[tuple[str, str], Ending]
    ratio: dict[tuple[str, str], float]  # of the mean to the best mean on the task
    default_ratio: dict[tuple[str, str], float]
    equal: dict[tuple[str, str], bool]  # whether seeds do not tell it from the best
    results: dict[tuple[str, str], dict[str, Any]]

    def score(self, name: str) -> float:
        """The geometric mean of the ratios."""
        return geometric([self.ratio[task, name] for task in self.tasks])

    def default_score(self, name: str) -> float:
        return geometric([self.default_ratio[task, name] for task in self.tasks])

    def equal_on(self, name: str) -> int:
        return sum(self.equal[task, name] for task in self.tasks)


def geometric(ratios: Sequence[float]) -> float:
    return math.exp(np.mean(np.log(np.minimum(ratios, FAR))))


def near(result: dict[str, Any], reference: np.ndarray) -> float:
    """What a seed must end below: nine tenths of the way to Adam's median, in the logarithm."""
    start, end = np.log(np.median(result["start"])), np.log(np.median(reference))
    return float(np.exp(end + 0.1 * (start - end)))


def numbers(report: dict[str, Any]) -> Numbers:
    results = {(r["cell"]["task"], r["cell"]["optimizer"]): r for r in report["results"]}
    names = [n for n in tasks.NAMES if any(task == n for task, _ in results)]
    every = dict.fromkeys(name for _, name in results)
    everywhere = [n for n in every if all((task, n) in results for task in names)]
    results = {k: r for k, r in results.items() if k[1] in everywhere}
    ends: dict[str, dict[tuple[str, str], Ending]] = {"tuned": {}, "default": {}}
    ratios: dict[str, dict[tuple[str, str], float]] = {"tuned": {}, "default": {}}
    equal = {}
    for task in names:
        reference = values_of(
            results[task, REFERENCE if REFERENCE in everywhere else everywhere[0]], "tuned"
        )
        for name in everywhere:
            result = results[task, name]
            for which, found in ends.items():
                values = values_of(result, which)
                error = stats.sem(values) * stats.t.ppf(0.975, len(values) - 1)
                success = float((values <= near(result, reference)).mean())
                found[task, name] = Ending(values, float(values.mean()), float(error), success)
        tuned = {name: ends["tuned"][task, name] for name in everywhere}
        best = min(tuned, key=lambda name: tuned[name].mean)
        for name in everywhere:
            for which, found in ends.items():
                ratios[which][task, name] = found[task, name].mean / tuned[best].mean
            equal[task, name] = name == best or not worse(tuned[name].values, tuned[best].values)
    found = Numbers(
        names,
        everywhere,
        ends["tuned"],
        ends["default"],
        ratios["tuned"],
        ratios["default"],
        equal,
        results,
    )
    return found._replace(optimizers=sorted(everywhere, key=found.score))


def worse(ours: np.ndarray, best: np.ndarray) -> bool:
    """By a paired t-test: the same seed is the same start and the same batches."""
    apart = ours - best
    if np.ptp(apart) <= 1e-9 * np.abs(apart).max():  # all the same: no test is needed
        return bool(apart[0] > 0)
    return bool(stats.ttest_rel(ours, best, alternative="greater").pvalue < LEVEL)


def luck(result: dict[str, Any]) -> float:
    """How far apart the best of one half of the trials and of the other end, as a ratio."""
    losses = [math.inf if x is None else x for x in result["trials"]["validation"]]
    rng, apart = np.random.default_rng(0), []
    for _ in range(50):
        halves = np.array_split(rng.permutation(losses), 2)
        better, other = sorted(half.min() for half in halves)
        apart.append(min(other / better, FAR))
    return float(np.mean(apart))


def at_the_edge(result: dict[str, Any]) -> bool:
    """Whether the best rate lies at an end of its range."""
    low, high = np.log(result["cell"]["rates"])
    share = (math.log(result["best"]["rate"]) - low) / (high - low)
    return not EDGE <= share <= 1 - EDGE


# --- the tables -----------------------------------------------------------------------------------


def overall(found: Numbers) -> Shown:
    columns = ["optimizer", "score", f"best or equal, of {len(found.tasks)}", "its worst"]
    columns += ["success", "as it comes: score", "success", "a step, of SGD's", "state, B"]
    shown = Shown("All tasks", columns, [], numbers=False)
    for name in found.optimizers:
        of = [(task, name) for task in found.tasks]
        shown.rows.append(
            [
                name,
                f"{found.score(name):.2f}",
                str(found.equal_on(name)),
                f"{max(found.ratio[k] for k in of):.2f}",
                f"{np.mean([found.tuned[k].success for k in of]):.0%}",
                f"{found.default_score(name):.2f}",
                f"{np.mean([found.default[k].success for k in of]):.0%}",
                f"{statistics_of(found, name, 'step_of_sgd'):.1f}",
                f"{statistics_of(found, name, 'state_bytes'):.1f}",
            ]
        )
    return shown


def statistics_of(found: Numbers, name: str, what: str) -> float:
    """The median over the tasks: a busy moment of the machine, or a small task, decides nothing."""
    return float(np.median([found.results[task, name][what] for task in found.tasks]))


def winners(found: Numbers) -> Shown:
    """The best on every task, who cannot be told from it, and the best that is old."""
    columns = ["task", "best", "best classic", "its loss, of the best", "not told from the best"]
    shown = Shown("By task", columns, [], named=False, numbers=False)
    for task in found.tasks:
        by_loss = sorted(found.optimizers, key=lambda name: found.tuned[task, name].mean)
        old = next((n for n in by_loss if n in CLASSICS), by_loss[0])
        others = [f"`{name}`" for name in by_loss[1:] if found.equal[task, name]]
        shown.rows.append(
            [
                tasks.TITLES[task],
                f"`{by_loss[0]}`",
                f"`{old}`",
                f"{found.ratio[task, old]:.2f}" + (", not told" if found.equal[task, old] else ""),
                ", ".join(others) or "none",
            ]
        )
    return shown


def clearly_below(found: Numbers, task: str, name: str, other: str, by: float) -> bool:
    """Whether it ends below another by so much, at seeds that tell."""
    ours, theirs = found.tuned[task, name], found.tuned[task, other]
    return ours.mean * by < theirs.mean and worse(theirs.values, ours.values)


def ahead(found: Numbers, name: str, by: float = CLEAR) -> list[str]:
    """The tasks on which it ends clearly below Adam."""
    return [t for t in found.tasks if clearly_below(found, t, name, REFERENCE, by)]


def behind(found: Numbers, name: str, by: float = CLEAR) -> list[str]:
    """The tasks on which it ends clearly above Adam."""
    return [t for t in found.tasks if clearly_below(found, t, REFERENCE, name, by)]


def endings(found: Numbers) -> Shown:
    """Mean and interval on every task."""
    columns = ["optimizer", *(tasks.TITLES[task] for task in found.tasks)]
    shown = Shown("Test loss at the end, best setting", columns, [], numbers=False)
    for name in found.optimizers:
        cells = []
        for task in found.tasks:
            end = found.tuned[task, name]
            text = f"{end.mean:.3g} ± {end.interval:.1g}"
            cells.append(f"**{text}**" if found.equal[task, name] else text)
        shown.rows.append([name, *cells])
    return shown


def searched(found: Numbers) -> Shown:
    """The ranges, what was found in them, and where that was at an end."""
    columns = ["optimizer", "rates", "second", "range", "schedule", "best rates", "at an end on"]
    shown = Shown("Searched", columns, [], numbers=False)
    # The optimizers as the results have them: in the order of the library.
    for name in dict.fromkeys(name for _, name in found.results):
        of = {task: found.results[task, name] for task in found.tasks}
        cell = of[found.tasks[0]]["cell"]
        other, low, high, of_one_minus = cell["second"]
        bests = sorted(r["best"]["rate"] for r in of.values())
        shown.rows.append(
            [
                name,
                " to ".join(f"{x:g}" for x in cell["rates"]),
                f"`1 - {other}`" if of_one_minus else f"`{other}`",
                f"{low:g} to {high:g}",
                cell["schedule"],
                f"{bests[0]:.2g} to {bests[-1]:.2g}",
                "; ".join(tasks.TITLES[task] for task, r in of.items() if at_the_edge(r)),
            ]
        )
    return shown


def tables(report: dict[str, Any]) -> list[Shown]:
    found = numbers(report)
    return [overall(found), winners(found), endings(found), searched(found)]


# --- the figures ----------------------------------------------------------------------------------

# Ratios to the best, and their colours: readable with dark figures on the first, light on the last.
STEPS = (1.0, 1.05, 1.15, 1.4, 2.0, 4.0, math.inf)
SHADES = ("#0b5e4a", "#3f9a7d", "#9fcdb8", "#ead9b0", "#dd9a5b", "#b34a2b")
WRITTEN = ("#ffffff", "#ffffff", "#10302a", "#33280f", "#2d1605", "#ffffff")


def shade(ratio: float) -> int:
    return max(0, int(np.searchsorted(STEPS, ratio, side="right")) - 1)


def heat_map(found: Numbers) -> Any:
    """Every optimizer on every task: how far from the best."""
    names, columns = found.optimizers, [*found.tasks, "all"]
    ratios = [[found.ratio[t, n] for t in found.tasks] + [found.score(n)] for n in names]
    height = 1.5 + 0.215 * len(names)
    drawing, axes = plt.subplots(figsize=(pictures.WIDTH, height), layout="constrained")
    codes = np.array([[shade(r) for r in row] for row in ratios])
    axes.imshow(
        codes,
        cmap=ListedColormap(SHADES),
        norm=BoundaryNorm(np.arange(-0.5, len(SHADES)), len(SHADES)),
        aspect="auto",
    )
    for i, name in enumerate(names):
        for j, column in enumerate(columns):
            mark = " •" if column != "all" and found.equal[column, name] else ""
            ratio = ratios[i][j]
            text = f"{ratio:.2f}{mark}" if ratio < FAR else f"> {FAR:g}"
            weight = "bold" if column == "all" else "normal"
            style = {"ha": "center", "va": "center", "size": 7.5, "weight": weight}
            axes.text(j, i, text, color=WRITTEN[codes[i][j]], **style)
    labels = [tasks.TITLES[task].replace(", ", ",\n").replace(" ", "\n", 1) for task in found.tasks]
    labels = [label.replace("\n\n", "\n") for label in labels]
    axes.set_xticks(range(len(columns)), [*labels, "score"], size=8)
    axes.xaxis.tick_top()
    axes.set_yticks(range(len(names)), names, size=8)
    for label, name in zip(axes.get_yticklabels(), names, strict=True):
        if name in RATE_FREE:
            label.set_color(pictures.ORANGE)
    paper = plt.rcParams["axes.facecolor"]
    axes.set_xticks(np.arange(0.5, len(columns) - 1), minor=True)
    axes.set_yticks(np.arange(0.5, len(names) - 1), minor=True)
    axes.grid(visible=False)
    axes.grid(which="minor", color=paper, linewidth=1)
    axes.axvline(len(columns) - 1.5, color=paper, linewidth=5)
    axes.tick_params(which="both", length=0)
    axes.spines[:].set_visible(False)
    handles = [
        Patch(color=colour, label=f"up to {high:g}" if math.isfinite(high) else "more")
        for colour, high in zip(SHADES, STEPS[1:], strict=True)
    ]
    drawing.legend(
        handles=handles,
        loc="outside lower center",
        ncols=len(handles),
        columnspacing=1.2,
        handlelength=1.2,
        title="test loss over that of the best; • not told from the best by its seeds; "
        "orange: finds a rate by itself",
        title_fontsize=8,
    )
    return drawing


def figures(report: dict[str, Any], folder: Path) -> list[Path]:
    found = numbers(report)
    path = folder / "convergence.png"
    pictures.save(functools.partial(heat_map, found), path)
    return [path]
