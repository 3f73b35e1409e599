"""Write what benchmarks/precision.py and precision_runs.py measured into docs/precision.md.

make bench precision-runs && python docs/make_precision.py
"""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "benchmarks"))

import precision  # noqa: E402
import precision_runs  # noqa: E402
from fill import fill, head, line  # noqa: E402

RESULTS = HERE.parent / "benchmarks" / "results"


def memory(report: dict[str, Any]) -> Iterator[str]:
    yield from head("", "parameter, B", "state, B", "together, B", "a model of 1B parameters")
    for name, row in report["memory"]["bytes"].items():
        total = row["parameter"] + row["state"]
        yield line(name, row["parameter"], f"{row['state']:.2f}", f"{total:.2f}", f"{total:.1f} GB")


def errors(report: dict[str, Any]) -> Iterator[str]:
    yield from head("", *precision.STREAMS)
    for name, row in report["errors"].items():
        cells = [row[s] for s in precision.STREAMS]
        largest = [f"{x:,.0f}" if (x := c["largest"]) > 100 else f"{x:.3g}" for c in cells]
        errors = [f"{c['error']:.2g}" for c in cells]
        yield line(name, *(f"{e}, {x}x" for e, x in zip(errors, largest, strict=True)))


def shrinking(report: dict[str, Any]) -> Iterator[str]:
    yield from head("", *precision.STORAGE)
    for name in precision.OPTIMIZERS:
        found = [report["errors"][f"{name}, {how}"]["shrinking"] for how in precision.STORAGE]
        yield line(name, *(f"{x['shrunk']:.2f}" for x in found))


def compiled(first: str, digits: int, found: dict[str, Any]) -> Iterator[str]:
    """What was measured by default and with the compiler's option."""
    yield from head("", first, "with the option below")
    for name, row in found.items():
        yield line(name, *(f"{x:.{digits}f}" for x in row.values()))


def runs(report: dict[str, Any]) -> Iterator[str]:
    """The final training losses, those of AdamW on both tasks first."""
    found = {precision_runs.key(r["cell"]): r for r in report["results"]}

    def loss(task: str, optimizer: str, variant: str) -> str:
        result, base = found[task, optimizer, variant], found[task, optimizer, "float32"]
        c = precision_runs.compare(result, base, "train_loss")
        if result is base:
            return f"{c.mean:.3g} ± {c.deviation:.2g}"
        outside = "" if c.within else " **outside**"
        return f"{c.difference:+.2g} ± {c.interval:.2g}{outside}"

    yield from head("AdamW", "digits", "text", "bytes per parameter, text")
    for variant in precision_runs.VARIANTS:
        total = sum(found["text", "adamw", variant]["bytes"].values())
        losses = [loss(task, "adamw", variant) for task in ("digits", "text")]
        yield line(variant, *losses, f"{total:.1f}")
    yield ""
    others = [name for name in precision_runs.OPTIMIZERS if name != "adamw"]
    yield from head("digits", *others)
    for variant in precision_runs.STATES:
        yield line(variant, *(loss("digits", name, variant) for name in others))
    yield ""
    steps = {task: found[task, "adamw", "float32"]["cell"]["steps"] for task in ("digits", "text")}
    yield "Final training loss: that of float32 with the standard deviation over seeds, below it"
    yield "the difference from float32 with its 95 % interval over pairs of the same seed;"
    yield f"{steps['digits']:,} steps of the digits, {steps['text']:,} of the text."
    yield "**outside**: by more than seeds differ."


def sections() -> dict[str, list[str]]:
    """The name of every section of the page, and its lines."""
    report = json.loads((RESULTS / "precision.json").read_text())
    made = {
        "MEMORY": memory(report),
        "ERRORS": errors(report),
        "SHRINKING": shrinking(report),
        "TEMPORARIES": compiled("by default", 1, report["memory"]["temporaries"]),
        "TIME": compiled("time / float32", 2, report["time"]),
        "RUNS": runs(json.loads((RESULTS / "precision_runs.json").read_text())),
    }
    return {name: list(lines) for name, lines in made.items()}


if __name__ == "__main__":
    for name, lines in sections().items():
        fill(HERE / "precision.md", name, lines)
