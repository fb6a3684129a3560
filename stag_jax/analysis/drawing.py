"""How figures are drawn and kept: one style, and each as PNG, as SVG, and as SVG that takes the page's own ink."""

import contextlib
import io
import re
from collections.abc import Iterator
from pathlib import Path

import matplotlib
from matplotlib.figure import Figure

from stag_jax.training.files import write_atomically

# A colour that nothing else has: text and axes are drawn in it, and a page puts its own in its place.
INK = "#1b1c1d"
ACCENT, SECOND, MUTED, WARM = "#2f74c0", "#c9622c", "#8a8d91", "#b8433f"
SERIES = ("#2f74c0", "#d1782c", "#3b9464", "#8a63b8", "#b8433f", "#3b97a8", "#a08a2c", "#7a7d82")
DPI = 150
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


@contextlib.contextmanager
def style() -> Iterator[None]:
    """Within it figures are made in the one style."""
    with matplotlib.rc_context(STYLE):
        yield


def save(figure: Figure, stem: Path) -> list[Path]:
    """`<stem>.png` and `<stem>.svg`, on white."""
    paths = [stem.with_suffix(".png"), stem.with_suffix(".svg")]
    for path in paths:
        with write_atomically(path) as temporary, style():
            # Without date and version in it, the same figure is the same file.
            metadata = {"Software": None} if path.suffix == ".png" else {"Date": None, "Creator": None}
            figure.savefig(temporary, dpi=DPI, facecolor="white", metadata=metadata)
    return paths


def inline(figure: Figure, name: str, description: str) -> str:
    """The figure as an SVG element for a page: without background, in the page's ink, its ids its own."""
    text = io.StringIO()
    with matplotlib.rc_context(STYLE | {"svg.hashsalt": name}):
        figure.savefig(text, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    element = text.getvalue()
    element = element[element.index("<svg") :].replace(INK, "currentColor")
    # Pages hold many figures; an id that two of them share would be the first one's.
    element = re.sub(r'\bid="', f'id="{name}-', element)
    element = re.sub(r'(href="#|url\(#)', rf"\1{name}-", element)
    element = re.sub(r"<metadata>.*?</metadata>", "", element, flags=re.DOTALL)
    head = f'<svg role="img" aria-label="{description}" class="figure"'
    return element.replace("<svg", head, 1)
