"""How much memory do the optimizers take? State and temporary arrays, without a clock.

For every optimizer, with the arguments of speed.py, on a parameter of 512 x 512: the words of
state per parameter, and the temporary arrays of the compiled step, in sizes of the parameter;
beside them those of optax. Nothing is allocated, and every run gives the same numbers. Prints a
table and writes `results/memory.json`.

    python benchmarks/memory.py
"""

import math
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import measuring
import optax
import speed
from rich.console import Console
from rich.progress import track
from rich.table import Table

SHAPE = (512, 512)
RESULTS = Path(__file__).parent / "results" / "memory.json"


def measure(tx: optax.GradientTransformation) -> dict[str, float]:
    """Words of state and temporary arrays, per parameter."""
    params = jax.ShapeDtypeStruct(SHAPE, jnp.float32)
    state = jax.eval_shape(tx.init, params)
    compiled = speed.step_of(tx).lower(params, state, params).compile()
    size = math.prod(SHAPE)
    return {
        "words": sum(x.size for x in jax.tree.leaves(state)) / size,
        "temporaries": compiled.memory_analysis().temp_size_in_bytes / (4 * size),
    }


def main() -> None:
    rows: dict[str, Any] = {}
    for case in track(speed.CASES, "optimizers", console=Console(stderr=True)):
        rows[case.name] = {k: measure(case.make(lib)) for k, lib in case.libraries().items()}
    table = Table(title=f"Per parameter of {' x '.join(map(str, SHAPE))}, float32")
    table.add_column("optimizer")
    for name in ("state", "of optax", "temporaries", "of optax"):
        table.add_column(name, justify="right")
    for name, row in rows.items():
        cells = [
            row.get(k, {}).get(what) for what in ("words", "temporaries") for k in ("ours", "optax")
        ]
        table.add_row(name, *("-" if x is None else f"{x:.2f}" for x in cells))
    Console().print(table)
    measuring.write(RESULTS, {"machine": measuring.machine(), "shape": SHAPE, "rows": rows})


if __name__ == "__main__":
    main()
