"""The benchmark of learning rates: what a basin is, one cell against a plain loop, the results."""

import functools
import importlib
import json
import math
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from cases import FREE

import optax_adaptive as oa

for module in ("matplotlib", "rich", "sklearn"):
    pytest.importorskip(module)
ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "benchmarks"))
lr_basin, report = map(importlib.import_module, ("lr_basin", "lr_basin_report"))
DIGITS = lr_basin.digits()


@pytest.fixture
def tiny(monkeypatch):
    """A few steps of a few weights on a few digits, at two rates: seconds, most to compile."""
    monkeypatch.setattr(lr_basin, "GRID", (1e-3, 1e-2))
    settings = lr_basin.SETTINGS["digits"] | {"steps": 3, "batch": 8}
    monkeypatch.setitem(lr_basin.SETTINGS, "digits", settings)
    few = DIGITS._replace(
        settings=settings,
        train=tuple(x[:100] for x in DIGITS.train),
        test=tuple(x[:80] for x in DIGITS.test),
        shapes={"Dense_0": (64, 8), "Dense_1": (8, 8), "Dense_2": (8, 10)},
        logits=lr_basin.layered,
    )
    monkeypatch.setattr(lr_basin, "digits", lambda: few)
    return few


@pytest.mark.parametrize(
    ("rates", "means", "low", "high", "cut"),
    [
        # Level 0.95 - 0.01: halfway from 0.93 to 0.95 below, a fifth of the way to 0.90 above.
        ((1e-3, 1e-2, 1e-1, 1), (0.1, 0.93, 0.95, 0.9), -1.5, -0.8, False),
        # A dip parts the basin: only what is joined to the best rate counts.
        ((1e-3, 1e-2, 1e-1, 1, 10), (0.9, 0.5, 0.9, 0.91, 0.1), -1, 0.01 / 0.81, False),
        ((1e-3, 1e-2, 1e-1), (0.95, 0.95, 0.1), -3, -2 + 0.01 / 0.85, True),
        ((1e-2, 1e-1), (0.5, 0.5), -2, -1, True),
        # Between a default off the grid and its neighbours, too.
        ((0.1, 0.3, 1), (0.5, 0.9, 0.5), None, None, False),
    ],
)
def test_the_basin_is_where_a_rate_is_within_a_point_of_the_best(rates, means, low, high, cut):
    found = report.basin(rates, means)
    assert found.cut == cut
    assert str(found).startswith(">=") == cut
    for towards, end in ((-1, low), (1, high)):
        at = found.low if towards < 0 else found.high
        if end is not None:
            assert at == pytest.approx(end, abs=1e-9)
        if not cut:  # it ends where the curve passes the level
            level = np.interp(at, np.log10(rates), means)
            assert level == pytest.approx(max(means) - report.POINT)


def test_one_cell_equals_a_training_by_a_plain_loop(tiny):
    task, rate, seed = tiny, 1e-2, 1
    found = jax.jit(lr_basin.program(task, "adam", {}))(jnp.array([1e-3, rate]), jnp.arange(2))
    params, tx = lr_basin.start(task, seed), oa.adam(rate)
    state, losses = tx.init(params), []
    gradient = jax.jit(jax.value_and_grad(functools.partial(lr_basin.loss_of, task)))
    for batch in lr_basin.batches(task, seed):
        loss, grads = gradient(params, batch)
        updates, state = tx.update(grads, state, params)
        params, losses = optax.apply_updates(params, updates), [*losses, float(loss)]
    images, labels = task.test
    right = (task.logits(params, images).argmax(-1) == labels).mean()
    np.testing.assert_allclose(found[0][1, seed], right, atol=2 / len(labels))
    np.testing.assert_allclose(found[1][1, seed], np.mean(losses), rtol=1e-4)


def test_batches_depend_on_the_seed_alone(tiny):
    order = lr_basin.batches(tiny, 0)
    assert order.shape == (3, 8)
    assert len(np.unique(order)) == 24
    assert not np.array_equal(order, lr_basin.batches(tiny, 1))


def test_weights_are_glorots():
    layer = lr_basin.start(DIGITS, 0)["Conv_1"]
    reach = math.sqrt(6 / (9 * 16 + 9 * 32))
    assert layer["kernel"].shape == (3, 3, 16, 32)
    assert 0.99 * reach < abs(layer["kernel"]).max() <= reach
    assert abs(layer["kernel"].mean()) < 0.05 * reach
    assert not layer["bias"].any()


def test_the_network_of_the_digits_sees_whole_digits_and_convolves():
    assert DIGITS.train[0].shape == (1437, 8, 8, 1)
    assert DIGITS.test[0].shape == (360, 8, 8, 1)
    assert DIGITS.train[0].max() == 1
    rng = np.random.default_rng(0)
    x, kernel = rng.normal(size=(2, 6, 6, 3)), rng.normal(size=(3, 3, 3, 4))
    layer = {"kernel": jnp.array(kernel), "bias": jnp.arange(4.0)}
    windows = np.lib.stride_tricks.sliding_window_view(x, (3, 3), (1, 2))
    direct = np.einsum("nhwcij,ijco->nhwo", windows, kernel) + np.arange(4)
    np.testing.assert_allclose(lr_basin.conv(layer, jnp.array(x)), direct, rtol=1e-4, atol=1e-4)


def test_what_diverges_has_no_loss(tiny):
    cell = {"optimizer": "sgd", "arguments": {}, "rates": [1e-2, 1e30], "seeds": [0, 1]}
    result = lr_basin.measure(tiny, cell)
    assert result["loss"][1] == [None, None]
    assert all(math.isfinite(loss) for loss in result["loss"][0])
    assert np.shape(result["accuracy"]) == (2, 2)


def test_one_after_the_other_is_the_same_as_all_at_once(tiny, monkeypatch):
    grid = jnp.array([1e-3, 1e-2, 0.1]), jnp.arange(2)
    together = jax.jit(lr_basin.program(tiny, "sgd", {}))(*grid)
    monkeypatch.setattr(lr_basin, "ONE_BY_ONE", ("sgd",))
    alone = jax.jit(lr_basin.program(tiny, "sgd", {}))(*grid)
    for a, b in zip(together, alone, strict=True):
        assert a.shape == (3, 2)
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=0.02)


def test_a_finished_cell_is_not_trained_again(tiny, tmp_path, monkeypatch, capsys):
    command = ["--task", "digits", "--optimizer", "adagrad", "sgd", "--seeds", "2"]
    command += ["--output-dir", str(tmp_path)]
    lr_basin.main([*command[:3], "sgd", *command[5:]])
    lr_basin.main(command)
    first = json.loads((tmp_path / "lr_basin.json").read_text())
    assert [r["cell"]["optimizer"] for r in first["results"]] == ["sgd", "adagrad"]
    assert "adagrad" in capsys.readouterr().out
    assert (tmp_path / "lr_basin.png").stat().st_size > 10_000
    monkeypatch.setattr(lr_basin, "measure", lambda *_: pytest.fail("the cell was finished"))
    lr_basin.main(command)
    lr_basin.main(["--draw", "--output-dir", str(tmp_path)])
    assert json.loads((tmp_path / "lr_basin.json").read_text()) == first


def test_without_mnist_the_digits_alone(tmp_path, monkeypatch, capsys):
    monkeypatch.delenv("MNIST_DIR", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    console = lr_basin.Console()
    assert list(lr_basin.load(lr_basin.parse([]), console)) == ["digits"]
    assert "digits only" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="2"):
        lr_basin.main(["--data-dir", str(tmp_path / "nothing")])
    assert "neither" in capsys.readouterr().err


def made(widths, bests):
    """Results with basins and accuracies as given, by optimizer."""
    rates = [10.0**i for i in range(-5, 3)]
    results = []
    for name, wide in widths.items():
        rows = [
            [bests[name] + d if i < wide else 0.1 for d in (0, 1e-3)] for i in range(len(rates))
        ]
        cell = {"task": "digits", "optimizer": name, "default": 1e-3, "rates": rates}
        results.append({"cell": cell | {"seeds": [0, 1]}, "accuracy": rows, "loss": rows})
    return {"results": results}


def test_the_comparison_names_what_turned():
    then = made({"adam": 6, "sgd": 2}, {"adam": 0.97, "sgd": 0.9})
    _, words, same = report.compare(then, then)
    assert same
    assert "all 3 clear cases" in words
    _, words, same = report.compare(made({"adam": 6, "sgd": 2}, {"adam": 0.9, "sgd": 0.97}), then)
    assert not same
    assert "adam is no longer more accurate than sgd" in words
    _, words, same = report.compare(made({"adam": 2, "sgd": 6}, {"adam": 0.97, "sgd": 0.9}), then)
    assert not same
    assert "the basin of adam is no longer wider than sgd's" in words
    assert "adam is no longer better than sgd at its default" in words
    _, words, same = report.compare(then, {"results": []})
    assert not same
    assert "No clear cases" in words


def test_every_optimizer_has_a_default_rate():
    assert all(lr_basin.default_rate(name) > 0 for name in oa.optimizers)
    given = [name for name in lr_basin.USUAL if oa.optimizers[name].learning_rate is not None]
    assert not given, "the constructor's default comes first"


def test_the_committed_results_have_every_optimizer():
    """Measured by benchmarks/lr_basin.py, in an hour; this reads what it wrote."""
    found = lr_basin.measuring.read(lr_basin.RESULTS / "lr_basin.json")["results"]
    expected = {(task, name) for task in lr_basin.TASKS for name in oa.optimizers}
    assert {report.key(result) for result in found} == expected
    for result in found:
        cell = result["cell"]
        assert len(cell["seeds"]) >= 5
        assert set(lr_basin.GRID) | {cell["default"]} == set(cell["rates"])
        assert np.shape(result["accuracy"]) == (len(cell["rates"]), len(cell["seeds"]))
        assert np.shape(result["loss"]) == np.shape(result["accuracy"])
        assert cell["default"] == lr_basin.default_rate(cell["optimizer"])
        assert lr_basin.SETTINGS[cell["task"]].items() <= cell.items()


def test_the_figure_marks_those_that_find_their_rate():
    """It is drawn from the JSON alone, and so it has names of its own."""
    assert set(report.RATE_FREE) == FREE
