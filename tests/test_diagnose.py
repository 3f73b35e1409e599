"""The example that looks inside of runs: what it measures, and that it goes on where it stopped."""

import functools
import importlib
import json
import sys
from pathlib import Path

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import optax_adaptive as oa

for module in ("flax", "matplotlib", "rich", "sklearn"):
    pytest.importorskip(module)
ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "examples"))
diagnose, digits_data, mnist = map(importlib.import_module, ("diagnose", "digits_data", "mnist"))
nn = importlib.import_module("flax.linen")

rng = np.random.default_rng(0)
PARAMS = {"w": jnp.asarray(rng.normal(size=(20, 20)), "float32"), "b": jnp.ones(30)}


class Small(nn.Module):
    """Quick to compile, in the place of the network."""

    momentum: float

    @nn.compact
    def __call__(self, images, train):
        return nn.Dense(10)(images.reshape(len(images), -1) / 255)


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(mnist, "Network", Small)


def test_killed_it_goes_on(small, tmp_path, monkeypatch, capsys):
    """Runs that are done are not made again; what is left is as if nothing had happened."""
    command = ["--data", "digits", "--steps", "30", "--output-dir", str(tmp_path)]
    train, trained = diagnose.train, []

    def dies(cell, *rest):
        if len(trained) == 2:
            raise KeyboardInterrupt
        trained.append(cell["label"])
        return train(cell, *rest)

    monkeypatch.setattr(diagnose, "train", dies)
    with pytest.raises(KeyboardInterrupt):
        diagnose.main(command)
    before = json.loads((tmp_path / "results.json").read_text())
    assert [result["cell"]["label"] for result in before] == trained == list(diagnose.RUNS)[:2]

    def goes_on(cell, *rest):
        trained.append(cell["label"])
        return train(cell, *rest)

    monkeypatch.setattr(diagnose, "train", goes_on)
    with monkeypatch.context() as patch:
        patch.setattr(diagnose, "figure", lambda *_: None)  # slow, and drawn below
        diagnose.main(command)
    results = json.loads((tmp_path / "results.json").read_text())
    assert trained == list(diagnose.RUNS)
    assert results[:2] == before
    printed = capsys.readouterr().out
    assert "update 21 of 30" in printed  # by oa.report
    assert "Dense_0/kernel" in printed
    assert "1/effective" not in printed
    for label, result in zip(diagnose.RUNS, results, strict=True):
        assert label in printed
        assert result["cell"]["arguments"] == diagnose.RUNS[label]
        curves = result["curves"]
        with_mu = label in ("adabound", "adam")
        expected = {"step", "loss", *diagnose.KEPT, *(diagnose.PER_MU.values() if with_mu else ())}
        assert set(curves) == expected
        assert curves["step"] == [1, 11, 21]
        assert all(len(curve) == 3 and None not in curve for curve in curves.values())
        # The first gradient is that of all, and the first mu is a tenth of it.
        assert curves["grad_norm"][0] == results[0]["curves"]["grad_norm"][0]
        if with_mu:
            assert curves["per_mu_50"][0] == pytest.approx(
                10 * curves["effective_lr_50"][0], rel=1e-2
            )
    losses = diagnose.curve(results, "adam", "loss")
    assert losses[-1] < losses[0]
    monkeypatch.setattr(diagnose, "train", lambda *_: pytest.fail("it was done"))
    diagnose.main(command)
    assert (tmp_path / "diagnose.png").stat().st_size > 10_000


def test_other_steps_are_another_run(small, tmp_path, monkeypatch):
    monkeypatch.setattr(diagnose, "RUNS", {"adam": diagnose.RUNS["adam"]})
    data = digits_data.load("digits")
    run = functools.partial(
        diagnose.run,
        data=data,
        results_file=tmp_path / "results.json",
        console=diagnose.Console(quiet=True),
    )
    (short,), _ = run(diagnose.plan("digits", 20))
    (longer,), state = run(diagnose.plan("digits", 40))
    assert longer["curves"]["step"] == [1, 11, 21, 31]
    assert longer["curves"]["loss"][:2] == short["curves"]["loss"]
    # What was kept is what the state tells.
    told = oa.scalars(state)
    for name in diagnose.KEPT:
        assert longer["curves"][name][-1] == pytest.approx(told[name], rel=1e-3)


def test_rates_per_unit_of_mu():
    """Against NumPy; inside of the band; and the updates are those of the optimizer alone."""
    options = {"gamma": 0.02, "final_lr": 0.1}
    tx, alone = diagnose.watched(oa.adabound(0.001, **options)), oa.adabound(0.001, **options)
    state, other = tx.init(PARAMS), alone.init(PARAMS)
    update, update_alone = jax.jit(tx.update), jax.jit(alone.update)
    for _ in range(diagnose.EVERY + 1):  # the last of these is measured
        grads = jax.tree.map(
            lambda p: jnp.asarray(rng.lognormal(-4, 1, p.shape) * rng.choice([-1, 1], p.shape)),
            PARAMS,
        )
        grads = jax.tree.map(lambda g: g.astype("float32"), grads)
        updates, state = update(grads, state, PARAMS)
        expected, other = update_alone(grads, other, PARAMS)
        chex.assert_trees_all_close(updates, expected, rtol=1e-6)
    found, mu = oa.scalars(state.per_mu), other.direction.mu
    rates = np.concatenate(
        [np.abs(u / m).ravel() for u, m in zip(*map(jax.tree.leaves, (updates, mu)), strict=True)]
    )
    for name, share in zip(diagnose.RATES, (0.05, 0.5, 0.95), strict=True):
        near = np.quantile(rates, share, method="inverted_cdf")
        assert found[name] == pytest.approx(near, rel=2e-3)
    assert found["effective_lr_05"] < found["effective_lr_50"] < found["effective_lr_95"]
    # Those of the updates against the gradients are something else.
    assert oa.scalars(state.steps)["effective_lr_05"] < found["effective_lr_05"] / 2


@pytest.mark.parametrize("step", [1, 7])
def test_the_band_is_adabounds(step):
    """Huge gradients have its least rate, tiny ones its largest: |u| / |g| without momentum."""
    tx = oa.adabound(**diagnose.RUNS["adabound"], b1=0.0)
    grads, params = jnp.array([1e9, 1e-12]), jnp.zeros(2)
    state = tx.init(params)
    for _ in range(step):
        updates, state = tx.update(grads, state, params)
    np.testing.assert_allclose(jnp.abs(updates) / grads, diagnose.band(step), rtol=1e-5)


def test_batches_are_those_of_the_epochs():
    (cell,) = diagnose.plan("digits", 60)[:1]
    several = list(diagnose.batches(cell, 1149))
    assert [x.shape for x in several] == [(diagnose.EVERY, 50)] * 6
    epochs = np.split(np.concatenate(several).ravel(), [22 * 50, 44 * 50])
    assert [len(epoch) for epoch in epochs] == [len(set(epoch)) for epoch in epochs]
    assert not np.array_equal(epochs[0], epochs[1])
    # With the seed alone: every optimizer sees the same.
    again = list(diagnose.batches(diagnose.plan("digits", 60)[3], 1149))
    np.testing.assert_array_equal(several, again)


@pytest.mark.parametrize("command", [["--steps", "0"], ["--steps", "10"], ["--steps", "25"]])
def test_a_wrong_command_is_a_sentence(command, capsys):
    with pytest.raises(SystemExit, match="2"):
        diagnose.parse(command)
    assert "--steps: a multiple of 10, at least 20" in capsys.readouterr().err
    assert diagnose.parse(["--short"]).steps == 200


def test_missing_data_is_a_sentence(tmp_path, capsys):
    with pytest.raises(SystemExit) as end:
        diagnose.main(["--data", "mnist", "--data-dir", str(tmp_path)])
    assert end.value.code == 2
    assert "diagnose.py: " in capsys.readouterr().err


RECORDED = json.loads((ROOT / "examples" / "recorded" / "diagnose.json").read_text())
recorded = functools.partial(diagnose.curve, RECORDED)


def test_what_was_recorded_is_complete():
    assert [result["cell"] for result in RECORDED] == diagnose.plan("mnist", 2000)
    for result in RECORDED:
        assert result["curves"]["step"] == list(range(1, 2000, diagnose.EVERY))
        assert {len(curve) for curve in result["curves"].values()} == {200}
        assert not any(None in curve for curve in result["curves"].values())


def test_what_the_page_says_without_numbers():
    """Of the recorded runs: what docs/make_diagnose.py says beside its numbers."""
    step = recorded("adam", "step")
    lower, upper = diagnose.band(step)
    # AdaGrad: the median, of those that have a gradient at that step, falls; by less than
    # 1 / sqrt(step), and less than the gradients do.
    median, gradient = (recorded("adagrad", k) for k in ("effective_lr_50", "grad_norm"))
    assert np.all(median[1:] < 1.05 * median[:-1])
    assert np.all(median[1:] > median[0] / np.sqrt(step[1:]))
    assert median[0] / median[-1] < gradient[0] / diagnose.at_the_end(gradient) / 2
    keras = recorded("adagrad (Keras)", "effective_lr_95")
    np.testing.assert_allclose(keras, 0.001 / 0.1**0.5, rtol=0.05)
    # AdaBound: inside of its band, far from the lower edge, then on the upper one.
    assert np.all(recorded("adabound", "per_mu_95") < 1.01 * upper)
    assert np.all(recorded("adabound", "per_mu_05") > 2 * lower)
    assert recorded("adabound", "per_mu_05")[-1] == pytest.approx(upper[-1], rel=0.01)
    adam = recorded("adam", "per_mu_50")
    assert adam.argmin() < 10
    assert adam[-1] > 5 * adam.min()
    # AdaDelta: no step is larger than the bound of the first, and rates end at 1.
    rms = recorded("adadelta (lr 1)", "update_rms")
    assert rms.max() == rms[0] < (1e-6 / 0.05) ** 0.5
    assert np.all(recorded("adadelta (lr 1)", "effective_lr_50")[100:] > 0.98)
