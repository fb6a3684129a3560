"""MMEW: 90 frames a second, 30 subjects, 300 micro-expressions."""

from pathlib import Path
from typing import ClassVar

from stag_datasets import annotation, archive, building, tree, versions
from stag_datasets.archive import Archive, Said
from stag_datasets.building import Variant
from stag_datasets.sheets import Row

NAME, FPS = "mmew", 90.0
NEEDED = ("subject", "clip", "onset", "apex", "offset", "emotion")
COLUMNS = annotation.titled()
RELEASES = ("MMEW_Final",)
VERSIONS = versions.KNOWN[NAME]


class Builder(building.ArchiveBuilder):
    """Clips from onset to offset, with action units and emotions."""

    BUILDER_CONFIGS: ClassVar[list[Variant]] = [building.DEFAULT]
    MANUAL_DOWNLOAD_INSTRUCTIONS = (
        "Ask for MMEW as https://github.com/benxianyeteam/MMEW-Dataset says. Put its sheet of micro-expressions and "
        "the unpacked folder (MMEW_Final/Micro_Expression/<emotion>/S13-07-001/1.jpg) into one folder and give it as "
        "manual_dir."
    )

    def scan(self, root: Path) -> Archive:
        """Scan the archive below `root`. Raises CorpusError if no sheet can be read."""
        return scan(root, self.variant)


def scan(root: Path, variant: Variant) -> Archive:
    """Scan the archive below `root` as `variant` says."""
    contents = tree.walk(root)
    reading, remarks = annotation.read(contents, NEEDED, _said, dataset=NAME, columns=COLUMNS, known=VERSIONS)
    return archive.gather_folders(
        NAME, reading.clips, contents, variant, official=RELEASES, levels=1,
        **annotation.findings(reading, remarks, VERSIONS),
    )  # fmt: skip


def _said(row: Row, where: str) -> Said:
    clip = annotation.clip(row, where, fps=FPS, subject="S{:02d}")
    return clip._replace(folder=(clip.clip,))  # below a folder of emotions, not of subjects
