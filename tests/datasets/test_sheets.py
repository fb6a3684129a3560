"""Tables as they come: formats, titles, odd cells, and whatever a fuzzer makes."""

import csv
import os

import openpyxl
import pytest
import xlwt
from hypothesis import given, settings
from hypothesis import strategies as st

from stag_datasets import annotation, sheets, tree
from stag_datasets.corpus import CorpusError
from tests import archives

NEEDED = ("subject", "clip", "onset")
ROWS = [
    ("Subject", "File name", None, "Onset-Frame", "EMOTION"),
    ("01", "c1", None, 46, "fear"),
    (2, "c2", "x", "/", ""),
]


def write_xls(path, rows):
    book = xlwt.Workbook()
    book.add_sheet("empty")
    sheet = book.add_sheet("label")
    for y, row in enumerate(rows):
        for x, cell in enumerate(row):
            sheet.write(y, x, cell)
    book.save(str(path))


def write_text(separator, encoding):
    def write(path, rows):
        with path.open("w", newline="", encoding=encoding) as file:
            csv.writer(file, delimiter=separator).writerows(rows)

    return write


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("a.xlsx", archives.write_xlsx),
        ("a.xls", write_xls),
        ("a.csv", write_text(",", "utf-8")),
        ("b.csv", write_text(";", "utf-8-sig")),
        ("a.tsv", write_text("\t", "gb18030")),
    ],
)
@pytest.mark.parametrize("above", [[], [["微表情 Subject codes"], [None, "x"], []]])
def test_every_format_gives_the_same_cells(tmp_path, name, write, above):
    write(tmp_path / name, [*above, *ROWS])
    found = sheets.read(tmp_path / name, annotation.COLUMNS, NEEDED)
    first = len(above) + 2
    assert [row.number for row in found.rows] == [first, first + 1]
    assert found.rows[0].cells == {"subject": "01", "clip": "c1", "onset": "46", "emotion": "fear"}
    assert found.rows[1].cells == {"subject": "2", "clip": "c2", "onset": "/", "emotion": ""}
    assert sheets.read(tmp_path / name, annotation.COLUMNS, (*NEEDED, "apex")) is None


@pytest.mark.parametrize(
    ("cell", "value"),
    [("46", 46), (" 46.0 ", 46), ("\uff14\uff16", 46), ("/", None), ("?", None), ("", None), ("NaN", None), ("-3", -3)],
)
def test_numbers_as_people_type_them(cell, value):
    assert sheets.integer(cell) == value


@pytest.mark.parametrize("cell", ["46.5", "x", "1e400", "inf", "46 47", "1_000x"])
def test_what_is_no_number(cell):
    with pytest.raises(ValueError, match="is no whole number"):
        sheets.integer(cell)


@settings(max_examples=300, deadline=None)
@given(st.text(max_size=12))
def test_any_cell_is_a_number_or_not(cell):
    try:
        value = sheets.integer(cell)
    except ValueError as error:
        assert "is no whole number" in str(error)
    else:
        assert value is None or isinstance(value, int)


CELLS = st.one_of(
    st.none(), st.text(max_size=6), st.integers(-(10**6), 10**6), st.floats(allow_nan=True), st.booleans()
)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(CELLS, max_size=5), max_size=6), st.booleans())
def test_any_table_is_read_or_refused(tmp_path_factory, rows, with_header):
    path = tmp_path_factory.mktemp("fuzz") / "a.csv"
    write_text(",", "utf-8")(path, [*([ROWS[0]] if with_header else []), *rows])
    try:
        found = sheets.read(path, annotation.COLUMNS, NEEDED)
    except CorpusError as error:
        assert "\n" not in str(error)
        return
    if with_header:
        for row in found.rows:
            assert set(row.cells) == {"subject", "clip", "onset", "emotion"}


def test_locks_and_leftovers_are_no_tables(tmp_path):
    for name in ("~$a.xlsx", "._a.xlsx", ".hidden.csv"):
        (tmp_path / name).write_bytes(b"junk")
    archives.write_xlsx(tmp_path / "deep" / "a.xlsx", ROWS)
    found = tree.walk(tmp_path)
    assert [path.name for path in found.tables] == ["a.xlsx"]
    assert annotation.sheet(found, NEEDED).path.name == "a.xlsx"


def test_of_several_sheets_one_must_be_best(tmp_path):
    archives.write_xlsx(tmp_path / "a.xlsx", ROWS)
    write_xls(tmp_path / "b.xls", ROWS)
    found = tree.walk(tmp_path)
    assert annotation.sheet(found, NEEDED).path.name == "a.xlsx"  # the same table in two formats
    archives.write_xlsx(tmp_path / "c.xlsx", [*ROWS, (3, "c3", None, 1, "joy")])
    with pytest.raises(
        CorpusError, match=r"several sheets with the columns Subject, Filename, OnsetFrame: .*leave one"
    ):
        annotation.sheet(tree.walk(tmp_path), NEEDED)
    assert annotation.sheet(tree.walk(tmp_path), NEEDED, best=lambda sheet: len(sheet.rows)).path.name == "c.xlsx"


def test_a_locked_workbook_is_one_line(tmp_path):
    book = openpyxl.Workbook()
    book.save(tmp_path / "a.xlsx")
    data = (tmp_path / "a.xlsx").read_bytes()
    for keep in (0, 10, len(data) // 2):
        (tmp_path / "a.xlsx").write_bytes(data[:keep])
        with pytest.raises(CorpusError, match=r"a\.xlsx cannot be read as a table"):
            sheets.read(tmp_path / "a.xlsx", annotation.COLUMNS, NEEDED)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_what_may_not_be_read_is_said(tmp_path):
    folder = tmp_path / "shut"
    folder.mkdir(mode=0)
    assert tree.walk(tmp_path).problems == [f"{folder} cannot be read: Permission denied"]
