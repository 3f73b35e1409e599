"""Write what benchmarks/collectives.py read off compiled programs into docs/scaling.md, and a plan.

python benchmarks/collectives.py && python docs/make_scaling.py
"""

import contextlib
import io
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "benchmarks"))

import collectives  # noqa: E402
from fill import fill  # noqa: E402

PAGE = HERE / "scaling.md"
PLATFORMS = {"cpu": "CPU", "cuda": "GPU, H100", "tpu": "TPU v5e"}


def forms(results: dict[str, Any]) -> Iterator[str]:
    """A line for every form of training with AdamW, a column for every platform."""
    yield "| AdamW | state on one device | " + " | ".join(PLATFORMS.values()) + " |"
    yield "|---" * (2 + len(PLATFORMS)) + "|"
    rows = [[r for r in results[p]["rows"] if r["optimizer"] == "adamw"] for p in PLATFORMS]
    for same in zip(*rows, strict=True):
        state = same[0]["held"]["state"] / 2**20
        cells = (
            f"{collectives.described(r['collectives'])}; "
            f"sends {collectives.sent(r['collectives']) / 2**20:.0f} MiB"
            for r in same
        )
        yield f"| {same[0]['form']} | {state:.1f} MiB | " + " | ".join(cells) + " |"


def optimizers(results: dict[str, Any]) -> Iterator[str]:
    """A line for every optimizer with its state spread."""
    yield "| ZeRO-1 | state on one device | " + " | ".join(PLATFORMS.values()) + " |"
    yield "|---" * (2 + len(PLATFORMS)) + "|"
    rows = [[r for r in results[p]["rows"] if r["form"] == "ZeRO-1"] for p in PLATFORMS]
    for same in zip(*rows, strict=True):
        state = same[0]["held"]["state"] / 2**20
        cells = (collectives.described(r["collectives"]) for r in same)
        yield f"| `{same[0]['optimizer']}` | {state:.1f} MiB | " + " | ".join(cells) + " |"


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
