"""SAMM: 200 frames a second, grey, 29 subjects with 159 micro-expressions."""

from pathlib import Path
from typing import ClassVar

from stag_datasets import annotation, archive, building, tree, versions
from stag_datasets.annotation import Erratum
from stag_datasets.archive import Archive, Said
from stag_datasets.building import Variant
from stag_datasets.sheets import Row

NAME, FPS = "samm", 200.0
NEEDED = ("subject", "clip", "onset", "apex", "offset", "emotion")
# In addition to the shared titles: the column that distinguishes micro- from macro-movements.
COLUMNS = {
    **annotation.titled(onset="Onset Frame", apex="Apex Frame", offset="Offset Frame"),
    "kind": ("Micro", "Type", "Micro/Macro"),
}
VERSIONS = versions.KNOWN[NAME]
# Marks of sheet v2 outside of their clip, with the values that the public benchmark MEB uses instead.
ERRATA = {
    ("028", "028_4_1"): Erratum({"apex": 1143}, {"apex": 1105}),
    ("032", "032_3_1"): Erratum({"apex": 1930}, {"apex": 4945}),
    ("032", "032_3_2"): Erratum({"apex": 5127}, {"apex": 5130}),
    ("013", "013_1_9"): Erratum({}, {"offset": 5739}),
}
RELEASES = ("SAMM", "SAMM_CROP", "SAMM_Cropped")


class Builder(building.ArchiveBuilder):
    """Clips from onset to offset, with action units, emotions and objective classes."""

    BUILDER_CONFIGS: ClassVar[list[Variant]] = [building.DEFAULT, building.AS_ANNOTATED, building.CROPPED]
    MANUAL_DOWNLOAD_INSTRUCTIONS = (
        "Ask for SAMM at http://www2.docm.mmu.ac.uk/STAFF/M.Yap/dataset.php. Put SAMM_Micro_FACS_Codes_v2.xlsx and the "
        "unpacked frames (SAMM/006/006_1_2/006_05562.jpg, or SAMM_CROP) into one folder and give it as manual_dir."
    )

    def scan(self, root: Path) -> Archive:
        """Scan the archive below `root`. Raises CorpusError if no sheet can be read."""
        return scan(root, self.variant)


def scan(root: Path, variant: Variant) -> Archive:
    """Scan the archive below `root` as `variant` says."""
    contents = tree.walk(root)
    reading, remarks = annotation.read(contents, NEEDED, _said, dataset=NAME, columns=COLUMNS, known=VERSIONS)
    clips = annotation.amend(reading.clips, ERRATA if variant.errata else {})
    return archive.gather_folders(
        NAME, clips, contents, variant, official=RELEASES, **annotation.findings(reading, remarks, VERSIONS)
    )


def _said(row: Row, where: str) -> Said | None:
    if "macro" in row.cells.get("kind", "").casefold():
        return None
    return annotation.clip(row, where, fps=FPS, subject="{:03d}")
