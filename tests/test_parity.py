"""Equal to the papers, to optax and to the frameworks the recipes come from."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import ANEW, CASES, FREE, KINDS, PLAIN, factory, problem
from goldens import mapping
from goldens.problem import problem as golden_problem
from runs import SHIPPED, deviation, trajectory

import optax_adaptive as oa

START, GRADIENTS = problem()


def problems(cases):
    """Every case on every shape of parameters that it is compared on."""
    pairs = [
        pytest.param(c, shape, id=c.id if shape == (8,) else f"{c.id}-{shape}")
        for c in cases
        for shape in c.shapes
    ]
    return pytest.mark.parametrize(("case", "shape"), pairs)


@problems(CASES)
def test_the_paper(case, shape):
    follows_the_paper(case, shape, "float64")


@problems(PLAIN)
def test_the_paper_in_float32(case, shape):
    follows_the_paper(case, shape, "float32")


def follows_the_paper(case, shape, dtype):
    start, gradients = case.problem(shape)
    gradients = gradients.astype(dtype)
    ours = trajectory(case.make(), start, gradients, dtype)
    paper = case.reference(start, gradients.astype("float64"))
    assert deviation(ours, paper, start) < getattr(case, dtype)


@pytest.mark.parametrize(
    ("case", "dtype"),
    [(c, "bfloat16") for c in PLAIN] + [(c, "float16") for c in KINDS],
    ids=lambda x: getattr(x, "id", x),
)
def test_the_paper_with_gradients_in_16_bits(case, dtype):
    start, gradients = case.problem(case.shapes[-1])
    gradients = np.asarray(jnp.asarray(gradients, dtype), "float64")
    paths = trajectory(case.make(), start, gradients, dtype), case.reference(start, gradients)
    ours, paper = (np.diff(path, axis=0, prepend=start[None]) for path in paths)
    info = jnp.finfo(dtype)
    # Only the updates are rounded, the small ones to subnormals; x itself has 53 bits.
    error = 0.51 * float(info.eps) * abs(paper) + float(info.smallest_subnormal) + 1e-14
    error += 2**-24 * abs(paper).max(axis=0)  # where a sum in float32 cancels
    if not case.record.elementwise:  # a small coordinate inherits the rounding of a large one
        error += (case.float32 + float(info.eps)) * abs(paper).max()
    if case.name in FREE:  # the rounding of its steps comes back in the distance
        error *= 3
    if case.name in ANEW:
        error += error.max(axis=0)
    np.testing.assert_array_less(abs(ours - paper), error)


@problems(PLAIN)
def test_a_schedule_and_weight_decay(case, shape):
    start, gradients = case.problem(shape)

    def schedule(step):
        return case.learning_rate / (1 + 0.1 * step)

    def with_decay(weight_decay):
        arguments = {**case.kwargs, **case.decays(weight_decay)}
        return case._replace(kwargs=arguments, reference_kwargs={}, learning_rate=schedule)

    ours = trajectory(with_decay(0.3).make(), start, gradients, "float64")
    paper = with_decay(0.3).reference(start, gradients)
    assert deviation(ours, paper, start) < case.float64
    assert deviation(ours, with_decay(0.0).reference(start, gradients), start) > 1e-4
    if "adam_learning_rate" not in case.kwargs:  # which no schedule of the other rate moves
        constant = with_decay(0.3)._replace(learning_rate=case.learning_rate)
        assert deviation(ours, constant.reference(start, gradients), start) > 1e-4


@problems([c for c in CASES if c.same_in_optax])
def test_optax(case, shape):
    start, gradients = case.problem(shape)
    ours = trajectory(case.make(), start, gradients, "float64")
    # Compiled otherwise, averages in optax move what has no gradient, by a rounding.
    theirs = trajectory(case.make_optax(), start, gradients, "float64", **SHIPPED)
    assert deviation(ours, theirs, start) < max(case.float64, case.optax)


@problems([c for c in PLAIN if c.same_in_optax])
def test_optax_in_float32(case, shape):
    """As close as 1e-5, except where optax's own distance from the paper is all there is."""
    start, gradients = case.problem(shape)
    gradients = gradients.astype("float32")
    ours, theirs = (trajectory(tx, start, gradients) for tx in (case.make(), case.make_optax()))
    paper = case.reference(start, gradients.astype("float64"))
    apart, own = deviation(ours, theirs, start), deviation(theirs, paper, start)
    assert apart < case.float32 or (apart < 1.1 * own and deviation(ours, paper, start) < own / 10)


def test_every_case_is_another_algorithm():
    """Would the parity test of one optimizer fail if it were another one, plain Adam say?"""
    same = {frozenset(pair) for pair in SAME}

    @functools.cache
    def path(index, shape):
        return CASES[index].reference(*problem(shape))

    for a, b in itertools.combinations(range(len(CASES)), 2):
        first, second = CASES[a], CASES[b]
        if first.record.elementwise or second.record.elementwise:
            shapes = first.shapes if second.record.elementwise else second.shapes
        else:
            shapes = set(first.shapes) & set(second.shapes)
        distances = [deviation(path(a, s), path(b, s), problem(s)[0]) for s in shapes]
        pair = {first.id, second.id}
        assert not distances or max(distances) > 1e-7 or pair in same, (pair, distances)


# What LDoG does in one leaf, DoG does; test_particular.py has several.
ONE_LEAF = ("reps_rel=0.001", "init_eta=0.0001", "reps_rel=0.01, eps=1000.0")
SAME = [
    *((f"dog({kwargs})", f"ldog({kwargs})") for kwargs in ONE_LEAF),
    ("adam(nesterov=True)", "nadam()"),
    ("adam()", "adam_mini(roles=one_by_one)"),
    ("adamp()", "adam_mini(roles=one_by_one)"),  # it projects on no shape that both are run on
]


@pytest.mark.parametrize("row", mapping.ROWS, ids=lambda r: f"{r.golden}-{r.case}")
def test_the_real_frameworks(row):
    case = mapping.load(row.golden)["cases"][row.case]
    start, gradients = golden_problem(tuple(case["shape"]))
    tx = row.make(factory, mapping.rate(row, case))
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
