"""Write what benchmarks/contracts.py measured into docs/index.md, and some of it into README.md.

python benchmarks/contracts.py && python docs/make_contracts.py
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fill import fill

HERE = Path(__file__).parent
RESULTS = HERE.parent / "benchmarks" / "results" / "contracts.json"
SHORT = ("here", "optax", "torch")


def whole(report: dict[str, Any]) -> Iterator[str]:
    versions = {lib: v.partition("+")[0] for lib, v in report["versions"].items()}
    names = [lib if lib == "here" else f"{lib} {version}" for lib, version in versions.items()]
    yield "| | " + " | ".join(names) + " |"
    yield "|---" * (len(names) + 1) + "|"
    for row in report["rows"]:
        cells = (row["cells"][lib]["text"] for lib in versions)
        yield "| " + " | ".join([row["name"], *cells]) + " |"


def short(report: dict[str, Any]) -> Iterator[str]:
    """Some of the rows, their cells up to a comma or a bracket."""
    yield (
        "One run, each library as its own pages say "
        "([all rows, and Keras](docs/index.md#why-beside-optax)):"
    )
    yield ""
    yield "| | " + " | ".join(SHORT) + " |"
    yield "|---" * (len(SHORT) + 1) + "|"
    for row in report["rows"]:
        if row["short"]:
            cells = (re.split(r",| \(", row["cells"][lib]["text"])[0] for lib in SHORT)
            yield "| " + " | ".join([row["short"], *cells]) + " |"


if __name__ == "__main__":
    found = json.loads(RESULTS.read_text())
    fill(HERE / "index.md", "CONTRACTS", whole(found))
    fill(HERE.parent / "README.md", "SHORT", short(found))
