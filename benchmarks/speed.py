"""How fast are the optimizers? Against optax, torch and Keras, and against the memory they use.

    python benchmarks/speed.py                         # every optimizer, on what JAX runs on
    python benchmarks/speed.py --optimizer adam lion   # of the results these only
    python benchmarks/speed.py --short                 # that it works: small arrays, few rounds
    python benchmarks/speed.py --draw                  # tables and figure, nothing measured

For every optimizer, in turns: the time of a step here, in optax, in every variant of torch and in
Keras on its backends, of those that are installed; and the time to trace, lower and compile a step
for one array and for many. Prints tables, writes results/speed.json and draws
docs/figures/speed.png; on a GPU or TPU the files have its name, too. A killed run goes on where it
stopped.
"""

import argparse
import datetime
import gc
import math
import os
import re
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import measuring
import numpy as np
import optax
import optax.contrib
import speed_peers
import speed_report
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

import optax_adaptive

HERE = Path(__file__).resolve().parent
RESULTS, FIGURES = HERE / "results", HERE.parent / "docs" / "figures"
RATE = 1e-3
STAGE_REPEATS = 3
SHAPES = ((64, 64), (64,), (128, 32), (3, 3, 16, 16), (10,))  # of the many leaves, in turn
SHORT = ("adagrad", "adam", "lamb")

# --- the optimizers -------------------------------------------------------------------------------


def flat(size: int) -> tuple[int, ...]:
    return (size,)


def square(size: int) -> tuple[int, ...]:
    return (math.isqrt(size),) * 2


def small(size: int) -> tuple[int, ...]:
    """A decomposition of 4000 x 4000 takes a minute."""
    return (min(512, math.isqrt(size)),) * 2


class Case(NamedTuple):
    """One row: an optimizer's name, and its arguments here and in optax."""

    name: str
    function: str
    arguments: Mapping[str, Any] = MappingProxyType({})
    shape: Callable[[int], tuple[int, ...]] = flat  # of the parameters, for so many of them
    roles: Any = None  # for those of ours that ask
    many: bool = False  # whether many leaves are compiled, too

    @property
    def rate(self) -> float:
        return self.arguments.get("learning_rate", RATE)

    def make(self, library: Any) -> optax.GradientTransformation:
        make = getattr(library, self.function, None) or getattr(library.contrib, self.function)
        ours = {"roles": self.roles} if self.roles and library is optax_adaptive else {}
        return make(**{**self.arguments, "learning_rate": self.rate, **ours})

    def libraries(self) -> dict[str, Any]:
        """Who has it."""
        there = hasattr(optax, self.function) or hasattr(optax.contrib, self.function)
        return {"ours": optax_adaptive} | ({"optax": optax} if there else {})


def by_axes(path: str, shape: tuple[int, ...]) -> str:
    """Every matrix of the benchmark is a hidden one."""
    return "matrix" if len(shape) == 2 else "adam"


CLASSICS = (
    Case("sgd", "sgd"),
    Case("momentum", "sgd", {"momentum": 0.9}),
    Case("adagrad", "adagrad"),
    Case("rmsprop", "rmsprop"),
    Case("rmsprop centered", "rmsprop", {"centered": True}),
    Case("adadelta", "adadelta", {"learning_rate": 1.0}),
    Case("adam", "adam"),
    Case("adamw", "adamw", speed_peers.DECAY),
    Case("amsgrad", "amsgrad"),
    Case("nadam", "nadam"),
    Case("nadamw", "nadamw", speed_peers.DECAY),
    Case("adamax", "adamax"),
    Case("adamaxw", "adamaxw", speed_peers.DECAY),
    Case("radam", "radam"),
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
        Case(name, name, shape=square)
        for name in (
            *("adamp", "stable_adamw", "swats", "lamb", "novograd", "adafactor", "sm3", "came"),
        )
    ),
    Case("adam_mini", "adam_mini", shape=square, roles={"*": "neurons"}),
    Case("shampoo", "shampoo", {"precondition_frequency": 10}, shape=small),
    Case("soap", "soap", shape=small),
    Case("muon", "muon", shape=small, roles=by_axes),
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


class JaxStep(measuring.Step):
    """A compiled step; calling it makes one step on the common arrays."""

    def __init__(self, init: Any, step: Any, arrays: Arrays, options: Any = None):
        self.arrays = arrays
        # Copies, because a step overwrites what it is given, and some states begin as parameters,
        # others with one array in two places.
        state = jax.tree.map(jnp.copy, init(arrays.params))
        start = jnp.copy(arrays.params), state, arrays.grads[0]
        self.compiled = step.lower(*start).compile(compiler_options=options)
        leaves, self.structure = jax.tree.flatten(self.compiled(*start)[1])
        large = [i for i, x in enumerate(leaves) if x.shape]
        # Libraries keep the same in another order; a variance must not become somebody's mean.
        self.order = sorted(large, key=lambda i: bool((leaves[i] < 0).any()))
        self.key = tuple((leaves[i].shape, leaves[i].dtype) for i in self.order)
        arrays.states.setdefault(self.key, [leaves[i] for i in self.order])
        self.scalars = [None if x.shape else x for x in leaves]

    def __call__(self) -> None:
        arrays = self.arrays
        leaves = list(self.scalars)
        for i, x in zip(self.order, arrays.states[self.key], strict=True):
            leaves[i] = x
        grads = arrays.grads[arrays.count % len(arrays.grads)]
        arrays.count += 1
        arrays.params, state = self.compiled(arrays.params, self.structure.unflatten(leaves), grads)
        leaves = jax.tree.leaves(state)
        arrays.states[self.key] = [leaves[i] for i in self.order]
        self.scalars = [None if x.shape else x for x in leaves]

    def wait(self) -> None:
        jax.block_until_ready(self.arrays.params)


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


def stage_medians(case: Case, args: argparse.Namespace, tick: Callable[[], None]) -> dict[str, Any]:
    """Of every library, for one leaf and for many; many leaves are compiled once."""
    libraries, result = case.libraries(), {}
    for leaves in (1, args.leaves) if case.many else (1,):
        runs = {name: [] for name in libraries}
        for repeat in range(STAGE_REPEATS):
            for name, library in libraries.items():
                compiles = leaves == 1 or repeat == 0
                runs[name].append(
                    stages(case.make(library), leaves, case.shape(args.size), compiles)
                )
                tick()
        result[str(leaves)] = {
            name: {k: statistics.median(r[k] for r in rows if k in r) for k in rows[0]}
            for name, rows in runs.items()
        }
    return result


# --- one row --------------------------------------------------------------------------------------


def contenders(case: Case, args: argparse.Namespace, workers: Mapping[str, Any]) -> dict[str, Any]:
    """A step of everybody who has this optimizer."""
    shape = case.shape(args.size)
    arrays = Arrays(*speed_peers.numbers(shape))
    # The control is ours once more: its ratio would be 1 without noise.
    libraries = case.libraries() | {"control": optax_adaptive}
    made = {name: case.make(library) for name, library in libraries.items()}
    steps = {name: JaxStep(tx.init, step_of(tx), arrays) for name, tx in made.items()}
    if not args.peers:
        return steps
    steps |= speed_peers.torch_steps(case.name, case.rate, shape)
    if case.name in speed_peers.KERAS:
        job = case.name, case.rate, shape
        for backend, worker in workers.items():
            steps[f"keras {backend}"] = (
                JaxStep(*speed_peers.keras_on_jax(*job), arrays)
                if worker is None
                else speed_peers.RemoteStep(worker, *job)
            )
    return steps


def measure(
    case: Case, args: argparse.Namespace, workers: Mapping[str, Any], progress: Progress
) -> dict[str, Any]:
    ticks = args.rounds + len(case.libraries()) * STAGE_REPEATS * (1 + case.many)
    task = progress.add_task(case.name, total=ticks)

    def tick():
        progress.advance(task)

    shape = case.shape(args.size)
    state = jax.eval_shape(case.make(optax_adaptive).init, jax.ShapeDtypeStruct(shape, jnp.float32))
    steps = contenders(case, args, workers)
    seconds = measuring.interleave(steps, args.rounds, tick, args.batch)
    row = {
        "shape": shape,
        "words": sum(x.size for x in jax.tree.leaves(state)) / math.prod(shape),
        "seconds": {name: statistics.median(x) for name, x in seconds.items()},
        "ratios": {
            f"ours/{name}": measuring.ratio(seconds, "ours", name)
            for name in steps
            if name != "ours"
        },
    }
    del steps
    row["stages"] = stage_medians(case, args, tick)
    progress.remove_task(task)
    return row


def run(args: argparse.Namespace, path: Path, console: Console) -> dict[str, Any]:
    """Measure what `path` does not hold yet, and store each row as it ends."""
    settings = {key: getattr(args, key) for key in ("size", "leaves", "rounds", "batch", "peers")}
    settings["machine"] = measuring.machine("torch", "keras", "tensorflow")
    settings["package"] = measuring.fingerprint()
    report = measuring.begun(path, settings, args.fresh)
    rows = report.setdefault("rows", {})
    report.setdefault("copy_bytes_per_second", 0.0)
    missing = [case for case in CASES if case.name in args.optimizer and case.name not in rows]
    backends = speed_peers.keras_backends() if missing and args.peers else []
    workers = {b: None if b == "jax" else speed_peers.Worker(b) for b in backends}
    columns = (TextColumn("{task.description:>20}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, TimeElapsedColumn(), console=console, transient=True) as progress:
        overall = progress.add_task("optimizers", total=len(missing))
        for case in missing:
            rows[case.name] = measure(case, args, workers, progress)
            # The best of the whole run: a limit measured in a busy minute is none.
            report["copy_bytes_per_second"] = max(
                report["copy_bytes_per_second"], measuring.copy_bandwidth(args.size, args.batch)
            )
            report["rows"] = rows = {c.name: rows[c.name] for c in CASES if c.name in rows}
            report["date"] = datetime.datetime.now(datetime.UTC).date().isoformat()
            measuring.write(path, report)
            progress.advance(overall)
    return report


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line. What is not given depends on what JAX runs on."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    names = [case.name for case in CASES]
    add("--optimizer", nargs="+", choices=names, metavar="NAME", help=", ".join(names))
    add("--size", type=lambda x: int(float(x)), help="of an array; default 16e6, 64e6 on a device")
    add("--leaves", type=int, help="of the tree with many; default 1000")
    add("--rounds", type=int, help="default 60")
    add("--batch", type=int, help="of steps timed together; default 1, 20 on a device")
    add("--no-peers", dest="peers", action="store_false", help="without torch and Keras")
    add("--fresh", action="store_true", help="measure finished rows again")
    add("--short", action="store_true", help="three optimizers, into outputs/speed")
    add("--draw", action="store_true", help="show what was measured")
    add("--output-dir", type=Path, help="for the JSON and the figure")
    args = parser.parse_args(argv)
    usual = {"size": 16_000_000, "leaves": 1000, "rounds": 60, "batch": 1, "optimizer": names}
    if jax.default_backend() != "cpu":
        # To begin a step takes as long as a small one.
        usual |= {"size": 64_000_000, "batch": 20}
    if args.short:
        usual |= {"size": 10_000, "leaves": 10, "rounds": 3, "optimizer": list(SHORT)}
        args.output_dir = args.output_dir or Path("outputs/speed")
    for key, value in usual.items():
        if getattr(args, key) is None:
            setattr(args, key, value)
    return args


def stem() -> str:
    """Of the files of this machine: speed, or speed-nvidia-h200."""
    if jax.default_backend() == "cpu":
        return "speed"
    return "speed-" + re.sub(r"[^a-z0-9]+", "-", jax.devices()[0].device_kind.lower()).strip("-")


def main(argv: Sequence[str] | None = None) -> None:
    """Measure what is missing, and show all there is."""
    # All share the memory of a GPU: nobody takes it beforehand.
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    args = parse(argv)
    console = Console(width=None if Console().is_terminal else 132)
    path = (args.output_dir or RESULTS) / f"{stem()}.json"
    report = speed_report.read(path) if args.draw else run(args, path, console)
    for table in speed_report.tables(report):
        console.print(table.rich())
    console.print("\n".join(speed_report.summary(report)), highlight=False)
    speed_report.save_figure(report, (args.output_dir or FIGURES) / f"{stem()}.png")


if __name__ == "__main__":
    main()
