"""Does training in fewer bytes end where float32 ends? Whole runs, seed against seed.

    python benchmarks/precision_runs.py           # both tasks, ten minutes on two cores
    python benchmarks/precision_runs.py --task digits --output-dir outputs/digits
    python benchmarks/precision_runs.py --short   # a few cells, under a minute

The convolutional network of lr_basin.py learns the digits of scikit-learn, a small transformer the
characters of Python's own help pages. Every variant of storage starts from the same float32
parameters and sees the same batches as float32 does, so that runs are compared in pairs. Only
storage differs: models compute in float32, also with bfloat16 parameters, and gradients are
float32. Runs end apart by chance alone, so a variant is called within the noise of seeds where its
mean loss differs from that of float32 by no more than seeds do (one standard deviation).

Prints tables and writes results/precision_runs.json. A killed run goes on where it stopped.
"""

import argparse
import datetime
import functools
import math
import pydoc_data.topics
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import lr_basin
import measuring
import numpy as np
import optax
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from scipy import stats

import optax_adaptive as oa

RESULTS = Path(__file__).resolve().parent / "results"
SEEDS = 5
# Almost all arrays of these small networks are to be in codes: by default they are too small.
MIN_SIZE = 128
WIDTH, CONTEXT, LAYERS, HEADS = 64, 64, 2, 2
TITLES = {"digits": "digits, small convolutional network", "text": "text, small transformer"}

# --- what is compared -----------------------------------------------------------------------------

# Rates within a point of the best accuracy in results/lr_basin.json; the moments by their names.
OPTIMIZERS: dict[str, tuple[float, tuple[str, ...]]] = {
    "adamw": (1e-3, ("mu", "nu")),
    "adabound": (1e-3, ("mu", "nu")),
    "adagrad": (0.1, ("sum_sq",)),
    "adadelta": (1.0, ("nu", "delta")),
}
codes = functools.partial(oa.with_quantized_state, min_size=MIN_SIZE)
# The optimizer, and its moments as arguments in bfloat16 -> the optimizer in fewer bytes.
STATES: dict[str, Callable[..., Any]] = {
    "float32": lambda tx, **_: tx,
    "bf16 state, nearest": functools.partial(oa.with_state_dtype, rounding="nearest"),
    "bf16 state, stochastic": functools.partial(oa.with_state_dtype, rounding="stochastic"),
    "8-bit state": lambda tx, **_: codes(tx, bits=8),
    "4-bit state": lambda tx, **_: codes(tx, bits=4),
}
# The same, with parameters in bfloat16.
PARAMS: dict[str, Callable[..., Any]] = {
    "bf16 params, plain": lambda tx, **_: tx,
    "bf16 params, stochastic_rounding": lambda tx, **_: oa.stochastic_rounding(tx),
    "bf16 params, kahan": lambda tx, **_: oa.kahan(tx),
    "bf16 params, master_weights": lambda tx, **_: oa.master_weights(tx, bits=24),
    "bf16 params, master_weights, 8-bit state": lambda tx, **_: oa.master_weights(codes(tx)),
}
VARIANTS = STATES | PARAMS
SHORT = ("float32", "8-bit state", "4-bit state")


# --- the text -------------------------------------------------------------------------------------


class Transformer(nn.Module):
    """Characters in, logits of the next ones out."""

    characters: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        small = nn.initializers.normal(0.02)
        embed = nn.Embed(self.characters, WIDTH, embedding_init=small)
        x = embed(x) + self.param("positions", small, (CONTEXT, WIDTH))
        past = nn.make_causal_mask(x[..., 0])
        for _ in range(LAYERS):
            x = x + nn.MultiHeadDotProductAttention(HEADS)(nn.LayerNorm()(x), mask=past)
            hidden = nn.gelu(nn.Dense(4 * WIDTH)(nn.LayerNorm()(x)))
            x = x + nn.Dense(WIDTH)(hidden)
        return embed.attend(nn.LayerNorm()(x))


def text() -> lr_basin.Task:
    """Python's help pages, which come with it; the last tenth is for validation."""
    topics = pydoc_data.topics.topics
    joined = "\n".join(topics[key] for key in sorted(topics))
    alphabet, numbers = np.unique(list(joined), return_inverse=True)
    # Windows side by side, and what follows each of their characters.
    windows = (len(numbers) - 1) // CONTEXT
    x, y = (jnp.asarray(numbers[i:][: windows * CONTEXT].reshape(-1, CONTEXT)) for i in (0, 1))
    cut = windows * 9 // 10
    settings = {
        "train": cut,
        "test": windows - cut,
        "characters": len(alphabet),  # with the number of windows, which help pages these are
        "network": f"transformer, {LAYERS} layers, width {WIDTH}, {HEADS} heads",
        "context": CONTEXT,
        "batch": 16,
        "steps": 600,
    }
    logits = Transformer(len(alphabet)).apply
    return lr_basin.Task("text", settings, (x[:cut], y[:cut]), (x[cut:], y[cut:]), {}, logits)


def digits() -> lr_basin.Task:
    """Those of lr_basin, ten times as long: sooner, a mean that stands still does no harm."""
    task = lr_basin.digits()
    return task._replace(settings=task.settings | {"steps": 6000})


TASKS: dict[str, Callable[[], lr_basin.Task]] = {"digits": digits, "text": text}


# --- one training ---------------------------------------------------------------------------------


def start(task: lr_basin.Task, seed: jax.Array) -> Any:
    """The float32 parameters of this seed, the same for every variant."""
    if task.name == "digits":
        return lr_basin.start(task, seed)
    model = Transformer(task.settings["characters"])
    return model.init(jax.random.key(seed), task.train[0][:1])


def optimizer(cell: dict[str, Any]) -> Any:
    """The optimizer of a cell, as its variant stores it."""
    _, fields = OPTIMIZERS[cell["optimizer"]]
    tx = oa.optimizers[cell["optimizer"]].make(learning_rate=cell["rate"])
    return VARIANTS[cell["variant"]](tx, **dict.fromkeys(fields, jnp.bfloat16))


def stored(params: Any, variant: str) -> Any:
    """The parameters as a variant stores them."""
    return optax.tree.cast(params, jnp.bfloat16) if variant in PARAMS else params


def exact(state: Any, params: Any) -> Any:
    """The parameters to evaluate, in float32."""
    try:
        return oa.exact_params(state, params)
    except ValueError:  # nothing in the state knows more digits
        return optax.tree.cast(params, jnp.float32)


def evaluated(task: lr_basin.Task, params: Any) -> tuple[jax.Array, jax.Array]:
    """The loss and the accuracy on what was held back."""

    def one(example: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        x, y = example
        logits = task.logits(params, x[None])[0]
        loss = optax.softmax_cross_entropy_with_integer_labels(logits, y)
        return loss.mean(), (logits.argmax(-1) == y).mean()

    losses, right = jax.lax.map(one, task.test, batch_size=40)
    return losses.mean(), right.mean()


def train(task: lr_basin.Task, cell: dict[str, Any], seed: jax.Array) -> dict[str, jax.Array]:
    """What one seed ends with: a pure function."""
    tx, params = optimizer(cell), start(task, seed)
    state, params = tx.init(params), stored(params, cell["variant"])

    def step(now: Any, batch: jax.Array) -> Any:
        params, state = now
        loss_fn = functools.partial(lr_basin.loss_of, task, batch=batch)
        # Differentiated behind the cast: bfloat16 gradients would be another difference.
        loss, grads = jax.value_and_grad(loss_fn)(optax.tree.cast(params, jnp.float32))
        updates, state = tx.update(grads, state, params)
        return (optax.apply_updates(params, updates), state), loss

    (params, state), losses = jax.lax.scan(step, (params, state), lr_basin.batches(task, seed))
    loss, accuracy = evaluated(task, exact(state, params))
    final = losses[-lr_basin.LAST :].mean()
    return {"train_loss": final, "validation_loss": loss, "accuracy": accuracy}


def sizes(task: lr_basin.Task, cell: dict[str, Any]) -> dict[str, float]:
    """Bytes per parameter of the parameters and the state, without allocating them."""
    params = jax.eval_shape(functools.partial(start, task), jax.ShapeDtypeStruct((), jnp.int32))
    state = jax.eval_shape(optimizer(cell).init, params)
    params = jax.eval_shape(functools.partial(stored, variant=cell["variant"]), params)
    number = sum(x.size for x in jax.tree.leaves(params))

    def each(tree: Any) -> float:
        return round(sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(tree)) / number, 3)

    return {"params": each(params), "state": each(state)}


def measure(task: lr_basin.Task, cell: dict[str, Any]) -> dict[str, Any]:
    """Train the cell, all seeds in one program; how long that took is a note, not a benchmark."""
    seeds, times = jnp.asarray(cell["seeds"]), [time.perf_counter()]
    # One after the other: on few cores sooner done than by vmap, and each as it would be alone.
    program = functools.partial(jax.lax.map, functools.partial(train, task, cell))
    run = jax.jit(program).lower(seeds).compile()
    times.append(time.perf_counter())
    found = {name: np.asarray(x, float) for name, x in run(seeds).items()}
    times.append(time.perf_counter())
    return {
        "cell": cell,
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "seconds": [round(float(t), 1) for t in np.diff(times)],  # to compile, to run
        "bytes": sizes(task, cell),
        **{
            name: [float(f"{x:.6g}") if math.isfinite(x) else None for x in by_seed]
            for name, by_seed in found.items()
        },
    }


# --- the cells ------------------------------------------------------------------------------------


def plan(args: argparse.Namespace, tasks: dict[str, lr_basin.Task]) -> list[dict[str, Any]]:
    """One cell per task, optimizer and variant: all that its result depends on."""
    cells = []
    for name, task in tasks.items():
        for optimizer, (rate, _) in OPTIMIZERS.items():
            if optimizer != "adamw" and (args.short or name != "digits"):
                continue
            variants = SHORT if args.short else VARIANTS if optimizer == "adamw" else STATES
            for variant in variants:
                key = {"task": name, "optimizer": optimizer, "variant": variant, "rate": rate}
                seeds = list(range(args.seeds))
                cells.append(key | {"min_size": MIN_SIZE, "seeds": seeds, **task.settings})
    return cells


def key(cell: dict[str, Any]) -> tuple[str, str, str]:
    return cell["task"], cell["optimizer"], cell["variant"]


def run(
    cells: Sequence[dict[str, Any]], tasks: dict[str, lr_basin.Task], path: Path, console: Console
) -> dict[str, Any]:
    """Train the cells that `path` does not hold yet, and store each as it ends."""

    def measured(missing: Sequence[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        return (measure(tasks[cell["task"]], cell) for cell in missing)

    order = {"task": tuple(TASKS), "optimizer": tuple(OPTIMIZERS), "variant": tuple(VARIANTS)}
    about = {"machine": measuring.machine("flax", "scikit-learn")}
    return measuring.complete(path, cells, measured, order, console, **about)


# --- the comparison -------------------------------------------------------------------------------


class Comparison(NamedTuple):
    """One number of a variant, beside that of float32 from the same seeds."""

    mean: float
    deviation: float  # over seeds
    difference: float  # from float32, the mean over pairs
    interval: float  # half of its 95 % t-interval
    within: bool  # the noise of seeds: |difference| <= the deviation of float32


def compare(result: dict[str, Any], base: dict[str, Any], what: str) -> Comparison:
    """Training or validation loss or accuracy, `what`, of two results."""
    x, y = (np.array(r[what], float) for r in (result, base))  # None is NaN, and within nothing
    pairs = x - y
    difference, within = pairs.mean(), abs(pairs.mean()) <= y.std(ddof=1)
    interval = stats.t.ppf(0.975, len(x) - 1) * pairs.std(ddof=1) / math.sqrt(len(x))
    return Comparison(x.mean(), x.std(ddof=1), difference, interval, bool(within))


def baseline(report: dict[str, Any], result: dict[str, Any]) -> dict[str, Any] | None:
    """The float32 result of the same settings, if it is there."""
    cell = result["cell"] | {"variant": "float32"}
    return next((r for r in report["results"] if r["cell"] == cell), None)


def tables(report: dict[str, Any]) -> list[Table]:
    """One per task and optimizer, a variant a row."""
    found: dict[tuple[str, str], Table] = {}
    for result in report["results"]:
        cell, base = result["cell"], baseline(report, result)
        if base is None:
            continue
        if key(cell)[:2] not in found:
            table = found[key(cell)[:2]] = Table(
                title=f"{TITLES[cell['task']]}: {cell['optimizer']} at {cell['rate']:g}, "
                f"{cell['steps']} steps of {cell['batch']}, {len(cell['seeds'])} seeds",
                caption="B/param: parameters and state; difference: from float32 of the same "
                "seed, with its 95 % interval; within: by no more than seeds differ in float32",
                box=SIMPLE_HEAD,
            )
            table.add_column("variant", no_wrap=True)
            heads = ("B/param", "training loss", "difference", "within")
            for head in (*heads, "validation loss", "difference", "within", "accuracy, %"):
                table.add_column(head, justify="right", no_wrap=True)
        row = [cell["variant"], f"{sum(result['bytes'].values()):.1f}"]
        for what in ("train_loss", "validation_loss"):
            c = compare(result, base, what)
            row.append(f"{c.mean:.4f} ± {c.deviation:.4f}")
            paired = f"{c.difference:+.4f} ± {c.interval:.4f}", "yes" if c.within else "NO"
            row.extend(("", "") if result is base else paired)
        c = compare(result, base, "accuracy")
        found[key(cell)[:2]].add_row(*row, f"{100 * c.mean:.1f} ± {100 * c.deviation:.1f}")
    return list(found.values())


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--task", nargs="+", choices=tuple(TASKS))
    add("--seeds", type=int, help=f"how many; default {SEEDS}, in --short 2")
    add("--output-dir", type=Path, help="for the JSON")
    add("--short", action="store_true", help="three variants of one optimizer, 100 steps")
    args = parser.parse_args(argv)
    if args.seeds is not None and args.seeds < 2:
        parser.error("--seeds: at least 2, for an interval")
    args.seeds = args.seeds or (2 if args.short else SEEDS)
    args.task = args.task or (["digits"] if args.short else list(TASKS))
    args.output_dir = args.output_dir or (Path("outputs/precision_runs") if args.short else RESULTS)
    return args


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """Train what is missing, and show all there is."""
    args = parse(argv)
    console = Console(width=None if Console().is_terminal else 170)
    tasks = {name: TASKS[name]() for name in args.task}
    if args.short:
        tasks = {k: t._replace(settings=t.settings | {"steps": 100}) for k, t in tasks.items()}
    path = args.output_dir / "precision_runs.json"
    report = run(plan(args, tasks), tasks, path, console)
    for table in tables(report):
        console.print(table)
    console.print(f"Written: {path}.", highlight=False)
    return report


if __name__ == "__main__":
    main()
