"""How figures are drawn and saved: in one style, as PNG, SVG and arrays, and inline in a page's text colour."""

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

# The colour of text and axes, and of nothing else, so that a page can replace it with its own.
INK = "#1b1c1d"
ACCENT, SECOND, MUTED, WARM = "#2f74c0", "#c9622c", "#8a8d91", "#b8433f"
SERIES = ("#2f74c0", "#d1782c", "#3b9464", "#8a63b8", "#b8433f", "#3b97a8", "#a08a2c", "#7a7d82")
DPI = 150
WIDE = 400  # points; on a phone, a wider figure scrolls instead of shrinking
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
    """Apply the style of all figures within a `with` block."""
    with matplotlib.rc_context(STYLE):
        yield


def save(chart: Chart, stem: Path) -> tuple[list[Path], str]:
    """Write `<stem>.png`, on white, `<stem>.svg`, transparent, and `<stem>.npz`; return their paths and the SVG text.

    Raises:
      TypeError: an array of Python objects.
    """
    paths, text = [stem.with_suffix(suffix) for suffix in (".png", ".svg", ".npz")], io.StringIO()
    figure = chart.figure
    with matplotlib.rc_context(STYLE | {"svg.hashsalt": stem.name}):
        # Laid out once for both files.
        figure.get_layout_engine().execute(figure)
        figure.set_layout_engine("none")
        with write_atomically(paths[0]) as temporary:
            # Without date and version in it, the same figure gives the same file.
            figure.savefig(temporary, dpi=DPI, facecolor="white", metadata={"Software": None})
        figure.savefig(text, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    write_text(paths[1], text.getvalue())
    write_arrays(paths[2], chart.data)
    return paths, text.getvalue()


def inline(svg: str, name: str, description: str) -> str:
    """Return the text of an SVG file as an element of a page: in the page's text colour, with unique ids."""
    element = svg[svg.index("<svg") :].replace(INK, "currentColor")
    # An image that is drawn twice has the same id twice; nothing refers to it, so the id is removed.
    element = re.sub(r'(<image [^>]*?) id="[^"]*"', r"\1", element)
    # A page holds many figures; an id that two of them share would refer to the first.
    element = re.sub(r'\bid="', f'id="{name}-', element)
    element = re.sub(r'(href="#|url\(#)', rf"\1{name}-", element)
    element = re.sub(r"<metadata>.*?</metadata>", "", element, flags=re.DOTALL)
    wide = float(re.search(r'width="([\d.]+)pt"', element)[1]) > WIDE
    kind = "figure wide" if wide else "figure"
    head = f'<svg role="img" aria-label="{html.escape(description)}" class="{kind}"'
    return element.replace("<svg", head, 1)
