"""Write what benchmarks/collectives.py read off compiled programs into docs/scaling.md, and a plan.

python benchmarks/collectives.py && python docs/make_scaling.py
"""

import contextlib
import io
import json
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "benchmarks"))

import collectives  # noqa: E402
from fill import fill  # noqa: E402

PAGE = HERE / "scaling.md"
PLATFORMS = {"cpu": "CPU", "cuda": "GPU, H100", "tpu": "TPU v5e"}


Found = dict[str, Any]


def forms(results: Found) -> Iterator[str]:
    """A line for every form of training with AdamW."""

    def cell(row: Found) -> str:
        sent = collectives.sent(row["collectives"]) / 2**20
        return f"{collectives.described(row['collectives'])}; sends {sent:.0f} MiB"

    return table("AdamW", results, lambda r: r["optimizer"] == "adamw", lambda r: r["form"], cell)


def optimizers(results: Found) -> Iterator[str]:
    """A line for every optimizer with its state spread."""

    def cell(row: Found) -> str:
        return collectives.described(row["collectives"])

    def named(row: Found) -> str:
        return f"`{row['optimizer']}`"

    return table("ZeRO-1", results, lambda r: r["form"] == "ZeRO-1", named, cell)


def table(
    title: str,
    results: Found,
    chosen: Callable[[Found], bool],
    name: Callable[[Found], str],
    cell: Callable[[Found], str],
) -> Iterator[str]:
    """A line for each of the chosen rows, a column for every platform."""
    yield f"| {title} | state on one device | " + " | ".join(PLATFORMS.values()) + " |"
    yield "|---" * (2 + len(PLATFORMS)) + "|"
    rows = [list(filter(chosen, results[p]["rows"])) for p in PLATFORMS]
    for same in zip(*rows, strict=True):
        state = same[0]["held"]["state"] / 2**20
        yield f"| {name(same[0])} | {state:.1f} MiB | " + " | ".join(map(cell, same)) + " |"


def printed() -> Iterator[str]:
    """What the first block of the page prints."""
    block = re.search(r"^```python\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    assert block is not None
    with contextlib.redirect_stdout(io.StringIO()) as output:
        exec(block[1], {})
    yield "```text"
    yield from output.getvalue().rstrip().split("\n")
    yield "```"


def sections() -> dict[str, list[str]]:
    """The name of every section of the page, and its lines."""
    results = json.loads(collectives.RESULTS.read_text())
    return {
        "PLAN": list(printed()),
        "FORMS": list(forms(results)),
        "OPTIMIZERS": list(optimizers(results)),
    }


if __name__ == "__main__":
    for name, lines in sections().items():
        fill(PAGE, name, lines)
