"""examples/colab.ipynb: it is valid, holds no outputs, and runs where the package is installed."""

import subprocess
import sys
from pathlib import Path

import pytest

for module in ("ipykernel", "matplotlib", "nbclient", "rich", "sklearn"):
    pytest.importorskip(module)
nbformat = pytest.importorskip("nbformat")

ROOT = Path(__file__).parents[1]
NOTEBOOK = ROOT / "examples" / "colab.ipynb"
# In a process of its own, so that what Jupyter warns of and leaves running is none of ours.
EXECUTE = """
import sys
import nbformat
from nbclient import NotebookClient

notebook = nbformat.read(sys.argv[1], as_version=4)
where = {"metadata": {"path": sys.argv[3]}}
NotebookClient(notebook, timeout=600, kernel_name="python3", resources=where).execute()
nbformat.write(notebook, sys.argv[2])
"""


def test_it_is_valid_and_stripped():
    notebook = nbformat.reads(NOTEBOOK.read_text(encoding="utf-8"), as_version=4)
    nbformat.validate(notebook)
    assert (notebook.nbformat, notebook.nbformat_minor) == (4, 5)  # from 4.5 on cells have ids
    assert len({cell.id for cell in notebook.cells}) == len(notebook.cells)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            assert cell.outputs == []
            assert cell.execution_count is None


def test_it_runs(tmp_path):
    executed = tmp_path / "executed.ipynb"
    command = [sys.executable, "-c", EXECUTE, NOTEBOOK, executed, ROOT]
    run = subprocess.run(command, capture_output=True, text=True, timeout=900, check=False)
    assert run.returncode == 0, run.stderr[-5000:]
    cells = {cell.id: cell for cell in nbformat.read(executed, as_version=4).cells}
    outputs = [x for cell in cells.values() for x in cell.get("outputs", [])]
    assert not [x.text for x in outputs if x.get("name") == "stderr"]  # a warning is one
    assert cells["install"].outputs == []  # nothing was installed: it is here
    for name in ("figure", "schedule"):
        assert any("image/png" in x.get("data", {}) for x in cells[name].outputs)
    assert "learning rate 1e-01" in cells["tunable"].outputs[0].text
