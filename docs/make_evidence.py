"""Write what benchmarks/convergence.py and failure_modes.py measured into docs/evidence.md.

make bench, or both of them, and then python docs/make_evidence.py
"""

import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "benchmarks"))

import convergence_report as report  # noqa: E402
import failure_modes as modes  # noqa: E402
from fill import fill  # noqa: E402
from measuring import read  # noqa: E402

RESULTS = HERE.parent / "benchmarks" / "results"


def markdown(rows: report.Rows) -> Iterator[str]:
    head, *body = rows
    yield "| " + " | ".join(head) + " |"
    yield "|" + "---|" * len(head)
    for row in body:
        yield "| " + " | ".join(row) + " |"


def protocol(results: dict[str, Any], found: report.Numbers) -> Iterator[str]:
    """What was trained, on what."""
    yield from markdown(
        [
            ["task", "model", "steps", "batch", "what counts"],
            *(
                [
                    report.title(task),
                    *(str(cell[k]) for k in ("network", "steps", "batch", "measure")),
                ]
                for task in found.tasks
                for cell in [found.results[task, found.optimizers[0]]["cell"]]
            ),
        ]
    )
    machine, cell = results["machine"], results["results"][0]["cell"]
    versions = ", ".join(f"{name} {machine[name]}" for name in ("jax", "optax"))
    yield ""
    yield (
        f"{len(found.optimizers)} optimizers; {cell['trials']} trials of "
        f"{len(cell['trial_seeds'])} seeds each, then {cell['seeds']} seeds at the best setting "
        f"and {cell['seeds']} at the default. "
        f"{machine['cpu']}, {machine['cores']} cores, Python {machine['python']}, {versions}."
    )


def sections() -> dict[str, list[str]]:
    """What stands between the markers."""
    results = read(RESULTS / "convergence.json")
    failures = read(RESULTS / "failure_modes.json")
    found = report.numbers(results)
    made: dict[str, Iterable[str]] = {
        "OVERALL": markdown(report.overall(found)),
        "WINNERS": markdown(report.winners(found)),
        "PROTOCOL": protocol(results, found),
        "ENDINGS": markdown(report.endings(found)),
        "SEARCHED": markdown(report.searched(found)),
        "MODES": markdown(modes.rows(failures)),
    }
    return {name: list(lines) for name, lines in made.items()}


def main() -> None:
    for name, lines in sections().items():
        fill(HERE / "evidence.md", name, lines)


if __name__ == "__main__":
    main()
