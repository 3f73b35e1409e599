"""The examples: data that is verified, runs that survive a kill, a network that is what it says."""

import functools
import gzip
import hashlib
import http.server
import importlib
import json
import struct
import sys
import threading
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import optax_adaptive as oa

for module in ("flax", "matplotlib", "orbax.checkpoint", "rich", "sklearn"):
    pytest.importorskip(module)
ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "examples"))
digits_data, from_keras, mnist, mnist_nnx, mnist_report, schedule_free = map(
    importlib.import_module,
    ("digits_data", "from_keras", "mnist", "mnist_nnx", "mnist_report", "schedule_free"),
)

IMAGES, LABELS = "train-images-idx3-ubyte", "train-labels-idx1-ubyte"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Four small IDX files in a folder, with their SHA-256 in place of those of MNIST."""
    rng, sums = np.random.default_rng(0), {}
    for name in digits_data.SHA256:
        n = 120 if name.startswith("train") else 40
        if "images" in name:
            data = struct.pack(">IIII", 0x803, n, 28, 28) + rng.bytes(n * 784)
        else:
            data = struct.pack(">II", 0x801, n) + bytes(rng.integers(0, 10, n, np.uint8))
        (tmp_path / f"{name}.gz").write_bytes(gzip.compress(data))
        sums[name] = hashlib.sha256(data).hexdigest()
    monkeypatch.setattr(digits_data, "SHA256", sums)
    monkeypatch.delenv("MNIST_DIR", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path


@pytest.fixture
def few(folder, monkeypatch):
    """The small files stand in for the embedded digits: enough to run, not to learn."""
    small = digits_data.mnist(folder)._replace(name="digits")
    monkeypatch.setattr(digits_data, "embedded", lambda: small)
    return small


def test_embedded_digits_look_like_mnist():
    data = digits_data.load("digits")
    assert data.train_images.shape == (1437, 28, 28, 1)
    assert data.test_images.shape == (360, 28, 28, 1)
    assert data.train_images.dtype == np.uint8
    assert data.train_images.max() == 255
    assert set(data.test_labels) == set(range(10))


def test_auto_takes_named_files_then_cached_files_then_the_embedded(folder, monkeypatch):
    monkeypatch.setattr(digits_data, "download", lambda *_: pytest.fail("auto must not download"))
    assert digits_data.load("auto").name == "digits"
    assert digits_data.load("auto", folder).train_images.shape == (120, 28, 28, 1)
    digits_data.cache_dir().mkdir(parents=True)
    for path in folder.glob("*.gz"):
        (digits_data.cache_dir() / path.stem).write_bytes(gzip.decompress(path.read_bytes()))
    assert digits_data.load("auto").source.endswith(str(digits_data.cache_dir()))
    monkeypatch.setenv("MNIST_DIR", str(folder))
    assert digits_data.load("auto").source.endswith(str(folder))
    assert digits_data.load("digits").source.startswith("the 1,797")


def _flip(data):
    return data[:-1] + bytes([data[-1] ^ 1])


@pytest.mark.parametrize(
    ("name", "spoil", "message"),
    [
        (IMAGES, lambda z: z[: len(z) // 2], "not a complete gzip file"),
        (IMAGES, lambda z: b"<html>moved</html>", "not a complete gzip file"),
        (IMAGES, lambda z: gzip.compress(gzip.decompress(z)[:-784]), "promises 94,096"),
        (IMAGES, lambda z: gzip.compress(gzip.decompress(z)[:2]), "starts with nothing"),
        (IMAGES, lambda z: gzip.compress(gzip.decompress(z)[:9]), "truncated"),
        (IMAGES, lambda z: gzip.compress(_flip(gzip.decompress(z))), "expected [0-9a-f]{64}"),
        (LABELS, lambda z: gzip.compress(_flip(gzip.decompress(z))), "not the canonical MNIST"),
        (LABELS, lambda z: gzip.compress(b"\0\0\x08\x03" + gzip.decompress(z)[4:]), "0x803.*0x801"),
        (LABELS, lambda z: None, f"neither {LABELS}.gz nor"),
    ],
)
def test_a_damaged_file_is_named_with_what_is_wrong(folder, name, spoil, message, capsys):
    path = folder / f"{name}.gz"
    spoilt = spoil(path.read_bytes())
    path.unlink() if spoilt is None else path.write_bytes(spoilt)
    with pytest.raises(digits_data.DataError, match=message):
        digits_data.load("mnist", folder)
    with pytest.raises(SystemExit) as end:
        mnist.main(["--data-dir", str(folder)])
    assert end.value.code == 2
    assert name in capsys.readouterr().err


def test_download_tries_the_next_mirror_and_keeps_only_what_is_right(folder):
    bad = folder / "bad"
    bad.mkdir()
    (bad / f"{IMAGES}.gz").write_bytes((folder / f"{IMAGES}.gz").read_bytes()[:1000])

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    handler = functools.partial(Quiet, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever).start()
        try:
            here = f"http://127.0.0.1:{server.server_port}/"
            cache = digits_data.download(digits_data.cache_dir(), [here + "bad/", here])
            assert digits_data.load("mnist").source.endswith(str(cache))
            assert sorted(p.name for p in cache.iterdir()) == sorted(
                f"{name}.gz" for name in digits_data.SHA256
            )
            with pytest.raises(digits_data.DataError, match=r"404.*--data digits"):
                digits_data.download(folder / "other", [here + "nothing/"])
            assert not list((folder / "other").iterdir())
        finally:
            server.shutdown()


def test_conv_and_max_pool_equal_those_of_flax():
    x = jax.random.normal(jax.random.key(0), (4, 13, 13, 8))
    nn = importlib.import_module("flax.linen")
    ours, theirs = mnist.Conv(6), nn.Conv(6, (3, 3), padding="VALID")
    variables = ours.init(jax.random.key(1), x)
    np.testing.assert_allclose(ours.apply(variables, x), theirs.apply(variables, x), atol=1e-5)
    np.testing.assert_array_equal(mnist.max_pool(x), nn.max_pool(x, (2, 2), (2, 2)))


def test_every_optimizer_exists_and_has_a_rate_with_its_origin():
    tuned = json.loads(mnist.TUNED.read_text())["digits"]
    assert tuned.keys() <= set(mnist.OPTIMIZERS)
    # The others are run at their default, because finding a rate is what they are for.
    others = set(mnist.OPTIMIZERS) - tuned.keys()
    assert all(oa.optimizers[name].learning_rate is not None for name in others)
    for name, found in tuned.items():
        assert {"epochs", "batch", "seeds", "date"} <= set(found)
        getattr(oa, name)(learning_rate=found["learning_rate"])
        losses = {float(rate): loss for rate, loss in found["held_out_loss"].items()}
        known = {rate: loss for rate, loss in losses.items() if loss is not None}
        assert found["learning_rate"] == min(known, key=known.get)


def test_every_optimizer_learns_the_digits_at_its_rate():
    """Measured by examples/mnist.py and kept by docs/make_mnist.py; hours are not for tests."""
    results = json.loads((ROOT / "docs" / "results" / "mnist-family.json").read_text())
    rates = {name: record.learning_rate for name, record in oa.optimizers.items()}
    tuned = json.loads(mnist.TUNED.read_text())["digits"]
    rates |= {name: found["learning_rate"] for name, found in tuned.items()}
    assert sorted(result["cell"]["label"] for result in results) == sorted(oa.optimizers)
    for result in results:
        cell = result["cell"]
        assert cell["arguments"]["learning_rate"] == rates[cell["label"]]
        assert result["test_accuracy"] >= 0.95, cell["label"]


def test_a_finished_cell_is_not_run_again(few, tmp_path, monkeypatch, capsys):
    command = ["--data", "digits", "--optimizer", "adagrad", "--epochs", "2"]
    command += ["--output-dir", str(tmp_path / "out")]
    mnist.main(command)
    shown = capsys.readouterr().out
    (result,) = json.loads((tmp_path / "out" / "results.json").read_text())
    assert result["cell"]["label"] == "adagrad"
    assert result["state_bytes_per_parameter"] == pytest.approx(4, abs=0.1)
    assert len(result["curves"]["test_accuracy"]) == 2
    assert "adagrad" in shown
    assert (tmp_path / "out" / "comparison.png").stat().st_size > 10_000
    monkeypatch.setattr(mnist, "Trainer", lambda *_: pytest.fail("the cell was finished"))
    mnist.main(command)


def test_the_articles_recipe_is_theirs():
    cells = mnist.plan(mnist.parse(["--recipe", "article"]), "mnist")
    assert [cell["label"] for cell in cells[::3]] == list(mnist.ARTICLE)
    assert {cell["seed"] for cell in cells} == {0, 1, 2}
    assert {(c["epochs"], c["batch"], c["batch_norm_momentum"]) for c in cells} == {(5, 250, 0.99)}


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (["--recipe", "article", "--optimizer", "sgd"], "sets only adabound, adadelta"),
        (["--epochs", "0"], "at least 1"),
        (["--optimizer", "adamm"], "invalid choice"),
    ],
)
def test_a_wrong_command_is_a_sentence(command, message, capsys):
    with pytest.raises(SystemExit, match="2"):
        mnist.parse(command)
    assert message in capsys.readouterr().err


def test_nan_is_stored_as_null(tmp_path):
    written = mnist_report.write(tmp_path / "x.json", [{"loss": float("nan"), "n": 1}])
    assert written == mnist_report.read(tmp_path / "x.json") == [{"loss": None, "n": 1}]


def test_nnx_resumes_to_the_same_bits(few, tmp_path, monkeypatch):
    # One transformation for the three runs, so that the step is compiled once.
    monkeypatch.setattr(oa, "adabound", functools.cache(oa.adabound))
    ocp = importlib.import_module("orbax.checkpoint")

    def run(name, epochs):
        command = ["--data", "digits", "--checkpoints", str(tmp_path / name), "--epochs", epochs]
        mnist_nnx.main(command)

    run("once", "2")
    run("twice", "1")
    run("twice", "2")
    once, twice = (
        jax.tree.leaves(ocp.StandardCheckpointer().restore(tmp_path / name / "2" / "default"))
        for name in ("once", "twice")
    )
    assert len(once) == len(twice) > 50
    for a, b in zip(once, twice, strict=True):
        np.testing.assert_array_equal(jnp.asarray(a), jnp.asarray(b))


def test_schedule_free_is_evaluated_at_its_average():
    """After one epoch the statistics of y say nothing about x."""
    accuracy = schedule_free.main(["--epochs", "1"])
    assert accuracy["x, with its own"] > 0.9
    assert accuracy["x, with its own"] > accuracy["x, with the statistics of y"] + 0.1


def test_the_line_of_keras_gives_the_curve_of_keras(tmp_path, capsys):
    command = ["--data", "digits", "--recorded", "--steps", "60", "--output-dir", str(tmp_path)]
    runs = from_keras.main(command)
    assert [run.line for run in runs] == [
        *("Adadelta()", "Adadelta(learning_rate=1.0)"),
        *("Adadelta()", "Adam()"),
    ]
    # 1.5e-5 at most was measured: Keras on JAX takes the logarithm of a rounded sigmoid.
    assert all(len(run.apart) == 60 and run.apart.max() < 1e-4 for run in runs)
    # As pasted AdaDelta hardly moves, there and here.
    pasted, paper, pasted_too, adam = (run.here[-10:].mean() for run in runs)
    assert pasted > 2 * paper
    assert pasted_too > 2 * adam
    assert "stands in, recorded with Keras 3." in capsys.readouterr().out
    assert (tmp_path / "from_keras.png").stat().st_size > 10_000


WRONG = {
    "rate 1": ("Adadelta", lambda: oa.adadelta(1.0, rho=0.95, eps=1e-7)),
    "rho of torch": ("Adadelta", lambda: oa.adadelta(0.001, rho=0.9, eps=1e-7)),
    "eps of the paper": ("Adadelta", lambda: oa.adadelta(0.001, rho=0.95, eps=1e-6)),
    "eps after the correction of bias": ("Adam", lambda: oa.adam(0.001, eps=1e-7)),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_line_that_means_something_else_shows(name, monkeypatch):
    constructor, wrong = WRONG[name]
    monkeypatch.setattr(from_keras.compat.keras, constructor, wrong)
    _, problem = from_keras.problems(digits_data.load("digits"))
    problem = problem._replace(calls=((constructor, {}),))
    recorded = json.loads(from_keras.RECORDED.read_text())["digits"]["losses"]
    (run,) = from_keras.compare(problem, 60, recorded, from_keras.Console(quiet=True))
    assert run.apart.max() > 1e-3  # 3e-3 with Adam, 4.5e-3 and more with AdaDelta


def test_what_keras_did_is_recorded_in_full():
    recorded = json.loads(from_keras.RECORDED.read_text())
    assert recorded.keys() == {"breast cancer", "digits", "mnist"}
    for data in (digits_data.load("digits"), digits_data.load("digits")._replace(name="mnist")):
        for problem in from_keras.problems(data):
            losses = recorded[problem.name]["losses"]
            assert list(losses) == [from_keras.written(*call) for call in problem.calls]
            assert {len(curve) for curve in losses.values()} == {from_keras.STEPS}


@pytest.mark.parametrize(
    "command", [["--steps", "0"], ["--steps", "301"], ["--record", "--recorded"]]
)
def test_from_keras_refuses_what_it_cannot_do(command, capsys):
    with pytest.raises(SystemExit, match="2"):
        from_keras.parse(command)
    assert "300" in capsys.readouterr().err
