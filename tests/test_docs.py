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


@pytest.fixture
def maker(monkeypatch):
    """The script of a name that fills a page."""
    monkeypatch.syspath_prepend(ROOT / "docs")
    return lambda name: importlib.import_module(f"make_{name}")


def test_the_table_of_optimizers_is_that_of_the_package(maker):
    page = (ROOT / "docs" / "choosing.md").read_text(encoding="utf-8")
    assert "\n".join(maker("choosing").table()) in page


def assert_filled(page, sections, folder="docs"):
    """Between its markers the page has what its script makes."""
    text = (ROOT / folder / f"{page}.md").read_text(encoding="utf-8")
    for name, lines in sections.items():
        assert f"<!-- BEGIN {name} -->\n\n" + "\n".join(lines) + "\n\n" in text


def test_the_tables_of_porting_are_those_of_its_results(maker):
    porting = maker("porting")
    assert_filled("porting", porting.sections(json.loads(porting.RESULTS.read_text())))


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


@pytest.mark.parametrize("page", ["performance", "precision", "scaling"])
def test_the_tables_are_those_of_the_results(page, maker):
    assert_filled(page, maker(page).sections())


def test_the_table_of_an_epoch_is_that_of_its_results(maker):
    assert_filled("mnist", {"EPOCH": maker("performance").epoch()})


def test_the_table_of_running_is_that_of_its_results(maker):
    running = maker("running")
    results = json.loads(running.RESULTS.read_text())
    assert_filled("running", {"COSTS": running.table(results)})


def test_the_tables_of_diagnose_are_those_of_its_results(maker):
    diagnose = maker("diagnose")
    assert_filled("diagnose", diagnose.sections(json.loads(diagnose.RECORDED.read_text())))


def test_the_tables_beside_others_are_those_of_their_results(maker):
    contracts = maker("contracts")
    results = json.loads(contracts.RESULTS.read_text())
    assert_filled("index", {"CONTRACTS": contracts.whole(results)})
    assert_filled("README", {"SHORT": contracts.short(results)}, folder=".")


def pages_with(picture):
    """The pages that show a figure, on light and on dark paper."""
    light = f"(figures/{picture.name}#only-light)\n"
    dark = f"(figures/{picture.stem}-dark.png#only-dark)\n"
    texts = {page.stem: page.read_text(encoding="utf-8") for page in ROOT.glob("docs/*.md")}
    assert all((light in text) == (dark in text) for text in texts.values())
    return {name for name, text in texts.items() if light in text}


PICTURES = sorted(ROOT.glob("docs/figures/*.png"))
LIGHT = [picture for picture in PICTURES if not picture.stem.endswith("-dark")]


@pytest.mark.parametrize("picture", LIGHT, ids=lambda picture: picture.stem)
def test_a_figure_is_on_the_gallery_and_where_it_belongs(picture):
    assert picture.with_stem(f"{picture.stem}-dark") in PICTURES
    pages = pages_with(picture)
    assert "gallery" in pages
    assert len(pages) > 1


def test_every_figure_of_the_gallery_says_how_it_is_made():
    assert len(PICTURES) == 2 * len(LIGHT)
    text = (ROOT / "docs" / "gallery.md").read_text(encoding="utf-8")
    _, *sections = text.split("\n## ")
    shown = [re.findall(r"\(figures/([\w-]+)\.png#only-light\)", section) for section in sections]
    assert sorted(name for names in shown for name in names) == sorted(p.stem for p in LIGHT)
    for section in sections:
        assert re.search(r"\]\([\w-]+\.md[#\w-]*\)", section), "no link to its page"
        assert re.search(r"```sh\n.*^(python|make) ", section, re.DOTALL | re.MULTILINE)


# Behind the name of a script what it is given, up to a remark or the end of the code.
SCRIPT = re.compile(r"\b((?:examples|benchmarks|docs)/[\w/]+\.py)\b([^`#\n&]*)")
SOURCES = [
    *PAGES,
    *(
        path
        for folder in ("examples", "benchmarks", "docs")
        for path in ROOT.glob(f"{folder}/*.py")
    ),
    *(ROOT / "Makefile", ROOT / ".ci" / "run"),
]


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_command_exists(source):
    text = source.read_text(encoding="utf-8")
    text = re.sub(r" \\\n\s*", " ", text)  # one command on two lines
    shared = (ROOT / "examples" / "digits_data.py").read_text(encoding="utf-8")
    for script, given in SCRIPT.findall(text):
        assert (ROOT / script).exists(), script
        options = (ROOT / script).read_text(encoding="utf-8")
        options += shared if "digits_data.add_options(" in options else ""
        for flag in re.findall(r"(?<!\S)--[\w-]+", given):
            assert f'("{flag}"' in options, f"{script} {flag}"
    targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M)
    for target in re.findall(r"(?:^|`)make ([\w-]+)", text, re.M):
        assert target in targets, f"make {target}"


def test_no_block_escapes():
    """Another name for the language, and the block is not run."""
    languages = {"python", "sh", "text"}
    for page in PAGES:
        fences = re.findall(r"^\s*(?:```|~~~)(.*)$", page.read_text(encoding="utf-8"), re.M)
        assert set(fences[::2]) <= languages, page.name
        assert set(fences[1::2]) <= {""}, page.name
