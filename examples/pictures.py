"""How every figure of the documentation is drawn: for light pages and for dark ones.

    def draw() -> Figure:
        drawing, axes = plt.subplots(figsize=(pictures.WIDTH, 4), layout="constrained")
        axes.plot(losses, color=pictures.BLUE)
        axes.axhline(limit, color=plt.rcParams["text.color"])
        return drawing

    pictures.save(draw, Path("losses.png"))  # and losses-dark.png

White, black and greys depend on the page, so a drawing never names one: it asks
`plt.rcParams["text.color"]` for what is read, `["axes.edgecolor"]` for what is beside it,
`["grid.color"]` for what is behind it and `["axes.facecolor"]` for the paper.
"""

from collections.abc import Callable
from pathlib import Path

import matplotlib as mpl
from matplotlib.figure import Figure

mpl.use("Agg")  # figures are files: no window, and none is needed
import matplotlib.pyplot as plt

# Inches. A page shows this width on about 700 pixels: a point of type is 1.4 pixels there.
WIDTH = 7.0

# Okabe and Ito's colours, which stay apart for colour-blind readers; the blue is a little lighter,
# to show on both papers.
BLUE, ORANGE, GREEN, PINK = "#1A80C2", "#D55E00", "#009E73", "#CC79A7"
AMBER, SKY = "#E69F00", "#56B4E9"
COLOURS = (BLUE, ORANGE, GREEN, PINK, AMBER, SKY)

STYLE = {
    "font.family": "DejaVu Sans",  # comes with matplotlib
    "font.size": 9,
    "axes.axisbelow": True,
    "axes.grid": True,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlelocation": "left",
    "axes.titlesize": 10,
    "figure.titlesize": 11,
    "figure.titleweight": "bold",
    "grid.linewidth": 0.6,
    "legend.fontsize": 8.5,
    "legend.frameon": False,
    "savefig.dpi": 200,
}


def _theme(ink: str, beside: str, behind: str, paper: str) -> dict[str, object]:
    return {
        **STYLE,
        **dict.fromkeys(("text.color", "axes.labelcolor", "axes.titlecolor"), ink),
        **dict.fromkeys(("axes.edgecolor", "xtick.color", "ytick.color"), beside),
        "grid.color": behind,
        **dict.fromkeys(("axes.facecolor", "figure.facecolor"), paper),
    }


LIGHT = _theme(ink="#1b1f24", beside="#57606a", behind="#e2e5e9", paper="#ffffff")
# The paper is that of the pages; saved without it, because that of a README is darker still.
DARK = _theme(ink="#e3e6ea", beside="#9aa3af", behind="#3a404b", paper="#1e2129")
DARK["savefig.transparent"] = True


def save(draw: Callable[[], Figure], path: Path) -> None:
    """Save what `draw()` returns as `path`, and drawn again for dark pages as `path`-dark.

    Args:
        draw: Builds the figure, twice: once in each theme.
        path: Of the light one. The dark one has "-dark" before the suffix.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    themes = {path: LIGHT, path.with_stem(f"{path.stem}-dark"): DARK}
    for where, theme in themes.items():
        with mpl.rc_context({**mpl.rcParamsDefault, **theme, "backend": "Agg"}):
            drawing = draw()
            # Without the version of matplotlib, the same drawing is the same file.
            drawing.savefig(where, metadata={"Software": None})
            plt.close(drawing)
