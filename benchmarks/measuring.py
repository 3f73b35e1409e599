"""What the benchmarks share: steps timed in turns, the machine, tables, files of results."""

import concurrent.futures
import hashlib
import importlib.metadata
import itertools
import json
import os
import platform
import random
import re
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

import optax_adaptive

# --- clocks ---------------------------------------------------------------------------------------


class Step:
    """What is timed. A call begins one step; after `wait` all that began have ended."""

    def __call__(self) -> None:
        raise NotImplementedError

    def wait(self) -> None:
        """Nothing, where a call returns at the end of its step."""

    def seconds(self, batch: int = 1) -> float:
        """Of one of `batch` steps in a row."""
        start = time.perf_counter()
        for _ in range(batch):
            self()
        self.wait()
        return (time.perf_counter() - start) / batch


def interleave(
    steps: Mapping[str, Step], rounds: int, tick: Callable[[], None], batch: int = 1
) -> dict[str, list[float]]:
    """The seconds of a step of every contender in every round."""
    found = {name: [] for name in steps}
    shuffle = random.Random(0)
    for _ in range(rounds):
        # A neighbour is felt, torch's spinning threads above all: in any fixed rotation somebody
        # follows it more often than somebody else.
        for name in shuffle.sample(list(steps), len(steps)):
            steps[name].seconds()  # for the caches, and for threads that still spin
            found[name].append(steps[name].seconds(batch))
        tick()
    return found


def ratio(seconds: Mapping[str, list[float]], a: str, b: str) -> float:
    """How long a step of `a` takes relative to `b`: the median over the rounds.

    Steps of one round share the weather. Between repeated runs on a busy machine this came back
    within 2 to 5 %, the ratio of medians within 10 %, the ratio of minima within 40 %.
    """
    return statistics.median(x / y for x, y in zip(seconds[a], seconds[b], strict=True))


# --- the machine ----------------------------------------------------------------------------------


class HostCopy(Step):
    """Of one array into another, in all threads."""

    def __init__(self, size: int):
        self.source, self.target = np.ones(size, np.float32), np.ones(size, np.float32)
        threads = os.cpu_count() or 1
        self.parts = [slice(i * size // threads, (i + 1) * size // threads) for i in range(threads)]
        self.pool = concurrent.futures.ThreadPoolExecutor(threads)

    def __call__(self) -> None:
        list(self.pool.map(lambda x: np.copyto(self.target[x], self.source[x]), self.parts))


class DeviceCopy(Step):
    """Of one array into another; with its sign changed, or nothing would be moved."""

    def __init__(self, size: int):
        self.source = self.target = jnp.ones(size)
        self.copy = jax.jit(jnp.negative)

    def __call__(self) -> None:
        self.target = self.copy(self.source)

    def wait(self) -> None:
        jax.block_until_ready(self.target)


def copy_bandwidth(size: int, batch: int) -> float:
    """Bytes per second, read and written: the best of several copies of `size` float32."""
    step = HostCopy(size) if jax.default_backend() == "cpu" else DeviceCopy(size)
    step.seconds()
    return 2 * 4 * size / min(step.seconds(batch) for _ in range(30))


def machine(*others: str) -> dict[str, Any]:
    """Where a benchmark runs, and the versions of what it runs, also of `others` if installed."""
    model = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        lines = [line for line in info.read_text().splitlines() if line.startswith("model name")]
        model = lines[0].split(":")[1].strip() if lines else model
    backend = jax.default_backend()
    device = {} if backend == "cpu" else {"device": jax.devices()[0].device_kind}
    versions = {name: importlib.metadata.version(name) for name in ("jax", "jaxlib", "optax")}
    versions["numpy"] = np.__version__
    for name in others:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return {
        "cpu": model,
        "cores": os.cpu_count(),
        "backend": backend,
        **device,
        "python": platform.python_version(),
        "optax_adaptive": optax_adaptive.__version__,
        **versions,
    }


def fingerprint() -> str:
    """Of the package's sources: numbers of another version are not finished rows."""
    package = Path(optax_adaptive.__file__).parent
    digest = hashlib.sha256()
    for path in sorted(package.rglob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


# --- tables ---------------------------------------------------------------------------------------


class Shown(NamedTuple):
    """A table of text, for the terminal and for a page."""

    title: str
    columns: list[str]
    rows: list[list[str]]
    named: bool = True  # whether the first column has names of code
    numbers: bool = True  # whether the others are numbers, which a page has on the right

    def rich(self) -> Table:
        table = Table(title=self.title)
        for column in self.columns:
            table.add_column(column, justify="right" if table.columns else "left")
        for row in self.rows:
            table.add_row(*(re.sub(r"`|\*\*", "", cell) for cell in row))
        return table

    def markdown(self) -> Iterator[str]:
        yield "| " + " | ".join(x.replace("\n", "<br>") for x in self.columns) + " |"
        yield "|---" + ("|---:" if self.numbers else "|---") * (len(self.columns) - 1) + "|"
        for name, *cells in self.rows:
            yield "| " + " | ".join([f"`{name}`" if self.named else name, *cells]) + " |"


# --- files of results -----------------------------------------------------------------------------


def read(path: Path) -> dict[str, Any]:
    """The results in `path`; none if there is no such file."""
    return json.loads(path.read_text()) if path.exists() else {"results": []}


def write(path: Path, report: dict[str, Any]) -> None:
    """Write JSON, a list of numbers a line; a kill leaves the old file or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(report, indent=1, allow_nan=False)
    text = re.sub(r"\[[^\[\]{}]*\]", lambda found: " ".join(found[0].split()), text)
    part = path.with_suffix(".part")
    part.write_text(text + "\n")
    os.replace(part, path)


def begun(path: Path, settings: Any, fresh: bool) -> dict[str, Any]:
    """What a killed run with the same settings left, else an empty report."""
    report = {} if fresh else read(path)
    # As JSON gives them back: a tuple comes out a list.
    settings = json.loads(json.dumps(settings))
    return report if report.get("settings") == settings else {"settings": settings}


Cells = Sequence[dict[str, Any]]  # all that a result depends on
Results = Iterable[dict[str, Any]]  # each with its "cell"


def complete(
    path: Path,
    cells: Cells,
    measured: Callable[[Cells], Results],
    order: Mapping[str, Sequence[str]],
    console: Console,
    **about: Any,
) -> dict[str, Any]:
    """Measure the cells that `path` does not hold yet, and store each as it ends.

    Args:
        path: Of the results.
        cells: What is wanted.
        measured: Gives the results of cells, one by one.
        order: The fields that tell a cell from all others, with their values in order: a new
            result takes the place of an old one with the same, and results are sorted by them.
        console: For the progress.
        **about: What else the report holds.
    """
    report = read(path)
    done = [result["cell"] for result in report["results"]]
    missing = [cell for cell in cells if cell not in done]
    places = {key: i for i, key in enumerate(itertools.product(*order.values()))}

    def key(result: dict[str, Any]) -> tuple[str, ...]:
        return tuple(result["cell"][name] for name in order)

    columns = (TextColumn("{task.description:>34}"), BarColumn(), MofNCompleteColumn())
    columns += (TimeRemainingColumn(), TextColumn("left"))
    with Progress(*columns, console=console) as progress:
        bar = progress.add_task("", total=len(missing))
        for result in measured(missing):
            kept = [other for other in report["results"] if key(other) != key(result)]
            results = sorted([*kept, result], key=lambda r: places.get(key(r), len(places)))
            report = {**about, "results": results}
            write(path, report)
            progress.update(bar, description=", ".join(key(result)), advance=1)
    return report
