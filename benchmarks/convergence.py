"""Which optimizer, on what? Seven tasks, every optimizer, an equal budget of tuning for each.

    python benchmarks/convergence.py                   # all, more than an hour on two cores
    python benchmarks/convergence.py --optimizer adam sgd --task quadratic
    python benchmarks/convergence.py --short           # a few cells with few runs, a minute
    python benchmarks/convergence.py --draw            # tables and figures, nothing trained

Every optimizer gets the same number of trials of its learning rate and of one more hyperparameter,
drawn at random from ranges that are stored with the results, in strata, so that no part of a range
is left out. The ten best by their validation loss are trained from four more seeds, and the one
with the best mean from twenty new ones, beside the setting that the optimizer comes with. What
counts is the loss on the test set at the end of training. All runs of a cell are one compiled
program, trained side by side by `jax.vmap`.

Prints tables, writes results/convergence.json and draws docs/figures/convergence.png. A killed run
goes on where it stopped. MNIST is never downloaded: --data-dir or $MNIST_DIR names its files;
without them its two tasks are left out.
"""

import argparse
import concurrent.futures
import datetime
import functools
import inspect
import itertools
import math
import multiprocessing
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import convergence_report
import jax
import jax.numpy as jnp
import measuring
import numpy as np
import optax
import tasks
from lr_basin import ONE_BY_ONE, SMALLER, averaged, default_rate, evaluated, gradient
from rich.console import Console
from scipy.stats import qmc

import optax_adaptive as oa

HERE = Path(__file__).resolve().parent
RESULTS, FIGURES = HERE / "results", HERE.parent / "docs" / "figures"
TRIALS, FINALISTS, SEEDS = 40, 10, 20
FIRST_SEED, MORE_SEEDS = 1000, (1001, 1002, 1003, 1004)  # of the search, none of those at the end
BELOW, ABOVE = 2, 3  # decades of learning rates around the middle
WARM_UP = 0.05  # of the steps

# --- the space that is searched -------------------------------------------------------------------


class Second(NamedTuple):
    """Another hyperparameter and its range, of equal chances for equal ratios."""

    name: str
    low: float
    high: float
    of_one_minus: bool = False  # whether the range is that of 1 - x

    def at(self, share: float) -> float:
        """The value below which this share of the range is."""
        x = self.low * (self.high / self.low) ** share
        return 1 - x if self.of_one_minus else x


B2 = Second("b2", 1e-3, 0.1, of_one_minus=True)
DECAY = Second("weight_decay", 1e-4, 1.0)
MOMENTUM = Second("momentum", 0.01, 1.0, of_one_minus=True)

# The middle of the rates is about that of the best ones in results/lr_basin.json, in steps of half
# a decade; the second hyperparameter is what is characteristic, or else what is mostly tuned.
SPACE: dict[str, tuple[float, Second]] = {
    "sgd": (1.0, MOMENTUM),
    "adagrad": (0.3, Second("initial_accumulator_value", 1e-6, 1.0)),
    "rmsprop": (3e-3, Second("decay", 1e-3, 0.3, of_one_minus=True)),
    "adadelta": (3.0, Second("rho", 1e-3, 0.3, of_one_minus=True)),
    **dict.fromkeys(("adam", "nadam", "amsgrad", "radam"), (0.01, B2)),
    **dict.fromkeys(("adamw", "nadamw"), (0.01, DECAY)),
    "adamax": (0.03, B2),
    "adamaxw": (0.03, DECAY),
    **dict.fromkeys(("adabound", "amsbound"), (0.01, Second("final_lr", 1e-3, 10.0))),
    "lion": (1e-3, B2),
    "lamb": (3e-3, DECAY),
    "adabelief": (0.01, Second("eps", 1e-16, 1e-6)),
    "yogi": (0.01, Second("eps", 1e-6, 0.1)),
    "adan": (0.01, Second("b3", 1e-3, 0.1, of_one_minus=True)),
    "laprop": (0.01, B2),
    "qhadam": (0.01, Second("v1", 0.03, 1.0, of_one_minus=True)),
    "adopt": (3e-3, B2),
    "adam_atan2": (3e-3, B2),
    "ademamix": (3e-3, Second("alpha", 0.5, 20.0)),
    "adahessian": (0.1, B2),
    "stable_adamw": (0.01, DECAY),
    "adamod": (0.01, Second("b3", 1e-3, 0.1, of_one_minus=True)),
    "diffgrad": (0.01, B2),
    "padam": (0.3, Second("partial", 0.0625, 0.5)),
    "adamp": (0.01, B2),
    "swats": (3e-3, Second("tolerance", 1e-9, 1e-3)),
    "shampoo": (0.3, MOMENTUM),
    "soap": (3e-3, B2),
    "novograd": (0.03, Second("b2", 0.02, 0.9, of_one_minus=True)),
    "adafactor": (0.01, Second("decay_rate", 0.5, 1.0)),
    "sm3": (0.1, MOMENTUM),
    "came": (1e-3, B2),
    "muon": (0.01, Second("beta", 0.01, 0.3, of_one_minus=True)),
    "adam_mini": (0.01, B2),
    "prodigy": (0.3, Second("d0", 1e-8, 1e-2)),
    "schedule_free_sgd": (1.0, Second("b1", 0.01, 0.5, of_one_minus=True)),
    "schedule_free_adamw": (0.03, Second("b1", 0.01, 0.5, of_one_minus=True)),
    "schedule_free_radam": (0.03, Second("b1", 0.01, 0.5, of_one_minus=True)),
    **dict.fromkeys(("dog", "ldog"), (1.0, Second("reps_rel", 1e-8, 1e-2))),
    "dowg": (0.3, Second("eps", 1e-8, 1e-2)),
    "dadapt_sgd": (0.3, MOMENTUM),
    "dadapt_adagrad": (3.0, MOMENTUM),
    "dadapt_adam": (0.1, B2),
    "cocob": (1.0, Second("alpha", 3.0, 3000.0)),
    "momo": (0.3, Second("beta", 0.01, 1.0, of_one_minus=True)),
    "momo_adam": (0.01, B2),
}

# Their authors train without a schedule, and evaluate an average or what they have averaged.
CONSTANT = ("dog", "ldog", "dowg", "cocob")
CONSTANT += ("schedule_free_sgd", "schedule_free_adamw", "schedule_free_radam")


def trials(name: str, number: int) -> list[dict[str, float]]:
    """Settings of an optimizer, the same shares of its ranges as of all others."""
    middle, second = SPACE[name]
    draws = qmc.LatinHypercube(2, rng=np.random.default_rng(0)).random(number)
    return [
        {
            "rate": float(f"{middle * 10 ** ((BELOW + ABOVE) * x - BELOW):.6g}"),
            "second": float(f"{second.at(y):.6g}"),
        }
        for x, y in draws
    ]


def as_it_comes(name: str) -> dict[str, float]:
    """The defaults, and the usual rate where there is none."""
    value = inspect.signature(oa.optimizers[name].make).parameters[SPACE[name][1].name].default
    # No momentum is a momentum of 0, no decay one of 0, and so on.
    return {"rate": default_rate(name), "second": float(value or 0.0)}


# --- one training ---------------------------------------------------------------------------------


def arguments(name: str) -> dict[str, Any]:
    """What the tasks are too small for, or have to say."""
    roles = {"muon": tasks.muon_role, "adam_mini": tasks.adam_mini_role}
    return SMALLER.get(name, {}) | ({"roles": roles[name]} if name in roles else {})


def optimizer(name: str, rate: Any, second: Any, steps: int) -> Any:
    """The optimizer with a warm-up and, but for those that need none, a cosine to 0."""
    warm_up = math.ceil(WARM_UP * steps)

    def schedule(count: Any) -> Any:
        rising = (count + 1) / warm_up
        falling = 0.5 * (1 + jnp.cos(jnp.pi * jnp.clip((count - warm_up) / (steps - warm_up), 0)))
        return rate * jnp.minimum(rising, 1.0 if name in CONSTANT else falling)

    make, other = oa.optimizers[name].make, SPACE[name][1].name
    return averaged(name, make(learning_rate=schedule, **{other: second}, **arguments(name)))


def train(
    task: tasks.Task,
    name: str,
    data: tasks.Data,
    steps: jax.Array,
    setting: dict[str, jax.Array],
    seed: jax.Array,
) -> dict[str, jax.Array]:
    """What `steps` steps end with: a pure function."""
    planned = task.settings["steps"]
    tx = optimizer(name, setting["rate"], setting["second"], planned)
    params, order = tasks.start(task, seed), tasks.batches(task, seed)
    last = planned // 10  # whose mean loss is the final one of training

    def step(count: jax.Array, state: Any) -> Any:
        params, opt_state, sum_of_last = state
        batch = jax.tree.map(lambda x: x[order[count]], data["train"])
        loss_fn = functools.partial(task.loss, batch=batch)
        loss, grads, extra = gradient(name, loss_fn, count, params)
        updates, opt_state = tx.update(grads, opt_state, params, **extra)
        late = jnp.where(count >= planned - last, loss, 0.0)
        return optax.apply_updates(params, updates), opt_state, sum_of_last + late

    # The number of steps is no constant of the program: one program trains, measures how good the
    # start is (0 steps), and is timed.
    params, opt_state, sum_of_last = jax.lax.fori_loop(
        0, steps, step, (params, tx.init(params), jnp.zeros(()))
    )
    params = evaluated(name, opt_state, params)
    ends = {part: tasks.measured(task, params, data[part]) for part in ("validation", "test")}
    return ends | {"train": sum_of_last / last}


def program(task: tasks.Task, name: str) -> Callable[..., Any]:
    """Many settings and seeds in one function: (data, steps, settings, seeds) -> arrays."""

    def run(data: Any, steps: Any, settings: Any, seeds: Any) -> Any:
        one = functools.partial(train, task, name, data, steps)
        if name in ONE_BY_ONE:
            return jax.lax.map(lambda now: one(*now), (settings, seeds))
        return jax.vmap(one)(settings, seeds)

    return run


class Compiled(NamedTuple):
    """The program of a cell, and the seconds it took to compile."""

    run: Callable[..., dict[str, np.ndarray]]
    seconds: float


def compiled(task: tasks.Task, name: str, runs: int) -> Compiled:
    begun = time.perf_counter()
    numbers = jax.ShapeDtypeStruct((runs,), jnp.float32)
    settings = dict.fromkeys(("rate", "second"), numbers)
    seeds, steps = jax.ShapeDtypeStruct((runs,), jnp.int32), jax.ShapeDtypeStruct((), jnp.int32)
    call = jax.jit(program(task, name)).lower(task.data, steps, settings, seeds).compile()

    def run(steps: int, settings: Sequence[dict[str, float]], seeds: Any) -> dict[str, np.ndarray]:
        arrays = {k: jnp.asarray([x[k] for x in settings], jnp.float32) for k in settings[0]}
        ends = call(task.data, jnp.int32(steps), arrays, jnp.asarray(seeds, jnp.int32))
        return {name: np.asarray(x, float) for name, x in ends.items()}

    return Compiled(run, time.perf_counter() - begun)


@functools.cache
def reference(task_name: str, data_dir: Path | None, runs: int) -> tuple[Compiled, list[float]]:
    """Plain gradient descent, to time others by, and what each seed starts from."""
    task = tasks.make(task_name, data_dir)
    assert task is not None
    sgd = compiled(task, "sgd", runs)
    return sgd, sgd.run(0, [as_it_comes("sgd")] * runs, np.arange(runs))["test"].tolist()


# --- the cells ------------------------------------------------------------------------------------


def plan(args: argparse.Namespace) -> list[dict[str, Any]]:
    """One cell per task and optimizer: all that its result depends on."""
    cells = []
    for name in args.task:
        task = tasks.make(name, args.data_dir)
        if task is None:
            continue
        for optimizer_name in args.optimizer:
            middle, second = SPACE[optimizer_name]
            cells.append(
                {
                    "task": name,
                    "optimizer": optimizer_name,
                    "rates": [float(f"{middle * 10**x:.4g}") for x in (-BELOW, ABOVE)],
                    "second": list(second),
                    "schedule": "constant" if optimizer_name in CONSTANT else "cosine",
                    "arguments": SMALLER.get(optimizer_name, {}),
                    "default": as_it_comes(optimizer_name),
                    "trials": args.trials,
                    "finalists": min(FINALISTS, args.trials),
                    "search_seeds": [FIRST_SEED, *MORE_SEEDS],
                    "seeds": args.seeds,
                    **task.settings,
                }
            )
    return cells


def rounded(values: Any) -> list[float | None]:
    """For JSON, None where a run diverged."""
    return [float(f"{x:.6g}") if math.isfinite(x) else None for x in np.asarray(values, float)]


def measure(cell: dict[str, Any], data_dir: Path | None) -> dict[str, Any]:
    """Search, then train the best setting and the default from new seeds."""
    task = tasks.make(cell["task"], data_dir)
    assert task is not None
    name, number, seeds, steps = (cell[k] for k in ("optimizer", "trials", "seeds", "steps"))
    finalists = cell["finalists"]
    # Of the one program, which serves all rounds: what is over is dropped.
    runs = max(number, finalists * len(MORE_SEEDS), 2 * seeds)
    (run, seconds), (sgd, starts) = (
        compiled(task, name, runs),
        reference(cell["task"], data_dir, runs),
    )
    tried = trials(name, number)

    def round_of(pairs: list[tuple[dict[str, float], int]]) -> dict[str, np.ndarray]:
        ends = run(steps, *zip(*(pairs * runs)[:runs], strict=True))
        return {name: x[: len(pairs)] for name, x in ends.items()}

    first = round_of([(setting, FIRST_SEED) for setting in tried])["validation"]
    last = np.argsort(first)[:finalists]  # NaN comes last
    more = round_of([(tried[i], seed) for i in last for seed in MORE_SEEDS])["validation"]
    means = np.c_[first[last], more.reshape(finalists, -1)].mean(1)
    best = last[np.argmin(np.where(np.isfinite(means), means, np.inf))]
    pairs = [(setting, seed) for setting in (tried[best], cell["default"]) for seed in range(seeds)]
    begun, cpu = time.perf_counter(), [time.process_time()]
    ends = round_of(pairs)
    took = time.perf_counter() - begun
    cpu.append(time.process_time())
    half = max(1, steps // 2)
    for count in (half, 0):  # without the time to evaluate
        sgd.run(count, [as_it_comes("sgd")] * runs, np.arange(runs))
        cpu.append(time.process_time())
    of_all, of_half, of_none = np.diff(cpu)
    params = jax.eval_shape(functools.partial(tasks.start, task), jnp.int32(0))
    state = jax.eval_shape(optimizer(name, 1.0, cell["default"]["second"], steps).init, params)
    words = sum(x.size for x in jax.tree.leaves(params))
    return {
        "cell": cell,
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "trials": {
            **{name: [setting[name] for setting in tried] for name in tried[0]},
            "validation": rounded(first),
        },
        "finalists": {"trial": last.tolist(), "validation": rounded(means)},
        "best": tried[best],
        "start": rounded(starts[:seeds]),
        "tuned": {k: rounded(x[:seeds]) for k, x in ends.items()},
        "default": {k: rounded(x[seeds : 2 * seeds]) for k, x in ends.items()},
        "seconds": [round(seconds, 1), round(took, 2)],  # to compile, of a round of runs
        # CPU time of a step and its gradient, in units of the same with plain gradient descent.
        "step_of_sgd": round((of_all - of_none) / steps / (of_half - of_none) * half, 3),
        "state_bytes": round(
            sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(state)) / words, 2
        ),
    }


def alone(cores: Any) -> None:
    """A worker keeps to a core of its own: threads would only wait for each other."""
    os.sched_setaffinity(0, {cores.get()})


def run(
    cells: Sequence[dict[str, Any]], args: argparse.Namespace, path: Path, console: Console
) -> dict[str, Any]:
    """Train the cells that `path` does not hold yet, a process a core; store each as it ends."""

    def measured(missing: Sequence[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        if args.workers == 1:
            yield from (measure(cell, args.data_dir) for cell in missing)
            return
        spawn = multiprocessing.get_context("spawn")
        cores, given = spawn.SimpleQueue(), {}
        if hasattr(os, "sched_setaffinity"):  # on Linux
            given = {"initializer": alone, "initargs": (cores,)}
            for _, core in zip(range(args.workers), itertools.cycle(os.sched_getaffinity(0))):
                cores.put(core)
        pool = concurrent.futures.ProcessPoolExecutor(args.workers, spawn, **given)
        try:
            futures = [pool.submit(measure, cell, args.data_dir) for cell in missing]
            yield from (f.result() for f in concurrent.futures.as_completed(futures))
        finally:  # an error or an interrupt waits for the cells in work, not for all
            pool.shutdown(cancel_futures=True)

    order = {"task": tasks.NAMES, "optimizer": tuple(oa.optimizers)}
    about = {"machine": measuring.machine()}
    return measuring.complete(path, cells, measured, order, console, **about)


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    names = tuple(SPACE)
    add("--optimizer", nargs="+", choices=names, metavar="NAME", help=", ".join(names))
    add("--task", nargs="+", choices=tasks.NAMES)
    add("--trials", type=int, help=f"settings tried; default {TRIALS}, in --short 4")
    add("--seeds", type=int, help=f"of each setting at the end; default {SEEDS}, in --short 3")
    add("--workers", type=int, default=os.cpu_count() or 1, help="processes; default: the cores")
    add("--data-dir", type=Path, help="the four IDX files of MNIST; default $MNIST_DIR")
    add("--output-dir", type=Path, help="for the JSON and the figures")
    add("--short", action="store_true", help="to see that it works, not to compare")
    add("--draw", action="store_true", help="train nothing")
    args = parser.parse_args(argv)
    if args.short:
        args.output_dir = args.output_dir or Path("outputs/convergence")
        args.task = args.task or ["quadratic", "factorization"]
        args.optimizer = args.optimizer or ["sgd", "adam", "dog"]
    args.trials = args.trials or (4 if args.short else TRIALS)
    args.seeds = args.seeds or (3 if args.short else SEEDS)
    if args.seeds < 2:
        parser.error("--seeds: at least 2, for an interval")
    if args.workers < 1:
        parser.error("--workers: at least 1")
    args.task = args.task or list(tasks.NAMES)
    args.optimizer = args.optimizer or list(names)
    given = args.data_dir or os.environ.get("MNIST_DIR")
    args.data_dir = Path(given) if given else None
    return args


def main(argv: Sequence[str] | None = None) -> None:
    """Train what is missing, and show all there is."""
    args = parse(argv)
    console = Console(width=None if Console().is_terminal else 132)
    path = (args.output_dir or RESULTS) / "convergence.json"
    if args.draw:
        report = measuring.read(path)
    else:
        try:
            cells = plan(args)
        except tasks.digits_data.DataError as error:
            print(f"convergence.py: {error}", file=sys.stderr)
            raise SystemExit(2) from None
        left_out = set(args.task) - {cell["task"] for cell in cells}
        if left_out:
            console.print(
                f"No MNIST here, so without {', '.join(sorted(left_out))}: --data-dir says where "
                "its files are."
            )
        report = run(cells, args, path, console)
    if not report["results"]:
        console.print(f"Nothing trained, nothing in {path}.")
        return
    for table in convergence_report.tables(report):
        console.print(table.rich())
    pictures = convergence_report.figures(report, args.output_dir or FIGURES)
    console.print(f"Written: {path}, {', '.join(map(str, pictures))}.", highlight=False)


if __name__ == "__main__":
    main()
