"""Annotation as licensees have it: several sheets, slips, notes below the table, columns renamed. Over all builders."""

import shutil

import pytest

from stag_datasets import corpus, summary, versions
from stag_datasets.casme2 import casme2_dataset_builder as casme2
from stag_datasets.casme3 import casme3_dataset_builder as casme3
from stag_datasets.samm import samm_dataset_builder as samm
from tests import archives

SHEETS = [name for name, kind in archives.ARCHIVES.items() if kind.sheet]
MARKED = [name for name in SHEETS if name != "smic/hs long"]


@pytest.fixture(params=SHEETS)
def name(request):
    return request.param


def sheets(name, root):
    return sorted(root.glob(archives.ARCHIVES[name].sheet))


def clips(found):
    return [entry.said._replace(where="") for entry in found.entries]


def test_a_shorter_sheet_beside_is_passed_over_and_named(name, tmp_path):
    clean = archives.scan(name, tmp_path / "a")
    for path in sheets(name, tmp_path / "a"):
        shutil.copy(path, tmp_path / "a" / f"keep_{path.name}")

    def one(rows, header, columns):
        del rows[header + 2 :]

    if name == "dfme":  # the parts have one row each

        def one(rows, header, columns):
            rows[header + 1][columns["emotion"]] = None

    archives.edit(tmp_path / "a", name, one)  # the first by its name
    found = archives.scan(name, tmp_path / "a")
    assert clips(found) == clips(clean) and found.problems == []
    assert sum("sheet passed over: " in line for line in found.remarks) == len(sheets(name, tmp_path / "a"))
    assert all("keep_" in key or "keep_" in value for key, value in found.about.items() if key.startswith("sheet"))


def test_the_same_sheet_twice_is_read_once(name, tmp_path):
    clean = archives.scan(name, tmp_path / "a")
    (tmp_path / "a" / "copy").mkdir()
    for path in sheets(name, tmp_path / "a"):
        shutil.copy(path, tmp_path / "a" / "copy")
    found = archives.scan(name, tmp_path / "a")
    assert clips(found) == clips(clean) and found.problems == []
    assert sum("sheet passed over: " in line for line in found.remarks) == len(sheets(name, tmp_path / "a"))


def test_a_sheet_of_another_corpus_is_never_taken(name, tmp_path):
    clean = archives.scan(name, tmp_path / "a")
    counts = versions.KNOWN["mmew"]["MMEW"]
    emotions = [emotion for emotion, count in counts.items() for _ in range(count)]
    columns = ("Subject", "sub_ID", "Filename", "fold_name", "OnsetFrame", "ApexFrame", "OffsetFrame", "AU", "Emotion")
    rows = [
        (n % 30 + 1, n % 30 + 1, f"s{n % 30 + 1}_ne_{n}", f"x{n}", 1, 2, 3, "4", emotion)
        for n, emotion in enumerate(emotions)
    ]
    more = (("Fps", 200), ("positive", 1), ("negative", 0))
    archives.write_xlsx(
        tmp_path / "a" / "other.xlsx",
        [(*columns, *(title for title, _ in more)), *((*row, *(value for _, value in more)) for row in rows)],
    )
    found = archives.scan(name, tmp_path / "a")
    if name in ("dfme", "mmew", "fourd_me"):  # emotions of its own, or none at all
        return
    assert clips(found) == clips(clean)
    assert any("other.xlsx, sheet Sheet1 is that of mmew" in line for line in found.remarks) or name == "smic/hs long"


def test_text_below_a_table_is_no_clip(name, tmp_path):
    clean = archives.scan(name, tmp_path / "a")

    def notes(rows, header, columns):
        width = len(rows[header])
        rows.append([None] * width)
        rows.append(["Note: frames are counted from 1", *[None] * (width - 1)])
        rows.append([*[None] * (width - 1), "coded by two"])

    archives.edit(tmp_path / "a", name, notes)
    found = archives.scan(name, tmp_path / "a")
    assert clips(found) == clips(clean) and found.problems == []
    assert any("is taken for text and not for a clip: 'Note: frames" in line for line in found.remarks)


def test_a_missing_column_is_named_as_the_corpus_has_it(name, tmp_path):
    archives.ARCHIVES[name].write(tmp_path)
    titles = []

    def renamed(rows, header, columns):
        titles.append(rows[header][columns["offset"]])
        rows[header][columns["offset"]] = "finish"

    archives.edit(tmp_path, name, renamed)
    with pytest.raises(corpus.CorpusError) as caught:
        archives.scan(name, tmp_path)
    assert f"has no column {titles[0]}" in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("cell", ["12x", "4.5", "-3"])
def test_a_slip_in_a_row_is_a_problem_and_not_text(name, tmp_path, cell):
    clean = archives.scan(name, tmp_path / "a")

    def slip(rows, header, columns):
        rows[header + 1][columns["onset"]] = cell

    archives.edit(tmp_path / "a", name, slip)
    found = archives.scan(name, tmp_path / "a")
    assert any(f"row {header_row(found)}" in line and "onset: " in line for line in found.problems), found.problems
    assert len(found.entries) < len(clean.entries)


def header_row(found):
    """Row of the first clip: below the preamble of SAMM."""
    return 15 if found.dataset == "samm" else 2


@pytest.mark.parametrize("name", SHEETS)
def test_what_lasts_too_long_for_a_micro_expression(name, tmp_path):
    archives.ARCHIVES[name].write(tmp_path)
    fps = archives.scan(name, tmp_path).entries[0].said.fps

    def stretched(seconds):
        def change(rows, header, columns):
            row = rows[header + 1]
            row[columns["offset"]] = int(row[columns["onset"]]) + int(seconds * fps)

        return change

    archives.edit(tmp_path, name, stretched(2))
    found = archives.scan(name, tmp_path)
    assert any("lasts 2.0 s, long for a micro-expression" in line for line in found.remarks)
    archives.edit(tmp_path, name, stretched(115))
    found = archives.scan(name, tmp_path)
    (line,) = [line for line in found.problems if "too long for a micro-expression" in line][:1]
    assert "are 115.0 s" in line and "--longest_s=116 takes it" in line
    longer = archives.scan(name, tmp_path, longest_s=116.0)
    clip = line.partition(": ")[0]
    assert not [each for each in longer.problems if "too long" in each and each.startswith(f"{clip}: ")]


CASME3_ERRATA = {
    ("149", "d", 112, 83, 130): (112, 123, 130),
    ("214", "c", 5, 9, 3460): (5, 9, 34),
    ("216", "d", 3647, 2660, 2694): (2647, 2660, 2694),
    ("216", "e", 0, 0, 21): (1, 1, 21),
    ("40", "e", 1812, 1820, 0): (1812, 1820, 1845),
    ("40", "e", 2327, 2350, 0): (2327, 2350, 2403),
}


def casme3_archive(root, rows):
    table = [(f"spNO.{subject}", film, *map(str, marks), "4", "VII", "others") for subject, film, *marks in rows]
    archives.write_xlsx(root / "label.xlsx", [archives.CASME3_HEADER, *table], sheet="label")
    for (subject, film, *_), right in zip(rows, CASME3_ERRATA.values(), strict=True):
        archives.write_frames(
            root / "part_A" / f"spNO.{subject}" / film / "color", range(right[0], right[2] + 1), "{}.jpg"
        )
    return root


def test_the_errata_of_casme3_are_applied(tmp_path):
    root = casme3_archive(tmp_path, CASME3_ERRATA)
    found = corpus.scan("casme3/part_a", manual_dir=root)
    assert found.problems == [] and len(found.repairs) == 7  # one clip has two
    for entry, (onset, apex, offset) in zip(found.entries, CASME3_ERRATA.values(), strict=True):
        assert (entry.numbers[0], entry.numbers[entry.apex], entry.numbers[-1]) == (onset, apex, offset)
    as_written = corpus.scan("casme3/part_a_as_annotated", manual_dir=root)
    assert as_written.repairs == [] and len(as_written.entries) < 6
    assert {entry.said.clip for entry in found.entries} == {"d_112", "c_5", "d_3647", "e_0", "e_1812", "e_2327"}


def test_an_erratum_is_applied_only_where_the_row_is_as_said(tmp_path):
    rows = [(subject, film, onset, apex, offset + 1) for subject, film, onset, apex, offset in CASME3_ERRATA]
    root = casme3_archive(tmp_path, rows)
    found = corpus.scan("casme3/part_a", manual_dir=root)
    # Those that are told by onset and apex alone.
    assert {line.partition(": ")[0] for line in found.repairs} == {"casme3/spNO.149/d_112", "casme3/spNO.216/e_0"}


ERRATA = {"casme2": casme2.ERRATA, "samm": samm.ERRATA, "casme3": casme3.ERRATA}


@pytest.mark.parametrize("dataset", ERRATA)
def test_an_erratum_is_not_applied_without_its_frames(tmp_path, dataset):
    """The marks as written are those of the frames."""
    for (subject, clip), erratum in ERRATA[dataset].items():
        if not {"onset", "offset"} & set(erratum.right) or erratum.given:
            continue
        right = erratum.right["offset"]
        row = (right - 9, right - 7, right - 3)
        root = tmp_path / clip
        if dataset == "casme2":
            archives.write_casme2(root, [(subject[3:], clip, None, *row, None, "4", "surprise", 2)])
        else:
            archives.write_samm(root, [(subject, clip, 1, *row, 7, "Micro", "4", "Anger", 3, None)])
        found = corpus.scan(dataset, manual_dir=root)
        assert found.problems == [] and found.repairs == [] and len(found.entries[0].numbers) == 7
        assert any("known erratum offset" in line and "not applied" in line for line in found.remarks)
        shutil.rmtree(root / ("CASME2_RAW_selected" if dataset == "casme2" else "SAMM"))
        assert corpus.scan(dataset, manual_dir=root).repairs == []


def test_the_label_sheet_of_casme3_comes_before_its_exceptions(tmp_path):
    """As the owners' repository has them: all expressions, those of micro-expressions, a list of exceptions."""
    counts = versions.KNOWN["casme3"]["part A v2"]
    emotions = [emotion for emotion, count in counts.items() for _ in range(count)]
    rows = [
        (f"spNO.{n % 94 + 1}", "abcdefgh"[n % 8], 10 * n, 10 * n + 2, 10 * n + 8, "4", "VII", e)
        for n, e in enumerate(emotions)
    ]
    macro = [(*row[:2], row[2] + 5, row[3] + 5, row[4] + 50, *row[5:]) for row in rows]
    header = archives.CASME3_HEADER
    archives.write_xlsx(tmp_path / "label.xlsx", [header, *rows], sheet="label")
    archives.write_xlsx(tmp_path / "exception.xlsx", [header, *rows[:16]])
    everything = [(*row, "Micro") for row in rows] + [(*row, "Macro") for row in macro]
    archives.write_xlsx(tmp_path / "all.xlsx", [(*header, "Type"), *everything], sheet="AU+Emotion")
    found = corpus.scan("casme3/part_a", manual_dir=tmp_path)
    assert len(found.missing) == 860 and found.about["version"] == "part A v2"
    assert found.about["sheet"].endswith("label.xlsx, sheet label")
    assert "sheet passed over: exception.xlsx, sheet Sheet1 (16 clips)" in found.remarks
    assert "sheet passed over: all.xlsx, sheet AU+Emotion (860 clips the same, version part A v2)" in found.remarks
    assert len(found.problems) == 1 and "no frames of any of the 860 clips of casme3" in found.problems[0]


@pytest.mark.parametrize("name", ["samm", "mmew", "dfme", "fourd_me"])
def test_a_clip_named_after_another_subject_is_remarked_upon(name, tmp_path):
    archives.ARCHIVES[name].write(tmp_path)
    if name == "dfme":
        more = [("sub0003", f"sub0003_{n:02d}", 1, 2, 3, "anger", 0, 500, "4") for n in range(2, 5)]
        rows = [*archives.DFME_ROWS["train"], *more]
        archives.write_xlsx(tmp_path / "DFME_train_label.xlsx", [archives.DFME_HEADER, *rows])
    if name == "mmew":
        header = ("Subject", "Filename", "OnsetFrame", "ApexFrame", "OffsetFrame", "Action Units", "Estimated Emotion")
        rows = [("1", f"S01-01-{n:03d}", 1, 2, 3, "4", "others") for n in range(4)]
        archives.write_csv(tmp_path / "MMEW_Micro_Exp.csv", [header, *rows], encoding="gb18030")
    if name == "fourd_me":
        rows = [(n, "S01", f"001_01_{n}", "Negative", 1, 2, 3, "AU4", 0, 0, 1, 0, 0, 0, 0, 0, 0) for n in range(4)]
        archives.write_xlsx(tmp_path / "4DME_Labelling_Micro_release v1.xlsx", [archives.FOURD_HEADER, *rows])
    assert not any("named after" in line for line in archives.scan(name, tmp_path).remarks)

    def other(rows, header, columns):
        rows[header + 1][columns["subject"]] = "S09" if name == "fourd_me" else "099"

    archives.edit(tmp_path, name, other)
    assert any("is named after another subject than" in line for line in archives.scan(name, tmp_path).remarks)


def test_a_slip_does_not_make_another_sheet_of_it(tmp_path):
    """With an unreadable row the sheet of 2019 is that of 2019, and not passed over for that of 2014."""
    for year, slip in (("20140508", None), ("20190701", "1o7")):
        emotions = [emotion for emotion, count in versions.KNOWN["casme2"][year].items() for _ in range(count)]
        rows = [("01", f"EP{n}", None, 5, 6, 7, None, "4", emotion, 7) for n, emotion in enumerate(emotions)]
        rows[9] = (*rows[9][:3], slip or 5, *rows[9][4:])
        archives.write_xlsx(tmp_path / f"{year}.xlsx", [archives.CASME2_HEADER, *rows])
    found = corpus.scan("casme2", manual_dir=tmp_path)
    assert found.about["version"] == "20190701" and len(found.missing) == 254
    assert "onset: '1o7' is no whole number" in found.problems[0]


def test_one_cause_is_one_line():
    lines = [
        f"casme2/sub0{n}/EP{n}: no folder sub0{n}/EP{n} with pictures below /a/b (x.xlsx row {n})" for n in range(9)
    ]
    lines += ["casme2/sub01/EP77: img5.jpg is empty", "a.xlsx cannot be read as a table: it is empty"]
    short = summary.grouped(lines)
    assert len(short) == 3 and short[0].startswith(lines[0]) and short[1:] == lines[9:]
    assert "; the same 9 times, also casme2/sub01/EP1, casme2/sub02/EP2" in short[0]
    assert summary.grouped(lines[:3]) == lines[:3]
