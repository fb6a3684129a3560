"""Archives laid out as the corpora are, with tiny grey pictures in place of faces."""

import csv
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import openpyxl

PICTURES = {suffix: cv2.imencode(suffix, np.full((5, 7, 3), 128, np.uint8))[1].tobytes() for suffix in (".jpg", ".bmp")}


def write_frames(folder: Path, numbers: Iterable[int], name: str = "img{}.jpg") -> None:
    """Pictures with these numbers; `name` has a place for the number."""
    folder.mkdir(parents=True, exist_ok=True)
    data = PICTURES[Path(name).suffix]
    for number in numbers:
        (folder / name.format(number)).write_bytes(data)


def write_xlsx(path: Path, rows: Sequence[Sequence[Any]], sheet: str = "Sheet1", empty: Sequence[str] = ()) -> None:
    """A workbook with one sheet of rows and, behind it, empty ones."""
    path.parent.mkdir(parents=True, exist_ok=True)
    book = openpyxl.Workbook()
    book.active.title = sheet
    for row in rows:
        book.active.append(list(row))
    for name in empty:
        book.create_sheet(name)
    book.save(path)


def write_csv(path: Path, rows: Sequence[Sequence[Any]], encoding: str = "utf-8") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding=encoding) as file:
        csv.writer(file).writerows(rows)


CASME2_HEADER = (
    "Subject", "Filename", None, "OnsetFrame", "ApexFrame", "OffsetFrame", None,
    "Action Units", "Estimated Emotion", "Objective Classes",
)  # fmt: skip
# As the coding sheet writes them: subjects as text, one apex that nobody saw, one clip whose name has no f.
CASME2_ROWS = (
    ("01", "EP02_01f", None, 46, 59, 53 + 5, None, "12", "happiness", 1),
    ("01", "EP03_02", None, 90, 96, 101, None, "4+L7", "disgust", 4),
    ("02", "EP01_11f", None, 8, 12, 17, None, "?", "others", 7),
    ("04", "EP12_01f", None, 98, "/", 104, None, "R4 or 7", "disgust", 7),
    ("07", "EP06_01", None, 86, 89, 190, None, "1+2", "surprise", 2),
)


def write_casme2(root: Path, rows: Sequence[Sequence[Any]] = CASME2_ROWS) -> Path:
    """The coding sheet, and `CASME2_RAW_selected` with frames from onset to offset; numbers are not padded."""
    write_xlsx(root / "CASME2-coding-20190701.xlsx", [CASME2_HEADER, *rows], empty=("Sheet2", "Sheet3"))
    for subject, clip, _, onset, _, offset, *_ in rows:
        write_frames(root / "CASME2_RAW_selected" / f"sub{subject}" / clip, range(onset, min(offset, onset + 12) + 1))
    return root


SAMM_HEADER = (
    "Subject", "Filename", "Inducement Code", "Onset Frame", "Apex Frame", "Offset Frame", "Duration", "Micro",
    "Action Units", "Estimated Emotion", "Objective Classes", "Notes",
)  # fmt: skip
SAMM_PREAMBLE = [["SAMM Micro FACS codes"], [None, '"/" = or', "Subject of the session"], *[[None]] * 11]
SAMM_ROWS = (
    ("006", "006_1_2", 1, 562, 568, 571, 10, "Micro - 1/2", "4+7", "Anger", 3, None),
    ("009", "009_6_2", 6, 3577, 3580, 3590, 14, "Micro - 1/2", "A/L12 ", "Happiness", 1, None),
    ("028", "028_4_1", 4, 1101, 1143, 1134 - 20, 14, "Micro", "ref(7B)+43", "Other", 7, "x"),
)


def write_samm(root: Path, rows: Sequence[Sequence[Any]] = SAMM_ROWS, preamble: Sequence = SAMM_PREAMBLE) -> Path:
    """Thirteen lines before the header; how frames are padded differs from clip to clip."""
    write_xlsx(root / "SAMM_Micro_FACS_Codes_v2.xlsx", [*preamble, SAMM_HEADER, *rows], sheet="MICRO_ONLY")
    for index, (subject, clip, _, onset, _, offset, *_) in enumerate(rows):
        name = f"{subject}_{{:0{5 - index % 2}d}}.jpg"
        write_frames(root / "SAMM" / subject / clip, range(onset, offset + 1), name)
    return root


CASME_ROWS = (
    ("01", "EP01_1", 11, 14, 20, "4", "tense"),
    ("03", "EP04_2", 101, 105, 113, "12", "happiness"),
)


def write_casme(root: Path) -> Path:
    """CASME, the first: frames are named after their clip, some padded."""
    header = ("Subject", "Filename", "OnsetF", "ApexF1", "OffsetF", "AU", "Emotion")
    write_xlsx(root / "casme.xlsx", [header, *CASME_ROWS])
    for subject, clip, onset, _, offset, *_ in CASME_ROWS:
        folder = root / "CASME_raw_selected" / f"sub{subject}" / clip
        write_frames(folder, range(onset, offset + 1), f"{clip}-{{:03d}}.jpg")
    return root


SMIC_CLIPS = (("s1", "s1_ne_01", 559740), ("s1", "s1_po_05", 12), ("s20", "s20_sur_03", 99990), ("s3", "s3_ne_10", 7))
TAGS = {"ne": "negative", "po": "positive", "sur": "surprise"}


def write_smic(root: Path, parts: Sequence[str] = ("HS",)) -> Path:
    """The short clips as recorded and cropped, beside clips that are no micro-expressions."""
    for part in parts:
        for subject, clip, first in SMIC_CLIPS:
            emotion = TAGS[clip.split("_")[1]]
            for release, name in (("raw", "image{:06d}.bmp"), ("cropped", "reg_image{:06d}.bmp")):
                folder = root / f"SMIC_all_{release}" / part / subject / "micro" / emotion / clip
                write_frames(folder, range(first, first + 11), name)
            write_frames(
                root / "SMIC_all_raw" / part / subject / "non_micro" / f"{subject}_non_01", range(3), "image{}.bmp"
            )
    return root


CASME3_HEADER = ("Subject", "Filename", "Onset", "Apex", "Offset", "AU", " Objective class", "emotion")
# Every value is text; subject and film repeat.
CASME3_ROWS = (
    ("spNO.1", "a", "355", "359", "360", "5", "II", "others"),
    ("spNO.1", "a", "10", "10", "19", "4+R7", "IV", "disgust"),
    ("spNO.216", "d", "3647", "3650", "2694", "0", "VII", "Others"),
    ("spNO.40", "e", "12", "15", "0", "1", "I", "happy"),
    ("spNO.214", "J", "3", "4", "9", "14", "VII", "surprise"),
)


def write_casme3(root: Path) -> Path:
    """Part A: whole recordings, colour and depth."""
    write_xlsx(root / "cas(me)3_part_A_ME_label.xlsx", [CASME3_HEADER, *CASME3_ROWS], sheet="label", empty=("Sheet1",))
    for subject, film, *_ in CASME3_ROWS:
        for kind in ("color", "depth"):
            write_frames(root / "part_A" / subject / film / kind, range(1, 380), "{}.jpg")
    return root


CASME3_C_ROWS = (("1", "2", "11", "19", "4", "negative"), ("1", "2", "31", "39", "12", "positive"))


def write_casme3_c(root: Path) -> Path:
    """Part C: no apex."""
    write_csv(root / "mockCrimeME.csv", [("sub", "count", "onset", "offset", "au", "emotion"), *CASME3_C_ROWS])
    write_frames(root / "part_C" / "spNO.1" / "2" / "color", range(1, 50), "{}.jpg")
    return root


MMEW_ROWS = (
    ("1", "S01-01-001", 1, 15, 31, "6+12", "happiness", None),
    ("13", "S13-07-001", 1, 9, 13, "12L", "others", "x"),
)


def write_mmew(root: Path) -> Path:
    """Folders are of emotions, and what the sheet calls others lies in `repression`."""
    header = (
        "Subject",
        "Filename",
        "OnsetFrame",
        "ApexFrame",
        "OffsetFrame",
        "Action Units",
        "Estimated Emotion",
        "remarks",
    )
    write_csv(root / "MMEW_Micro_Exp.csv", [header, *MMEW_ROWS], encoding="gb18030")
    base = root / "MMEW_Final"
    for (_, clip, onset, _, offset, *_), emotion in zip(MMEW_ROWS, ("happiness", "repression"), strict=True):
        write_frames(base / "Micro_Expression" / emotion / clip, range(onset, offset + 1), "{}.jpg")
    write_frames(base / "Macro_Expression" / "S01" / "anger", range(3), "S01-07-{:03d}.jpg")
    return root


DFME_HEADER = ("Subject", "Filename", "OnsetFrame", "ApexFrame", "OffsetFrame", "Emotion", "EmotionId", "Fps", "AU")
DFME_ROWS = {
    "train": (("sub0003", "sub0003_01", 109, 112, 120, "anger", 0, 500, "23"),),
    "testA": (("sub0004", "sub0004_07", 0, 3, 9, "surprise", 6, 300, "R1+L1+R2+R5"),),
    "testB": (("sub0009", "sub0009_02", 4, 5, 13, "fear", 3, 200, "AD38+M57"),),
}


def write_dfme(root: Path, labelled: Sequence[str] = ("train", "testA", "testB")) -> Path:
    """The CCAC2024 release; the sheets of parts that are not `labelled` lack emotions and action units."""
    for part, rows in DFME_ROWS.items():
        keep = range(len(DFME_HEADER)) if part in labelled else (0, 1, 2, 3, 4, 7)
        table = [[line[index] for index in keep] for line in (DFME_HEADER, *rows)]
        write_xlsx(root / f"DFME_{part}_label.xlsx", table)
        for _, clip, onset, _, offset, *_ in rows:
            write_frames(root / f"DFME_{part}" / clip, range(onset, offset + 1), "{:05d}.jpg")
    return root


FOURD_HEADER = (
    "fold", "sub_ID", "fold_name", "Emotion", "Onset", "Apex", "Offset", "AUs", "eye blink",
    "Positive", "Negative", "Surprise", "Repression", "Others", "AU1", "AU2", "Total",
)  # fmt: skip
FOURD_ROWS = (
    (1, "S01", "001_01_1", "Surprise+Positive", 3, 6, 11, "AUR2+12(k)+45", 0, 1, 0, 1, 0, 0, 0, 1, 1),
    (2, "S02", "002_01_3", "Negative", 303, 306, 311, "AU4(k)+L7", 1, 0, 1, 0, 0, 0, 0, 0, 0),
    (None, "Total", None, None, None, None, None, None, None, 1, 1, 1, 0, 0, 0, 1, 1),
)  # fmt: skip


def write_fourd_me(root: Path) -> Path:
    """Grey videos; the second clip's frames are numbered anew, with one more at either end."""
    write_xlsx(root / "4DME_Labelling_Micro_release v1.xlsx", [FOURD_HEADER, *FOURD_ROWS])
    write_frames(root / "gray_micro" / "S01" / "001_01_1", range(3, 12), "{:04d}.jpg")
    write_frames(root / "gray_micro" / "S02" / "002_01_3", range(1, 12), "{:04d}.jpg")
    return root


SMIC_LONG_ROWS = (("1", "s1_ne_01", 110, 120, ""), ("20", "s20_sur_02", 130, 139, ""))


def write_smic_long(root: Path) -> Path:
    """SMIC-E: a sheet with the marks, recordings with more than the clip."""
    header = ("Subject", "Filename", "OnsetF", "OffsetF", "Emotion")
    write_xlsx(root / "SMIC-HS-E_annotation.xlsx", [header, *SMIC_LONG_ROWS])
    for subject, clip, *_ in SMIC_LONG_ROWS:
        write_frames(root / "SMIC-HS-E" / f"s{int(subject):02d}" / clip, range(100, 145), "image{}.bmp")
    return root


def write_casme3_sound(root: Path) -> Path:
    """Part A without the lines that are wrong."""
    rows = [row for row in CASME3_ROWS if int(row[2]) < int(row[4])]
    write_casme3(root)
    write_xlsx(root / "cas(me)3_part_A_ME_label.xlsx", [CASME3_HEADER, *rows], sheet="label", empty=("Sheet1",))
    return root


class Kind(NamedTuple):
    """One kind of archive: how it is written, and how its parts are named."""

    write: Callable[[Path], Path]
    clips: int
    sheet: str  # pattern of its sheets; empty if folder names are all it has
    release: str  # pattern of the folders that hold its frames
    subject: str = ""  # pattern of the folders of subjects below; empty if there are none
    marks: bool = True  # the sheet has onset and offset


ARCHIVES = {
    "casme": Kind(write_casme, 2, "casme.xlsx", "CASME_raw_selected", "*"),
    "casme2": Kind(write_casme2, 5, "CASME2*.xlsx", "CASME2_RAW_selected", "*"),
    "samm": Kind(write_samm, 3, "SAMM*.xlsx", "SAMM", "*"),
    "smic/hs": Kind(write_smic, 4, "", "SMIC_all_raw", "HS/*", marks=False),
    "smic/hs long": Kind(write_smic_long, 2, "SMIC*.xlsx", "SMIC-HS-E", "*"),
    "casme3/part_a": Kind(write_casme3_sound, 3, "cas*.xlsx", "part_A", "*"),
    "casme3/part_c": Kind(write_casme3_c, 2, "mock*.csv", "part_C", "*"),
    "mmew": Kind(write_mmew, 2, "MMEW*.csv", "MMEW_Final"),
    "dfme": Kind(write_dfme, 3, "DFME*.xlsx", "DFME_t*[nAB]"),
    "fourd_me": Kind(write_fourd_me, 2, "4DME*.xlsx", "gray_micro", "*"),
}


def dataset(name: str) -> str:
    """The name by which `corpus` knows an archive."""
    return name.partition(" ")[0]


def scan(name: str, root: Path, **options: Any) -> Any:
    """What is found in an archive of this kind, which is written unless it is there."""
    from stag_datasets import corpus

    if not root.exists():
        ARCHIVES[name].write(root)
    return corpus.scan_all(dataset(name), manual_dir=root, **options)[0]


def edit(root: Path, name: str, change: Callable[[list[list[Any]], int, dict[str, int]], None]) -> None:
    """Change the sheets of an archive: `change` gets all rows, the index of the header, and columns by their kind."""
    from stag_datasets import annotation, sheets

    for path in root.glob(ARCHIVES[name].sheet):
        if path.suffix == ".xlsx":
            book = openpyxl.load_workbook(path)
            title = book.active.title
            rows = [list(row) for row in book.active.iter_rows(values_only=True)]
        else:
            rows = [list(row) for row in csv.reader(path.read_text(encoding="gb18030").splitlines())]
        folded = [[sheets.fold(str(cell or "")) for cell in row] for row in rows]
        header = next(index for index, row in enumerate(folded) if {"onset", "onsetframe", "onsetf"} & set(row))
        columns = {
            column: folded[header].index(sheets.fold(accepted))
            for column, titles in annotation.COLUMNS.items()
            for accepted in titles
            if sheets.fold(accepted) in folded[header]
        }
        change(rows, header, columns)
        if path.suffix == ".xlsx":
            write_xlsx(path, rows, sheet=title)
        else:
            write_csv(path, rows, encoding="gb18030")
