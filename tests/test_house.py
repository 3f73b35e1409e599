"""The rules of the house that a machine can check; CONTRIBUTING.md says why."""

import ast
import inspect
import re
from pathlib import Path

import optax
import pytest
from cases import CASES

import optax_adaptive as oa

PACKAGE = Path(oa.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))
ALGORITHMS = sorted((PACKAGE / "_algorithms").glob("[!_]*.py"))
OPTIMIZERS = sorted(
    name
    for name, f in vars(oa).items()
    if inspect.isfunction(f) and "learning_rate" in inspect.signature(f).parameters
)
# What decays has the direction of what does not.
DIRECTIONS = {"adamw": "adam", "nadamw": "nadam", "adamaxw": "adamax"}
# Which files may import which.
LAYERS = ["_check", "_numerics", "_core", "_momentum", "_algorithms"]


def imports(path):
    """The modules of this package that a file imports, by their first name in it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module.split(".")[0] == "optax_adaptive":
            inside = node.module.split(".")[1:]
            yield from [inside] if inside else [[a.name] for a in node.names]


def test_every_optimizer_has_a_case():
    assert set(OPTIMIZERS) == {c.name for c in CASES}


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_imports_point_one_way(path):
    if path.name == "__init__.py":
        return
    place = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    for imported in imports(path):
        assert LAYERS.index(imported[0]) < LAYERS.index(place), imported


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
            vocabulary = {"count", "mu", "nu", "nu_max", "delta", "sum_sq", "trace", "variance"}
            assert fields <= vocabulary


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_signature_and_documentation(name):
    function = getattr(oa, name)
    parameters = inspect.signature(function).parameters
    assert next(iter(parameters)) == "learning_rate"
    assert {"weight_decay", "mask"} <= parameters.keys()
    assert hasattr(oa, f"scale_by_{DIRECTIONS.get(name, name)}")
    documented = inspect.getdoc(function)
    if "Args and errors as for" not in documented and "Args, errors and" not in documented:
        assert "Raises:\n    ValueError" in documented
        for parameter in parameters:
            assert f"\n    {parameter}: " in documented, parameter
    assert re.search("[Dd]epartures", documented)


@pytest.mark.parametrize("name", [n for n in OPTIMIZERS if hasattr(optax, n)])
def test_optax_users_find_their_arguments(name):
    """The same names in the same order, up to the one argument that is a wrapper's here."""
    gone = {"mu_dtype", "accumulator_dtype", "weight_decay_mask"}
    ours = inspect.signature(getattr(oa, name)).parameters
    theirs = inspect.signature(getattr(optax, name)).parameters
    names = [p for p in theirs if p not in gone]
    assert set(names) <= set(ours)
    for mine, yours in zip(ours.values(), theirs.values(), strict=False):
        if mine.kind is not mine.POSITIONAL_OR_KEYWORD:
            break
        assert mine.name == yours.name
    for p in set(names) - {"learning_rate", "weight_decay"}:
        assert ours[p].default == theirs[p].default


def test_the_public_names_are_explicit():
    tree = ast.parse((PACKAGE / "__init__.py").read_text())
    for node in tree.body[1:]:
        if isinstance(node, ast.ImportFrom):
            assert all(a.asname == a.name for a in node.names)
        else:
            assert isinstance(node, ast.Assign)
