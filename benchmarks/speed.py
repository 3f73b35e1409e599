"""How fast are the optimizers? Against optax and torch, and against the memory of this machine.

For every optimizer, in one process and interleaved: the time of a step, the temporary arrays of the
compiled step, and the time to trace, lower and compile it for one leaf and for many. Prints a
table, writes `results/speed.json` and draws `docs/figures/speed.png`.

    python benchmarks/speed.py [--optimizer adam ...] [--size N] [--rounds N] [--no-torch]

A killed run goes on where it stopped; `--fresh` starts over.
"""

import argparse
import concurrent.futures
import datetime
import gc
import hashlib
import importlib.metadata
import json
import math
import os
import platform
import random
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import optax.contrib
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

import optax_adaptive

try:
    import torch
except ImportError:
    torch = None

HERE = Path(__file__).resolve().parent
RATE = 1e-3
STAGE_REPEATS = 3
SHAPES = ((64, 64), (64,), (128, 32), (3, 3, 16, 16), (10,))  # of the many leaves, in turn


class Case(NamedTuple):
    """One row: an optimizer's name, arguments here and in optax, and its constructor in torch."""

    name: str
    function: str
    arguments: Mapping[str, Any] = MappingProxyType({})
    torch: tuple[str, dict[str, Any]] | None = None
    variants: tuple[str, ...] = ("foreach", "for-loop")
    shape: tuple[int, ...] = ()  # of the parameters, where it matters
    roles: Any = None  # for those of ours that ask
    many: bool = False  # whether many leaves are compiled, too

    def make(self, library: Any) -> optax.GradientTransformation:
        make = getattr(library, self.function, None) or getattr(library.contrib, self.function)
        ours = {"roles": self.roles} if self.roles and library is optax_adaptive else {}
        return make(**{"learning_rate": RATE, **self.arguments, **ours})

    def libraries(self) -> dict[str, Any]:
        """Who has it."""
        there = hasattr(optax, self.function) or hasattr(optax.contrib, self.function)
        return {"ours": optax_adaptive} | ({"optax": optax} if there else {})


def by_axes(path: str, shape: tuple[int, ...]) -> str:
    """Every matrix of the benchmark is a hidden one."""
    return "matrix" if len(shape) == 2 else "adam"


FUSED = ("fused", "foreach", "for-loop")
DECAY = {"weight_decay": 1e-4}
MATRIX, SMALL = (4000, 4000), (512, 512)
CLASSICS = (
    Case("sgd", "sgd", torch=("SGD", {}), variants=FUSED),
    Case("momentum", "sgd", {"momentum": 0.9}, ("SGD", {"momentum": 0.9}), FUSED),
    Case("adagrad", "adagrad", torch=("Adagrad", {}), variants=FUSED),
    Case("rmsprop", "rmsprop", torch=("RMSprop", {})),
    Case("rmsprop centered", "rmsprop", {"centered": True}, ("RMSprop", {"centered": True})),
    Case("adadelta", "adadelta", {"learning_rate": 1.0}, ("Adadelta", {})),
    Case("adam", "adam", torch=("Adam", {}), variants=FUSED),
    Case("adamw", "adamw", DECAY, ("AdamW", DECAY), FUSED),
    Case("amsgrad", "amsgrad", torch=("Adam", {"amsgrad": True}), variants=FUSED),
    Case("nadam", "nadam", torch=("NAdam", {})),
    Case("nadamw", "nadamw", DECAY, ("NAdam", DECAY | {"decoupled_weight_decay": True})),
    Case("adamax", "adamax", torch=("Adamax", {})),
    Case("adamaxw", "adamaxw", DECAY),
    Case("radam", "radam", torch=("RAdam", {})),
    Case("adabound", "adabound"),
    Case("amsbound", "amsbound"),
)
CASES = (
    # What many leaves cost is the core's doing: these tell it for all.
    *(case._replace(many=True) for case in CLASSICS),
    *(
        Case(name, name)
        for name in (
            *("adabelief", "yogi", "adan", "laprop", "adopt", "ademamix", "qhadam", "adam_atan2"),
            *("adamod", "diffgrad", "padam", "lion", "adahessian"),
            *("prodigy", "dadapt_sgd", "dadapt_adagrad", "dadapt_adam", "dog", "ldog", "dowg"),
            *("cocob", "momo", "momo_adam"),
            *("schedule_free_sgd", "schedule_free_adamw", "schedule_free_radam"),
        )
    ),
    *(
        Case(name, name, shape=MATRIX)
        for name in (
            *("adamp", "stable_adamw", "swats", "lamb", "novograd", "adafactor", "sm3", "came"),
        )
    ),
    Case("adam_mini", "adam_mini", shape=MATRIX, roles={"*": "neurons"}),
    # A decomposition of 4000 x 4000 takes a minute.
    Case("shampoo", "shampoo", {"precondition_frequency": 10}, shape=SMALL),
    Case("soap", "soap", shape=SMALL),
    Case("muon", "muon", shape=SMALL, roles=by_axes),
)


# --- one step -------------------------------------------------------------------------------------


def step_of(tx: optax.GradientTransformation) -> Any:
    """The step of every training loop: parameters and state are overwritten in place."""

    tx = optax.with_extra_args_support(tx)

    def step(params, state, grads):
        # The gradients stand for the diagonal of a Hessian where one is needed, 1 for the loss.
        updates, state = tx.update(grads, state, params, hessian_diagonal=grads, value=1.0)
        return optax.apply_updates(params, updates), state

    return jax.jit(step, donate_argnums=(0, 1))


class Arrays:
    """Parameters and state that all of XLA's contenders update in turn.

    With arrays of their own two copies of one program differed by 5 to 10 % for as long as the
    process lived: where an array lies in memory matters more than what is measured here.
    """

    def __init__(self, params: np.ndarray, grads: list[np.ndarray]):
        self.params = jnp.array(params)
        self.states: dict[Any, list[jax.Array]] = {}  # by their shapes and dtypes
        self.grads = [jnp.asarray(g) for g in grads]
        self.count = 0


class JaxStep:
    """A compiled step; calling it makes one step on the common arrays."""

    def __init__(self, tx: optax.GradientTransformation, arrays: Arrays, options: Any = None):
        self.arrays = arrays
        state = tx.init(arrays.params)
        leaves, self.structure = jax.tree.flatten(state)
        self.scalars = [None if x.shape else x for x in leaves]
        large = [x for x in leaves if x.shape]
        self.shapes = tuple((x.shape, x.dtype) for x in large)
        arrays.states.setdefault(self.shapes, large)
        self.words = sum(x.size for x in leaves) / arrays.params.size
        lowered = step_of(tx).lower(arrays.params, state, arrays.grads[0])
        self.compiled = lowered.compile(compiler_options=options)
        temporaries = self.compiled.memory_analysis().temp_size_in_bytes
        self.temporaries = temporaries / arrays.params.nbytes

    def __call__(self) -> None:
        arrays = self.arrays
        large = iter(arrays.states[self.shapes])
        leaves = [next(large) if x is None else x for x in self.scalars]
        # Two gradients in turn: under a single one running variances would sink to 0.
        grads = arrays.grads[arrays.count % len(arrays.grads)]
        arrays.count += 1
        arrays.params, state = self.compiled(arrays.params, self.structure.unflatten(leaves), grads)
        jax.block_until_ready(arrays.params)
        leaves = jax.tree.leaves(state)
        arrays.states[self.shapes] = [x for x in leaves if x.shape]
        self.scalars = [None if x.shape else x for x in leaves]


class TorchStep:
    """The same in torch."""

    def __init__(self, case: Case, variant: str, params: np.ndarray, grads: list[np.ndarray]):
        kind, arguments = case.torch
        self.params = torch.from_numpy(params.copy())
        self.grads = [torch.from_numpy(g) for g in grads]
        self.count = 0
        chosen = {"foreach": variant == "foreach"}
        if "fused" in case.variants:
            chosen = {"fused": variant == "fused", "foreach": variant == "foreach"}
        rate = case.arguments.get("learning_rate", RATE)
        self.optimizer = getattr(torch.optim, kind)([self.params], lr=rate, **arguments, **chosen)

    def __call__(self) -> None:
        self.params.grad = self.grads[self.count % len(self.grads)]
        self.count += 1
        self.optimizer.step()


class Clock(NamedTuple):
    """Of one step: what a user waits for, and what the process worked."""

    wall: float
    cpu: float


def clock(step: Callable[[], Any]) -> Clock:
    wall, cpu = time.perf_counter(), time.process_time()
    step()
    return Clock(time.perf_counter() - wall, time.process_time() - cpu)


def fastest_in_torch(case: Case, params: np.ndarray, grads: list[np.ndarray]) -> tuple[str, Any]:
    """The variant with the fastest step of a few, and that step."""
    trials = []
    for variant in case.variants:
        step = TorchStep(case, variant, params, grads)
        step()
        trials.append((min(clock(step).wall for _ in range(4)), variant, step))
    _, variant, step = min(trials, key=lambda trial: trial[0])
    return variant, step


def interleave(
    steps: dict[str, Callable[[], None]], rounds: int, tick: Callable[[], None]
) -> dict[str, list[Clock]]:
    """The clocks of one step of every contender in every round."""
    clocks = {name: [] for name in steps}
    shuffle = random.Random(0)
    for _ in range(rounds):
        # A neighbour is felt, torch's spinning threads above all: in any fixed rotation somebody
        # follows it more often than somebody else.
        for name in shuffle.sample(list(steps), len(steps)):
            steps[name]()  # for the caches, and for threads that still spin after the neighbour
            clocks[name].append(clock(steps[name]))
        tick()
    return clocks


def ratio(clocks: dict[str, list[Clock]], a: str, b: str) -> dict[str, float]:
    """How long a step of `a` takes relative to `b`: the median over the rounds.

    Steps of one round share the weather. Between repeated runs on a busy machine this came back
    within 2 to 5 %, the ratio of medians within 10 %, the ratio of minima within 40 %.
    """
    pairs = list(zip(clocks[a], clocks[b], strict=True))
    return {
        "wall": statistics.median(x.wall / y.wall for x, y in pairs),
        "cpu": statistics.median(x.cpu / y.cpu for x, y in pairs),
    }


# --- the machine ----------------------------------------------------------------------------------


def copy_bandwidth(size: int) -> float:
    """Bytes per second read and written, the best of several copies in all threads."""
    source, target = np.ones(size, np.float32), np.ones(size, np.float32)
    threads = os.cpu_count() or 1
    parts = [slice(i * size // threads, (i + 1) * size // threads) for i in range(threads)]
    with concurrent.futures.ThreadPoolExecutor(threads) as pool:

        def copy():
            list(pool.map(lambda part: np.copyto(target[part], source[part]), parts))

        return 2 * source.nbytes / min(clock(copy).wall for _ in range(30))


def machine() -> dict[str, Any]:
    model = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        lines = [line for line in info.read_text().splitlines() if line.startswith("model name")]
        model = lines[0].split(":")[1].strip() if lines else model
    names = ["jax", "jaxlib", "optax", "numpy"] + ["torch"] * (torch is not None)
    return {
        "cpu": model,
        "cores": os.cpu_count(),
        "backend": jax.default_backend(),
        "python": platform.python_version(),
        **{name: importlib.metadata.version(name) for name in names},
    }


def fingerprint() -> str:
    """Of the package's sources: times of another version are not finished rows."""
    package = Path(optax_adaptive.__file__).parent
    digest = hashlib.sha256()
    for path in sorted(package.rglob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


# --- trace, lower, compile ------------------------------------------------------------------------


def stages(
    tx: optax.GradientTransformation, leaves: int, shape: tuple[int, ...], compiles: bool
) -> dict[str, float]:
    """CPU seconds to trace, lower and compile a step; nothing is allocated."""
    shapes = [SHAPES[i % len(SHAPES)] for i in range(leaves)] if leaves > 1 else [shape]
    params = {f"w{i:04}": jax.ShapeDtypeStruct(s, jnp.float32) for i, s in enumerate(shapes)}
    state = jax.eval_shape(tx.init, params)
    step = step_of(tx)
    gc.collect()
    times = [time.process_time()]
    traced = step.trace(params, state, params)
    times.append(time.process_time())
    lowered = traced.lower()
    times.append(time.process_time())
    names = ["trace", "lower"]
    if compiles:
        lowered.compile()
        times.append(time.process_time())
        names.append("compile")
    return dict(zip(names, np.diff(times).tolist(), strict=True))


def stage_medians(
    case: Case, libraries: dict[str, Any], args: argparse.Namespace, tick: Callable[[], None]
) -> dict[str, Any]:
    """Of every library, for one leaf and for many; many leaves are compiled once."""
    result = {}
    for leaves in (1, args.leaves) if case.many else (1,):
        runs = {name: [] for name in libraries}
        for repeat in range(STAGE_REPEATS):
            for name, library in libraries.items():
                compiles = leaves == 1 or repeat == 0
                runs[name].append(
                    stages(case.make(library), leaves, case.shape or (args.size,), compiles)
                )
                tick()
        result[str(leaves)] = {
            name: {k: statistics.median(r[k] for r in rows if k in r) for k in rows[0]}
            for name, rows in runs.items()
        }
    return result


def trace_and_lower(row: dict[str, Any], leaves: str, name: str) -> float:
    return row["stages"][leaves][name]["trace"] + row["stages"][leaves][name]["lower"]


# --- one row --------------------------------------------------------------------------------------


def measure(case: Case, args: argparse.Namespace, progress: Progress) -> dict[str, Any]:
    libraries = case.libraries()
    task = progress.add_task(case.name, total=args.rounds + len(libraries) * 2 * STAGE_REPEATS)

    def tick():
        progress.advance(task)

    rng = np.random.default_rng(0)
    shape = case.shape or (args.size,)
    params = rng.standard_normal(shape, np.float32)
    grads = [rng.standard_normal(shape, np.float32) for _ in range(2)]
    arrays = Arrays(params, grads)
    # The control is ours once more: its ratio would be 1 without noise.
    contenders = libraries | {"control": optax_adaptive}
    steps: dict[str, Any] = {n: JaxStep(case.make(lib), arrays) for n, lib in contenders.items()}
    row: dict[str, Any] = {"shape": shape}
    row["words"] = {name: steps[name].words for name in libraries}
    row["temporaries"] = {name: steps[name].temporaries for name in libraries}
    if args.torch and case.torch:
        row["torch_variant"], steps["torch"] = fastest_in_torch(case, params, grads)
    clocks = interleave(steps, args.rounds, tick)
    row["seconds"] = {n: statistics.median(c.wall for c in cs) for n, cs in clocks.items()}
    row["cpu_seconds"] = {n: statistics.median(c.cpu for c in cs) for n, cs in clocks.items()}
    row["best_seconds"] = {n: min(c.wall for c in cs) for n, cs in clocks.items()}
    pairs = [("ours", "control"), ("ours", "optax"), ("ours", "torch"), ("torch", "optax")]
    row["ratios"] = {f"{a}/{b}": ratio(clocks, a, b) for a, b in pairs if {a, b} <= clocks.keys()}
    del steps, arrays
    row["stages"] = stage_medians(case, libraries, args, tick)
    progress.remove_task(task)
    return row


# --- the report -----------------------------------------------------------------------------------


def achieved(row: dict[str, Any]) -> float:
    """Bytes per second, counting only what the best program would move."""
    words = (
        3 + 2 * row["words"]["ours"]
    )  # read parameters, gradients and state, write the first and last
    return 4 * math.prod(row["shape"]) * words / row["seconds"]["ours"]


def tables(report: dict[str, Any]) -> list[Table]:
    rows, size = report["rows"], report["settings"]["size"]
    many = str(report["settings"]["leaves"])
    limit = report["copy_bytes_per_second"]
    step = Table(title=f"One step, {size / 1e6:g}M float32 in one leaf")
    names = ("ours\nms", "optax\nms", "torch\nms", "\nvariant")
    names += ("ours/\noptax", "in CPU\ntime", "ours/\ntorch", "GB/s\nours", "of the\nlimit")
    names += ("state\nours", "state\noptax", "temp.\nours", "temp.\noptax")
    for name in ("\noptimizer", *names):
        step.add_column(name, justify="left" if name in ("\noptimizer", "\nvariant") else "right")
    stage = Table(title="Trace + lower, then compile: CPU seconds")
    stage.add_column("\noptimizer")
    for leaves in ("1", many):
        for name in ("ours", "optax", "ratio"):
            stage.add_column(f"{name}\n{leaves}", justify="right")
    for name in ("ours", "optax"):
        stage.add_column(f"compile\n{name} {many}", justify="right")

    def show(number: float | None, form: str = ".2f") -> str:
        return "-" if number is None else format(number, form)

    for name, row in rows.items():
        milliseconds = {k: 1e3 * v for k, v in row["seconds"].items()}
        ratios = row["ratios"]
        step.add_row(
            name,
            show(milliseconds["ours"], ".1f"),
            show(milliseconds.get("optax"), ".1f"),
            show(milliseconds.get("torch"), ".1f"),
            row.get("torch_variant", "-"),
            show(ratios.get("ours/optax", {}).get("wall")),
            show(ratios.get("ours/optax", {}).get("cpu")),
            show(ratios.get("ours/torch", {}).get("wall")),
            show(achieved(row) / 1e9, ".1f"),
            show(achieved(row) / limit, ".0%"),
            show(row["words"]["ours"]),
            show(row["words"].get("optax")),
            show(row["temporaries"]["ours"]),
            show(row["temporaries"].get("optax")),
        )
        cells = []
        for leaves in ("1", many):
            ours = theirs = None
            if leaves in row["stages"]:
                ours = trace_and_lower(row, leaves, "ours")
                theirs = trace_and_lower(row, leaves, "optax") if "ours/optax" in ratios else None
            cells += [show(ours, ".3f"), show(theirs, ".3f"), show(theirs and ours / theirs)]
        compiled = row["stages"].get(many, {})
        times = [compiled.get(library, {}).get("compile") for library in ("ours", "optax")]
        stage.add_row(name, *cells, *(show(time, ".1f") for time in times))
    return [step, stage]


def summary(report: dict[str, Any]) -> list[str]:
    """The targets, and how far the ratios can be trusted."""
    many = str(report["settings"]["leaves"])
    lines = [f"Copy bandwidth: {report['copy_bytes_per_second'] / 1e9:.1f} GB/s."]
    compared = {n: r for n, r in report["rows"].items() if "ours/optax" in r["ratios"]}
    for kind, label in (("wall", "step time"), ("cpu", "CPU time of a step")):
        control = [abs(r["ratios"]["ours/control"][kind] - 1) for r in report["rows"].values()]
        lines.append(
            f"Control, {label}: ours over a second copy of ours is off 1 by "
            f"{statistics.median(control):.1%} in the median, {max(control):.1%} at most."
        )
        if compared:
            ratios = {n: r["ratios"]["ours/optax"][kind] for n, r in compared.items()}
            worst = max(ratios, key=lambda n: ratios[n])
            line = (
                f"ours/optax, {label}: geometric mean "
                f"{statistics.geometric_mean(ratios.values()):.2f} (target 0.95), largest "
                f"{ratios[worst]:.2f} of {worst} (target 1.05)"
            )
            if "adadelta" in ratios:
                line += f", adadelta {ratios['adadelta']:.2f} (target 0.3)"
            lines.append(line + ".")
    compared = {n: r for n, r in compared.items() if many in r["stages"]}
    if compared:
        ratios = {
            n: trace_and_lower(r, many, "ours") / trace_and_lower(r, many, "optax")
            for n, r in compared.items()
        }
        worst = max(ratios, key=lambda n: ratios[n])
        lines.append(
            f"ours/optax, trace + lower at {many} leaves: geometric mean "
            f"{statistics.geometric_mean(ratios.values()):.2f} (target 0.5), largest "
            f"{ratios[worst]:.2f} of {worst}."
        )
        compiled = [r["stages"][many] for r in compared.values()]
        mean = statistics.geometric_mean(
            s["ours"]["compile"] / s["optax"]["compile"] for s in compiled
        )
        lines.append(f"ours/optax, compile at {many} leaves: geometric mean {mean:.2f}.")
    return lines


def draw(report: dict[str, Any], path: Path) -> None:
    import matplotlib  # noqa: PLC0415

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt  # noqa: PLC0415

    rows = {n: r for n, r in report["rows"].items() if "ours/optax" in r["ratios"]}
    if not rows:
        return
    names = list(rows)
    blue, orange, grey = "#0072B2", "#D55E00", "#555555"  # Okabe and Ito: told apart by everybody
    right = 2.0
    plt.rcParams.update({"font.size": 10, "font.family": "DejaVu Sans"})
    figure, axes = plt.subplots(figsize=(8, 0.9 + 0.34 * len(names)), layout="constrained")
    noise = max(abs(r["ratios"]["ours/control"]["wall"] - 1) for r in rows.values())
    band = f"what noise does to two equal programs (±{noise:.0%})"
    axes.axvspan(1 - noise, 1 + noise, color="#e4e4e4", linewidth=0, label=band)
    ours = [rows[n]["ratios"]["ours/optax"]["wall"] for n in names]
    axes.barh(names, ours, height=0.62, color=blue, label="optax_adaptive")
    for y, value in enumerate(ours):
        axes.text(0.02, y, f"{value:.2f}", color="white", ha="left", va="center", size=9)
    style = {"color": orange, "linestyle": "none", "markeredgecolor": "white", "markersize": 8}
    for y, name in enumerate(names):
        relative = rows[name]["ratios"].get("torch/optax", {}).get("wall")
        if relative is None:
            continue
        if relative < right - 0.03:
            axes.plot(relative, y, "D", zorder=4, **style)
        else:  # the number stands for the length
            axes.plot(right - 0.03, y, ">", zorder=4, clip_on=False, **style)
            text = f"{relative:.1f}" if relative < 10 else f"{relative:.0f}"
            axes.text(right - 0.07, y, text, color=orange, ha="right", va="center", size=9)
    if any("torch/optax" in r["ratios"] for r in rows.values()):
        axes.plot([], [], "D", label="torch, its fastest variant", **style)
    axes.axvline(1, color=grey, linewidth=1.2, zorder=3)
    axes.text(1, -0.75, "optax", color=grey, ha="center", va="bottom")
    axes.set(xlim=(0, right), ylim=(len(names) - 0.4, -0.6))
    settings = report["settings"]
    where = f"{settings['machine']['cpu']}, {settings['machine']['cores']} cores"
    size = f"{settings['size'] / 1e6:g}M float32"
    axes.set_xlabel(f"time of a step relative to optax, shorter is faster ({where}, {size})")
    axes.tick_params(axis="y", length=0)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.grid(axis="x", color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)
    handles, labels = axes.get_legend_handles_labels()
    # The bars first, the band last.
    order = sorted(range(len(labels)), key=lambda i: (labels[i] == band, "torch" in labels[i]))
    figure.legend(
        [handles[i] for i in order],
        [labels[i] for i in order],
        loc="outside lower center",
        ncols=3,
        frameon=False,
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=200)
    plt.close(figure)


def save(report: dict[str, Any], path: Path) -> None:
    """Whole or not at all: a run killed while it writes keeps the rows before."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(report, indent=1) + "\n")
    partial.replace(path)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    names = [case.name for case in CASES]
    parser.add_argument("--optimizer", nargs="+", choices=names, default=names, metavar="NAME")
    parser.add_argument("--size", type=lambda x: int(float(x)), default=16_000_000)
    parser.add_argument("--leaves", type=int, default=1000, help="of the tree with many")
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--no-torch", dest="torch", action="store_false")
    parser.add_argument("--fresh", action="store_true", help="measure finished rows again")
    parser.add_argument("--output-dir", type=Path, help="for the JSON and the figure")
    args = parser.parse_args()
    args.torch = args.torch and torch is not None
    return args


def main() -> None:
    args = arguments()
    results = (args.output_dir or HERE / "results") / "speed.json"
    figure = (args.output_dir or HERE.parent / "docs" / "figures") / "speed.png"
    settings = {key: getattr(args, key) for key in ("size", "leaves", "rounds", "torch")}
    settings |= {"machine": machine(), "package": fingerprint()}
    report = json.loads(results.read_text()) if results.exists() and not args.fresh else {}
    if report.get("settings") != settings:
        report = {"settings": settings, "rows": {}}
    report["date"] = datetime.datetime.now(datetime.UTC).date().isoformat()
    report.setdefault("copy_bytes_per_second", 0.0)
    console = Console(width=None if Console().is_terminal else 132)
    columns = (TextColumn("{task.description:>16}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, TimeElapsedColumn(), console=console, transient=True) as progress:
        cases = [case for case in CASES if case.name in args.optimizer]
        overall = progress.add_task("optimizers", total=len(cases))
        for case in cases:
            if case.name not in report["rows"]:
                report["rows"][case.name] = measure(case, args, progress)
                # The best of the whole run: a limit measured in a busy minute is none.
                report["copy_bytes_per_second"] = max(
                    report["copy_bytes_per_second"], copy_bandwidth(args.size)
                )
                order = [c.name for c in CASES]
                report["rows"] = {n: report["rows"][n] for n in order if n in report["rows"]}
                save(report, results)
            progress.advance(overall)
    for table in tables(report):
        console.print(table)
    console.print("\n".join(summary(report)))
    save(report, results)
    draw(report, figure)


if __name__ == "__main__":
    main()
