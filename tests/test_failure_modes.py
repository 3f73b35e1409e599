"""The map of failures: each problem against a NumPy loop of gradient descent, and the verdicts."""

import importlib
import json
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import optax_adaptive as oa

for module in ("matplotlib", "rich", "sklearn"):
    pytest.importorskip(module)
ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "benchmarks"))
modes = importlib.import_module("failure_modes")
COMMITTED = json.loads((modes.RESULTS / "failure_modes.json").read_text())

STEPS = 60
PLACE = np.arange(64).reshape(8, 8) / 63
ROW = np.arange(8)[:, None]


def bowl(curvature=1.0, noise=lambda normal, uniform: 0.1 * normal):
    return lambda x, normal, uniform, now: curvature * (x - 1 - noise(normal, uniform))


def features(present):
    def gradient(x, normal, uniform, now):
        there = uniform < present
        return there * ((there * (x - 1)).sum() + 0.1 * normal[0, 0])

    return gradient


def wells(x, normal, uniform, now):
    return np.where(ROW < 4, x - 1, (x**2 - 1) * x)


def hollow(x, normal, uniform, now):
    return 2 * (x - 1) / (1 + (x - 1) ** 2) ** 2


def moving(turns):
    def gradient(x, normal, uniform, now):
        return x - np.sin(2 * np.pi * (turns * now + PLACE)) - 0.1 * normal

    return gradient


def heavy(normal, uniform):
    return 0.1 * np.sign(normal) * (uniform ** (-2 / 3) - 1)


def to_one(x, now):
    return ((x - 1) ** 2).mean()


def to_circle(turns):
    return lambda x, now: ((x - np.sin(2 * np.pi * (turns * now + PLACE))) ** 2).mean()


def of_wells(x, now):
    return (np.where(ROW < 4, (x - 1) ** 2 / 2, (x**2 - 1) ** 2 / 4)).sum()


def of_hollow(x, now):
    return ((x - 1) ** 2 / (1 + (x - 1) ** 2)).sum()


def nothing(normal):
    return 0 * normal


# Gradient, error, start, delay: the difficult problem and its twin.
IN_NUMPY = {
    "sparse gradients": (
        (features(10 ** (-2.5 * PLACE)), to_one, nothing, 0),
        (features(0.2), to_one, nothing, 0),
    ),
    "badly scaled": ((bowl(10 ** (-6 * PLACE)), to_one, nothing, 0), (bowl(), to_one, nothing, 0)),
    "saddle": (
        (wells, of_wells, lambda n: np.where(ROW < 4, 0, 1e-6 * n), 0),
        (wells, of_wells, lambda n: np.where(ROW < 4, 0, 0.5 * np.sign(n)), 0),
    ),
    "plateau": (
        (hollow, of_hollow, lambda n: 1 + 10 * np.sign(n), 0),
        (hollow, of_hollow, lambda n: 1 + np.sign(n), 0),
    ),
    "heavy-tailed noise": (
        (bowl(noise=heavy), to_one, nothing, 0),
        (bowl(), to_one, nothing, 0),
    ),
    "delayed gradients": ((bowl(), to_one, nothing, 20), (bowl(), to_one, nothing, 0)),
    "drifting optimum": (
        (moving(10), to_circle(10), nothing, 0),
        (moving(0), to_circle(0), nothing, 0),
    ),
}


@pytest.fixture(scope="module")
def ends():
    """What gradient descent at 0.05 comes to on all problems, by the benchmark."""
    before, modes.STEPS = modes.STEPS, STEPS
    chances = modes.drawn(2)
    one = jax.tree.map(lambda x: x[1], chances)

    def run(number):
        return modes.train("sgd", number, one, jnp.float32(0.05))

    found = jax.jit(lambda numbers: jax.lax.map(run, numbers))(jnp.arange(len(modes.PROBLEMS)))
    modes.STEPS = before
    return one, np.asarray(found)


@pytest.mark.parametrize("twin", [0, 1], ids=["difficult", "easy"])
@pytest.mark.parametrize("mode", IN_NUMPY)
def test_a_problem_equals_its_numpy_loop(mode, twin, ends):
    (normals, uniforms), found = ends
    normals, uniforms = np.asarray(normals, float), np.asarray(uniforms, float)
    gradient, error, start, delay = IN_NUMPY[mode][twin]
    x = start(normals[0])
    at_start, past, last = error(x, 0.0), [], []
    for t, (normal, uniform) in enumerate(zip(normals, uniforms, strict=True)):
        past.append(x)
        late = past[max(t - delay, 0)]
        x = x - 0.05 * gradient(late, normal, uniform, t / STEPS)
        if t >= 0.9 * STEPS:
            last.append(error(x, (t + 1) / STEPS))
    number = 2 * list(modes.MODES).index(mode) + twin
    assert found[number] == pytest.approx(np.mean(last) / at_start, rel=2e-3)


@pytest.mark.parametrize(
    ("difficult", "easy", "mark"),
    [
        ([0, 0.9, 0.0, 0], [0.5, 1, 1, 0], "○"),  # the rate in the middle of two is the upper
        ([0, 0.0, 0.9, 0], [0.5, 1, 1, 0], "●"),
        ([0, 0.8, 0.8, 0], [0, 1, 1, 1], "×"),  # noqa: RUF001
        ([1, 1, 1, 1], [0, 0.8, 0.8, 0], "–"),  # noqa: RUF001
    ],
)
def test_the_verdict(difficult, easy, mark):
    assert modes.verdict(difficult, easy) == mark


def test_diverging_is_not_learning_and_rates_are_tried(tmp_path, monkeypatch, capsys):
    """A short run from the command line: a killed one goes on, and the figure is drawn."""
    monkeypatch.setattr(modes, "STEPS", 30)
    monkeypatch.setattr(modes, "SEEDS", 2)
    given = ["--optimizer", "sgd", "--output-dir", str(tmp_path)]
    modes.main(given)
    (result,) = json.loads((tmp_path / "failure_modes.json").read_text())["results"]
    shares = result["learned"]["plateau"]["easy"]
    assert len(shares) == modes.RATES
    assert shares[-1] == 0  # a rate of 100
    assert max(shares) == 1
    assert "sgd" in capsys.readouterr().out
    assert (tmp_path / "failure_modes-dark.png").stat().st_size > 10_000
    monkeypatch.setattr(modes, "measure", lambda cell: pytest.fail("measured again"))
    modes.main(given)


@pytest.mark.parametrize("name", ["dog", "schedule_free_sgd", "momo", "adahessian"])
def test_what_an_optimizer_needs_and_what_its_users_evaluate(name, ends, monkeypatch):
    """By a plain loop: averages for DoG and Schedule-Free, the loss, the curvature."""
    monkeypatch.setattr(modes, "STEPS", STEPS)
    normals = ends[0].normal
    number = 2 * list(modes.MODES).index("badly scaled")
    found = jax.jit(lambda rate: modes.train(name, jnp.int32(number), ends[0], rate))(0.5)
    curvature = jnp.asarray(10 ** (-6 * PLACE), jnp.float32)
    tx = oa.optimizers[name].make(learning_rate=0.5)
    tx = oa.polynomial_averaging(tx) if name == "dog" else tx
    x, last = jnp.zeros((8, 8)), []
    state = tx.init(x)
    for t, normal in enumerate(normals):
        missing = x - 1 - 0.1 * normal
        extra = {}
        if name == "momo":
            extra["value"] = 0.5 * (curvature * missing**2).sum()
        if name == "adahessian":
            extra["hessian_diagonal"] = curvature  # exact here: the Hessian is diagonal
        updates, state = tx.update(curvature * missing, state, x, **extra)
        x = x + updates
        averages = {"dog": oa.averaged_params, "schedule_free_sgd": oa.schedule_free_eval_params}
        if t >= 0.9 * STEPS:
            last.append(to_one(averages.get(name, lambda state, x: x)(state, x), None))
    assert float(found) == pytest.approx(float(np.mean(last)), rel=1e-3)


def test_the_committed_results_are_of_every_optimizer_as_it_is_now():
    found = {r["cell"]["optimizer"]: r["cell"] for r in COMMITTED["results"]}
    assert list(found) == list(oa.optimizers)
    for name, cell in found.items():
        assert cell["rates"] == modes.rates(name)
        assert cell["modes"] == list(modes.MODES) == list(IN_NUMPY)
        assert (cell["seeds"], cell["steps"]) == (modes.SEEDS, modes.STEPS)
