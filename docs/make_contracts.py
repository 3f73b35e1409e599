"""Write what benchmarks/contracts.py measured into docs/index.md, and some of it into README.md.

python benchmarks/contracts.py && python docs/make_contracts.py
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fill import fill, head, line

HERE = Path(__file__).parent
RESULTS = HERE.parent / "benchmarks" / "results" / "contracts.json"
SHORT = ("here", "optax", "torch")


def whole(report: dict[str, Any]) -> Iterator[str]:
    versions = {lib: v.partition("+")[0] for lib, v in report["versions"].items()}
    names = [lib if lib == "here" else f"{lib} {version}" for lib, version in versions.items()]
    yield from head("", *names)
    for measured in report["rows"]:
        cells = (measured["cells"][lib]["text"] for lib in versions)
        yield line(measured["name"], *cells)


def short(report: dict[str, Any]) -> Iterator[str]:
    """Some of the rows, their cells up to a comma or a bracket."""
    yield (
        "One run, each library as its own pages say "
        "([all rows, and Keras](docs/index.md#why-beside-optax)):"
    )
    yield ""
    yield from head("", *SHORT)
    for measured in report["rows"]:
        if measured["short"]:
            cells = (re.split(r",| \(", measured["cells"][lib]["text"])[0] for lib in SHORT)
            yield line(measured["short"], *cells)


if __name__ == "__main__":
    found = json.loads(RESULTS.read_text())
    fill(HERE / "index.md", "CONTRACTS", whole(found))
    fill(HERE.parent / "README.md", "SHORT", short(found))
