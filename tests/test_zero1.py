"""examples/zero1.py: three ways to train, one result, an eighth of the state."""

import importlib
from pathlib import Path

import pytest

pytest.importorskip("sklearn")


def test_the_example_trains_in_three_ways(monkeypatch, capsys):
    monkeypatch.syspath_prepend(Path(__file__).parents[1] / "examples")
    zero1 = importlib.import_module("zero1")
    results = zero1.main(["--epochs", "2", "--optimizer", "schedule_free_adamw"])
    losses, accuracies, held = zip(*(result[1:] for result in results), strict=True)
    assert losses == pytest.approx([losses[0]] * 3, rel=1e-3)
    assert accuracies == pytest.approx([accuracies[0]] * 3, abs=0.01)
    assert accuracies[0] > 0.85
    assert held[1] == held[2] < held[0] / 8 + 64  # counts are on every device
    printed = capsys.readouterr().out
    assert "state by field" in printed
    assert printed.count("state on one device") == 3
