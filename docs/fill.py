"""Pages hold what scripts measured between two markers; this replaces it, and makes tables."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any


def fill(page: Path, name: str, lines: Iterable[str]) -> None:
    """Put `lines` between <!-- BEGIN name --> and <!-- END name --> of the page."""
    begin, end = f"<!-- BEGIN {name} -->", f"<!-- END {name} -->"
    before, found, rest = page.read_text().partition(begin)
    _, closed, after = rest.partition(end)
    if not found or not closed:
        raise SystemExit(f"{page.name} must hold {begin} and, behind it, {end}.")
    page.write_text(before + "\n\n".join([begin, "\n".join(lines), end]) + after)


def line(*cells: Any) -> str:
    """A line of a table."""
    return "| " + " | ".join(map(str, cells)) + " |"


def head(*names: str) -> Iterator[str]:
    """Its first two."""
    yield line(*names)
    yield "|---" * len(names) + "|"
