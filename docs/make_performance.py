"""Write what benchmarks/ measured into docs/performance.md and docs/mnist.md.

make bench BENCHES="memory speed" PAGES=performance
"""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "benchmarks"))

import speed_report  # noqa: E402
from fill import fill, head, line  # noqa: E402

RESULTS = HERE.parent / "benchmarks" / "results"


def measured() -> dict[str, dict[str, Any]]:
    """What speed.py found, by the name of the file: of the CPU first, then of other devices."""
    return {path.stem: speed_report.read(path) for path in sorted(RESULTS.glob("speed*.json"))}


def speed() -> Iterator[str]:
    """The summary and the table of every machine."""
    for stem, report in measured().items():
        settings = report["settings"]
        machine, place = settings["machine"], speed_report.place(report)
        names = ("jax", "optax", "torch", "keras", "tensorflow")
        versions = ", ".join(f"{k} {machine[k]}" for k in names if k in machine)
        yield f"### {place}"
        yield ""
        for paper, suffix in (("light", ""), ("dark", "-dark")):
            yield f"![Times of a step, {place}](figures/{stem}{suffix}.png#only-{paper})"
        yield ""
        yield from (f"- {line}" for line in speed_report.summary(report))
        yield ""
        yield (
            f"{settings['size'] / 1e6:g} million float32 parameters in one array, or in a square "
            f"where the optimizer is one for matrices; `shampoo`, `soap`, `muon` have 512 x 512. "
            f"{versions}, {report['date']}."
        )
        yield ""
        yield from speed_report.steps(report).markdown()
        yield ""


def compiling() -> Iterator[str]:
    """The table of the CPU."""
    yield from speed_report.compiling(measured()["speed"]).markdown()


def memory() -> Iterator[str]:
    """Words of state and temporary arrays, ours and optax's."""
    report = json.loads((RESULTS / "memory.json").read_text())
    yield from head("optimizer", "state, ours", "optax", "temporaries, ours", "optax")
    for name, found in report["rows"].items():
        cells = [
            f"{found[k][what]:.2f}".rstrip("0").rstrip(".") if k in found else "not there"
            for what in ("words", "temporaries")
            for k in ("ours", "optax")
        ]
        yield line(f"`{name}`", *cells)


def sections() -> dict[str, list[str]]:
    """The name of every section of the page, and its lines."""
    made = {"SPEED": speed(), "COMPILING": compiling(), "MEMORY": memory()}
    return {name: list(lines) for name, lines in made.items()}


def epoch() -> Iterator[str]:
    """An epoch against Keras, and where the time goes."""
    report = json.loads((RESULTS / "mnist_epoch.json").read_text())
    names = {
        "keras": "Keras 3 on TensorFlow, `model.fit`",
        "flax": "Flax, `examples/mnist.py`",
        "plain": "Flax with `nn.Conv`, `nn.max_pool`, one step per call",
    }
    yield f"Adam, {report['cores']} cores, {report['date']}, in turns of 24 batches:"
    yield ""
    yield from head("", "best, s", "median, s", "of Keras")
    for mode, took in report["epoch"].items():
        over = f"{took['over_keras']:.2f}" if "over_keras" in took else ""
        yield line(names[mode], f"{took['best']:.1f}", f"{took['median']:.1f}", over)
    yield ""
    parts = "; ".join(f"{part} {share:.0%}" for part, share in report["profile"].items())
    yield f"Where the time of a step goes: {parts}."


if __name__ == "__main__":
    for name, lines in sections().items():
        fill(HERE / "performance.md", name, lines)
    fill(HERE / "mnist.md", "EPOCH", epoch())
