"""The comparison of optimizers: search, a cell against a plain loop, numbers and results."""

import argparse
import importlib
import inspect
import json
import math
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy import stats

import optax_adaptive as oa

for module in ("matplotlib", "rich", "sklearn"):
    pytest.importorskip(module)
ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "benchmarks"))
tasks, convergence, report = map(
    importlib.import_module, ("tasks", "convergence", "convergence_report")
)
COMMITTED = json.loads((convergence.RESULTS / "convergence.json").read_text())


@pytest.fixture
def tiny(monkeypatch):
    """The quadratic, a few steps long."""
    task = tasks.quadratic()
    few = task._replace(settings=task.settings | {"steps": 30})
    monkeypatch.setitem(tasks.WITHOUT_MNIST, "quadratic", lambda: few)
    for cached in (tasks.make, convergence.reference):
        cached.cache_clear()
    yield few
    for cached in (tasks.make, convergence.reference):
        cached.cache_clear()


def arguments(*more):
    return convergence.parse(["--short", "--task", "quadratic", "--workers", "1", *more])


# --- the search -----------------------------------------------------------------------------------


def test_every_optimizer_is_searched_in_the_same_places():
    assert set(convergence.SPACE) == set(oa.optimizers)
    found = []
    for name, (middle, second) in convergence.SPACE.items():
        drawn = convergence.trials(name, 20)
        rates = np.array([(np.log10(t["rate"] / middle) + 2) / 5 for t in drawn])
        others = np.array([t["second"] for t in drawn])
        others = 1 - others if second.of_one_minus else others
        shares = np.log(others / second.low) / math.log(second.high / second.low)
        found.append((rates, shares))
        for x in (rates, shares):  # one in every twentieth of the range
            assert sorted((x * 20).astype(int)) == list(range(20))
    for rates, shares in found[1:]:
        np.testing.assert_allclose(rates, found[0][0], atol=1e-5)
        np.testing.assert_allclose(shares, found[0][1], atol=2e-3)


@pytest.mark.parametrize("name", convergence.SPACE)
def test_the_second_hyperparameter_is_one_of_the_optimizer(name):
    second = convergence.SPACE[name][1]
    parameter = inspect.signature(oa.optimizers[name].make).parameters[second.name]
    comes_with = convergence.as_it_comes(name)["second"]
    assert comes_with == (parameter.default or 0)
    assert 0 < second.low < second.high
    assert second.high <= 1 or not second.of_one_minus


def test_both_hyperparameters_and_the_schedule_reach_the_optimizer():
    """Of the steps on one gradient: a warm-up, and but for Schedule-Free a cosine to 0."""

    def lengths(name, rate=0.1, second=0.9, steps=40):
        tx = convergence.optimizer(name, rate, second, steps)
        params = jnp.ones(3)
        state, found = tx.init(params), []
        for _ in range(steps):
            updates, state = tx.update(jnp.array([1.0, -2.0, 0.5]), state, params)
            found.append(np.asarray(updates))
        return np.array(found)

    steps = np.arange(40)
    falling = np.minimum((steps + 1) / 2, (1 + np.cos(np.pi * np.maximum(steps - 2, 0) / 38)) / 2)
    plain = lengths("sgd", second=0.0)
    np.testing.assert_allclose(plain[:, 0], -0.1 * falling, rtol=1e-5, atol=1e-8)
    np.testing.assert_allclose(lengths("sgd", 0.2, 0.0), 2 * plain, rtol=1e-6)
    assert abs(lengths("sgd", 0.1, 0.9)).sum() > 3 * abs(plain).sum()
    betting = lengths("cocob", second=100.0)
    np.testing.assert_allclose(lengths("cocob", 0.2, 100.0)[5:10], 2 * betting[5:10], rtol=1e-5)
    assert (np.diff(abs(betting[:, 0])) > -1e-6).all()  # nothing lets its steps fall


# --- one cell -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["adam", "momo_adam", "dog", "schedule_free_adamw"])
def test_a_cell_equals_trainings_by_a_plain_loop(name, tiny, monkeypatch):
    monkeypatch.setattr(convergence, "FINALISTS", 3)
    (cell,) = convergence.plan(arguments("--optimizer", name))
    found = convergence.measure(cell, None)
    losses = [math.inf if x is None else x for x in found["trials"].pop("validation")]
    tried = [
        dict(zip(found["trials"], x, strict=True))
        for x in zip(*found["trials"].values(), strict=True)
    ]
    assert tried == convergence.trials(name, 4)
    last = found["finalists"]["trial"]
    assert last == np.argsort(losses)[:3].tolist()
    means = [math.inf if x is None else x for x in found["finalists"]["validation"]]
    assert found["best"] == tried[last[int(np.argmin(means))]]

    def trained(setting, seed):
        tx = convergence.optimizer(name, setting["rate"], setting["second"], 30)
        params = tasks.start(tiny, seed)
        state, seen = tx.init(params), []
        for batch in tasks.batches(tiny, seed):
            noise = (tiny.data["train"][0][batch],)
            loss, grads = jax.value_and_grad(tiny.loss)(params, noise)
            extra = {"value": loss} if name == "momo_adam" else {}
            updates, state = tx.update(grads, state, params, **extra)
            params = optax.apply_updates(params, updates)
            seen.append(float(loss))
        if name == "dog":
            params = oa.averaged_params(state, params)
        if name == "schedule_free_adamw":
            params = oa.schedule_free_eval_params(state, params)
        return float(tiny.measure(params, None)), np.mean(seen[-3:])

    seed = 2
    for which, setting in (("tuned", found["best"]), ("default", cell["default"])):
        test, train = trained(setting, seed)
        assert found[which]["test"][seed] == pytest.approx(test, rel=1e-4)
        assert found[which]["train"][seed] == pytest.approx(train, rel=1e-4)
    by_seed = [
        trained(tried[last[0]], seed)[0]
        for seed in (convergence.FIRST_SEED, *convergence.MORE_SEEDS)
    ]
    assert min(losses) == pytest.approx(by_seed[0], rel=1e-4)
    assert means[0] == pytest.approx(np.mean(by_seed), rel=1e-4)
    assert found["start"][seed] == pytest.approx(
        float(tiny.measure(tasks.start(tiny, seed), None)), rel=1e-5
    )
    assert found["state_bytes"] >= (8 if "adam" in name else 4)


def test_a_killed_run_goes_on_and_settings_decide_what_is_done(tiny, tmp_path, monkeypatch, capsys):
    measured, measure = [], convergence.measure

    def counted(cell, data_dir):
        measured.append(cell["optimizer"])
        if len(measured) == 2:
            raise KeyboardInterrupt
        return measure(cell, data_dir)

    monkeypatch.setattr(convergence, "measure", counted)
    given = ["--short", "--task", "quadratic", "--workers", "1", "--output-dir", str(tmp_path)]
    with pytest.raises(KeyboardInterrupt):
        convergence.main([*given, "--optimizer", "sgd", "adam"])
    convergence.main([*given, "--optimizer", "sgd", "adam"])
    assert measured == ["sgd", "adam", "adam"]
    convergence.main([*given, "--optimizer", "sgd", "--trials", "5"])
    assert measured[3:] == ["sgd"]
    shown = capsys.readouterr().out
    assert "noisy quadratic" in shown
    for name in ("convergence.png", "convergence-dark.png"):
        assert (tmp_path / name).stat().st_size > 10_000
    convergence.main(["--draw", "--output-dir", str(tmp_path)])
    assert len(measured) == 4


def test_workers_train_what_one_process_does(tmp_path):
    """Processes of their own, each on a core of its own where there is a choice."""
    given = [
        "--task",
        "quadratic",
        "--optimizer",
        "sgd",
        "adagrad",
        "--trials",
        "2",
        "--seeds",
        "2",
    ]
    found = []
    for workers in ("1", "2"):
        where = tmp_path / workers
        convergence.main([*given, "--workers", workers, "--output-dir", str(where)])
        results = json.loads((where / "convergence.json").read_text())["results"]
        found.append([(r["cell"], r["trials"], r["tuned"], r["default"]) for r in results])
    for (cell, *alone), (same, *together) in zip(*found, strict=True):
        assert cell == same
        for a, b in zip(alone, together, strict=True):
            for name, values in a.items():
                np.testing.assert_allclose(*np.array([values, b[name]], float), rtol=1e-3)


def test_without_mnist_its_tasks_are_left_out_and_said(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(tasks, "mnist", lambda data_dir: None)
    tasks.make.cache_clear()
    convergence.main(["--task", "mnist-cnn", "--workers", "1", "--output-dir", str(tmp_path)])
    shown = " ".join(capsys.readouterr().out.split())
    assert "No MNIST here, so without mnist-cnn: --data-dir says where its files are." in shown
    assert "Nothing trained" in shown
    tasks.make.cache_clear()


def test_a_folder_without_mnist_is_refused(tmp_path, capsys):
    with pytest.raises(SystemExit) as stopped:
        convergence.main(["--task", "mnist-cnn", "--data-dir", str(tmp_path)])
    assert stopped.value.code == 2
    assert f"convergence.py: {tmp_path}" in capsys.readouterr().err


# --- the tasks ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", tasks.WITHOUT_MNIST)
def test_a_task_can_be_learned_and_its_parts_do_not_overlap(name):
    task = tasks.make(name, None)
    params = tasks.start(task, 0)
    before = float(tasks.measured(task, params, task.data["test"]))
    tx = convergence.optimizer("adam", 0.01, 0.99, 60)
    order = tasks.batches(task, 0)[:60]
    assert len({tuple(sorted(map(int, batch))) for batch in order}) == 60

    def step(now, batch):
        params, state = now
        grads = jax.grad(task.loss)(params, jax.tree.map(lambda x: x[batch], task.data["train"]))
        updates, state = tx.update(grads, state, params)
        return (optax.apply_updates(params, updates), state), None

    (params, _), _ = jax.jit(lambda now: jax.lax.scan(step, now, order))((params, tx.init(params)))
    assert float(tasks.measured(task, params, task.data["test"])) < 0.9 * before
    if name != "quadratic":  # whose noise is all there is to see
        rows = {
            part: {np.asarray(x).tobytes() for x in zip(*map(np.asarray, arrays), strict=True)}
            if name == "factorization"
            else {row.tobytes() for row in np.asarray(arrays[0])}
            for part, arrays in task.data.items()
        }
        doubles = {"char-transformer": 0.06, "text-logistic": 0.1}.get(name, 0.0)
        for held in ("validation", "test"):
            assert len(rows["train"] & rows[held]) <= doubles * len(rows[held])


# --- the numbers ----------------------------------------------------------------------------------


def made(name, tuned, task="quadratic", best=1.0):
    """A result with these losses of four seeds that all start from 8."""
    ends = {"test": tuned}
    return {
        "cell": {
            **{"task": task, "optimizer": name, "rates": [0.01, 100.0]},
            **{"second": ["b2", 0.001, 0.1, True], "schedule": "cosine"},
        },
        "start": [8.0] * 4,
        **{"tuned": ends, "default": ends, "best": {"rate": best, "second": 0.9}},
        **{"step_of_sgd": 1.0, "state_bytes": 8.0},
    }


def test_the_numbers_are_those_of_their_definitions():
    ours, theirs = [1.0, 1.2, 1.1, 0.9], [1.6, 1.9, 2.0, 1.7]
    failing = [1.0, None, 9.0, 1.1]  # one diverged, one grew: both count as the start
    found = report.numbers(
        {"results": [made("adam", ours), made("sgd", theirs), made("lion", failing)]}
    )
    adam, lion = found.tuned["quadratic", "adam"], found.tuned["quadratic", "lion"]
    assert adam.mean == pytest.approx(1.05)
    half = stats.t.ppf(0.975, 3) * np.std(ours, ddof=1) / 2
    assert adam.interval == pytest.approx(half)
    assert lion.mean == pytest.approx((1 + 8 + 8 + 1.1) / 4)
    assert adam.success == 1
    # Nine tenths of the way from log 8 to log 1.05 is at 1.29.
    assert lion.success == 0.5
    assert found.tuned["quadratic", "sgd"].success == 0
    assert found.ratio["quadratic", "sgd"] == pytest.approx(1.8 / 1.05)
    assert found.optimizers == ["adam", "sgd", "lion"]
    assert found.equal == {
        **{("quadratic", "adam"): True, ("quadratic", "sgd"): False},
        ("quadratic", "lion"): True,  # four seeds do not tell so wide a spread from anything
    }
    assert found.score("lion") == pytest.approx(18.1 / 4.2)
    assert report.geometric([1.0, 1000.0]) == pytest.approx(math.sqrt(report.FAR))


def test_clearly_better_than_adam_is_by_a_tenth_and_at_seeds_that_tell():
    near, far, wild = [0.95, 1.05, 0.97, 1.03], [0.5, 0.6, 0.5, 0.6], [0.1, 2.0, 0.1, 0.9]
    made_of = {"adam": [1.0, 1.1, 1.0, 1.1], "sgd": near, "lion": far, "adan": wild}
    found = report.numbers({"results": [made(name, x) for name, x in made_of.items()]})
    assert [report.ahead(found, n) for n in ("sgd", "lion", "adan")] == [[], ["quadratic"], []]
    slower = {"adam": far, "sgd": [0.55, 0.65, 0.55, 0.65], "lion": near, "adan": wild}
    found = report.numbers({"results": [made(name, x) for name, x in slower.items()]})
    assert [report.behind(found, n) for n in ("sgd", "lion", "adan")] == [[], ["quadratic"], []]
    assert report.behind(found, "sgd", by=1.0) == ["quadratic"]


def test_seeds_are_compared_in_pairs():
    """A difference of 0.01 at every seed counts, however far seeds are apart."""
    best = np.array([1.0, 5.0, 2.0, 9.0])
    assert report.worse(best + np.array([0.01, 0.011, 0.009, 0.01]), best)
    assert not report.worse(best + np.array([0.01, -0.01, 0.01, -0.01]), best)
    assert not report.worse(best, best)
    assert report.worse(best + 1, best)


@pytest.mark.parametrize(
    ("best", "edge"), [(0.01, True), (0.02, True), (0.03, False), (1.0, False), (50.0, True)]
)
def test_a_best_rate_at_an_end_of_its_range_is_told(best, edge):
    result = made("adam", [1.0] * 4, best=best)
    assert report.at_the_edge(result) == edge
    (row,) = report.searched(report.numbers({"results": [result]})).rows
    assert row[-1] == ("noisy quadratic" if edge else "")


def test_the_luck_of_a_search_is_told_by_its_halves():
    def searched(losses):
        return {"trials": {"validation": losses}}

    assert report.luck(searched([2.0] * 6)) == 1
    # One good trial is in one half or the other: the other ends at 3.
    assert report.luck(searched([1.0, 3.0, 3.0, 3.0])) == pytest.approx(3)
    assert report.luck(searched([1.0, None, None, None])) == report.FAR
    # Two good ones are in different halves in two of three splits.
    assert report.luck(searched([1.0, 1.0, 3.0, 3.0])) == pytest.approx(1 + 2 / 3, abs=0.3)


# --- the committed results ------------------------------------------------------------------------


def test_the_committed_results_are_of_every_cell_as_it_is_now():
    found = {(r["cell"]["task"], r["cell"]["optimizer"]): r["cell"] for r in COMMITTED["results"]}
    assert set(found) == {(task, name) for task in tasks.NAMES for name in oa.optimizers}
    here = ["digits-cnn", "quadratic", "factorization"]  # others depend on Python, or on MNIST
    for cell in convergence.plan(convergence.parse(["--task", *here])):
        assert json.loads(json.dumps(cell)) == found[cell["task"], cell["optimizer"]]


@pytest.mark.parametrize("wrong", [["--seeds", "1"], ["--workers", "0"], ["--task", "cifar"]])
def test_what_cannot_be_run_is_refused(wrong, capsys):
    with pytest.raises(SystemExit) as stopped:
        convergence.parse(wrong)
    assert stopped.value.code == 2
    assert wrong[0] in capsys.readouterr().err
    assert isinstance(convergence.parse([]), argparse.Namespace)
