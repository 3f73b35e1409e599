"""How much does the learning rate matter? Seven decades of it, for every optimizer, on two tasks.

    python benchmarks/lr_basin.py                      # every optimizer, an hour on two cores
    python benchmarks/lr_basin.py --optimizer adam dog --task digits
    python benchmarks/lr_basin.py --short              # the clear cases again, beside the results
    python benchmarks/lr_basin.py --draw               # the table and the figure, nothing trained

A small convolutional network learns the digits of scikit-learn, a network of three layers a part of
MNIST, at 15 rates from 1e-5 to 100 and at the default, from several seeds. All rates and seeds of
an optimizer train in one compiled program. Prints a table, writes results/lr_basin.json and draws
docs/figures/lr_basin.png. A killed run goes on where it stopped. MNIST is never downloaded:
--data-dir or $MNIST_DIR names its files.
"""

import argparse
import datetime
import functools
import math
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import lr_basin_report
import measuring
import numpy as np
import optax
from rich.console import Console

import optax_adaptive as oa

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "examples"))

import digits_data  # noqa: E402

RESULTS, FIGURES = HERE / "results", HERE.parent / "docs" / "figures"
GRID = tuple(float(f"{10 ** (i / 2 - 5):.4g}") for i in range(15))
SEEDS = 6
LAST = 50  # batches whose mean loss is the final one
TASKS = ("digits", "mnist")
SETTINGS: dict[str, dict[str, Any]] = {
    "digits": {
        "train": 1437,
        "test": 360,
        "pixels": 8,
        "network": "conv 16, conv 32, max pool, dense 10",
        "batch": 32,
        "steps": 600,
    },
    "mnist": {
        "train": 10_000,
        "test": 5000,
        "pixels": 14,
        "network": "dense 64, dense 32, dense 10",
        "batch": 32,
        "steps": 1500,
    },
}

# The usual rate where the constructor has no default.
USUAL = {
    "sgd": 1e-3,  # torch
    "adagrad": 1e-2,  # torch
    "rmsprop": 1e-2,  # torch
    "adam": 1e-3,  # the paper, torch
    "adamw": 1e-3,  # torch
    "nadam": 2e-3,  # torch
    "nadamw": 2e-3,  # torch
    "adamax": 2e-3,  # the paper, torch
    "adamaxw": 2e-3,  # as adamax
    "amsgrad": 1e-3,  # torch
    "radam": 1e-3,  # the authors' code, torch
    "lion": 1e-4,  # the authors' code
    "lamb": 1e-3,  # timm
    "adabelief": 1e-3,  # the authors' code
    "yogi": 1e-2,  # the paper
    "adan": 1e-3,  # the authors' code
    "laprop": 4e-4,  # the authors' code
    "qhadam": 1e-3,  # the authors' code
    "adopt": 1e-3,  # the authors' code
    "adam_atan2": 1e-3,  # as adam, whose step it bounds
    "ademamix": 1e-3,  # the authors' code
    "adahessian": 0.15,  # the authors' code
    "stable_adamw": 1e-3,  # pytorch_optimizer
    "adamod": 1e-3,  # the authors' code
    "diffgrad": 1e-3,  # the authors' code
    "padam": 0.1,  # the paper, the authors' code
    "adamp": 1e-3,  # the authors' code
    "swats": 1e-3,  # the paper: Adam's
    "shampoo": 0.1,  # torch_optimizer
    "novograd": 1e-3,  # torch_optimizer
    "adafactor": 1e-2,  # the paper: the bound of its relative steps
    "sm3": 0.1,  # the paper's for its language model
    "came": 2e-4,  # the authors' example
    "muon": 0.02,  # the authors' code
    "adam_mini": 1e-3,  # the authors' code
}

NEURONS = {"roles": {"*/kernel": "neurons"}}
ROLES: dict[str, dict[str, Any]] = {
    "digits": {
        "muon": {"roles": {"Conv_*/kernel": "conv", "Dense_0/*": "adam"}},
        "adam_mini": NEURONS,
    },
    "mnist": {
        "muon": {
            "roles": {"Dense_0/kernel": "matrix", "Dense_1/kernel": "matrix", "Dense_2/*": "adam"}
        },
        "adam_mini": NEURONS,
    },
}
# They decompose matrices, Shampoo at every step: of 64 rows and more that takes ten minutes a cell.
# Longer axes keep a diagonal.
SMALLER = {"shampoo": {"max_precond_dim": 40}, "soap": {"max_precond_dim": 40}}
# A batch of eigendecompositions in XLA on CPU can wait for its own threads for ever, so these train
# one after the other, still in one program.
ONE_BY_ONE = ("shampoo", "soap")

# Their authors evaluate an average of the parameters.
AVERAGED = ("dog", "ldog")

SHORT = ("sgd", "adagrad", "rmsprop", "adadelta", "adam")
SHORT += ("prodigy", "dog", "dowg", "cocob", "momo_adam")


# --- the tasks ------------------------------------------------------------------------------------


class Task(NamedTuple):
    """Images in [0, 1] with their labels, and a network."""

    name: str
    settings: dict[str, Any]
    train: tuple[jax.Array, jax.Array]
    test: tuple[jax.Array, jax.Array]
    shapes: dict[str, tuple[int, ...]]  # of the kernels
    logits: Callable[[Any, jax.Array], jax.Array]


def dense(layer: Any, x: jax.Array) -> jax.Array:
    return x @ layer["kernel"] + layer["bias"]


def conv(layer: Any, x: jax.Array) -> jax.Array:
    """A 3x3 convolution, unpadded, as one matrix product: XLA's own is slow on CPU."""
    h, w = x.shape[1] - 2, x.shape[2] - 2
    patches = jnp.concatenate([x[:, i : i + h, j : j + w] for i in range(3) for j in range(3)], -1)
    kernel = layer["kernel"].reshape(-1, layer["kernel"].shape[-1])
    return (patches.reshape(-1, len(kernel)) @ kernel + layer["bias"]).reshape(
        -1, h, w, len(layer["bias"])
    )


def convolutional(params: Any, x: jax.Array) -> jax.Array:
    x = jax.nn.relu(conv(params["Conv_0"], x))
    x = jax.nn.relu(conv(params["Conv_1"], x))
    n, h, w, c = x.shape
    x = x.reshape(n, h // 2, 2, w // 2, 2, c).max((2, 4))
    return dense(params["Dense_0"], x.reshape(n, -1))


def layered(params: Any, x: jax.Array) -> jax.Array:
    x = jax.nn.relu(dense(params["Dense_0"], x.reshape(len(x), -1)))
    x = jax.nn.relu(dense(params["Dense_1"], x))
    return dense(params["Dense_2"], x)


def digits() -> Task:
    """The digits of scikit-learn in their own 8x8 pixels."""
    data = digits_data.embedded()

    def images(enlarged: np.ndarray) -> jax.Array:
        return jnp.asarray(enlarged[:, 2:-2:3, 2:-2:3] / 255, jnp.float32)

    return Task(
        "digits",
        SETTINGS["digits"],
        (images(data.train_images), jnp.asarray(data.train_labels)),
        (images(data.test_images), jnp.asarray(data.test_labels)),
        {"Conv_0": (3, 3, 1, 16), "Conv_1": (3, 3, 16, 32), "Dense_0": (128, 10)},
        convolutional,
    )


def mnist(data: digits_data.Digits) -> Task:
    """A part of MNIST; every second test image, because the first half of them is the easier."""
    settings = SETTINGS["mnist"]

    def images(full: np.ndarray) -> jax.Array:
        return jnp.asarray(full.reshape(-1, 14, 2, 14, 2).mean((2, 4)) / 255, jnp.float32)

    some, others = slice(settings["train"]), slice(0, 2 * settings["test"], 2)
    return Task(
        "mnist",
        settings,
        (images(data.train_images[some]), jnp.asarray(data.train_labels[some])),
        (images(data.test_images[others]), jnp.asarray(data.test_labels[others])),
        {"Dense_0": (196, 64), "Dense_1": (64, 32), "Dense_2": (32, 10)},
        layered,
    )


# --- one training ---------------------------------------------------------------------------------


def glorot(shape: tuple[int, ...]) -> float:
    """How far from 0 the uniform weights of a kernel reach."""
    return math.sqrt(6 / (math.prod(shape[:-2]) * (shape[-2] + shape[-1])))


def start(task: Task, seed: jax.Array) -> Any:
    """Glorot's uniform weights of this seed, the same for every rate and optimizer."""
    ends = np.cumsum([math.prod(shape) for shape in task.shapes.values()])
    # Drawn at once: every call of jax.random takes XLA a second to compile.
    draws = jnp.split(jax.random.uniform(jax.random.key(seed), (ends[-1],), minval=-1), ends[:-1])
    params = {}
    for (name, shape), draw in zip(task.shapes.items(), draws, strict=True):
        params[name] = {"kernel": glorot(shape) * draw.reshape(shape), "bias": jnp.zeros(shape[-1])}
    return params


def epochs(examples: int, steps: int, size: int, seed: jax.Array) -> jax.Array:
    """Which examples make each batch, (steps, size), by the seed alone: all once in an epoch."""
    each = examples // size
    keys = jax.random.split(jax.random.fold_in(jax.random.key(seed), 1), -(-steps // each))

    def epoch(key: jax.Array) -> jax.Array:
        return jax.random.permutation(key, examples)[: each * size].reshape(each, size)

    return jax.vmap(epoch)(keys).reshape(-1, size)[:steps]


def batches(task: Task, seed: jax.Array) -> jax.Array:
    return epochs(len(task.train[0]), task.settings["steps"], task.settings["batch"], seed)


def loss_of(task: Task, params: Any, batch: jax.Array) -> jax.Array:
    images, labels = task.train
    logits = task.logits(params, images[batch])
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels[batch]).mean()


def gradient(
    name: str, loss_fn: Callable[[Any], jax.Array], count: jax.Array, params: Any
) -> tuple[jax.Array, Any, dict[str, Any]]:
    """The loss, its gradient, and what else this optimizer has to be given at a step."""
    needs, extra = oa.optimizers[name].needs, {}
    if "hessian_diagonal" in needs:
        key = jax.random.fold_in(jax.random.key(0), count)
        loss, grads, extra["hessian_diagonal"] = oa.hutchinson(loss_fn)(key, params)
    else:
        loss, grads = jax.value_and_grad(loss_fn)(params)
    if "value" in needs:
        extra["value"] = loss
    return loss, grads, extra


def averaged(name: str, tx: Any) -> Any:
    """The optimizer, and behind it the average that its authors evaluate, if they do."""
    tx = optax.with_extra_args_support(tx)
    return oa.polynomial_averaging(tx) if name in AVERAGED else tx


def evaluated(name: str, state: Any, params: Any) -> Any:
    """The parameters that its authors evaluate."""
    if name in AVERAGED:
        return oa.averaged_params(state, params)
    evaluate = oa.optimizers[name].eval_params
    return params if evaluate is None else evaluate(state, params)


def accuracy(task: Task, params: Any) -> jax.Array:
    """The share of the test images that are named rightly."""

    def right(example: tuple[jax.Array, jax.Array]) -> jax.Array:
        image, label = example
        return task.logits(params, image[None])[0].argmax() == label

    return jax.lax.map(right, task.test, batch_size=40).mean()  # all at once need a GB


def train(
    task: Task, name: str, arguments: dict[str, Any], rate: jax.Array, seed: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """The test accuracy and the final training loss, NaN if it diverged: a pure function."""
    tx = averaged(name, oa.optimizers[name].make(learning_rate=rate, **arguments))
    params = start(task, seed)

    def step(state: Any, now: tuple[jax.Array, jax.Array]) -> tuple[Any, jax.Array]:
        (params, opt_state), (count, batch) = state, now
        loss_fn = functools.partial(loss_of, task, batch=batch)
        loss, grads, extra = gradient(name, loss_fn, count, params)
        updates, opt_state = tx.update(grads, opt_state, params, **extra)
        return (optax.apply_updates(params, updates), opt_state), loss

    order = batches(task, seed)
    state, losses = jax.lax.scan(step, (params, tx.init(params)), (jnp.arange(len(order)), order))
    params, opt_state = state
    params = evaluated(name, opt_state, params)
    loss = losses[-LAST:].mean()
    finite = jnp.isfinite(jnp.stack([loss, *(x.sum() for x in jax.tree.leaves(params))])).all()
    return accuracy(task, params), jnp.where(finite, loss, jnp.nan)


def program(task: Task, name: str, arguments: dict[str, Any]) -> Callable:
    """All rates and seeds in one function: (rates, seeds) -> arrays of that shape."""
    run = functools.partial(train, task, name, arguments)
    if name in ONE_BY_ONE:

        def at(seeds: jax.Array, rate: jax.Array) -> Any:
            return jax.lax.map(functools.partial(run, rate), seeds)

        return lambda rates, seeds: jax.lax.map(functools.partial(at, seeds), rates)
    return jax.vmap(jax.vmap(run, (None, 0)), (0, None))


# --- the cells ------------------------------------------------------------------------------------


def default_rate(name: str) -> float:
    """Of the constructor, else the usual one."""
    given = oa.optimizers[name].learning_rate
    if given is None and name not in USUAL:
        raise SystemExit(f"lr_basin.py: {name} has no default rate; add its usual one to USUAL.")
    return float(USUAL[name] if given is None else given)


def plan(args: argparse.Namespace, names: Sequence[str]) -> list[dict[str, Any]]:
    """One cell per task and optimizer: all that its result depends on."""
    cells = []
    for task in names:
        for name in args.optimizer:
            default = default_rate(name)
            cells.append(
                {
                    "task": task,
                    "optimizer": name,
                    "arguments": ROLES[task].get(name, {}) | SMALLER.get(name, {}),
                    "default": default,
                    "rates": sorted({*GRID[:: 2 if args.short else 1], default}),
                    "seeds": list(range(args.seeds)),
                    **SETTINGS[task],
                }
            )
    return cells


def measure(task: Task, cell: dict[str, Any]) -> dict[str, Any]:
    """Train the cell; how long that took is a note, not a benchmark."""
    rates, seeds = jnp.asarray(cell["rates"], jnp.float32), jnp.asarray(cell["seeds"])
    times = [time.perf_counter()]
    run = jax.jit(program(task, cell["optimizer"], cell["arguments"])).lower(rates, seeds).compile()
    times.append(time.perf_counter())
    accuracies, losses = (np.asarray(x, float) for x in run(rates, seeds))
    times.append(time.perf_counter())
    return {
        "cell": cell,
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "seconds": [round(float(t), 1) for t in np.diff(times)],  # to compile, to run
        "accuracy": np.round(accuracies, 4).tolist(),
        "loss": [[float(f"{x:.4g}") if math.isfinite(x) else None for x in row] for row in losses],
    }


def run(
    cells: Sequence[dict[str, Any]], tasks: dict[str, Task], path: Path, console: Console
) -> dict[str, Any]:
    """Train the cells that `path` does not hold yet, and store each as it ends."""

    def measured(missing: Sequence[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        return (measure(tasks[cell["task"]], cell) for cell in missing)

    order = {"task": TASKS, "optimizer": tuple(oa.optimizers)}
    about = {"machine": measuring.machine(), "grid": list(GRID)}
    return measuring.complete(path, cells, measured, order, console, **about)


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    names = tuple(oa.optimizers)
    add("--optimizer", nargs="+", choices=names, metavar="NAME", help=", ".join(names))
    add("--task", nargs="+", choices=TASKS)
    add("--seeds", type=int, help=f"how many; default {SEEDS}, in --short 3")
    add("--data-dir", type=Path, help="the four IDX files of MNIST; default $MNIST_DIR")
    add("--output-dir", type=Path, help="for the JSON and the figure")
    add("--short", action="store_true", help="compare a few with the committed results")
    add("--draw", action="store_true", help="train nothing")
    args = parser.parse_args(argv)
    if args.seeds is not None and args.seeds < 2:
        parser.error("--seeds: at least 2, for an interval")
    args.optimizer = args.optimizer or [n for n in (SHORT if args.short else names) if n in names]
    args.seeds = args.seeds or (3 if args.short else SEEDS)
    if args.short:
        args.output_dir = args.output_dir or Path("outputs/lr_basin")
        args.task = args.task or ["digits"]
    return args


def load(args: argparse.Namespace, console: Console) -> dict[str, Task]:
    """The tasks asked for, of those whose data is here."""
    tasks = {}
    for name in args.task or TASKS:
        if name == "digits":
            tasks[name] = digits()
            continue
        data = digits_data.load("auto", args.data_dir)  # which never downloads
        if data.name == "mnist":
            tasks[name] = mnist(data)
        else:
            console.print("No MNIST here, so the digits only: --data-dir says where its files are.")
    return tasks


def main(argv: Sequence[str] | None = None) -> None:
    """Train what is missing, and show all there is."""
    args = parse(argv)
    console = Console(width=None if Console().is_terminal else 132)
    path = (args.output_dir or RESULTS) / "lr_basin.json"
    picture = (args.output_dir or FIGURES) / "lr_basin.png"
    if args.draw:
        report = measuring.read(path)
    else:
        try:
            tasks = load(args, console)
        except digits_data.DataError as error:
            print(f"lr_basin.py: {error}", file=sys.stderr)
            raise SystemExit(2) from None
        report = run(plan(args, tuple(tasks)), tasks, path, console)
    if not report["results"]:
        console.print(f"Nothing trained, nothing in {path}.")
        return
    for table in lr_basin_report.tables(report):
        console.print(table)
    lr_basin_report.figure(report, picture)
    console.print(f"Written: {path} and {picture}.", highlight=False)
    if args.short:
        committed = measuring.read(RESULTS / "lr_basin.json")
        table, words, same = lr_basin_report.compare(report, committed)
        console.print(table)
        console.print(words)
        raise SystemExit(0 if same else 1)


if __name__ == "__main__":
    main()
