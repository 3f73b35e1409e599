"""Write what benchmarks/ measured into docs/performance.md and docs/mnist.md.

make bench && python docs/make_performance.py
"""

import json
import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "benchmarks"))

import speed  # noqa: E402
from fill import fill  # noqa: E402

RESULTS = HERE.parent / "benchmarks" / "results"


def steps(report):
    """The table of one step per optimizer, and the summary that speed.py prints."""
    machine = report["settings"]["machine"]
    many = str(report["settings"]["leaves"])
    versions = ", ".join(f"{k} {machine[k]}" for k in ("jax", "optax", "torch") if k in machine)
    yield (
        f"{report['settings']['size'] / 1e6:g} million float32 parameters in one array; "
        f"{machine['cpu']}, {machine['cores']} cores, {versions}, {report['date']}."
    )
    yield ""
    yield (
        "| optimizer | ours, ms | optax, ms | torch, ms | ours / optax | ours / torch "
        "| trace + lower, ours / optax |"
    )
    yield "|---|---|---|---|---|---|---|"
    for name, row in report["rows"].items():
        ms = {k: f"{1e3 * v:.1f}" for k, v in row["seconds"].items()}
        ratios = {k: f"{v['wall']:.2f}" for k, v in row["ratios"].items()}
        stages, variant = "", row.get("torch_variant")
        shape = row["shape"]
        of = f" on {'x'.join(map(str, shape))}" if len(shape) > 1 else ""
        if "optax" in row["seconds"] and many in row["stages"]:
            ours, theirs = (speed.trace_and_lower(row, many, k) for k in ("ours", "optax"))
            stages = f"{ours / theirs:.2f}"
        cells = [
            f"`{name}`{of}",
            ms["ours"],
            ms.get("optax", ""),
            f"{ms['torch']} ({variant})" if variant else "",
            ratios.get("ours/optax", ""),
            ratios.get("ours/torch", ""),
            stages,
        ]
        yield "| " + " | ".join(cells) + " |"
    yield ""
    for line in speed.summary(report):
        yield f"- {line}"


def memory(report):
    """Words of state and temporary arrays, ours and optax's."""
    yield "| optimizer | state, ours | optax | temporaries, ours | optax |"
    yield "|---|---|---|---|---|"
    for name, row in report["rows"].items():
        cells = [
            f"{row[k][what]:.2f}".rstrip("0").rstrip(".") if k in row else "not there"
            for what in ("words", "temporaries")
            for k in ("ours", "optax")
        ]
        yield f"| `{name}` | " + " | ".join(cells) + " |"


def epoch(report):
    """An epoch against Keras, and where the time goes."""
    names = {
        "keras": "Keras 3 on TensorFlow, `model.fit`",
        "flax": "Flax, `examples/mnist.py`",
        "plain": "Flax with `nn.Conv`, `nn.max_pool`, one step per call",
    }
    yield f"Adam, {report['cores']} cores, {report['date']}, in turns of 24 batches:"
    yield ""
    yield "| | best, s | median, s | of Keras |"
    yield "|---|---|---|---|"
    for mode, row in report["epoch"].items():
        over = f"{row['over_keras']:.2f}" if "over_keras" in row else ""
        yield f"| {names[mode]} | {row['best']:.1f} | {row['median']:.1f} | {over} |"
    yield ""
    parts = "; ".join(f"{part} {share:.0%}" for part, share in report["profile"].items())
    yield f"Where the time of a step goes: {parts}."


def main():
    page = HERE / "performance.md"
    fill(page, "MEMORY", memory(json.loads((RESULTS / "memory.json").read_text())))
    fill(page, "SPEED", steps(json.loads((RESULTS / "speed.json").read_text())))
    fill(HERE / "mnist.md", "EPOCH", epoch(json.loads((RESULTS / "mnist_epoch.json").read_text())))


if __name__ == "__main__":
    main()
