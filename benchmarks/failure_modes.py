"""What does each optimizer survive? Seven difficulties, each alone, and the same problem without.

    python benchmarks/failure_modes.py              # every optimizer, ten minutes on two cores
    python benchmarks/failure_modes.py --optimizer adam adagrad --output-dir outputs/modes
    python benchmarks/failure_modes.py --draw       # the table and the figure, nothing trained

A matrix of 8x8 numbers has to be learned in 1,000 steps, at a constant rate: 13 rates over four
decades, ten seeds. It is learned if nine of ten seeds end below a twentieth of the loss they
started from. The rate in the middle of those at which the easy twin is learned is tried on the
difficult problem, then all others. All other hyperparameters are as they come.

Prints a table, writes results/failure_modes.json and draws docs/figures/failure_modes.png. A
killed run goes on where it stopped.
"""

import argparse
import datetime
import functools
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import measuring
import numpy as np
import optax
from convergence import SPACE
from lr_basin import ONE_BY_ONE, averaged, evaluated, gradient
from lr_basin_report import RATE_FREE
from matplotlib.lines import Line2D
from rich.console import Console

import optax_adaptive as oa

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "examples"))

import pictures  # noqa: E402

RESULTS, FIGURES = HERE / "results", HERE.parent / "docs" / "figures"
SHAPE, STEPS, SEEDS, RATES = (8, 8), 1000, 10, 13
LEARNED = 0.05  # of the loss at the start
RELIABLE = 0.9  # of the seeds
DELAY = 20
NUMBERS = np.arange(64.0).reshape(SHAPE) / 63  # 0 to 1: what differs from coordinate to coordinate

# --- the difficulties -----------------------------------------------------------------------------


class Chance(NamedTuple):
    """What is drawn at a step, of the shape of the parameters."""

    normal: jax.Array
    uniform: jax.Array


class Problem(NamedTuple):
    """What is learned: the optimum is 1 everywhere unless the loss says otherwise."""

    loss: Callable[
        [jax.Array, Chance, jax.Array], jax.Array
    ]  # parameters, chance, time from 0 to 1
    error: Callable[[jax.Array, jax.Array], jax.Array]  # what counts: parameters, time
    start: Callable[[jax.Array], jax.Array] = jnp.zeros_like  # of normal numbers
    delay: int = 0  # steps by which gradients are late


def distance(x: jax.Array, _: Any = None) -> jax.Array:
    """Every coordinate counts as much as any other."""
    return jnp.square(x - 1).mean()


def little(chance: Chance) -> jax.Array:
    return 0.1 * chance.normal


def bowl(curvature: Any = 1.0, noise: Callable[[Chance], Any] = little) -> Callable[..., jax.Array]:
    """Half of the weighted squares of what is missing."""

    def loss(x: jax.Array, chance: Chance, _: Any) -> jax.Array:
        return 0.5 * (curvature * jnp.square(x - 1 - noise(chance))).sum()

    return loss


def features(present: Any) -> Callable[..., jax.Array]:
    """A regression on features that are there or not, so often: an example a step."""

    def loss(x: jax.Array, chance: Chance, _: Any) -> jax.Array:
        there = (chance.uniform < present).astype(x.dtype)
        return 0.5 * jnp.square((there * (x - 1)).sum() + little(chance)[0, 0])

    return loss


def heavy(chance: Chance) -> jax.Array:
    """Pareto's numbers with a tail of 1.5 and either sign: their variance is infinite."""
    return 0.1 * jnp.sign(chance.normal) * (chance.uniform ** (-1 / 1.5) - 1)


def wells(x: jax.Array, _: Any = None, __: Any = None) -> jax.Array:
    """Four rows of bowls around 0, four of double wells between whose minima, ±1, is a ridge."""
    bowls, double = x[:4] - 1, jnp.square(x[4:]) - 1
    return 0.5 * jnp.square(bowls).sum() + 0.25 * jnp.square(double).sum()


def hollow(x: jax.Array, _: Any = None, __: Any = None) -> jax.Array:
    """Flat far away: at distance d the slope is about 2 / d³."""
    d2 = jnp.square(x - 1)
    return (d2 / (1 + d2)).sum()


def moving(turns: float) -> tuple[Callable[..., jax.Array], Callable[..., jax.Array]]:
    """An optimum on a circle, at another angle for every coordinate."""

    def optimum(now: jax.Array) -> jax.Array:
        return jnp.sin(2 * jnp.pi * (turns * now + NUMBERS))

    def error(x: jax.Array, now: jax.Array) -> jax.Array:
        return jnp.square(x - optimum(now)).mean()

    def loss(x: jax.Array, chance: Chance, now: jax.Array) -> jax.Array:
        return 0.5 * jnp.square(x - optimum(now) - 0.1 * chance.normal).sum()

    return loss, error


EASY = Problem(bowl(), distance)
WELLS = Problem(wells, wells, lambda normal: jnp.where(NUMBERS < 0.5, 0.0, 0.5) * jnp.sign(normal))
# The difficult problem, and the same without the difficulty.
MODES: dict[str, tuple[Problem, Problem]] = {
    "sparse gradients": (
        Problem(features(10 ** (-2.5 * NUMBERS)), distance),  # in every example to in three
        Problem(features(0.2), distance),
    ),
    "badly scaled": (Problem(bowl(10 ** (-6 * NUMBERS)), distance), EASY),
    "saddle": (
        WELLS._replace(start=lambda normal: jnp.where(NUMBERS < 0.5, 0.0, 1e-6) * normal),
        WELLS,
    ),
    "plateau": (
        Problem(hollow, hollow, lambda normal: 1 + 10 * jnp.sign(normal)),
        Problem(hollow, hollow, lambda normal: 1 + jnp.sign(normal)),
    ),
    "heavy-tailed noise": (Problem(bowl(noise=heavy), distance), EASY),
    "delayed gradients": (EASY._replace(delay=DELAY), EASY),
    "drifting optimum": (Problem(*moving(10.0)), Problem(*moving(0.0))),
}
PROBLEMS = [problem for pair in MODES.values() for problem in pair]

# --- one run --------------------------------------------------------------------------------------


def optimizer(name: str, rate: Any) -> Any:
    roles = {"muon": "matrix", "adam_mini": "neurons"}
    role = {"roles": lambda path, shape: roles[name]} if name in roles else {}
    return averaged(name, oa.optimizers[name].make(learning_rate=rate, **role))


def train(name: str, number: jax.Array, chances: Chance, rate: jax.Array) -> jax.Array:
    """The error at the end, over that at the start: a pure function."""
    tx = optimizer(name, rate)
    losses, errors = [p.loss for p in PROBLEMS], [p.error for p in PROBLEMS]
    delay = jnp.array([p.delay for p in PROBLEMS])[number]

    def error(x: jax.Array, now: jax.Array) -> jax.Array:
        return jax.lax.switch(number, errors, x, now)

    def step(state: Any, present: tuple[jax.Array, Chance]) -> tuple[Any, None]:
        x, opt_state, past, sum_of_last = state
        count, chance = present
        past = past.at[count % (DELAY + 1)].set(x)
        late = past[jnp.maximum(count - delay, 0) % (DELAY + 1)]
        now = count / STEPS

        def loss_fn(x: jax.Array) -> jax.Array:
            return jax.lax.switch(number, losses, x, chance, now)

        _, grads, extra = gradient(name, loss_fn, count, late)
        updates, opt_state = tx.update(grads, opt_state, x, **extra)
        x = optax.apply_updates(x, updates)
        now_error = error(evaluated(name, opt_state, x), (count + 1) / STEPS)
        last = jnp.where(count >= 0.9 * STEPS, now_error, 0.0)
        return (x, opt_state, past, sum_of_last + last), None

    x = jax.lax.switch(number, [p.start for p in PROBLEMS], chances.normal[0])
    state = (x, tx.init(x), jnp.zeros((DELAY + 1, *SHAPE)), jnp.zeros(()))
    state, _ = jax.lax.scan(step, state, (jnp.arange(STEPS), chances))
    return state[-1] / (0.1 * STEPS) / error(x, jnp.zeros(()))


def drawn(seeds: int) -> Chance:
    rng, shape = np.random.default_rng(0), (seeds, STEPS, *SHAPE)
    normal, uniform = rng.standard_normal(shape, np.float32), rng.random(shape, np.float32)
    return Chance(jnp.asarray(normal), jnp.asarray(1 - uniform))  # in (0, 1]


def rates(name: str) -> list[float]:
    middle = SPACE[name][0]
    return [float(f"{middle * 10**x:.4g}") for x in np.linspace(-2, 2, RATES)]


def measure(cell: dict[str, Any]) -> dict[str, Any]:
    """Every problem at every rate from every seed, in one program."""
    name, chances = cell["optimizer"], drawn(cell["seeds"])
    over_rates = jnp.asarray(cell["rates"], jnp.float32)

    def problem(number: jax.Array) -> jax.Array:
        run = functools.partial(train, name, number)
        if name in ONE_BY_ONE:
            return jax.lax.map(
                lambda rate: jax.lax.map(lambda chance: run(chance, rate), chances), over_rates
            )
        return jax.vmap(jax.vmap(run, (0, None)), (None, 0))(chances, over_rates)

    begun = time.perf_counter()
    ends = jax.jit(lambda numbers: jax.lax.map(problem, numbers))(jnp.arange(len(PROBLEMS)))
    ends = np.asarray(ends, float).reshape(len(MODES), 2, len(over_rates), -1)
    learned = (ends <= LEARNED).mean(-1)  # NaN is not
    return {
        "cell": cell,
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "seconds": round(time.perf_counter() - begun, 1),
        "learned": {  # the share of seeds, by rate
            mode: dict(zip(("difficult", "easy"), shares.round(2).tolist(), strict=True))
            for mode, shares in zip(MODES, learned, strict=True)
        },
    }


def run(names: Sequence[str], path: Path, console: Console) -> dict[str, Any]:
    """Measure the optimizers that `path` does not hold yet, and store each as it ends."""
    cells = [
        {
            **{"optimizer": name, "rates": rates(name), "seeds": SEEDS, "steps": STEPS},
            **{"learned": LEARNED, "delay": DELAY, "modes": list(MODES)},
        }
        for name in names
    ]
    order = {"optimizer": tuple(oa.optimizers)}
    about = {"machine": measuring.machine()}
    return measuring.complete(
        path, cells, lambda missing: map(measure, missing), order, console, **about
    )


# --- what it means --------------------------------------------------------------------------------

SURVIVES, RETUNED, FAILS, NEITHER = "●", "○", "×", "–"  # noqa: RUF001
MEANING = {
    SURVIVES: "at the rate of the easy twin",
    RETUNED: "at another rate",
    FAILS: "at none of the rates",
    NEITHER: "nor the easy twin",
}


def verdict(difficult: Sequence[float], easy: Sequence[float]) -> str:
    """Of one difficulty, from the shares of seeds that learned, by rate."""
    works = [i for i, share in enumerate(easy) if share >= RELIABLE]
    if not works:
        return NEITHER
    if difficult[works[len(works) // 2]] >= RELIABLE:
        return SURVIVES
    return RETUNED if max(difficult) >= RELIABLE else FAILS


def verdicts(result: dict[str, Any]) -> dict[str, str]:
    return {mode: verdict(**shares) for mode, shares in result["learned"].items()}


def survived(result: dict[str, Any]) -> tuple[int, int]:
    """How many at the rate of the twin, and how many at some rate."""
    found = list(verdicts(result).values())
    return found.count(SURVIVES), found.count(SURVIVES) + found.count(RETUNED)


def table(report: dict[str, Any]) -> measuring.Shown:
    columns = ["optimizer", *MODES, "survived", "with another rate"]
    rows = [
        [result["cell"]["optimizer"], *verdicts(result).values(), *map(str, survived(result))]
        for result in report["results"]
    ]
    return measuring.Shown("What each survives", columns, rows, numbers=False)


def draw(report: dict[str, Any]) -> Any:
    """The map: optimizers, difficulties, and a mark for each."""
    results = sorted(report["results"], key=survived, reverse=True)
    half = -(-len(results) // 2)
    height = 1.9 + 0.2 * half
    drawing, both = plt.subplots(1, 2, figsize=(pictures.WIDTH, height), layout="constrained")
    colours = {SURVIVES: pictures.GREEN, RETUNED: pictures.AMBER, FAILS: pictures.ORANGE}
    style = {
        SURVIVES: {"marker": "o", "markersize": 6.5},
        RETUNED: {
            "marker": "o",
            "markersize": 6,
            "markerfacecolor": "none",
            "markeredgewidth": 1.6,
        },
        FAILS: {"marker": "x", "markersize": 5.5, "markeredgewidth": 1.8},
        NEITHER: {"marker": "_", "markersize": 7, "markeredgewidth": 1.5},
    }
    colours[NEITHER] = plt.rcParams["axes.edgecolor"]
    for axes, part in zip(both, (results[:half], results[half:]), strict=True):
        for y, result in enumerate(part):
            for x, mark in enumerate(verdicts(result).values()):
                axes.plot(x, y, color=colours[mark], linestyle="none", **style[mark])
        names = [result["cell"]["optimizer"] for result in part]
        axes.set(xlim=(-0.6, len(MODES) - 0.4), ylim=(half - 0.4, -0.6))
        axes.set_yticks(range(len(part)), names, size=8)
        for label, name in zip(axes.get_yticklabels(), names, strict=True):
            if name in RATE_FREE:
                label.set_color(pictures.ORANGE)
        axes.set_xticks(range(len(MODES)), MODES, rotation=40, ha="left", size=8)
        axes.xaxis.tick_top()
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
        axes.grid(axis="x", visible=False)
    handles = [
        Line2D([], [], color=colours[mark], linestyle="none", label=text, **style[mark])
        for mark, text in MEANING.items()
    ]
    drawing.legend(
        handles=handles, loc="outside lower center", ncols=4, columnspacing=1.2, handletextpad=0.2
    )
    return drawing


def main(argv: Sequence[str] | None = None) -> None:
    """Measure what is missing, and show all there is."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add, names = parser.add_argument, tuple(SPACE)
    add("--optimizer", nargs="+", choices=names, default=names, metavar="NAME")
    add("--output-dir", type=Path, help="for the JSON and the figure")
    add("--draw", action="store_true", help="train nothing")
    args = parser.parse_args(argv)
    console = Console(width=None if Console().is_terminal else 132)
    path = (args.output_dir or RESULTS) / "failure_modes.json"
    report = measuring.read(path) if args.draw else run(args.optimizer, path, console)
    if not report["results"]:
        console.print(f"Nothing trained, nothing in {path}.")
        return
    console.print(table(report).rich())
    console.print(", ".join(f"{mark} {text}" for mark, text in MEANING.items()))
    picture = (args.output_dir or FIGURES) / "failure_modes.png"
    pictures.save(functools.partial(draw, report), picture)
    console.print(f"Written: {path} and {picture}.", highlight=False)


if __name__ == "__main__":
    main()
