"""Equal to the papers, to optax and to the frameworks the recipes come from."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import CASES, problem
from goldens import mapping
from goldens.problem import problem as golden_problem
from runs import deviation, trajectory

import optax_adaptive as oa

every_case = pytest.mark.parametrize("case", CASES, ids=lambda c: c.id)
same_in_optax = pytest.mark.parametrize(
    "case", [c for c in CASES if c.same_in_optax], ids=lambda c: c.id
)
START, GRADIENTS = problem()


@every_case
@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-12), ("float32", 1e-5)])
def test_the_paper(case, dtype, tolerance):
    gradients = GRADIENTS.astype(dtype)
    ours = trajectory(case.make(), START, gradients, dtype)
    paper = case.reference(START, gradients.astype("float64"))
    assert deviation(ours, paper, START) < tolerance


@every_case
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_the_paper_with_gradients_in_16_bits(case, dtype):
    gradients = np.asarray(jnp.asarray(GRADIENTS, dtype), "float64")
    paths = trajectory(case.make(), START, gradients, dtype), case.reference(START, gradients)
    ours, paper = (np.diff(path, axis=0, prepend=START[None]) for path in paths)
    info = jnp.finfo(dtype)
    # Only the updates are rounded, the small ones to subnormals; x itself has 53 bits.
    error = 0.51 * float(info.eps) * abs(paper) + float(info.smallest_subnormal) + 1e-14
    np.testing.assert_array_less(abs(ours - paper), error)


@every_case
def test_a_schedule(case):
    def schedule(step):
        return case.learning_rate / (1 + 0.1 * step)

    ours = trajectory(case.make(learning_rate=schedule), START, GRADIENTS, "float64")
    scheduled = case._replace(learning_rate=schedule)
    assert deviation(ours, scheduled.reference(START, GRADIENTS), START) < 1e-12


@every_case
def test_weight_decay(case):
    decayed = case._replace(kwargs={**case.kwargs, "weight_decay": 0.3}, reference_kwargs={})
    ours = trajectory(decayed.make(), START, GRADIENTS, "float64")
    paper = decayed.reference(START, GRADIENTS)
    assert deviation(ours, paper, START) < 1e-12
    assert deviation(ours, case.reference(START, GRADIENTS), START) > 1e-4


@same_in_optax
def test_optax(case):
    ours = trajectory(case.make(), START, GRADIENTS, "float64")
    assert (
        deviation(ours, trajectory(case.make_optax(), START, GRADIENTS, "float64"), START) < 1e-12
    )


@same_in_optax
def test_optax_in_float32(case):
    """As close as 1e-5, except where optax's own distance from the paper is all there is."""
    gradients = GRADIENTS.astype("float32")
    ours, theirs = (trajectory(tx, START, gradients) for tx in (case.make(), case.make_optax()))
    paper = case.reference(START, gradients.astype("float64"))
    apart, own = deviation(ours, theirs, START), deviation(theirs, paper, START)
    assert apart < 1e-5 or (apart < 1.1 * own and deviation(ours, paper, START) < own / 10)


def test_every_case_is_another_algorithm():
    """Would the parity test of one optimizer fail if it were another one, plain Adam say?"""
    same = {frozenset(pair) for pair in SAME}
    paths = {c.id: c.reference(START, GRADIENTS) for c in CASES}
    for (a, x), (b, y) in itertools.combinations(paths.items(), 2):
        distance = deviation(x, y, START)
        assert distance > 1e-7 or {a, b} in same, (a, b, distance)


SAME = [
    ("adam()", "nadam(nesterov=False)"),
    ("adam(nesterov=True)", "nadam()"),
]


@pytest.mark.parametrize("row", mapping.ROWS, ids=lambda r: f"{r.golden}-{r.case}")
def test_the_real_frameworks(row):
    case = mapping.load(row.golden)["cases"][row.case]
    start, gradients = golden_problem()
    tx = getattr(oa, row.optimizer)(**row.kwargs | {"learning_rate": mapping.rate(row, case)})
    ours = trajectory(tx, start, gradients, "float64", l2=row.l2)
    distance = deviation(ours, case["parameters"], start)
    assert distance < row.rtol
    if row.reason:  # a difference that is known is also there
        assert distance > 0.5 * row.rtol


def test_the_branches_are_visited():
    """The gradients above reach both sides of every decision that an algorithm takes."""
    for case in (c for c in CASES if c.name in ("adabound", "amsbound")):
        assert {"lower", "inside", "upper"} <= set(_adabound_rates(case)), case.id
    nu = np.zeros(8)
    shrinks = grows = 0
    for g in GRADIENTS:  # AMSGrad: the maximum holds, and is surpassed
        new = 0.999 * nu + 0.001 * g**2
        shrinks, grows = shrinks + (new < nu).sum(), grows + (new > nu).sum()
        nu = new
    assert shrinks > 20
    assert grows > 20
    assert len(GRADIENTS) > 6  # RAdam is rectified from step 6 on


def _adabound_rates(case):
    """Where each step's rate lay in the band."""
    options = {"b1": 0.9, "b2": 0.999, "final_lr": 0.1, "gamma": 1e-3, "eps": 1e-8} | dict(
        case.kwargs
    )
    final = options["final_lr"] * case.learning_rate / options.get("base_lr", case.learning_rate)
    nu, nu_max = np.zeros(8), np.zeros(8)
    for t, g in enumerate(GRADIENTS, 1):
        nu = options["b2"] * nu + (1 - options["b2"]) * g**2
        nu_max = np.maximum(nu_max, nu)
        v = nu_max if case.name == "amsbound" else nu
        rate = case.learning_rate * np.sqrt(1 - options["b2"] ** t) / (1 - options["b1"] ** t)
        rate = rate / (np.sqrt(v) + options["eps"])
        x = options["gamma"] * t
        for r in rate:
            low, high = r < final * x / (x + 1), r > final * (x + 1) / x
            yield "lower" if low else "upper" if high else "inside"


@pytest.mark.parametrize("name", ["adam", "adabound", "radam", "rmsprop"])
def test_jax_stays_in_float32_by_default(name):
    updates, _ = jax.jit(getattr(oa, name)(1e-3).update)(
        jnp.ones(3), getattr(oa, name)(1e-3).init(jnp.ones(3))
    )
    assert updates.dtype == jnp.float32
