"""SAMM: 200 frames a second, grey, 29 subjects with 159 micro-expressions."""

from pathlib import Path
from typing import ClassVar

from stag_datasets import annotation, archive, building, tree
from stag_datasets.archive import Archive, Said
from stag_datasets.building import Variant
from stag_datasets.sheets import Row, Sheet

NAME, FPS = "samm", 200.0
NEEDED = ("subject", "clip", "onset", "apex", "offset", "emotion")
# In addition to the shared titles: the column that distinguishes micro- from macro-movements.
COLUMNS = {**annotation.COLUMNS, "kind": ("Micro", "Type", "Micro/Macro")}
VERSIONS = {
    "v2": {
        "anger": 57, "happiness": 26, "other": 26, "surprise": 15,
        "contempt": 12, "disgust": 9, "fear": 8, "sadness": 6,
    },
}  # fmt: skip
# Marks of sheet v2 outside of their clip, with the values that the public benchmark MEB uses instead.
ERRATA: annotation.Errata = {
    ("028", "028_4_1"): {"apex": (1143, 1105)},
    ("032", "032_3_1"): {"apex": (1930, 4945)},
    ("032", "032_3_2"): {"apex": (5127, 5130)},
    ("013", "013_1_9"): {"offset": (None, 5739)},
}


class Builder(building.ArchiveBuilder):
    """Clips from onset to offset, with action units, emotions and objective classes."""

    BUILDER_CONFIGS: ClassVar[list[Variant]] = [building.DEFAULT, building.AS_ANNOTATED, building.CROPPED]
    MANUAL_DOWNLOAD_INSTRUCTIONS = (
        "Ask for SAMM at http://www2.docm.mmu.ac.uk/STAFF/M.Yap/dataset.php. Put SAMM_Micro_FACS_Codes_v2.xlsx and the "
        "unpacked frames (SAMM/006/006_1_2/006_05562.jpg, or SAMM_CROP) into one folder and give it as manual_dir."
    )

    def scan(self, root: Path) -> Archive:
        """Scan the archive below `root`. Raises CorpusError if no sheet can be read."""
        return scan(root, self.builder_config)


def scan(root: Path, variant: Variant) -> Archive:
    """Scan the archive below `root` as `variant` says."""
    contents = tree.walk(root)
    sheet = annotation.sheet(contents, NEEDED, columns=COLUMNS, best=_rank)
    clips, problems = annotation.describe(sheet, _said)
    if variant.errata:
        clips = [annotation.amend(clip, ERRATA) for clip in clips]
    about = {"sheet": str(sheet.path), "version": annotation.version(clips, VERSIONS)}
    return archive.gather_folders(NAME, clips, contents, cropped=variant.cropped, problems=problems, about=about)


def _rank(sheet: Sheet) -> bool:
    return annotation.version(annotation.describe(sheet, _said)[0], VERSIONS) in VERSIONS


def _said(row: Row, where: str) -> Said | None:
    if "macro" in row.cells.get("kind", "").casefold():
        return None
    return annotation.clip(row, where, fps=FPS, subject="{:03d}")
