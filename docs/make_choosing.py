"""Write the table of all optimizers, `optax_adaptive.optimizers`, into docs/choosing.md.

python docs/make_choosing.py
"""

from collections.abc import Iterator
from pathlib import Path

from fill import fill

import optax_adaptive as oa

HERE = Path(__file__).parent


def table() -> Iterator[str]:
    """One row per optimizer."""
    yield "| optimizer | paper | words | elementwise | `update` needs | default rate |"
    yield "|---|---|---|---|---|---|"
    for name, record in oa.optimizers.items():
        rate = "must be given" if record.learning_rate is None else f"{record.learning_rate:g}"
        needs = ", ".join(f"`{need}`" for need in record.needs) or "nothing"
        yield (
            f"| `{name}` | [{record.paper}]({record.url}), {record.year} | {record.state_words:g} "
            f"| {'yes' if record.elementwise else 'no'} | {needs} | {rate} |"
        )


if __name__ == "__main__":
    fill(HERE / "choosing.md", "OPTIMIZERS", table())
