"""Write what examples/diagnose.py measured into docs/diagnose.md, with its figure.

    python examples/diagnose.py --data mnist --output-dir outputs/diagnose
    python docs/make_diagnose.py outputs/diagnose

The results are kept in examples/recorded/diagnose.json; without a folder they are taken from there.
"""

import argparse
import json
import re
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "examples"))

import diagnose  # noqa: E402
import mnist_report  # noqa: E402
from fill import fill  # noqa: E402

RECORDED = HERE.parent / "examples" / "recorded" / "diagnose.json"
LOW, MIDDLE, HIGH = diagnose.RATES
LOW_MU, MIDDLE_MU, _ = diagnose.PER_MU.values()

FOUND = """\
**AdaGrad slows down, and its sum is the lesser reason.** The median rate falls {adagrad}, by a
factor of {factor}, where 1 / sqrt(step) falls by {root}: that is for gradients that stay as large
as they were, and these became {gradients} times smaller. But a rate of AdaGrad can only fall.
That of Adam rises when gradients shrink: per unit of `mu` its lowest median is {adam_lowest}, its
last {adam}. With the defaults of Keras, 0.001 and a sum from 0.1, the rates stay near 0.001 /
sqrt(0.1) = 0.0032: at the end the median is {keras}, and 5 % are below {keras_low}. That is SGD
at a small rate, and the loss ends at {keras_loss}. At 0.01 and from 0 it ends at {adagrad_loss},
with Adam at {adam_loss}: in so few steps slowing down costs nothing.

**AdaBound's band closes from above.** Rates stay far from its lower edge here, so only the upper
one matters. From step {since} on at least 95 % of the coordinates lie on it, and AdaBound
is SGD with momentum. Its rate goes down towards `final_lr`, {band} then and {band_last} at the
end, while Adam's median has gone up to {adam}. Its `|u| / |g|`, at the end from {low} to {high},
would not tell: it has the noise of one gradient against the mean of many in it.

**AdaDelta's step is made of eps.** At rate 1 its root mean square is {start} first, of at most
`sqrt(eps/(1-rho))` = 0.0045, and it never grows beyond: it shrinks with the gradients. Its
rates go up to 1 and stay there, the median {adadelta}. To AdaDelta gradients far below sqrt(eps)
= 0.001 are nothing to adapt to: what is left is SGD at rate 1. At rate 0.001 the same rule makes
steps of at most {largest} of the parameters, and the loss ends at {slow_loss} in place of {loss}.
"""


def keep(results: list[dict[str, Any]]) -> None:
    """Store the results, one curve a line."""
    text = json.dumps(results, indent=1, allow_nan=False)
    RECORDED.write_text(re.sub(r"\[[^\[\]{}]*\]", lambda x: " ".join(x[0].split()), text) + "\n")


def measured(results: list[dict[str, Any]]) -> Iterator[str]:
    """First and last measurement of every run."""
    step = diagnose.curve(results, "adam", "step")
    yield f"| run | | step {step[0]:.0f} | step {step[-1]:.0f} |"
    yield "|---|---|---|---|"
    before = ""
    for label, what, *cells in diagnose.rows(results):
        name = f"`{label}`" if label != before else ""
        said = f"`{what}`" if "_" in what else what.replace("|", r"\|")
        yield f"| {name} | {said} | {' | '.join(cells).replace('/', ' / ')} |"
        before = label


def found(results: list[dict[str, Any]]) -> Iterator[str]:
    """What the figure shows, with its numbers."""

    def of(label: str, name: str) -> Any:
        return diagnose.curve(results, label, name)

    def ends(label: str, name: str) -> str:
        return "from {:.2g} to {:.2g}".format(*of(label, name)[[0, -1]])

    def loss(label: str) -> str:
        return f"{diagnose.at_the_end(of(label, 'loss')):.2g}"

    step = of("adam", "step")
    rate, gradient = of("adagrad", MIDDLE), of("adagrad", "grad_norm")
    keras, band = "adagrad (Keras)", diagnose.band(step)[1]
    at_edge = of("adabound", LOW_MU) > 0.99 * band
    since = len(step) - at_edge[::-1].argmin()  # from here on it is
    values = {
        "adagrad": ends("adagrad", MIDDLE),
        "factor": f"{rate[0] / rate[-1]:.2g}",
        "root": f"{step[-1] ** 0.5:.2g}",
        "gradients": f"{gradient[0] / diagnose.at_the_end(gradient):.2g}",
        "adam_lowest": f"{of('adam', MIDDLE_MU).min():.2g}",
        "adam": f"{of('adam', MIDDLE_MU)[-1]:.2g}",
        "keras_low": f"{of(keras, LOW)[-1]:.2g}",
        "keras": f"{of(keras, MIDDLE)[-1]:.2g}",
        "since": f"{step[since]:.0f}",
        "band": f"{band[since]:.2g}",
        "band_last": f"{band[-1]:.2g}",
        "low": f"{of('adabound', LOW)[-1]:.2g}",
        "high": f"{of('adabound', HIGH)[-1]:.2g}",
        "start": f"{of('adadelta (lr 1)', 'update_rms')[0]:.2g}",
        "adadelta": ends("adadelta (lr 1)", MIDDLE),
        "largest": f"{of('adadelta (lr 0.001)', 'update_ratio').max():.1g}",
        "keras_loss": loss(keras),
        "adagrad_loss": loss("adagrad"),
        "adam_loss": loss("adam"),
        "slow_loss": loss("adadelta (lr 0.001)"),
        "loss": loss("adadelta (lr 1)"),
    }
    for paragraph in FOUND.format(**values).split("\n\n"):
        yield from ("", *textwrap.wrap(paragraph, 108, break_on_hyphens=False))


def sections(results: list[dict[str, Any]]) -> dict[str, list[str]]:
    """The name of every section of the page, and its lines."""
    return {"FOUND": list(found(results))[1:], "MEASURED": list(measured(results))}


def main() -> None:
    """Keep the results, if there are new ones, draw them, and fill the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("output_dir", type=Path, nargs="?", help="of examples/diagnose.py")
    args = parser.parse_args()
    if args.output_dir:
        keep(mnist_report.read(args.output_dir / "results.json"))
    results = mnist_report.read(RECORDED)
    diagnose.figure(results, HERE / "figures" / "diagnose.png")
    for name, lines in sections(results).items():
        fill(HERE / "diagnose.md", name, lines)


if __name__ == "__main__":
    main()
