"""Read annotation tables as their owners wrote them: Excel or CSV, header found by its titles, every cell as text."""

import csv
import math
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import python_calamine as calamine

from stag_datasets.corpus import CorpusError

EXCEL, TEXT = (".xlsx", ".xls", ".xlsm", ".ods"), (".csv", ".tsv", ".txt")
ENCODINGS = ("utf-8-sig", "gb18030")  # sheets written by Excel in China often have the latter
SEPARATORS = (",", ";", "\t")
UNKNOWN = ("", "/", "?", "-", "nan", "none", "n/a")  # contents of a number cell whose value is not known


class Row(NamedTuple):
    """One line below the header."""

    number: int  # as spreadsheet programs count, from 1
    cells: dict[str, str]  # by our own column names, without columns that the sheet does not have


class Sheet(NamedTuple):
    """A recognised annotation table."""

    path: Path
    name: str  # of the sheet in its workbook; empty for text files
    rows: list[Row]

    def __str__(self) -> str:
        return f"{self.path.name}, sheet {self.name}" if self.name else self.path.name


def fold(title: str) -> str:
    """Return a title without what varies between versions of a sheet: case, spaces, punctuation, width of letters."""
    return "".join(c for c in unicodedata.normalize("NFKC", title).casefold() if c.isalnum())


def read(path: Path, columns: Mapping[str, Sequence[str]], needed: Iterable[str]) -> Sheet | None:
    """Return the first table of the file with a header row for all of `needed`; None if there is none.

    Args:
      columns: accepted titles, in any spelling, of each of our own column names, the likeliest first.
      needed: column names that the sheet must have.

    Raises:
      CorpusError: the file cannot be read.
    """
    wanted = {name: [fold(title) for title in titles] for name, titles in columns.items()}
    for name, table in _tables(path):
        for row_index, line in enumerate(table):
            titles = [fold(cell) for cell in line]
            # A title that occurs twice means its first column.
            column_indices = {
                column: next(titles.index(title) for title in accepted if title in titles)
                for column, accepted in wanted.items()
                if any(title in titles for title in accepted)
            }
            if set(needed) <= set(column_indices):
                return Sheet(path, name, list(_rows(table[row_index + 1 :], column_indices, first=row_index + 2)))
    return None


def find(paths: Iterable[Path], columns: Mapping[str, Sequence[str]], needed: Iterable[str]) -> list[Sheet]:
    """Return every such table among the files, one per file. Raises CorpusError for a file that cannot be read."""
    return [sheet for path in paths if (sheet := read(path, columns, needed))]


def integer(cell: str) -> int | None:
    """Return the whole number of a cell; None if its text is one of `UNKNOWN`. Raises ValueError for other text."""
    plain = unicodedata.normalize("NFKC", cell).strip().casefold()
    if plain in UNKNOWN:
        return None
    try:
        value = float(plain)
    except ValueError:
        value = math.nan
    if not value.is_integer():
        raise ValueError(f"{cell!r} is no whole number")
    return int(value)


def _rows(lines: Sequence[Sequence[str]], places: Mapping[str, int], first: int) -> Iterator[Row]:
    for number, line in enumerate(lines, start=first):
        cells = {name: line[index] if index < len(line) else "" for name, index in places.items()}
        if any(cells.values()):
            yield Row(number, cells)


def _tables(path: Path) -> Iterator[tuple[str, list[list[str]]]]:
    """Yield (name, rows of text) of each sheet of the file."""
    try:
        if path.suffix.lower() in EXCEL:
            with calamine.load_workbook(str(path)) as book:
                for name in book.sheet_names:
                    # Row numbers count from the top of the sheet, as spreadsheet programs show them.
                    rows = book.get_sheet_by_name(name).to_python(skip_empty_area=False)
                    yield name, [[_text(cell) for cell in row] for row in rows]
            return
        text = _decoded(path)
        for separator in SEPARATORS:
            yield "", [[cell.strip() for cell in row] for row in csv.reader(text.splitlines(), delimiter=separator)]
    except (calamine.CalamineError, OSError, csv.Error, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise CorpusError(f"{path} cannot be read as a table: {reason}") from error


def _decoded(path: Path) -> str:
    data = path.read_bytes()
    for encoding in ENCODINGS[:-1]:
        try:
            return data.decode(encoding)
        except UnicodeDecodeError:
            continue
    return data.decode(ENCODINGS[-1])


def _text(cell: object) -> str:
    """Return a cell as text, whole numbers without a decimal point."""
    if isinstance(cell, float) and cell.is_integer():
        return str(int(cell))
    return str(cell).strip()
