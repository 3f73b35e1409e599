"""The benchmark of training in few bytes: its pairs, one cell against a plain loop, its results."""

import functools
import importlib
import json
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy import stats

import optax_adaptive as oa

for module in ("flax", "matplotlib", "rich", "sklearn"):
    pytest.importorskip(module)
ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "benchmarks"))
lr_basin, runs = map(importlib.import_module, ("lr_basin", "precision_runs"))
RECIPE = "bf16 params, master_weights, 8-bit state"
COMMITTED = runs.measuring.read(runs.RESULTS / "precision_runs.json")


@pytest.fixture
def tiny(monkeypatch):
    """A few layers and digits: seconds, most to compile."""
    task = lr_basin.digits()
    few = task._replace(
        settings=task.settings | {"steps": 20, "batch": 8},
        train=tuple(x[:100] for x in task.train),
        test=tuple(x[:80] for x in task.test),
        shapes={"Dense_0": (64, 16), "Dense_1": (16, 16), "Dense_2": (16, 10)},
        logits=lr_basin.layered,
    )
    monkeypatch.setitem(runs.TASKS, "digits", lambda: few)
    return few


def without_times(report):
    return [{k: v for k, v in r.items() if k not in ("date", "seconds")} for r in report["results"]]


def test_a_killed_run_goes_on_and_ends_where_it_would_have(tiny, tmp_path, monkeypatch, capsys):
    trained, measure = [], runs.measure

    def counted(task, cell):
        trained.append(cell["variant"])
        return measure(task, cell)

    monkeypatch.setattr(runs, "measure", counted)
    arguments = ["--short", "--output-dir", str(tmp_path)]
    whole = runs.main(arguments)
    assert trained == list(runs.SHORT)
    assert "8-bit state" in capsys.readouterr().out
    path = tmp_path / "precision_runs.json"
    assert json.loads(path.read_text()) == whole

    cut = whole | {"results": [r for r in whole["results"] if "8-bit" not in r["cell"]["variant"]]}
    path.write_text(json.dumps(cut))
    trained.clear()
    again = runs.main(arguments)
    assert trained == ["8-bit state"]
    assert without_times(again) == without_times(whole)
    losses = [r["train_loss"] for r in again["results"]]
    assert len({*map(tuple, losses)}) == len(losses), "every variant is another run"

    trained.clear()
    assert runs.main(arguments) == again
    assert not trained
    cells = runs.plan(runs.parse([*arguments, "--seeds", "3"]), {"digits": tiny})
    assert not [cell for cell in cells if cell in [r["cell"] for r in again["results"]]]


def test_one_cell_equals_a_training_by_a_plain_loop(tiny):
    """That of 5 bytes: from float32, in bfloat16, and to the digits that the state has."""
    cell = {"optimizer": "adamw", "variant": RECIPE, "rate": 1e-2}
    found = jax.jit(functools.partial(runs.train, tiny, cell))(jnp.int32(1))
    tx = oa.master_weights(oa.with_quantized_state(oa.adamw(1e-2), min_size=runs.MIN_SIZE))
    # Compiled, as all here: op by op it takes seconds more.
    params = jax.jit(functools.partial(lr_basin.start, tiny))(1)
    state, losses = jax.jit(tx.init)(params), []
    params = jax.tree.map(lambda x: x.astype(jnp.bfloat16), params)

    @jax.jit
    def step(params, state, batch):
        wide = jax.tree.map(lambda x: x.astype(jnp.float32), params)
        loss, grads = jax.value_and_grad(functools.partial(lr_basin.loss_of, tiny))(wide, batch)
        updates, state = tx.update(grads, state, params)
        return optax.apply_updates(params, updates), state, loss

    for batch in jax.jit(functools.partial(lr_basin.batches, tiny))(1):
        params, state, loss = step(params, state, batch)
        losses.append(float(loss))
    np.testing.assert_allclose(found["train_loss"], np.mean(losses), rtol=1e-4)
    images, labels = tiny.test
    cross_entropy = optax.softmax_cross_entropy_with_integer_labels
    logits = tiny.logits(oa.exact_params(state, params), images)
    loss = cross_entropy(logits, labels).mean()
    rounded = cross_entropy(tiny.logits(params, images), labels).mean()
    np.testing.assert_allclose(found["validation_loss"], loss, atol=0.1 * abs(rounded - loss))
    right = (logits.argmax(-1) == labels).mean()
    np.testing.assert_allclose(found["accuracy"], right, atol=2 / len(labels))


def test_a_comparison_is_of_pairs():
    x, y = [1.0, 2.5, 2.5], [1.0, 2.0, 3.0]
    found = runs.compare({"loss": x}, {"loss": y}, "loss")
    interval = stats.ttest_rel(x, y).confidence_interval(0.95)
    np.testing.assert_allclose(found.difference - found.interval, interval.low)
    np.testing.assert_allclose(found.difference + found.interval, interval.high)
    assert found.within
    far = {"loss": [v + 1.1 for v in y]}  # seeds differ by 1
    assert not runs.compare(far, {"loss": y}, "loss").within
    assert not runs.compare({"loss": [1.0, None, 3.0]}, {"loss": y}, "loss").within


def test_the_text_is_characters_and_those_that_follow():
    task = runs.text()
    x, y = (np.asarray(part) for part in task.train)
    assert x.shape == y.shape == (task.settings["train"], runs.CONTEXT)
    np.testing.assert_array_equal(x[:, 1:], y[:, :-1])
    np.testing.assert_array_equal(x[1:, 0], y[:-1, -1])
    # No logit knows of a later character.
    params = jax.jit(functools.partial(runs.start, task))(0)
    logits = [
        task.logits(params, jnp.asarray(z)) for z in (x[:1], np.r_["1", x[:1, :9], x[1:2, 9:]])
    ]
    np.testing.assert_allclose(logits[0][:, :9], logits[1][:, :9], rtol=1e-5, atol=1e-5)
    assert not np.allclose(logits[0][:, 9:], logits[1][:, 9:], atol=1e-3)


def test_the_committed_results_are_complete():
    """Measured by benchmarks/precision_runs.py; this reads what it wrote."""
    cells = [result["cell"] for result in COMMITTED["results"]]
    expected = [("digits", "adamw", v) for v in runs.VARIANTS]
    expected += [("digits", o, v) for o in runs.OPTIMIZERS if o != "adamw" for v in runs.STATES]
    expected += [("text", "adamw", v) for v in runs.VARIANTS]
    assert [runs.key(cell) for cell in cells] == expected
    for result in COMMITTED["results"]:
        assert result["cell"]["seeds"] == list(range(5))
        assert result["cell"]["rate"] == runs.OPTIMIZERS[result["cell"]["optimizer"]][0]
        assert all(len(result[k]) == 5 for k in ("train_loss", "validation_loss", "accuracy"))
        assert runs.baseline(COMMITTED, result) is not None
    recipe = next(
        r for r in COMMITTED["results"] if runs.key(r["cell"]) == ("text", "adamw", RECIPE)
    )
    assert sum(recipe["bytes"].values()) == pytest.approx(5, abs=0.4)
    assert recipe["bytes"] == pytest.approx(runs.sizes(runs.text(), recipe["cell"]), abs=0.01)


@pytest.mark.parametrize("task", runs.TASKS)
@pytest.mark.parametrize(
    "variant",
    [
        "bf16 state, stochastic",
        "8-bit state",
        "bf16 params, stochastic_rounding",
        "bf16 params, master_weights",
        RECIPE,
    ],
)
def test_training_in_fewer_bytes_ends_where_float32_does(task, variant):
    (result,) = (r for r in COMMITTED["results"] if runs.key(r["cell"]) == (task, "adamw", variant))
    base = runs.baseline(COMMITTED, result)
    for loss in ("train_loss", "validation_loss"):
        assert runs.compare(result, base, loss).within, loss
