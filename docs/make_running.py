"""Write what benchmarks/running.py measured into docs/running.md.

make bench && python docs/make_running.py
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fill import fill

HERE = Path(__file__).parent
RESULTS = HERE.parent / "benchmarks" / "results" / "running.json"


def table(report: dict[str, Any]) -> Iterator[str]:
    yield "| around AdamW | temporaries | step | training step |"
    yield "|---|---|---|---|"
    for name, row in report["rows"].items():
        cells = (f"{default:.2f}, {option:.2f}" for default, option in row.values())
        yield "| " + " | ".join([f"`{name}`", *cells]) + " |"


if __name__ == "__main__":
    fill(HERE / "running.md", "COSTS", table(json.loads(RESULTS.read_text())))
