"""Measure what the tests assert, and write it into docs/verification.md.

    python docs/make_verification.py      # needs the extra `test`; some minutes

The rows are those of tests/cases.py and tests/goldens/mapping.py, the deviations those that
tests/test_parity.py bounds.
"""

import os
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

os.environ["JAX_PLATFORMS"] = "cpu"
HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "tests"))

import jax  # noqa: E402
import numpy as np  # noqa: E402
import optax  # noqa: E402
from cases import CASES, factory  # noqa: E402
from certificates import CERTIFICATES  # noqa: E402
from compat_goldens import (  # noqa: E402
    GOLDENS,
    REFUSED,
    START,
    apart,
    constructed,
    continuing,
    imported,
    path_of,
)
from fill import fill  # noqa: E402
from goldens import mapping  # noqa: E402
from goldens.problem import problem as golden_problem  # noqa: E402
from runs import deviation, enable_x64, trajectory  # noqa: E402

import optax_adaptive as oa  # noqa: E402

# Wrappers that are compared in another way than the optimizer inside of them.
WRAPPED = {
    "mechanize": "around sgd and adam: 1e-12, at steps that float64 shows",
    "schedule_free": "see those that are made with it",
    "with_state_dtype": "no paper of its own: errors of steps in [precision](precision.md)",
    "with_quantized_state": "no paper of its own: errors of steps in [precision](precision.md)",
    "stochastic_rounding": "right on average: 20,000 draws; 1 % of float32 after 2,000 steps",
    "kahan": "1 % of float32 after 2,000 steps; exact to 2^-17 at the start",
    "master_weights": "32 bits: float32 training, to 2e-6; 24 bits: exact to 2^-15",
    "accumulate": "around every kind, on means: at most 10 times its bound",
    "guard": "on 150 gradients with spikes and NaN: 3e-6, its mean is float32",
    "monitor": "updates are those of every kind; its columns: 1e-4",
    "tunable": "around every optimizer: at most 20 times its float32 bound",
    "by_path": "every kind beside sgd, bit for bit",
    "layerwise_decay": "as groups with rates of their own: 1e-5 of float32",
}


class Measured(NamedTuple):
    """One case on one shape of parameters: deviations from the paper, and from optax."""

    case: Any
    shape: tuple
    paper: tuple[float, float]  # in float64, in float32
    optax: tuple[float, float] | None


class Compared(NamedTuple):
    """One trajectory of a real package, and how far ours is from it."""

    row: mapping.Row
    file: dict
    deviation: float


def against_papers() -> Iterator[Measured]:
    """Every row of tests/cases.py."""
    for case in CASES:
        for shape in case.shapes:
            start, gradients = case.problem(shape)
            rounded = gradients.astype("float32")
            double = trajectory(case.make(), start, gradients, "float64")
            single = trajectory(case.make(), start, rounded)
            paper = (
                deviation(double, case.reference(start, gradients), start),
                deviation(single, case.reference(start, rounded.astype("float64")), start),
            )
            theirs = None
            if case.same_in_optax:
                exact = trajectory(case.make_optax(), start, gradients, "float64")
                coarse = trajectory(case.make_optax(), start, rounded)
                theirs = deviation(double, exact, start), deviation(single, coarse, start)
            yield Measured(case, shape, paper, theirs)


def against_packages() -> Iterator[Compared]:
    """Every row of tests/goldens/mapping.py."""
    for row in mapping.ROWS:
        file = mapping.load(row.golden)
        case = file["cases"][row.case]
        start, gradients = golden_problem(tuple(case["shape"]))
        tx = row.make(factory, mapping.rate(row, case))
        ours = trajectory(tx, start, gradients, "float64", l2=row.l2)
        yield Compared(row, file, deviation(ours, case["parameters"], start))


def certificates(papers: list[Measured], packages: list[Compared]) -> Iterator[str]:
    """One row per optimizer and per wrapper."""
    yield (
        "| optimizer | paper loop, float64 and float32 | optax, float64 and float32 "
        "| real packages, float64 | variant | told from plain Adam by |"
    )
    yield "|---|---|---|---|---|---|"
    for name, certificate in CERTIFICATES.items():
        measured = [m for m in papers if m.case.name == name]
        loop = WRAPPED.get(name, "around every kind: at most 10 times its bound")
        beside = "not in optax"
        if measured:
            loop = worst(m.paper for m in measured)
            beside = worst(m.optax for m in measured if m.optax)
            reasons = dict.fromkeys(m.case.reason for m in measured if not m.optax)
            beside = "; ".join(filter(None, [beside, *reasons])) or "not in optax"
        record = oa.optimizers.get(name)
        title = f"[`{name}`]({record.url})" if record else f"`{name}`"
        yield (
            f"| {title} | {loop} | {beside} | {goldens_of(name, packages) or certificate.packages} "
            f"| {certificate.variant} | {certificate.told_apart[5:].replace('_', ' ')} |"
        )


def worst(pairs: Iterable[tuple[float, float]]) -> str:
    """The largest deviation in float64 and in float32."""
    return " and ".join(short(max(column)) for column in zip(*pairs, strict=True))


def cell(text: str) -> str:
    """What a table of Markdown can hold."""
    return text.replace("|", r"\|")


def short(deviation: float) -> str:
    """Its magnitude is what matters."""
    return f"{deviation:.0e}" if deviation else "0"


def goldens_of(name: str, packages: list[Compared]) -> str:
    """What an optimizer or wrapper was compared with, and how near it came."""
    found: dict[str, list[Compared]] = {}
    for compared in packages:
        row, file = compared.row, compared.file
        if name == (row.wrap[0] if row.wrap else row.optimizer.removeprefix("scale_by_")):
            version = file["version"].split(" on ")[0]
            package = f"{file['framework'].replace('_', '-')} {version}, {file['licence']}"
            found.setdefault(package, []).append(compared)
    cells = []
    for package, rows in found.items():
        same = [c.deviation for c in rows if not c.row.reason]
        other = sum(1 for c in rows if c.row.reason)
        said = [short(max(same))] if same else []
        said += [f"{other} of {len(rows)} cases follow another rule"] if other else []
        cells.append(f"{package}: {'; '.join(said)}")
    return "<br>".join(cells)


def cases(papers: list[Measured]) -> Iterator[str]:
    """One row per optimizer, option and shape: ours against the paper and against optax."""
    yield "| case | paper, float64 | paper, float32 | optax, float64 | optax, float32 |"
    yield "|---|---|---|---|---|"
    for case, shape, paper, theirs in papers:
        cells = [f"{x:.1e}" for x in paper]
        cells += [f"{x:.1e}" for x in theirs] if theirs else [case.reason or "not in optax", "-"]
        of = "" if shape == (8,) else f" on {'x'.join(map(str, shape))}"
        yield f"| `{case.id}`{of} | " + " | ".join(cells) + " |"


def goldens(packages: list[Compared]) -> Iterator[str]:
    """One row per trajectory of a real package."""
    yield "| package | its optimizer | ours | deviation | known difference |"
    yield "|---|---|---|---|---|"
    for row, file, distance in packages:
        case = file["cases"][row.case]
        theirs = ", ".join(f"{k}={v}" for k, v in case["arguments"].items())
        options = (f"{k}={getattr(v, '__name__', v)}" for k, v in row.kwargs.items())
        mine = f"{row.optimizer}({', '.join(options)})"
        if row.wrap:
            name, options = row.wrap
            mine = ", ".join([mine, *(f"{k}={v}" for k, v in options.items())])
            mine = f"{name}({mine})"
        if case["rate_divided_by_10_at"] is not None:
            mine += f", rate / 10 at step {case['rate_divided_by_10_at']}"
        if row.l2:
            mine += f", behind add_decayed_weights({row.l2})"
        yield (
            f"| {file['framework']} {file['version']} | `{case['optimizer']}({theirs})` "
            f"| `{mine}` | {distance:.1e} | {cell(row.reason) or 'none'} |"
        )


def lines() -> Iterator[str]:
    """One row per constructor of compat: the largest distance of its cases, in float64."""
    yield "| framework | its optimizer | cases | largest deviation | of the case |"
    yield "|---|---|---|---|---|"
    found: dict[tuple[str, str], list[tuple[float, str]]] = {}
    for name, golden in GOLDENS.items():
        for label, case in golden["cases"].items():
            if label in REFUSED:
                continue
            with enable_x64(True):
                path, _ = path_of(constructed(name, case), "float64")
            theirs = np.array(case["parameters"], "float64")
            valid = np.isfinite(theirs).all(0)
            floor = abs(START) if golden["dtype"] == "float32" else np.zeros(8)
            distance = deviation(path[:, valid], theirs[:, valid], START[valid], floor[valid])
            found.setdefault((name, case["optimizer"]), []).append((distance, label))
    for (name, optimizer), distances in found.items():
        framework = f"{GOLDENS[name]['framework']} {GOLDENS[name]['version']}"
        largest, label = max(distances)
        yield f"| {framework} | `{optimizer}` | {len(distances)} | {largest:.1e} | {label} |"


def checkpoints() -> Iterator[str]:
    """One row per checkpoint: how far 20 further steps are from those of the framework."""
    yield "| framework | its optimizer | precision | after 20 steps |"
    yield "|---|---|---|---|"
    for name, golden in GOLDENS.items():
        for label, checkpoint in golden["checkpoints"].items():
            dtype = checkpoint["dtype"]
            with enable_x64(dtype == "float64"):
                _, tx, params, state = imported(name, label)
                distance = apart(checkpoint, continuing(tx, params, dtype)(params, state))
            options = ", ".join(
                f"{k}={v['class_name'] if isinstance(v, dict) else v}"
                for k, v in checkpoint["arguments"].items()
            )
            line = f"`{checkpoint['optimizer']}({options})`"
            note = label if label in ("adamw_groups", "adam_frozen") else ""
            note = "in Keras 2.11 to 2.15" if label.startswith("new_") else note.split("_")[-1]
            framework = f"{golden['framework']} {golden['version']}"
            yield f"| {framework} | {line} {note} | {dtype} | {distance:.1e} |"


def main() -> None:
    """Measure, and write it into the page."""
    papers, packages = list(against_papers()), list(against_packages())
    measured = [
        f"Measured with jax {jax.__version__} and optax {optax.__version__} on CPU.",
        "\n## Certificates\n",
        *certificates(papers, packages),
        "\n## Every case against papers and optax\n",
        *cases(papers),
        "\n## Every case against real packages\n",
        *goldens(packages),
        "\n## The lines of other frameworks\n",
        *lines(),
        "\n## The checkpoints of other frameworks\n",
        *checkpoints(),
    ]
    fill(HERE / "verification.md", "MEASURED", measured)


if __name__ == "__main__":
    main()
