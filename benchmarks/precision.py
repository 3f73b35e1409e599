"""What do fewer bytes cost? Memory, the error of a step, time: state in 16, 8 and 4 bits.

    python benchmarks/precision.py            # a few minutes on two cores
    python benchmarks/precision.py --short    # fewer steps and rounds, into outputs/precision
    python benchmarks/precision.py --draw     # the tables and the figure, nothing measured

Every optimizer walks twice over the same gradients, its state in float32 and in few bits, and the
steps are compared: iid gradients, coordinates of very different size, sparse ones, rare rows, and
coordinates that shrink on the way. Beside them Adam with the codes of bitsandbytes and torchao:
read from a table, rounded to the nearest, and with a code for 0. Prints tables, writes
results/precision.json and draws docs/figures/precision.png. A killed run goes on where it stopped.
Training runs are in precision_runs.py.
"""

import argparse
import functools
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import measuring
import numpy as np
import optax
import speed
from matplotlib.figure import Figure
from rich.console import Console
from rich.progress import track
from rich.table import Table

import optax_adaptive as oa

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "examples"))

import pictures  # noqa: E402

RESULTS, FIGURES = HERE / "results", HERE.parent / "docs" / "figures"
SHAPE = (64, 512)
BF16 = jnp.bfloat16
# On the way of "shrinking": where every second coordinate gets 10 times smaller.
SHRINKS = 0.3


# --- gradients ------------------------------------------------------------------------------------


def iid(key: jax.Array, noise: jax.Array, progress: jax.Array) -> jax.Array:
    """Of one size."""
    del key, progress
    return noise


def lognormal(sigma: float, key: jax.Array, noise: jax.Array, progress: jax.Array) -> jax.Array:
    """Every coordinate of its own size, exp(sigma n)."""
    del progress
    return noise * jnp.exp(sigma * jax.random.normal(jax.random.key(7), noise.shape))


def sparse(key: jax.Array, noise: jax.Array, progress: jax.Array) -> jax.Array:
    """2 % of the coordinates at a time, the others 0."""
    del progress
    return noise * (jax.random.uniform(key, noise.shape) < 0.02)


def zipf(key: jax.Array, noise: jax.Array, progress: jax.Array) -> jax.Array:
    """Rows of 64, as those of an embedding: row k with odds of 20 / k."""
    del progress
    rows = noise.reshape(-1, 64)
    odds = jnp.minimum(1, 20 / (1 + jnp.arange(len(rows))))
    return (rows * (jax.random.uniform(key, odds.shape) < odds)[:, None]).reshape(noise.shape)


def shrinking(key: jax.Array, noise: jax.Array, progress: jax.Array) -> jax.Array:
    """Every second coordinate gets 10 times smaller on the way."""
    del key
    small = (jnp.arange(noise.shape[-1]) % 2 == 0) & (progress > SHRINKS)
    return jnp.where(small, 0.1 * noise, noise)


STREAMS: dict[str, Callable[..., jax.Array]] = {
    "iid": iid,
    "lognormal 0.5": functools.partial(lognormal, 0.5),
    "lognormal 1": functools.partial(lognormal, 1.0),
    "sparse 2 %": sparse,
    "Zipf rows": zipf,
    "shrinking": shrinking,
}

# --- optimizers and storage -----------------------------------------------------------------------

# Their learning rate is 1: a step is in units of it.
OPTIMIZERS: dict[str, Callable[[], optax.GradientTransformation]] = {
    "adam": lambda: oa.adam(1.0),
    "adabound": lambda: oa.adabound(1.0, final_lr=1.0),  # so that rates of Adam are in the band
    "adagrad": lambda: oa.adagrad(1.0),
    "rmsprop": lambda: oa.rmsprop(1.0, decay=0.99),
    "adadelta": lambda: oa.adadelta(1.0),
    "lion": lambda: oa.lion(1.0, weight_decay=None),
    "prodigy": lambda: oa.prodigy(1.0),
}


class TableState(NamedTuple):
    """Adam's moments as bytes, flat, and the largest value of every 256."""

    count: jax.Array
    mu: tuple[jax.Array, jax.Array]
    nu: tuple[jax.Array, jax.Array]


def dynamic_map(signed: bool) -> np.ndarray:
    """The 256 values of the 8-bit codes of bitsandbytes and torchao: decades, finer above."""
    values = [0.0, 1.0]
    for decade in range(7):
        edges = np.linspace(0.1, 1, 2 ** (decade if signed else decade + 1) + 1)
        middles = 10.0 ** (decade - 6) * (edges[1:] + edges[:-1]) / 2
        values += [*middles, *(-middles if signed else ())]
    return np.sort(np.array(values, np.float32))


def adam_from_tables(learning_rate: float) -> optax.GradientTransformation:
    """Adam with the moments in those codes: the naive 8-bit Adam of the figure."""
    adam = oa.adam(learning_rate)
    tables = {"mu": dynamic_map(True), "nu": dynamic_map(False)}

    def write(x, table):
        blocks = x.reshape(-1, 256)
        largest = jnp.max(jnp.abs(blocks), axis=1, keepdims=True)
        middles = (table[1:] + table[:-1]) / 2
        codes = jnp.searchsorted(middles, blocks / jnp.where(largest > 0, largest, 1))
        return codes.astype(jnp.uint8), largest

    def read(stored, table, like):
        codes, largest = stored
        return (jnp.asarray(table)[codes] * largest).reshape(like.shape)

    def init(params):
        state = adam.init(params).direction
        return TableState(state.count, *(write(getattr(state, k), t) for k, t in tables.items()))

    def update(grads, state, params=None):
        del params
        full = adam.init(grads)
        moments = {k: read(getattr(state, k), t, grads) for k, t in tables.items()}
        direction = full.direction._replace(count=state.count, **moments)
        updates, new = adam.update(grads, full._replace(direction=direction))
        written = (write(getattr(new.direction, k), t) for k, t in tables.items())
        return updates, TableState(new.direction.count, *written)

    return optax.GradientTransformation(init, update)


def in_bfloat16(tx: optax.GradientTransformation, rounding: str) -> Any:
    """Every moment of it in bfloat16."""
    fields = ("mu", "nu", "sum_sq", "delta", "grad_sum")
    has = [f for f in fields if optax.tree.get_all_with_path(tx.init(jnp.ones(2)), f)]
    return oa.with_state_dtype(tx, rounding=rounding, **dict.fromkeys(has, BF16))


STORAGE: dict[str, Callable[[Any], Any]] = {
    "bf16, nearest": lambda tx: in_bfloat16(tx, "nearest"),
    "bf16": lambda tx: in_bfloat16(tx, "stochastic"),
    "8 bits": oa.with_quantized_state,
    "4 bits": functools.partial(oa.with_quantized_state, bits=4),
}
TABLES = "8 bits from tables"  # of Adam only
DRAWN = ("8 bits", TABLES)

# --- the error of a step --------------------------------------------------------------------------


class Steps(NamedTuple):
    """How the steps of two transformations on the same gradients differ."""

    error: float  # |difference| / |step|, the mean over the second half of the steps
    largest: float  # the largest step of all relative to the largest of the float32 one
    shrunk: float  # the mean |step| of every second coordinate at the end, relative


def both(
    exact: optax.GradientTransformation, stored: optax.GradientTransformation, steps: int
) -> Callable[[str, float], tuple[Steps, np.ndarray, np.ndarray]]:
    """How both walk over the same gradients and parameters: a function of stream and scale.

    It returns the largest step of each at every step, too. It is compiled once.
    """
    transformations = [optax.with_extra_args_support(tx) for tx in (exact, stored)]

    @jax.jit
    def walk(stream, scale):
        def step(carry, t):
            params, states = carry
            key = jax.random.fold_in(jax.random.key(0), t)
            noise = jax.random.normal(key, SHAPE)
            key = jax.random.fold_in(key, 1)
            g = scale * jax.lax.switch(stream, list(STREAMS.values()), key, noise, t / steps)
            made = [
                tx.update(g, s, params, value=1.0)
                for tx, s in zip(transformations, states, strict=True)
            ]
            (u, _), (v, _) = made
            error = jnp.linalg.norm(v - u) / jnp.maximum(jnp.linalg.norm(u), 1e-30)
            tops = [jnp.max(jnp.abs(x)) for x in (u, v)]
            halves = [jnp.mean(jnp.abs(x[:, ::2])) for x in (u, v)]
            return (params + 1e-4 * u, [s for _, s in made]), (error, *tops, *halves)

        params = jnp.ones(SHAPE)
        start = (params, [tx.init(params) for tx in transformations])
        return jax.lax.scan(step, start, jnp.arange(steps))[1]

    def compare(stream, scale=1.0):
        results = walk(list(STREAMS).index(stream), scale)
        error, top, stored_top, half, stored_half = map(np.asarray, results)
        late = slice(-max(1, steps // 10), None)
        found = Steps(
            float(error[steps // 2 :].mean()),
            float(stored_top.max() / top.max()),
            float(stored_half[late].mean() / half[late].mean()),
        )
        return found, top, stored_top

    return compare


CELLS = [(name, how) for name in OPTIMIZERS for how in STORAGE] + [("adam", TABLES)]


def measure_steps(name: str, how: str, report: dict[str, Any]) -> None:
    """A row, and for the figure the largest step of Adam at every step, gradients sparse."""
    exact = OPTIMIZERS[name]()
    stored = adam_from_tables(1.0) if how == TABLES else STORAGE[how](exact)
    compare = both(exact, stored, report["settings"]["steps"])
    found = {s: compare(s) for s in STREAMS}
    report["errors"][f"{name}, {how}"] = {s: row._asdict() for s, (row, _, _) in found.items()}
    if name == "adam" and how in DRAWN:
        tops = dict(zip(("float32", how), found["sparse 2 %"][1:], strict=True))
        report["tops"] |= {k: [float(f"{x:.4g}") for x in top] for k, top in tops.items()}


# --- memory ---------------------------------------------------------------------------------------

# XLA's own, and without copies of old state that need not be (on CPU).
COMPILERS = {
    "by default": {},
    "with region analysis": {"xla_cpu_copy_insertion_use_region_analysis": True},
}


def recipes() -> dict[str, tuple[Any, Any]]:
    """What is stored: a transformation, and the dtype of the parameters."""
    adamw, quantized = oa.adamw(1e-3), oa.with_quantized_state
    f32 = jnp.float32
    return {
        "adamw": (adamw, f32),
        "state in bf16": (in_bfloat16(adamw, "stochastic"), f32),
        "state in 8 bits": (quantized(adamw), f32),
        "state in 4 bits": (quantized(adamw, bits=4), f32),
        "adabound, state in 8 bits": (quantized(oa.adabound()), f32),
        "lion, state in 8 bits": (quantized(oa.lion(1e-4)), f32),
        "kahan": (oa.kahan(adamw), BF16),
        "master_weights": (oa.master_weights(adamw), BF16),
        "stochastic_rounding, state in 8 bits": (oa.stochastic_rounding(quantized(adamw)), BF16),
        "master_weights, state in 8 bits": (oa.master_weights(quantized(adamw)), BF16),
        "master_weights, state in 4 bits": (oa.master_weights(quantized(adamw, bits=4)), BF16),
    }


def bytes_per_parameter(tx: Any, dtype: Any, shape: tuple[int, ...] = (4096, 4096)) -> Any:
    """Of the parameter, and of the state of the optimizer; nothing is allocated."""
    params = jax.ShapeDtypeStruct(shape, dtype)
    state = jax.eval_shape(tx.init, params)
    total = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(state))
    return params.dtype.itemsize, total / params.size


def temporaries(tx: Any, leaves: int = 100, shape: tuple[int, int] = (64, 128)) -> dict[str, float]:
    """The temporary arrays of a compiled step, in float32 arrays of the size of one leaf."""
    params = {f"k{i}": jax.ShapeDtypeStruct(shape, jnp.float32) for i in range(leaves)}
    state = jax.eval_shape(tx.init, params)
    lowered = speed.step_of(tx).lower(params, state, params)
    size = 4 * shape[0] * shape[1]
    return {
        name: lowered.compile(compiler_options=options).memory_analysis().temp_size_in_bytes / size
        for name, options in COMPILERS.items()
    }


def measure_memory() -> dict[str, Any]:
    rows: dict[str, Any] = {}
    for name, (tx, dtype) in recipes().items():
        parameter, state = bytes_per_parameter(tx, dtype)
        rows[name] = {"parameter": parameter, "state": state}
    quantized = oa.with_quantized_state
    kinds = {
        "adam": oa.adam(1.0),
        "lion": oa.lion(1.0),
        "adagrad": oa.adagrad(1.0),
        "adadelta": oa.adadelta(1.0),
    }
    many = {f"{name}, 8 bits": temporaries(quantized(tx)) for name, tx in kinds.items()}
    return {"bytes": rows, "temporaries": many}


# --- time -----------------------------------------------------------------------------------------


def measure_time(size: int, rounds: int) -> dict[str, Any]:
    """How long a step takes relative to the same with float32 state, in turns."""
    rng = np.random.default_rng(0)
    start = rng.normal(size=(size, 1024)).astype(np.float32)
    grads = [rng.normal(size=start.shape).astype(np.float32) for _ in range(2)]
    arrays = {dtype: speed.Arrays(start.astype(dtype), grads) for dtype in (np.float32, BF16)}
    adamw = oa.adamw(1e-3)
    contenders = {
        "float32": (adamw, np.float32),
        "state in bf16": (in_bfloat16(adamw, "stochastic"), np.float32),
        "state in bf16, nearest": (in_bfloat16(adamw, "nearest"), np.float32),
        "state in 8 bits": (oa.with_quantized_state(adamw), np.float32),
        "state in 4 bits": (oa.with_quantized_state(adamw, bits=4), np.float32),
        "bf16 parameters": (adamw, BF16),
        "stochastic_rounding": (oa.stochastic_rounding(adamw), BF16),
        "kahan": (oa.kahan(adamw), BF16),
        "master_weights": (oa.master_weights(adamw), BF16),
        "master_weights, state in 8 bits": (
            oa.master_weights(oa.with_quantized_state(adamw)),
            BF16,
        ),
    }
    steps = {
        f"{name}, {how}": speed.JaxStep(tx.init, speed.step_of(tx), arrays[d], options)
        for name, (tx, d) in contenders.items()
        for how, options in COMPILERS.items()
    }
    seconds = measuring.interleave(steps, rounds, lambda: None)
    base = "float32, by default"
    return {
        name: {how: measuring.ratio(seconds, f"{name}, {how}", base) for how in COMPILERS}
        for name in contenders
    }


# --- the report -----------------------------------------------------------------------------------


def table(title: str, *columns: str) -> Table:
    """Rows with names, and numbers on the right."""
    made = Table("", title=title)
    for name in columns:
        made.add_column(name, justify="right")
    return made


def tables(report: dict[str, Any]) -> list[Table]:
    memory = table(
        "Bytes per parameter, and of a model of a billion parameters",
        *("parameter", "state", "together", "1B parameters"),
    )
    for name, row in report["memory"]["bytes"].items():
        total = row["parameter"] + row["state"]
        cells = f"{row['parameter']}", f"{row['state']:.2f}", f"{total:.2f}", f"{total:.1f} GB"
        memory.add_row(name, *cells)

    title = f"Error of a step, and the largest one / float32 ({report['settings']['steps']} steps)"
    steps = table(title, *STREAMS)
    for name, row in report["errors"].items():
        cells = (f"{row[s]['error']:.2g}  {row[s]['largest']:.3g}x" for s in STREAMS)
        steps.add_row(name, *cells)

    title = "Steps of coordinates whose gradients got 10 times smaller / float32"
    shrunk = table(title, *STORAGE)
    for name in OPTIMIZERS:
        rows = (report["errors"][f"{name}, {how}"]["shrinking"] for how in STORAGE)
        shrunk.add_row(name, *(f"{row['shrunk']:.2f}" for row in rows))

    many = table("Temporary arrays of a step of 100 leaves, in leaves of float32", *COMPILERS)
    for name, row in report["memory"]["temporaries"].items():
        many.add_row(name, *(f"{x:.1f}" for x in row.values()))

    times = table("Time of a step of AdamW / float32", *COMPILERS)
    for name, row in report["time"].items():
        times.add_row(name, *(f"{x:.2f}" for x in row.values()))
    return [memory, steps, shrunk, many, times]


def draw(report: dict[str, Any]) -> Figure:
    """The largest step of Adam under sparse gradients."""
    figure, axes = plt.subplots(figsize=(pictures.WIDTH, 3.4), layout="constrained")
    ink = plt.rcParams["text.color"]
    for how, label, look in (
        (TABLES, "8 bits, with a code for 0", {"color": pictures.ORANGE, "lw": 1.2}),
        ("float32", "float32", {"color": pictures.SKY, "lw": 4}),
        ("8 bits", "with_quantized_state, 8 bits", {"color": ink, "lw": 0.9}),
    ):
        axes.plot(report["tops"][how], label=label, **look)
    axes.set(yscale="log", xlabel="step", xlim=(0, report["settings"]["steps"]))
    axes.set_ylabel("largest step, in learning rates")
    axes.set_title("Adam, 2 % of the gradients at a time are not 0")
    axes.legend()
    return figure


def run(args: argparse.Namespace, path: Path) -> dict[str, Any]:
    """Measure what `path` does not hold yet, and store each part as it ends."""
    short = args.short
    settings = {"steps": 100 if short else 1000, "rounds": 3 if short else 12}
    settings |= {"shape": SHAPE, "size": 4096 if short else 16384}
    settings |= {"machine": measuring.machine(), "package": measuring.fingerprint()}
    report = measuring.begun(path, settings, args.fresh)
    if "memory" not in report:
        report["memory"] = measure_memory()
        measuring.write(path, report)
    if "time" not in report:
        report["time"] = measure_time(settings["size"], settings["rounds"])
        measuring.write(path, report)
    done = report.setdefault("errors", {})
    report.setdefault("tops", {})
    missing = [cell for cell in CELLS if ", ".join(cell) not in done]
    for name, how in track(missing, "steps", console=Console(stderr=True)):
        measure_steps(name, how, report)
        measuring.write(path, report)
    return report


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output-dir", type=Path, help="in the place of results and docs/figures")
    parser.add_argument("--short", action="store_true", help="fewer steps and rounds")
    parser.add_argument("--fresh", action="store_true", help="measure finished parts again")
    parser.add_argument("--draw", action="store_true", help="show what was measured")
    args = parser.parse_args(argv)
    if args.short:
        args.output_dir = args.output_dir or Path("outputs/precision")
    return args


def main(argv: Sequence[str] | None = None) -> None:
    """Measure what is missing, and show all there is."""
    args = parse(argv)
    results = (args.output_dir or RESULTS) / "precision.json"
    report = json.loads(results.read_text()) if args.draw else run(args, results)
    for shown in tables(report):
        Console().print(shown)
    picture = (args.output_dir or FIGURES) / "precision.png"
    pictures.save(functools.partial(draw, report), picture)


if __name__ == "__main__":
    main()
