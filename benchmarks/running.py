"""What do groups, hyperparameters in the state, guards, accumulation and telemetry cost?

    python benchmarks/running.py                # three minutes on two cores
    python benchmarks/running.py --short        # only that it works, into outputs/running

Around AdamW, beside what optax has for the same purpose. Three numbers for each: temporary arrays
of the compiled step, in sizes of the parameters; the time of the step of the optimizer alone, on
one array of four million numbers; and that of a whole training step of a network of four layers of
1024, with batches of 512. Each is taken by default, and with an option of the compiler. Times are
in those of AdamW, measured in turn; accumulation is timed over whole rounds of four calls. Prints a
table and writes results/running.json.
"""

import argparse
import functools
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import measuring
import numpy as np
import optax
import speed
from rich.console import Console
from rich.progress import track
from rich.table import Table

import optax_adaptive as oa

RESULTS = Path(__file__).parent / "results" / "running.json"
EVERY = 4
LAYERS = 4
# XLA on CPU copies old arrays that it need not copy, unless it is told to look closer.
OPTIONS: list[dict[str, Any]] = [{}, {"xla_cpu_copy_insertion_use_region_analysis": True}]
SHORT = ("adamw", "guard", "accumulate(every=4)")
adamw = functools.partial(oa.adamw, 1e-3)
Variants = dict[str, optax.GradientTransformation]


def labels(params: Any) -> Any:
    return jax.tree.map(lambda x: "matrix" if x.ndim > 1 else "vector", params)


def variants() -> Variants:
    """AdamW, and what is around it."""
    two = {"matrix": adamw(), "vector": adamw(weight_decay=0.0)}
    return {
        "adamw": adamw(),
        "by_path": oa.by_path({"*bias": {"weight_decay": 0.0}}, default=adamw),
        "optax.partition": optax.partition(two, labels),
        "tunable": oa.tunable(oa.adamw)(1e-3),
        "optax.inject_hyperparams": optax.inject_hyperparams(oa.adamw)(1e-3),
        "guard": oa.guard(adamw()),
        "guard(clip_above=3)": oa.guard(adamw(), clip_above=3.0),
        "optax.clip_by_global_norm": optax.chain(optax.clip_by_global_norm(1.0), adamw()),
        "optax.apply_if_finite": optax.apply_if_finite(adamw(), 5),
        "monitor": oa.monitor(adamw()),
        "monitor(every=10)": oa.monitor(adamw(), every=10),
        "accumulate(every=4)": oa.accumulate(adamw(), every=EVERY),
        "optax.MultiSteps(every=4)": optax.MultiSteps(adamw(), EVERY),
    }


def temporaries(tx: Any, params: Any) -> list[float]:
    """By default, and with the option."""
    shapes = jax.eval_shape(lambda: params)
    lowered = speed.step_of(tx).lower(shapes, jax.eval_shape(tx.init, shapes), shapes)
    size = sum(x.nbytes for x in jax.tree.leaves(params))
    found = (lowered.compile(compiler_options=x).memory_analysis() for x in OPTIONS)
    return [memory.temp_size_in_bytes / size for memory in found]


class Task(NamedTuple):
    """What is timed: a step of an optimizer, from parameters, on what it is given."""

    params: Any
    given: Any  # an argument of the step: of a constant XLA would know the norm beforehand
    step: Callable[[Any], Any]


def one_array(size: int) -> Task:
    """The optimizer alone, on gradients that are there."""
    grads = {"kernel": jax.random.normal(jax.random.key(0), (size, size)), "bias": jnp.ones(size)}
    return Task(jax.tree.map(jnp.ones_like, grads), grads, speed.step_of)


def network(width: int, batch: int) -> Task:
    """A training step: the loss and its gradients, too."""
    keys = jax.random.split(jax.random.key(0), LAYERS)
    params = [
        {"kernel": jax.random.normal(key, (width, width)) / width**0.5, "bias": jnp.zeros(width)}
        for key in keys
    ]
    images = jax.random.normal(jax.random.key(1), (batch, width))

    def loss(params, x):
        hidden = x
        for layer in params:
            hidden = jnp.tanh(hidden @ layer["kernel"] + layer["bias"])
        return jnp.mean((hidden - x) ** 2)

    def step(tx: Any) -> Any:
        def train(params, state, x):
            updates, state = tx.update(jax.grad(loss)(params, x), state, params)
            return optax.apply_updates(params, updates), state

        return jax.jit(train, donate_argnums=(0, 1))

    return Task(params, images, step)


def times(task: Task, asked: Variants, rounds: int) -> list[dict[str, float]]:
    """The median time of EVERY calls in a row, in that of AdamW: by default, with the option."""
    return [measured(task, asked, rounds, option) for option in OPTIONS]


def measured(task: Task, asked: Variants, rounds: int, option: dict[str, Any]) -> dict[str, float]:
    runs = {}
    for name, tx in asked.items():
        start = jax.tree.map(jnp.array, task.params), tx.init(task.params)
        step = task.step(tx).lower(*start, task.given).compile(compiler_options=option)
        runs[name] = [step, *start]
    found: dict[str, list[float]] = {name: [] for name in runs}
    for turn in track(range(rounds + 1), "rounds", console=Console(stderr=True)):
        for name, run in runs.items():
            start = time.perf_counter()
            for _ in range(EVERY):
                run[1], run[2] = run[0](run[1], run[2], task.given)
                jax.block_until_ready(run[1])
            if turn:  # the first one warms up
                found[name].append(time.perf_counter() - start)
    ratios = {name: np.array(x) / np.array(found["adamw"]) for name, x in found.items()}
    return {name: float(np.median(x)) for name, x in ratios.items()}


def measure(short: bool) -> dict[str, Any]:
    size, width, batch, rounds = (64, 32, 8, 2) if short else (2048, 1024, 512, 15)
    asked = {name: tx for name, tx in variants().items() if name in SHORT or not short}
    alone, whole = one_array(size), network(width, batch)
    steps, training = times(alone, asked, rounds), times(whole, asked, rounds)
    return {
        name: {
            "temporaries": temporaries(tx, alone.params),
            "step": [found[name] for found in steps],
            "training": [found[name] for found in training],
        }
        for name, tx in asked.items()
    }


def table(rows: dict[str, Any]) -> Table:
    shown = Table("around AdamW", "temporaries", "step", "training step")
    for name, row in rows.items():
        shown.add_row(name, *(f"{a:.2f}, {b:.2f}" for a, b in row.values()))
    return shown


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n", maxsplit=1)[0])
    parser.add_argument("--short", action="store_true", help="small arrays, few of all")
    parser.add_argument("--output-dir", type=Path, help="for the JSON")
    args = parser.parse_args(argv)
    report = {"machine": measuring.machine(), "rows": measure(args.short)}
    Console().print(table(report["rows"]))
    directory = args.output_dir or (Path("outputs/running") if args.short else RESULTS.parent)
    measuring.write(directory / RESULTS.name, report)


if __name__ == "__main__":
    main()
