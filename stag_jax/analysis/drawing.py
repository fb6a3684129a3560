"""How figures are drawn and kept: in one style, as PNG, SVG and the arrays drawn, and inline in a page's own ink."""

import contextlib
import html
import io
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib
from matplotlib.figure import Figure

from stag_jax.files import write_arrays, write_atomically, write_text

# A colour that nothing else has: text and axes are drawn in it, and a page puts its own in its place.
INK = "#1b1c1d"
ACCENT, SECOND, MUTED, WARM = "#2f74c0", "#c9622c", "#8a8d91", "#b8433f"
SERIES = ("#2f74c0", "#d1782c", "#3b9464", "#8a63b8", "#b8433f", "#3b97a8", "#a08a2c", "#7a7d82")
DPI = 150
WIDE = 400  # points from which a figure is not shrunk to a phone's width, but scrolls
STYLE = {
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": INK,
    "axes.titlecolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "legend.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 10,
    "axes.labelsize": 9,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "legend.fontsize": 8,
    "legend.frameon": False,
    "font.size": 9,
    "grid.color": MUTED,
    "grid.alpha": 0.3,
    "grid.linewidth": 0.6,
    "svg.fonttype": "none",  # text stays text: smaller, and it can be selected
}


class Chart(NamedTuple):
    """A figure and the arrays that are drawn in it, by name (docs/report.md); texts and numbers count as arrays."""

    figure: Figure
    data: Mapping[str, Any]


@contextlib.contextmanager
def style() -> Iterator[None]:
    """Within it figures are made in the one style."""
    with matplotlib.rc_context(STYLE):
        yield


def save(chart: Chart, stem: Path) -> tuple[list[Path], str]:
    """Writes `<stem>.png`, on white, `<stem>.svg`, transparent, and `<stem>.npz`; returns their paths and the SVG text.

    Raises:
      TypeError: an array of Python objects.
    """
    paths, text = [stem.with_suffix(suffix) for suffix in (".png", ".svg", ".npz")], io.StringIO()
    figure = chart.figure
    with matplotlib.rc_context(STYLE | {"svg.hashsalt": stem.name}):
        # Laid out once for both.
        figure.get_layout_engine().execute(figure)
        figure.set_layout_engine("none")
        with write_atomically(paths[0]) as temporary:
            # Without date and version in it, the same figure is the same file.
            figure.savefig(temporary, dpi=DPI, facecolor="white", metadata={"Software": None})
        figure.savefig(text, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    write_text(paths[1], text.getvalue())
    write_arrays(paths[2], chart.data)
    return paths, text.getvalue()


def inline(svg: str, name: str, description: str) -> str:
    """The text of an SVG file as an element of a page: in the page's ink, its ids its own."""
    element = svg[svg.index("<svg") :].replace(INK, "currentColor")
    # A picture that is drawn twice has one name, which nothing refers to.
    element = re.sub(r'(<image [^>]*?) id="[^"]*"', r"\1", element)
    # Pages hold many figures; an id that two of them share would be the first one's.
    element = re.sub(r'\bid="', f'id="{name}-', element)
    element = re.sub(r'(href="#|url\(#)', rf"\1{name}-", element)
    element = re.sub(r"<metadata>.*?</metadata>", "", element, flags=re.DOTALL)
    wide = float(re.search(r'width="([\d.]+)pt"', element)[1]) > WIDE
    kind = "figure wide" if wide else "figure"
    head = f'<svg role="img" aria-label="{html.escape(description)}" class="{kind}"'
    return element.replace("<svg", head, 1)
