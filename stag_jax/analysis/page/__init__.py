"""A report as one file: blocks of text, tables and figures, written as a page and as files for a paper."""

import base64
import functools
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from stag_jax.analysis import drawing, tables
from stag_jax.files import write_arrays, write_text

INDEX = "index.html"
ROWS = 400  # most rows of a table on the page; the file has all


class Note(NamedTuple):
    """A paragraph. Kinds: "text", "warning", "verdict" and "fold", which opens on a click."""

    text: str
    kind: str = "text"
    more: str = ""  # what a "fold" shows


class Table(NamedTuple):
    """A data frame; also written as `<name>.csv` and `<name>.tex`."""

    name: str
    frame: pd.DataFrame
    caption: str
    signed: tuple[str, ...] = ()  # columns of differences, shown with their sign


class Figure(NamedTuple):
    """A chart; also written as `<name>.png`, `<name>.svg` and, the arrays drawn, `<name>.npz`."""

    name: str
    chart: drawing.Chart
    caption: str


class Pictures(NamedTuple):
    """Small pictures side by side, each with lines of text below: (JPEG or PNG, lines); `data` goes to `<name>.npz`."""

    name: str
    items: Sequence[tuple[bytes, tuple[str, ...]]]
    caption: str
    data: Mapping[str, Any]


Block = Note | Table | Figure | Pictures


class Section(NamedTuple):
    """A part of the page; the list at the top links to it."""

    title: str
    blocks: list[Block]


class Page(NamedTuple):
    """A whole report."""

    title: str
    subtitle: str
    big: list[tuple[str, float, float, float]]  # name, value and interval of the headline
    banners: list[str]  # what the reader must know first
    sections: list[Section]


def write(page: Page, folder: Path) -> list[Path]:
    """Write `<folder>/index.html`, self-contained, and every table and figure beside it; return the paths.

    Figures and tables of an earlier report are removed first, so that no old file stands beside the new ones.
    """
    for name in ("figures", "tables"):
        shutil.rmtree(folder / name, ignore_errors=True)
    paths = [folder / INDEX]
    svg_by_name: dict[str, str] = {}
    for section in page.sections:
        for block in section.blocks:
            if isinstance(block, Table):
                paths += tables.write(block.frame.drop(columns="mark", errors="ignore"), folder / "tables" / block.name)
            elif isinstance(block, Figure):
                saved, text = drawing.save(block.chart, folder / "figures" / block.name)
                paths += saved
                svg_by_name[block.name] = drawing.inline(text, block.name, block.caption)
            elif isinstance(block, Pictures):
                paths.append(write_arrays(folder / "figures" / f"{block.name}.npz", block.data))
    template = _environment().get_template("report.html")
    write_text(paths[0], template.render(page=page, svg={name: Markup(text) for name, text in svg_by_name.items()}))
    return paths


@functools.cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("stag_jax.analysis", "page"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    kinds = {Note: "note", Table: "table", Figure: "figure", Pictures: "pictures"}
    environment.filters |= {
        "kind": lambda block: kinds[type(block)],
        "slug": slug,
        "image": image,
        "cell": cell,
        "number": is_number,
        "rows": lambda frame: frame.head(ROWS).itertuples(index=False, name=None),
    }
    return environment


def slug(text: str) -> str:
    """Return a title as the name of an anchor on the page."""
    return "-".join("".join(c if c.isalnum() else " " for c in text.lower()).split())


def image(data: bytes) -> str:
    """Return a picture as a data URL."""
    kind = "png" if data.startswith(b"\x89PNG") else "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


def is_number(value: object) -> bool:
    """Return whether a cell is shown as a number."""
    return isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool)


def cell(value: object, signed: bool = False) -> str:
    """Format a cell for display: three digits after the point, empty if the value is missing."""
    if value is None or (isinstance(value, float | np.floating) and np.isnan(value)):
        return ""
    if isinstance(value, float | np.floating):
        return f"{value:+.{tables.DIGITS}f}" if signed else f"{value:.{tables.DIGITS}f}"
    return str(value)
