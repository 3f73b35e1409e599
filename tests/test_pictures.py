"""Figures for light pages and for dark ones, and numbers that stay on one line."""

import importlib
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("matplotlib")
ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "examples"))
pictures = importlib.import_module("pictures")
plt = importlib.import_module("matplotlib.pyplot")


def test_a_drawing_is_saved_on_both_papers(tmp_path):
    plt.rcParams["axes.linewidth"] = 9.0  # what somebody has set before is not theirs
    before = dict(plt.rcParams)
    inks = []

    def draw():
        inks.append(plt.rcParams["text.color"])
        assert plt.rcParams["axes.linewidth"] == 0.8
        drawing, axes = plt.subplots(figsize=(2, 1))
        axes.plot([0, 1], color=pictures.BLUE)
        return drawing

    try:
        pictures.save(draw, tmp_path / "new" / "x.png")
        assert dict(plt.rcParams) == before
    finally:
        plt.rcdefaults()
    assert plt.get_fignums() == []
    light, dark = (plt.imread(tmp_path / "new" / f"x{which}.png") for which in ("", "-dark"))
    assert light.shape == dark.shape == (200, 400, 4)
    np.testing.assert_array_equal(light[0, 0], [1, 1, 1, 1])
    assert dark[0, 0, 3] == 0  # the page is its paper
    assert len(set(inks)) == 2


def contrast(a, b):
    """Of two colours, as of WCAG: 1 for the same, 21 for black and white."""

    def luminance(colour):
        rgb = np.array([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)])
        linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
        return linear @ [0.2126, 0.7152, 0.0722]

    low, high = sorted(map(luminance, (a, b)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("theme", ["LIGHT", "DARK"])
def test_what_is_read_can_be_read(theme):
    style = getattr(pictures, theme)
    paper = style["axes.facecolor"]
    assert contrast(style["text.color"], paper) > 10
    assert contrast(style["xtick.color"], paper) > 4.5
    assert all(contrast(colour, paper) > 2 for colour in pictures.COLOURS)  # as lines
    assert 1.1 < contrast(style["grid.color"], paper) < 2  # stays behind


def test_numbers_in_tables_do_not_break():
    sys.path.insert(0, str(ROOT / "docs"))
    made = importlib.import_module("hooks").on_page_markdown
    page = "1e-3\n| 3e-07 and BSD-3 | `eps=1e-8` | 2e-16 |\n"
    assert made(page) == "1e-3\n| 3e\u201107 and BSD-3 | `eps=1e-8` | 2e\u201116 |\n"
