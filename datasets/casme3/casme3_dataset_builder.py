"""CAS(ME)³: 30 frames a second with depth; part A (94 subjects, 860 clips), part C (mock crime, 30 subjects, 165)."""

from pathlib import Path
from typing import ClassVar

from stag_datasets import annotation, archive, building, tree
from stag_datasets.archive import Archive, Said
from stag_datasets.building import Variant
from stag_datasets.sheets import Row, Sheet

NAME, FPS = "casme3", 30.0
NEEDED = ("subject", "clip", "onset", "offset", "units", "emotion")
COLUMNS = {**annotation.COLUMNS, "kind": ("Type", "Expression type", "micro-/macro-expression")}
VERSIONS = {
    "part A v2": {
        "disgust": 250, "surprise": 187, "others": 161, "fear": 86, "anger": 64, "sad": 57, "happy": 55,
    },
    "part C": {"negative": 99, "surprise": 30, "others": 20, "positive": 16},
}  # fmt: skip


class Builder(building.ArchiveBuilder):
    """Clips from onset to offset, colour; with action units, emotions and, in part A, objective classes."""

    BUILDER_CONFIGS: ClassVar[list[Variant]] = [
        Variant(name="part_a", description="Part A, watched films.", part="part_a"),
        Variant(name="part_c", description="Part C, mock crime.", part="part_c"),
    ]
    MANUAL_DOWNLOAD_INSTRUCTIONS = (
        "Ask for CAS(ME)3 at http://casme.psych.ac.cn/casme/e4. Put the sheet of the part (micro-expressions of "
        "part A, version 2, or mockCrimeME) and its unpacked frames (part_A/spNO.1/a/color/175.jpg) into one folder "
        "and give it as manual_dir."
    )

    def scan(self, root: Path) -> Archive:
        """Scan the archive below `root`. Raises CorpusError if no sheet can be read."""
        return scan(root, self.builder_config)


def scan(root: Path, variant: Variant) -> Archive:
    """Scan the archive below `root` as `variant` says."""
    contents = tree.walk(root)
    is_part_a = variant.part == "part_a"

    def rank(sheet: Sheet) -> tuple[bool, int]:
        # Only part A has an apex; sheets of micro-expressions alone are shorter than sheets of all expressions.
        return any("apex" in row.cells for row in sheet.rows) == is_part_a, -len(sheet.rows)

    sheet = annotation.sheet(contents, NEEDED, columns=COLUMNS, best=rank)
    clips, problems = annotation.describe(sheet, _said)
    versions = {name: counts for name, counts in VERSIONS.items() if name.startswith("part A") == is_part_a}
    about = {"sheet": str(sheet.path), "version": annotation.version(clips, versions)}
    return archive.gather_folders(NAME, clips, contents, problems=problems, about=about)


def _said(row: Row, where: str) -> Said | None:
    if "macro" in row.cells.get("kind", "").casefold():
        return None
    subject, film, emotion = annotation.required(row, "subject", "clip", "emotion")
    marks = annotation.marks(row)
    if marks["onset"] is None or marks["offset"] is None:
        raise ValueError(f"{subject} {film}: no onset or no offset given")
    return Said(
        subject=f"spNO.{annotation.number(subject)}",
        # One film holds several expressions, which differ only by their onset.
        clip=f"{film}_{marks['onset']}",
        emotion=emotion,
        fps=FPS,
        where=where,
        folder=(f"spNO.{annotation.number(subject)}", film, "color"),
        action_units=row.cells.get("units"),
        objective=annotation.roman(row.cells.get("objective", "")),
        **marks,
    )
