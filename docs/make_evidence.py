"""Write what benchmarks/convergence.py and failure_modes.py measured into docs/evidence.md.

make bench, or both of them, and then python docs/make_evidence.py
"""

import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "benchmarks"))

import convergence_report as report  # noqa: E402
import failure_modes as modes  # noqa: E402
from fill import fill, head, line  # noqa: E402
from measuring import read  # noqa: E402
from tasks import TITLES  # noqa: E402

RESULTS = HERE.parent / "benchmarks" / "results"


def protocol(results: dict[str, Any], found: report.Numbers) -> Iterator[str]:
    """What was trained, on what."""
    yield from head("task", "model", "steps", "batch", "what counts")
    for task in found.tasks:
        cell = found.results[task, found.optimizers[0]]["cell"]
        yield line(TITLES[task], *(cell[k] for k in ("network", "steps", "batch", "measure")))
    machine, cell = results["machine"], results["results"][0]["cell"]
    versions = ", ".join(f"{name} {machine[name]}" for name in ("jax", "optax"))
    yield ""
    yield (
        f"{len(found.optimizers)} optimizers; {cell['trials']} trials, the best "
        f"{cell['finalists']} of them from {len(cell['search_seeds'])} seeds, then {cell['seeds']} "
        f"seeds at the best setting and {cell['seeds']} at the default. "
        f"{machine['cpu']}, {machine['cores']} cores, Python {machine['python']}, {versions}."
    )


def beside_adam(found: report.Numbers) -> Iterator[str]:
    """Who is better than Adam anywhere, and who nowhere."""
    names = [name for name in found.optimizers if name != report.REFERENCE]
    ahead = {name: report.ahead(found, name) for name in names}
    behind = {name: report.behind(found, name) for name in names}
    clear = f"{report.CLEAR - 1:.0%}"
    yield from head(
        "optimizer", f"better than Adam by {clear} or more", f"worse by {clear} or more"
    )
    for name in sorted(names, key=lambda n: len(behind[n]) - len(ahead[n])):
        if ahead[name]:
            told = ("; ".join(TITLES[task] for task in x[name]) for x in (ahead, behind))
            yield line(f"`{name}`", *told)
    never = [name for name in names if not ahead[name]]
    yield ""
    yield f"On no task better than Adam by {clear}: " + ", ".join(f"`{n}`" for n in never) + "."


def chance(found: report.Numbers) -> Iterator[str]:
    """What another draw of trials would change."""
    half = found.results[found.tasks[0], found.optimizers[0]]["cell"]["trials"] // 2
    apart = {
        task: np.median([report.luck(found.results[task, n]) for n in found.optimizers]) - 1
        for task in found.tasks
    }
    told = "; ".join(f"{TITLES[task]} {x:.0%}" for task, x in apart.items())
    yield (
        f"Two searches of {half} trials each, halves of the one that was made, find best losses "
        f"that are so far apart, in the median of all optimizers: {told}."
    )


def sections() -> dict[str, list[str]]:
    """What stands between the markers."""
    results = read(RESULTS / "convergence.json")
    failures = read(RESULTS / "failure_modes.json")
    found = report.numbers(results)
    made: dict[str, Iterable[str]] = {
        "OVERALL": report.overall(found).markdown(),
        "WINNERS": report.winners(found).markdown(),
        "ADAM": beside_adam(found),
        "PROTOCOL": protocol(results, found),
        "ENDINGS": report.endings(found).markdown(),
        "CHANCE": chance(found),
        "SEARCHED": report.searched(found).markdown(),
        "MODES": modes.table(failures).markdown(),
    }
    return {name: list(lines) for name, lines in made.items()}


def main() -> None:
    for name, lines in sections().items():
        fill(HERE / "evidence.md", name, lines)


if __name__ == "__main__":
    main()
