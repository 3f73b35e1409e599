"""The rules of the house that a machine can check; CONTRIBUTING.md says why."""

import ast
import inspect
import re
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import optax
import optax.contrib
import pytest
from cases import CASES, FREE
from certificates import CERTIFICATES
from goldens.mapping import ROWS

import optax_adaptive as oa

PACKAGE = Path(oa.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))
ALGORITHMS = sorted((PACKAGE / "_algorithms").glob("[!_]*.py"))
OPTIMIZERS = sorted(
    name
    for name, f in vars(oa).items()
    if inspect.isfunction(f) and next(iter(inspect.signature(f).parameters), "") == "learning_rate"
)
# What decays has the direction of what does not.
DIRECTIONS = {"adamw": "adam", "nadamw": "nadam", "adamaxw": "adamax"}
VOCABULARY = {
    *("count", "mu", "nu", "nu_max", "delta", "sum_sq", "trace", "variance"),
    *("nu_row", "nu_col"),
    *("mu_diff", "mu_slow", "last_grads", "rate", "sgd_rate", "switched"),
    *("residual_row", "residual_col", "sum_sq_max", "statistics", "roots", "bases"),
}
VOCABULARY |= {"grad_sum", "numerator", "distance", "distance_max", "effective_lr"}
VOCABULARY |= {"first_norm", "steps_sq"}
VOCABULARY |= {"momentum_gap"}
VOCABULARY |= {"bound", "sum_abs", "reward", "value_mean", "product_mean", "lowest"}
# Which files may import which.
LAYERS = [
    "_check",
    "_numerics",
    "_core",
    "_codes",
    "_paths",
    "_free",
    "_roles",
    "_momentum",
    "_hutchinson",
    "_matrices",
]
LAYERS += ["_algorithms", "_wrappers", "_report", "_sharding", "_plan", "_optimizers", "compat"]


def imports(path):
    """The modules of this package that a file imports, by their first name in it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module.split(".")[0] == "optax_adaptive":
            yield from ([*node.module.split(".")[1:], a.name] for a in node.names)


def test_every_optimizer_has_a_case_and_a_record():
    assert set(OPTIMIZERS) == {c.name for c in CASES} == set(oa.optimizers)
    with pytest.raises(TypeError):
        oa.optimizers["adam"] = None


@pytest.mark.parametrize("record", oa.optimizers.values(), ids=oa.optimizers)
def test_records_say_what_is_so(record):
    """The paper is the one the file cites; words, needs and default rate are measured."""
    source = " ".join(sys.modules[record.make.__module__].__doc__.split())
    assert f'"{record.paper}"' in source
    assert record.url in source
    assert str(record.year) in source

    case = next(c for c in CASES if c.name == record.make.__name__)
    rate = {} if record.learning_rate is not None else {"learning_rate": 0.1}
    tx = record.make(**rate, **case.kwargs)
    params = {"kernel": jnp.linspace(0.5, 1.5, 512 * 512).reshape(512, 512)}
    state = tx.init(params)
    words = sum(x.size for x in jax.tree.leaves(state)) / params["kernel"].size
    assert words == pytest.approx(record.state_words, abs=0.02)

    grads = {"kernel": jax.random.normal(jax.random.key(0), (512, 512))}
    trees = {"params": params, "hessian_diagonal": grads, "value": 1.0}
    needed = {need: trees[need] for need in record.needs}
    for need in record.needs:
        with pytest.raises(ValueError, match=f"{case.name}.update needs {need}"):
            tx.update(grads, state, **{k: v for k, v in needed.items() if k != need})

    given = needed | {"params": params}  # some cases decay

    def spreads(case, before):
        """Whether one coordinate of the gradient moves others, at this step or the next one."""
        tx = record.make(**rate, **case.kwargs)
        update = jax.jit(tx.update)
        state = tx.init(params)
        for _ in range(before):
            _, state = update(grads, state, **given)

        def steps(first):
            step, after = update(first, state, **given)
            moved = {"params": optax.apply_updates(params, step)}
            after, _ = update(grads, after, **given | moved)
            return jnp.stack([step["kernel"], after["kernel"]])

        other = {"kernel": grads["kernel"].at[0, 0].mul(-30)}
        return bool((steps(grads) != steps(other)).any(0).sum() > 1)

    # Some act together only where an option makes it likely, or once an estimate grows.
    cases = [c for c in CASES if c.name == case.name]
    spread = any(spreads(c, before) for c in cases for before in (1, 3))
    assert spread is not record.elementwise


WRAPPERS = {
    name
    for name, f in vars(oa).items()
    if getattr(f, "__module__", "").startswith(f"{oa.__name__}._wrappers")
    and inspect.isfunction(f)
    and "tx" in inspect.signature(f).parameters
} | {"by_path", "tunable"}


def test_every_optimizer_and_wrapper_has_a_certificate():
    """And the page of certificates has a row for each, without an empty cell."""
    assert CERTIFICATES.keys() == oa.optimizers.keys() | WRAPPERS
    tests = " ".join(p.read_text() for p in Path(__file__).parent.glob("test_*.py"))
    page = (PACKAGE.parent / "docs" / "verification.md").read_text()
    for name, certificate in CERTIFICATES.items():
        assert certificate.variant
        assert f"def {certificate.told_apart}(" in tests
        goldens = [r for r in ROWS if name in (r.optimizer, f"scale_by_{name}", *(r.wrap or ()))]
        assert bool(goldens) is not bool(certificate.packages)
        row = next(r for r in page.splitlines() if re.match(rf"\| \[?`{name}`", r))
        assert all(cell.strip() for cell in re.split(r"(?<!\\)\|", row)[1:-1]), name


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_imports_point_one_way(path):
    if path.name == "__init__.py":
        return
    place = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    for imported in imports(path):
        shared = place == imported[0] == "compat" and imported[1:2] and imported[1][0] == "_"
        assert shared or LAYERS.index(imported[0]) < LAYERS.index(place), imported


def test_nothing_else_is_needed_at_run_time():
    """jax and optax, and NumPy, which is of jax; no framework that compat speaks of.

    But for the tables of `report`, which says what it needs.
    """
    found = set()
    for path in FILES:
        tree = ast.parse(path.read_text())
        for node in tree.body if path.stem == "_report" else ast.walk(tree):
            if isinstance(node, ast.ImportFrom):
                found.add(node.module)
            elif isinstance(node, ast.Import):
                found.update(alias.name for alias in node.names)
    tops = {name.split(".")[0] for name in found} - set(sys.stdlib_module_names)
    assert tops == {"jax", "numpy", "optax", "optax_adaptive"}


@pytest.mark.parametrize("path", ALGORITHMS, ids=lambda p: p.stem)
def test_an_algorithm_file_holds_mathematics(path):
    text = path.read_text()
    assert re.match(r'"""[A-Z]\w+: .+\.\n\n(.|\n)*?https?://', text), "source with URL comes first"
    nevers = (
        r"astype|dtype|del params|is_leaf|\*\*extra|jax\.tree|optax\._src|b[12] ?\*\* ?t|count \+ 1"
    )
    code = re.sub(r'"""(.|\n)*?"""', "", text)
    assert re.findall(nevers, code) == []


@pytest.mark.parametrize("path", ALGORITHMS, ids=lambda p: p.stem)
def test_states_are_named_tuples_with_every_field_explained(path):
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.ClassDef):
            assert node.name.endswith("State")
            assert [base.id for base in node.bases] == ["NamedTuple"]
            fields = {f.target.id for f in node.body if isinstance(f, ast.AnnAssign)}
            assert fields <= VOCABULARY


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_signature_and_documentation(name):
    function = getattr(oa, name)
    parameters = inspect.signature(function).parameters
    assert next(iter(parameters)) == "learning_rate"
    assert {"weight_decay", "mask"} <= parameters.keys()
    finds_its_own = name in FREE or name.startswith("schedule_free")
    assert finds_its_own or hasattr(oa, f"scale_by_{DIRECTIONS.get(name, name)}")
    documented = inspect.getdoc(function)
    if "Args and errors as for" not in documented and "Args, errors and" not in documented:
        assert "Raises:\n    ValueError" in documented
        for parameter in parameters:
            assert f"\n    {parameter}: " in documented, parameter
    assert re.search("[Dd]epartures", documented)


IN_OPTAX = {
    name: getattr(optax, name, None) or getattr(optax.contrib, name)
    for name in OPTIMIZERS
    if hasattr(optax, name) or hasattr(optax.contrib, name)
}
# Arguments of optax that are a wrapper's here, or have the name they have everywhere.
GONE = {"mu_dtype", "accumulator_dtype", "weight_decay_mask"}
GONE |= {"state_dtype"}  # of Schedule-Free
GONE |= {"betas", "beta3", "estim_lr0", "estim_lr_coef"}  # b1 and b2, b3, d0, d_coef
GONE |= {"init_step"}  # of dog, a tuple: reps_rel or init_eta
GONE |= {"dtype_momentum", "weight_decay_rate"}  # of adafactor
GONE |= {"muon_weight_dimension_numbers"}  # `roles`, which also say what is no matrix

# Without it they are adam and adamw.
GONE_FROM = {"nadam": {"nesterov"}, "nadamw": {"nesterov"}}


@pytest.mark.parametrize("name", IN_OPTAX)
def test_optax_users_find_their_arguments(name):
    """The same names in the same order."""
    ours = inspect.signature(getattr(oa, name)).parameters
    theirs = inspect.signature(IN_OPTAX[name]).parameters
    names = [p for p in theirs if p not in GONE | GONE_FROM.get(name, set())]
    assert set(names) <= set(ours)
    for mine, yours in zip(ours.values(), theirs.values(), strict=False):
        if mine.kind is not mine.POSITIONAL_OR_KEYWORD:
            break
        assert mine.name == yours.name

    def at_steps(default):
        return [default(float(step)) for step in range(9)] if callable(default) else default

    for p in set(names) - {"learning_rate", "weight_decay"}:
        assert at_steps(ours[p].default) == at_steps(theirs[p].default)


def test_the_public_names_are_explicit():
    tree = ast.parse((PACKAGE / "__init__.py").read_text())
    for node in tree.body[1:]:
        if isinstance(node, ast.ImportFrom):
            assert all(a.asname == a.name for a in node.names)
        else:
            assert isinstance(node, ast.Assign)
