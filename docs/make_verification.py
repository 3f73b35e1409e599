"""Measure what the tests assert, and write it into docs/verification.md.

    python docs/make_verification.py      # needs the extra `test`; a minute

The rows are those of tests/cases.py and tests/goldens/mapping.py, the deviations those that
tests/test_parity.py bounds.
"""

import os
import sys
from pathlib import Path

os.environ["JAX_PLATFORMS"] = "cpu"
HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "tests"))

import jax  # noqa: E402
import optax  # noqa: E402
from cases import CASES, problem  # noqa: E402
from fill import fill  # noqa: E402
from goldens import mapping  # noqa: E402
from goldens.problem import problem as golden_problem  # noqa: E402
from runs import deviation, trajectory  # noqa: E402

import optax_adaptive as oa  # noqa: E402


def cases():
    """One row per optimizer and option: ours against the paper and against optax."""
    start, gradients = problem()
    yield "| case | paper, float64 | paper, float32 | optax, float64 | optax, float32 |"
    yield "|---|---|---|---|---|"
    for case in CASES:
        paper = case.reference(start, gradients)
        double = trajectory(case.make(), start, gradients, "float64")
        rounded = gradients.astype("float32")
        single = trajectory(case.make(), start, rounded)
        exact = case.reference(start, rounded.astype("float64"))
        if case.same_in_optax:
            theirs = trajectory(case.make_optax(), start, gradients, "float64")
            beside = f"{deviation(double, theirs, start):.1e}"
            coarse = trajectory(case.make_optax(), start, rounded)
            beside += f" | {deviation(single, coarse, start):.1e}"
        else:
            beside = f"{case.reason or 'not in optax'} |"
        yield (
            f"| `{case.id}` | {deviation(double, paper, start):.1e} "
            f"| {deviation(single, exact, start):.1e} | {beside} |"
        )


def goldens():
    """One row per trajectory of a real framework."""
    start, gradients = golden_problem()
    yield "| framework | its optimizer | ours | deviation | known difference |"
    yield "|---|---|---|---|---|"
    for row in mapping.ROWS:
        file = mapping.load(row.golden)
        case = file["cases"][row.case]
        rate = mapping.rate(row, case)
        tx = getattr(oa, row.optimizer)(**row.kwargs | {"learning_rate": rate})
        ours = trajectory(tx, start, gradients, "float64", l2=row.l2)
        theirs = ", ".join(f"{k}={v}" for k, v in case["arguments"].items())
        mine = ", ".join(f"{k}={v}" for k, v in row.kwargs.items())
        if case["rate_divided_by_10_at"] is not None:
            mine += f", rate / 10 at step {case['rate_divided_by_10_at']}"
        if row.l2:
            mine += f", behind add_decayed_weights({row.l2})"
        yield (
            f"| {file['framework']} {file['version']} | `{case['optimizer']}({theirs})` "
            f"| `{row.optimizer}({mine})` | {deviation(ours, case['parameters'], start):.1e} "
            f"| {row.reason} |"
        )


def main():
    """Measure, and write it into the page."""
    measured = [
        f"Measured with jax {jax.__version__} and optax {optax.__version__} on CPU.",
        "\n## Against papers and optax\n",
        *cases(),
        "\n## Against the real frameworks\n",
        *goldens(),
    ]
    fill(HERE / "verification.md", "MEASURED", measured)


if __name__ == "__main__":
    main()
