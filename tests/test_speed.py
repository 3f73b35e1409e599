"""The benchmarks of time: what they run, that they go on where they stopped, what they write."""

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

import optax_adaptive as oa

for module in ("matplotlib", "rich"):
    pytest.importorskip(module)
ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "benchmarks"))
names = ("measuring", "precision", "running", "speed", "speed_peers", "speed_report")
measuring, precision, running, speed, peers, report = map(importlib.import_module, names)


class Counted(measuring.Step):
    """A step that takes as long as it says."""

    def __init__(self, now, seconds):
        self.now, self.cost, self.begun, self.waits = now, seconds, 0, 0

    def __call__(self):
        self.begun += 1

    def wait(self):
        self.waits += 1
        self.now[0] += self.cost * (self.begun - self.now[1].get(self, 0))
        self.now[1][self] = self.begun


@pytest.fixture
def now(monkeypatch):
    """A clock that only such steps move."""
    state = [0.0, {}]
    monkeypatch.setattr(measuring.time, "perf_counter", lambda: state[0])
    return state


def test_a_step_is_timed_in_batches_up_to_its_end(now):
    step = Counted(now, 2.0)
    assert step.seconds() == 2.0
    assert step.seconds(5) == 2.0
    assert (step.begun, step.waits) == (6, 2)


def test_everybody_is_timed_once_a_round_after_a_step_that_is_not(now):
    steps, ticks = {"a": Counted(now, 1.0), "b": Counted(now, 4.0)}, []
    found = measuring.interleave(steps, 3, lambda: ticks.append(0), batch=2)
    assert found == {"a": [1.0] * 3, "b": [4.0] * 3}
    assert {step.begun for step in steps.values()} == {3 * (1 + 2)}
    assert len(ticks) == 3
    assert measuring.ratio({"a": [1, 4, 9], "b": [2, 2, 3]}, "a", "b") == 2


@pytest.mark.parametrize("kind", [measuring.HostCopy, measuring.DeviceCopy])
def test_what_is_copied_arrives(kind):
    step = kind(1001)
    step.target = step.source * 0
    step.seconds()
    assert np.abs(step.target).sum() == 1001


def plain(tx, params, grads, steps):
    """Parameters after so many steps on the gradients in turn."""
    state = tx.init(params)
    for i in range(steps):
        updates, state = tx.update(grads[i % 2], state, params)
        params = optax.apply_updates(params, updates)
    return params


# That of optax has one array of zeros in two places.
TIMED = {"adadelta": oa.adadelta(1.0), "adamw": oa.adamw(1e-3), "cocob": optax.contrib.cocob()}


@pytest.mark.parametrize("tx", TIMED.values(), ids=TIMED)
def test_what_is_timed_is_a_step_of_training(tx):
    start, grads = peers.numbers((64,))
    arrays = speed.Arrays(start, grads)
    step = speed.JaxStep(tx.init, speed.step_of(tx), arrays)
    # Its state is that after the first step: what is seen there tells the order of its arrays.
    assert np.array_equal(arrays.params, start)
    arrays.count = 1
    _, state = jax.jit(tx.update)(grads[0], tx.init(start), start)
    step.seconds()
    updates, _ = jax.jit(tx.update)(grads[1], state, start)
    np.testing.assert_allclose(arrays.params, start + updates, rtol=1e-5)
    assert arrays.count == 2


def test_contenders_share_arrays_of_the_same_meaning():
    """One keeps mean and variance, the other the variance first."""

    def swapped(tx):
        def init(params):
            return tuple(tx.init(params))[::-1]

        def update(grads, state, params=None):
            updates, state = tx.update(grads, type(tx.init(grads))(*state[::-1]), params)
            return updates, tuple(state)[::-1]

        return optax.GradientTransformation(init, update)

    arrays = speed.Arrays(*peers.numbers((64,)))
    adam = optax.scale_by_adam()
    steps = [speed.JaxStep(tx.init, speed.step_of(tx), arrays) for tx in (adam, swapped(adam))]
    for _ in range(3):
        for step in steps:
            step()
    assert len(arrays.states) == 1
    assert jnp.isfinite(arrays.params).all()
    _, variance = sorted(next(iter(arrays.states.values())), key=lambda x: bool((x < 0).any()))[
        ::-1
    ]
    assert (variance >= 0).all()


# --- a whole run ----------------------------------------------------------------------------------


@pytest.fixture
def short(monkeypatch, tmp_path, capsys):
    """Run speed.py on few and small arrays: what it measured anew, and the report it wrote."""
    asked, measure = [], speed.measure

    def counted(case, *args):
        asked.append(case.name)
        return measure(case, *args)

    monkeypatch.setattr(speed, "measure", counted)
    monkeypatch.setattr(speed, "STAGE_REPEATS", 1)
    path = tmp_path / "speed.json"

    def run(*flags, peers="--no-peers"):
        asked.clear()
        given = ["--short", "--leaves", "3", "--output-dir", str(tmp_path), *flags]
        speed.main(given + [peers] * bool(peers))
        return list(asked), json.loads(path.read_text()), capsys.readouterr().out

    run.path = path
    return run


def test_a_short_run_writes_numbers_tables_and_the_figure(short):
    names, found, printed = short()
    assert tuple(names) == speed.SHORT == tuple(found["rows"])
    assert found["copy_bytes_per_second"] > 0
    assert found["settings"]["machine"]["jax"] == jax.__version__
    for name, row in found["rows"].items():
        assert {"ours", "optax", "control"} == set(row["seconds"])
        assert {"ours/optax", "ours/control"} == set(row["ratios"])
        for x in (*row["seconds"].values(), *row["ratios"].values()):
            assert math.isfinite(x)
            assert x > 0
        assert row["words"] == pytest.approx(1 if name == "adagrad" else 2, abs=1e-3)
        assert set(row["stages"]) == ({"1"} if name == "lamb" else {"1", "3"})
        for stages in row["stages"].values():
            assert all(set(x) == {"trace", "lower", "compile"} for x in stages.values())
        assert name in printed
    assert found["rows"]["lamb"]["shape"] == [100, 100]
    for line in report.summary(found):
        assert line in " ".join(printed.split("\n"))
    for name in ("speed.png", "speed-dark.png"):
        assert (short.path.parent / name).stat().st_size > 1000

    # Stopped behind two rows, it measures the third; asked for one, or from another run, that one.
    kept = {k: v for k, v in found["rows"].items() if k != "adam"}
    short.path.write_text(json.dumps(found | {"rows": kept}))
    names, again, _ = short()
    assert names == ["adam"]
    assert {k: again["rows"][k] for k in kept} == kept
    assert list(again["rows"]) == list(speed.SHORT)
    assert short()[0] == []
    assert short("--draw", "--fresh")[0] == []
    assert short("--fresh", "--optimizer", "adam")[0] == ["adam"]
    names, other, _ = short("--rounds", "2", "--optimizer", "lamb")
    assert names == list(other["rows"]) == ["lamb"]


class Quick(measuring.Step):
    """Takes next to no time."""

    asked = ()

    def seconds(self, batch=1):
        self.asked += (batch,)
        return 1e-9


def test_others_are_measured_beside(short, monkeypatch):
    jobs, fused = [], Quick()
    monkeypatch.setattr(peers, "torch_steps", lambda *job: [("torch fused", fused)])
    monkeypatch.setattr(peers, "keras_backends", lambda: ["torch"])
    monkeypatch.setattr(peers, "Worker", lambda backend: backend)
    monkeypatch.setattr(peers, "RemoteStep", lambda *job: jobs.append(job) or Quick())
    _, found, printed = short("--optimizer", "adagrad", "--batch", "4", peers="")
    assert fused.asked == (1, 4) * 3
    row = found["rows"]["adagrad"]
    assert {"torch fused", "keras torch"} <= set(row["seconds"])
    assert row["seconds"]["torch fused"] == 1e-9
    assert row["ratios"]["ours/torch fused"] > 100
    assert jobs == [("torch", "adagrad", speed.RATE, (10_000,))]
    assert "ours / Keras torch" in printed
    assert "torch fused" not in short("--optimizer", "adagrad")[1]["rows"]["adagrad"]["seconds"]


def test_a_short_run_keeps_off_the_committed_results():
    assert speed.parse(["--short"]).output_dir not in (None, speed.RESULTS)
    assert speed.parse([]).output_dir is None


def row(shape, words, **seconds):
    ratios = {f"ours/{k}": seconds["ours"] / x for k, x in seconds.items() if k != "ours"}
    stages = {"1": {"ours": {"trace": 0.01, "lower": 0.02, "compile": 0.3}}}
    return {"shape": shape, "words": words, "seconds": seconds, "ratios": ratios, "stages": stages}


def test_the_limit_by_hand(tmp_path):
    """1000 numbers, 2 words of state: 28 kB; at 1 GB/s 28 us."""
    adam = row([10, 100], 2.0, ours=56e-6, optax=112e-6, control=56e-6)
    made = {
        "settings": {"size": 1000, "leaves": 3, "machine": {"cpu": "a", "cores": 2}},
        "copy_bytes_per_second": 1e9,
        "rows": {"adam": adam},
    }
    assert report.ideal_bytes(adam) == 28_000
    assert report.over_ideal(adam, "ours", 1e9) == pytest.approx(2)
    shown = report.steps(made)
    assert shown.columns == ["optimizer", "ms", "GB/s", "of the\nlimit", "/ optax"]
    assert shown.rows == [["adam", "0.0560", "0.500", "50%", "0.50"]]
    head, line, body = shown.markdown()
    assert head == "| optimizer | ms | GB/s | of the<br>limit | / optax |"
    assert line.count("|") == head.count("|")
    assert body == "| `adam` | 0.0560 | 0.500 | 50% | 0.50 |"
    # Many leaves were not asked of it, and then they were; optax has no such optimizer.
    assert report.compiling(made).rows == []
    adam["stages"]["3"] = {"ours": {"trace": 0.5, "lower": 0.25, "compile": 4.0}}
    cells = ["0.030", "", "0.750", "", "0.30", "", "4.00", ""]
    assert report.compiling(made).rows == [["adam", *cells]]
    assert "0.50 (rows: 1), largest 0.50 (adam)" in " ".join(report.summary(made))
    assert report.place(made) == "a, 2 cores"

    # Wherever the times are, the limit is in the figure.
    for bandwidth in (1e3, 1e9, 1e12):
        made["copy_bytes_per_second"] = bandwidth
        report.save_figure(made, tmp_path / "speed.png")
    made["settings"]["machine"]["device"] = "NVIDIA H200"
    assert report.place(made) == "NVIDIA H200"


def test_results_of_another_device_have_its_name(monkeypatch):
    assert speed.stem() == "speed"
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")

    class Device:
        device_kind = "NVIDIA H200 (141 GB)"

    monkeypatch.setattr(jax, "devices", lambda: [Device()])
    assert speed.stem() == "speed-nvidia-h200-141-gb"
    args = speed.parse([])
    assert (args.size, args.batch) == (64_000_000, 20)
    assert speed.parse(["--batch", "3"]).batch == 3
    assert measuring.machine()["device"] == Device.device_kind


# --- others ---------------------------------------------------------------------------------------


def test_every_row_of_others_is_a_row():
    rows = {case.name for case in speed.CASES}
    assert set(peers.TORCH) | set(peers.KERAS) | set(report.DRAWN) <= rows


def test_the_step_of_torch_is_that_of_training():
    pytest.importorskip("torch")
    start, grads = peers.numbers((50,))
    for name, step in peers.torch_steps("adam", 0.1, (50,)):
        step.seconds(3)
        expected = plain(oa.adam(0.1), start, grads, 3)
        np.testing.assert_allclose(step.params, expected, rtol=1e-4, atol=1e-5, err_msg=name)
    found = [name for name, _ in peers.torch_steps("adam", 0.1, (50,))]
    assert found == ["torch fused", "torch foreach", "torch for-loop"]


def test_the_step_of_keras_is_that_of_training(monkeypatch):
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    pytest.importorskip("keras")
    start, grads = peers.numbers((50,))
    init, step = peers.keras_on_jax("adam", 0.1, (50,))
    params, state = jnp.asarray(start), init(start)
    for i in range(3):
        params, state = step(params, state, jnp.asarray(grads[i % 2]))
    expected = plain(oa.adam(0.1, eps=1e-7), start, grads, 3)
    np.testing.assert_allclose(params, expected, rtol=1e-4, atol=1e-5)
    for backend in peers.keras_backends()[1:]:
        worker = peers.Worker(backend)
        step = peers.RemoteStep(worker, "adam", 0.1, (50,))
        assert 0 < step.seconds(2) < 60


# --- what is around an optimizer ------------------------------------------------------------------


def test_a_short_run_of_running_writes_its_rows(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(running, "SHORT", ("adamw", "accumulate(every=4)"))
    running.main(["--short", "--output-dir", str(tmp_path)])
    found, printed = json.loads((tmp_path / "running.json").read_text()), capsys.readouterr().out
    assert tuple(found["rows"]) == running.SHORT
    for name, columns in found["rows"].items():
        assert name in printed
        assert set(columns) == {"temporaries", "step", "training"}
        for pair in columns.values():
            assert len(pair) == len(running.OPTIONS)
            assert all(math.isfinite(x) and x >= 0 for x in pair)
    assert found["rows"]["adamw"]["step"] == [1, 1]
    committed = json.loads(running.RESULTS.read_text())
    assert set(committed["rows"]) == set(running.variants())


# --- fewer bytes ----------------------------------------------------------------------------------


def test_precision_goes_on_where_it_stopped(monkeypatch, tmp_path):
    measured = []
    for part in ("memory", "time"):
        stub = lambda *args, part=part: measured.append(part) or {}  # noqa: E731
        monkeypatch.setattr(precision, f"measure_{part}", stub)

    def steps(name, how, report):
        measured.append((name, how))
        report["errors"][f"{name}, {how}"] = {}

    monkeypatch.setattr(precision, "measure_steps", steps)
    path = tmp_path / "precision.json"

    def run(*flags):
        measured.clear()
        return precision.run(precision.parse(["--short", *flags]), path)

    whole = run()
    assert measured == ["memory", "time", *precision.CELLS]
    assert json.loads(path.read_text()) == whole
    assert run() == whole
    assert measured == []
    del whole["errors"]["adam, 8 bits"], whole["time"]
    path.write_text(json.dumps(whole))
    run()
    assert measured == ["time", ("adam", "8 bits")]
    run("--fresh")
    assert measured[0] == "memory"
    path.write_text(json.dumps(whole | {"settings": whole["settings"] | {"steps": 7}}))
    run()
    assert measured[0] == "memory"


def test_a_row_of_precision_is_that_of_every_stream():
    found = {"settings": {"steps": 10}, "errors": {}, "tops": {}}
    precision.measure_steps("adam", "8 bits", found)
    assert list(found["errors"]["adam, 8 bits"]) == list(precision.STREAMS)
    assert {name: len(x) for name, x in found["tops"].items()} == {"float32": 10, "8 bits": 10}
