"""Write results of examples/mnist.py into docs/mnist.md, with their figure.

    python examples/mnist.py --recipe article --data mnist --output-dir outputs/article
    python docs/make_mnist.py article outputs/article

The name ("article", "digits" or "family") says between which markers of the page the table goes,
and what the figure in docs/figures is called. The results are kept in docs/results;
without a folder they are taken from there. "family" is every optimizer of the library: too many
curves for a figure, so they are not kept either.
"""

import argparse
import statistics
import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "examples"))

import mnist_report  # noqa: E402
from fill import fill  # noqa: E402


def table(results):
    """One line per optimizer: means over its seeds, and every seed's accuracy."""
    yield "| optimizer | rate | train loss | test loss | test accuracy | by seed | state, B/param |"
    yield "|---|---|---|---|---|---|---|"
    for label, runs in mnist_report.groups(results).items():

        def mean(key, runs=runs):
            return statistics.fmean(run[key] for run in runs)

        seeds = ", ".join(f"{run['test_accuracy']:.4f}" for run in runs)
        yield (
            f"| `{label}` | {runs[0]['cell']['arguments']['learning_rate']:g} "
            f"| {mean('train_loss'):.4f} | {mean('test_loss'):.4f} "
            f"| **{mean('test_accuracy'):.4f}** | {seeds} "
            f"| {mean('state_bytes_per_parameter'):.1f} |"
        )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("name", choices=("article", "digits", "family"))
    parser.add_argument("output_dir", type=Path, nargs="?", help="of examples/mnist.py")
    args = parser.parse_args()
    kept = HERE / "results" / f"mnist-{args.name}.json"
    if args.output_dir:
        results = mnist_report.read(args.output_dir / "results.json")
        if args.name == "family":
            results = [{k: v for k, v in result.items() if k != "curves"} for result in results]
        mnist_report.write(kept, results)
    results = mnist_report.read(kept)
    if args.name != "family":
        mnist_report.figure(results, HERE / "figures" / f"mnist-{args.name}.png")
    pages = [HERE / "mnist.md"] + [HERE.parent / "README.md"] * (args.name == "article")
    for page in pages:
        fill(page, args.name.upper(), table(results))


if __name__ == "__main__":
    main()
