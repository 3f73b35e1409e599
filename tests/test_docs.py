"""Every ```python block of the README and of the pages runs as it stands, page by page."""

import importlib
import inspect
import json
import re
from pathlib import Path

import pytest

import optax_adaptive as oa

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")])
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_blocks_run(page):
    text = page.read_text(encoding="utf-8")
    blocks = list(BLOCK.finditer(text))
    assert len(blocks) == len(re.findall(r"^\s*```python", text, re.MULTILINE))
    namespace = {"__name__": page.stem}  # one for the page: later blocks go on from earlier ones
    for block in blocks:
        # Empty lines first, so that a traceback has the line numbers of the page.
        source = "\n" * text[: block.start(1)].count("\n") + block[1]
        exec(compile(source, str(page), "exec"), namespace)


def test_pages_are_found():
    assert {"README", "index", "choosing", "composing", "adding-an-algorithm"} <= {
        page.stem for page in PAGES
    }


def test_the_table_of_optimizers_is_that_of_the_package(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "docs")
    page = (ROOT / "docs" / "choosing.md").read_text(encoding="utf-8")
    assert "\n".join(importlib.import_module("make_choosing").table()) in page


def test_the_tables_of_porting_are_those_of_its_results(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "docs")
    make_porting = importlib.import_module("make_porting")
    page = (ROOT / "docs" / "porting.md").read_text(encoding="utf-8")
    results = json.loads(make_porting.RESULTS.read_text())
    for name, lines in make_porting.sections(results).items():
        assert f"<!-- BEGIN {name} -->\n\n" + "\n".join(lines) + "\n\n" in page


def test_the_reference_has_every_public_name():
    listed = re.findall(r"^::: optax_adaptive\.(\w+)$", (ROOT / "docs/api.md").read_text(), re.M)
    public = {n for n, x in vars(oa).items() if n[0] != "_" and not inspect.ismodule(x)}
    assert sorted(listed) == sorted(public - {"optimizers"})  # a mapping: told in words


def is_of(module, x):
    return getattr(x, "__module__", None) == module.__name__


def test_the_reference_has_every_name_of_compat():
    text = (ROOT / "docs/api.md").read_text()
    listed = re.findall(r"^::: optax_adaptive\.compat\.(\w+\.\w+)$", text, re.M)
    public = set()
    for name in ("torch", "keras", "keras_legacy", "tf1", "tfjs"):
        module = getattr(oa.compat, name)
        made_here = [n for n, x in vars(module).items() if n[0] != "_" and is_of(module, x)]
        public |= {f"{name}.{n}" for n in getattr(module, "__all__", made_here)}
    assert sorted(listed) == sorted(public)


def test_the_tables_of_precision_are_those_of_its_results(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "docs")
    page = (ROOT / "docs" / "precision.md").read_text(encoding="utf-8")
    for name, lines in importlib.import_module("make_precision").sections().items():
        assert f"<!-- BEGIN {name} -->\n\n" + "\n".join(lines) + "\n\n" in page


def test_the_tables_of_scaling_are_those_of_its_results(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "docs")
    page = (ROOT / "docs" / "scaling.md").read_text(encoding="utf-8")
    for name, lines in importlib.import_module("make_scaling").sections().items():
        assert f"<!-- BEGIN {name} -->\n\n" + "\n".join(lines) + "\n\n" in page


def test_the_table_of_running_is_that_of_its_results(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "docs")
    make_running = importlib.import_module("make_running")
    page = (ROOT / "docs" / "running.md").read_text(encoding="utf-8")
    lines = make_running.table(json.loads(make_running.RESULTS.read_text()))
    assert "<!-- BEGIN COSTS -->\n\n" + "\n".join(lines) + "\n\n" in page


def test_the_tables_of_diagnose_are_those_of_its_results(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "docs")
    make_diagnose = importlib.import_module("make_diagnose")
    page = (ROOT / "docs" / "diagnose.md").read_text(encoding="utf-8")
    results = json.loads(make_diagnose.RECORDED.read_text())
    for name, lines in make_diagnose.sections(results).items():
        assert f"<!-- BEGIN {name} -->\n\n" + "\n".join(lines) + "\n\n" in page
