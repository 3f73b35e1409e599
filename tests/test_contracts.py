"""The table beside other libraries: its cells again, ours and those of optax."""

import importlib
import json
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import optax_adaptive as oa

for module in ("rich", "sklearn"):
    pytest.importorskip(module)
sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
contracts = importlib.import_module("contracts")
COMMITTED = json.loads(contracts.RESULTS.read_text())


def same(new, old):
    """Words alike, numbers nearly."""
    if isinstance(old, dict):
        return new.keys() == old.keys() and all(same(new[k], old[k]) for k in old)
    if isinstance(old, list):
        return len(new) == len(old) and all(map(same, new, old))
    if isinstance(old, int | float) and isinstance(new, int | float):
        return new == pytest.approx(old, rel=0.05, abs=5e-3)
    return new == old


@pytest.mark.parametrize("row", contracts.ROWS, ids=lambda row: row.measure.__name__)
@pytest.mark.parametrize("lib", ["here", "optax"])
def test_cells_are_what_is_measured(row, lib):
    versions = {"optax": optax.__version__}
    if lib in versions and versions[lib] != COMMITTED["versions"][lib]:
        pytest.skip("another optax than that of the results")
    if row.measure is contracts.temporaries and jax.__version__ != COMMITTED["machine"]["jax"]:
        pytest.skip("another compiler than that of the results")
    (old,) = (r for r in COMMITTED["rows"] if r["name"] == row.name)
    cell = dict(old["cells"][lib])
    assert cell.pop("text") == row.text(cell)
    assert same(json.loads(json.dumps(row.measure(lib))), cell)


def test_the_results_have_every_row_and_library():
    assert [r["name"] for r in COMMITTED["rows"]] == [row.name for row in contracts.ROWS]
    assert [r["short"] for r in COMMITTED["rows"]] == [row.short for row in contracts.ROWS]
    assert list(COMMITTED["versions"]) == ["here", "optax", "torch", "Keras"]
    for row in COMMITTED["rows"]:
        assert list(row["cells"]) == list(COMMITTED["versions"])


def test_a_walk_is_a_plain_loop():
    start, grads = np.ones(3, np.float32), contracts.normal(5, 3)
    tx, params = oa.adam(0.1), jnp.ones(3)
    state, moved, held = tx.init(params), [], []
    for g in grads:
        updates, state = tx.update(jnp.asarray(g), state, params)
        held.append(start + updates)
        params = optax.apply_updates(params, updates)
        moved.append(params)
    np.testing.assert_allclose(contracts.walk(tx, start, grads), moved, rtol=1e-6)
    np.testing.assert_allclose(contracts.walk(tx, start, grads, held=True), held, rtol=1e-6)


def test_wide_parameters_are_seen_by_init():
    start = np.full(3, 1 + 2**-10, np.float32)
    for wide, exact in ((True, start), (False, np.ones(3))):
        tx = oa.master_weights(oa.adamw(0.0, weight_decay=0.0), bits=32)
        params, state, _ = contracts.begin(tx, start, "bfloat16", wide)
        np.testing.assert_array_equal(oa.exact_params(state, params)["kernel"], exact)


def test_gradients_may_depend_on_the_parameter():
    found = contracts.walk(oa.sgd(0.1), np.ones(2, np.float32), lambda p: p)
    np.testing.assert_allclose(found[:, 0], 0.9 ** np.arange(1, 301), rtol=1e-4)
