"""Write what benchmarks/lr_basin.py measured into docs/learning-rate-free.md.

make lr-basin-full && python docs/make_learning_rate_free.py
"""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "benchmarks"))

import lr_basin_report as report  # noqa: E402
from fill import fill  # noqa: E402
from measuring import read  # noqa: E402


def conclusion(found: dict[str, dict[str, report.Summary]]) -> Iterator[str]:
    """Who can be left alone, in words."""
    yield report.title(found).replace("\n", ": ") + "."
    yield ""
    for head, names in report.groups(found).items():
        if head != "Set the rate yourself":
            yield f"- *{head}*: {', '.join(f'`{name}`' for name in names)}."


def basins(results: dict[str, Any], found: dict[str, dict[str, report.Summary]]) -> Iterator[str]:
    """A table per task, the most accurate at their defaults first."""
    machine = results["machine"]
    versions = ", ".join(f"{name} {machine[name]}" for name in ("jax", "optax"))
    yield f"Measured on {machine['cpu']}, {machine['cores']} cores, with {versions}."
    for task, rows in found.items():
        cell = next(r["cell"] for r in results["results"] if r["cell"]["task"] == task)
        top = report.best_of(rows)
        yield ""
        title = report.TITLES[task][0].upper() + report.TITLES[task][1:]
        yield (
            f"**{title}**: {cell['network']}; {cell['steps']} steps of {cell['batch']} of "
            f"{cell['train']:,} images of {cell['pixels']} x {cell['pixels']}, "
            f"{cell['test']:,} to test, {len(cell['seeds'])} seeds."
        )
        yield ""
        yield (
            "| optimizer | best accuracy, % | at rate | basin, decades | default | there, % "
            "| left alone | rates that diverged |"
        )
        yield "|---|---|---|---|---|---|---|---|"
        for name, row in sorted(rows.items(), key=lambda item: -item[1].at_default):
            cells = [
                f"`{name}`" + (" *" if name in report.RATE_FREE else ""),
                f"{100 * row.best:.1f} ± {100 * row.interval:.1f}",
                f"{row.best_rate:.2g}",
                str(row.basin).replace(">=", "≥"),
                f"{row.default:.2g}",
                f"{100 * row.at_default:.1f}",
                "yes" if row.alone(top) else "no",
                str(row.diverged),
            ]
            yield "| " + " | ".join(cells) + " |"


def main() -> None:
    """Fill the page from the committed results."""
    results = read(HERE.parent / "benchmarks" / "results" / "lr_basin.json")
    found = report.summaries(results)
    page = HERE / "learning-rate-free.md"
    fill(page, "CONCLUSION", conclusion(found))
    fill(page, "BASINS", basins(results, found))


if __name__ == "__main__":
    main()
