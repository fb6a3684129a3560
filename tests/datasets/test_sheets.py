"""Tables as they come: formats, titles, odd cells, and whatever a fuzzer makes."""

import csv
import os

import openpyxl
import pytest
import xlwt
from hypothesis import given, settings
from hypothesis import strategies as st

from stag_datasets import annotation, sheets, tree
from stag_datasets.archive import Said
from stag_datasets.errors import CorpusError
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
        ("unicode.txt", write_text("\t", "utf-16")),
        ("named_wrongly.xls", archives.write_xlsx),
        ("named_wrongly.csv", archives.write_xlsx),
        ("text.xls", write_text("\t", "utf-8")),
    ],
)
@pytest.mark.parametrize("above", [[], [["微表情 Subject codes"], [None, "x"], []]])
def test_every_format_gives_the_same_cells(tmp_path, name, write, above):
    write(tmp_path / name, [*above, *ROWS])
    (found,) = sheets.find([tmp_path / name], annotation.COLUMNS, NEEDED).sheets
    first = len(above) + 2
    assert [row.number for row in found.rows] == [first, first + 1]
    assert found.rows[0].cells == {"subject": "01", "clip": "c1", "onset": "46", "emotion": "fear"}
    assert found.rows[1].cells == {"subject": "2", "clip": "c2", "onset": "/", "emotion": ""}
    lacking = sheets.find([tmp_path / name], annotation.COLUMNS, (*NEEDED, "apex"))
    assert not lacking.sheets and lacking.lacking[0].endswith("has no column ApexFrame")


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
    found = sheets.find([path], annotation.COLUMNS, NEEDED)
    assert not any("\n" in line for line in found.unreadable)
    if with_header and found.sheets:
        for row in found.sheets[0].rows:
            assert {"subject", "clip", "onset", "emotion"} <= set(row.cells)


def test_locks_and_leftovers_are_no_tables(tmp_path):
    for name in ("~$a.xlsx", "._a.xlsx", ".hidden.csv"):
        (tmp_path / name).write_bytes(b"junk")
    archives.write_xlsx(tmp_path / "deep" / "a.xlsx", ROWS)
    found = tree.walk(tmp_path)
    assert [path.name for path in found.tables] == ["a.xlsx"]
    assert read(tmp_path)[0].sheet.path.name == "a.xlsx"


def make(row, where):
    return Said(row.cells["subject"], row.cells["clip"], row.cells["emotion"], 25.0, where, ())


def read(root, **options):
    return annotation.read(tree.walk(root), NEEDED, make, dataset="mine", **options)


def test_of_several_sheets_the_longest_is_taken_and_the_others_are_named(tmp_path):
    archives.write_xlsx(tmp_path / "b.xlsx", ROWS)
    write_xls(tmp_path / "c.xls", ROWS)
    taken, remarks = read(tmp_path)
    assert taken.sheet.path.name == "b.xlsx"  # the same table in two formats
    assert remarks == ["sheet passed over: c.xls, sheet label (2 clips the same)"]
    archives.write_xlsx(tmp_path / "a.xlsx", [*ROWS[:2], (3, "c3", None, 1, "joy")])
    with pytest.raises(CorpusError, match=r"3 sheets with 2 clips each that differ: .*a\.xlsx, .*leave one"):
        read(tmp_path)
    archives.write_xlsx(tmp_path / "a.xlsx", [*ROWS, (3, "c3", None, 1, "joy")])
    taken, remarks = read(tmp_path)
    assert taken.sheet.path.name == "a.xlsx" and len(remarks) == 2
    # A known version comes before any other, however long that is.
    taken, remarks = read(tmp_path, known={"v1": {"fear": 1, "": 1}})
    assert taken.version == "v1" and taken.sheet.path.name == "b.xlsx"
    assert "sheet passed over: a.xlsx, sheet Sheet1 (3 clips)" in remarks


def truncated(keep):
    def write(path):
        openpyxl.Workbook().save(path)
        path.write_bytes(path.read_bytes()[:keep])

    return write


def locked(path):
    """An encrypted workbook is an old Office file that holds a stream of this name."""
    path.write_bytes(sheets.OLE + bytes(1000) + "EncryptedPackage".encode("utf-16-le") + bytes(1000))


UNREADABLE = {
    "empty.xlsx": (truncated(0), "it is empty"),
    "cut.xlsx": (truncated(10), "cannot be read as a table"),
    "half.xlsx": (truncated(2000), "cannot be read as a table"),
    "page.xls": (lambda path: path.write_text("<html><table><tr><td>Subject</td></tr></table>"), "it is a web page"),
    "locked.xlsx": (locked, "it is locked by a password"),
    "binary.xlsb": (lambda path: path.write_bytes(bytes(50)), "it is no Excel file, or cut off"),
}
HARMLESS = {
    "Readme.txt": lambda path: path.write_bytes("Fa\u00e7ial \u201cexpressions\u201d of Z\u00fcrich".encode("cp1252")),
    "notes.txt": lambda path: path.write_text("Subject of the study: none", encoding="utf-16"),
    "odd.csv": lambda path: path.write_bytes(bytes(range(256))),
    "dangling.xlsx": lambda path: path.symlink_to(path.with_name("nowhere")),
    "dangling": lambda path: path.symlink_to(path.with_name("nowhere")),
}


@pytest.mark.parametrize("name", UNREADABLE)
def test_an_unreadable_sheet_is_one_line(tmp_path, name):
    write, message = UNREADABLE[name]
    write(tmp_path / name)
    found = sheets.find([tmp_path / name], annotation.COLUMNS, NEEDED)
    assert not found.sheets and len(found.unreadable) == 1
    assert name in found.unreadable[0] and message in found.unreadable[0] and "\n" not in found.unreadable[0]


@pytest.mark.parametrize("corpus_name", archives.ARCHIVES)
def test_unreadable_neighbours_stop_no_builder(tmp_path, corpus_name):
    found = archives.scan(corpus_name, tmp_path / "clean")
    root = tmp_path / "untidy"
    archives.ARCHIVES[corpus_name].write(root)
    for name, (write, _) in UNREADABLE.items():
        write(root / name)
    for name, write in HARMLESS.items():
        write(root / name)
    (root / ".DS_Store").write_bytes(b"x")
    untidy = archives.scan(corpus_name, root)
    assert [entry.names for entry in untidy.entries] == [entry.names for entry in found.entries]
    assert untidy.problems == found.problems
    if archives.ARCHIVES[corpus_name].sheet:
        for name in UNREADABLE:
            assert any(name in remark for remark in untidy.remarks), name


@pytest.mark.parametrize("corpus_name", [name for name, each in archives.ARCHIVES.items() if each.sheet])
def test_without_a_readable_sheet_the_unreadable_ones_are_named(tmp_path, corpus_name):
    each = archives.ARCHIVES[corpus_name]
    each.write(tmp_path)
    for path in tmp_path.glob(each.sheet):
        path.write_bytes(path.read_bytes()[:100] if path.suffix == ".xlsx" else b"")
    with pytest.raises(CorpusError, match=r"no sheet with the columns .* cannot be read as a table"):
        archives.scan(corpus_name, tmp_path)


def test_landmark_files_are_no_tables_and_are_not_taken_apart(tmp_path, monkeypatch):
    archives.write_xlsx(tmp_path / "a.xlsx", ROWS)
    for index in range(300):
        folder = tmp_path / f"clip{index}"
        folder.mkdir()
        (folder / "landmarks.txt").write_text("\n".join(f"{n} {n * 1.5}" for n in range(68)))
    many = tmp_path / "all"
    many.mkdir()
    for index in range(200):
        (many / f"{index}.txt").write_text("0 0")
    parsed = []
    reader = csv.reader
    monkeypatch.setattr(sheets.csv, "reader", lambda *args, **options: parsed.append(1) or reader(*args, **options))
    taken, remarks = read(tmp_path)
    assert taken.sheet.path.name == "a.xlsx" and not parsed
    assert remarks == [f"{many} holds 200 text files, which are taken for data and not for sheets"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_what_may_not_be_read_is_said(tmp_path):
    folder = tmp_path / "shut"
    folder.mkdir(mode=0)
    assert tree.walk(tmp_path).remarks == [f"{folder} cannot be read: Permission denied"]
