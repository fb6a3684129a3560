"""CASME (the first): 60 frames a second, 189 clips."""

from pathlib import Path
from typing import ClassVar

from stag_datasets import annotation, archive, building, tree
from stag_datasets.archive import Archive, Said
from stag_datasets.building import Variant
from stag_datasets.sheets import Row

NAME, FPS = "casme", 60.0
NEEDED = ("subject", "clip", "onset", "apex", "offset", "emotion")
COLUMNS = annotation.titled(onset="OnsetF", apex="ApexF1", offset="OffsetF", units="AU", emotion="Emotion")
RELEASES = ("CASME_raw_selected",)


class Builder(building.ArchiveBuilder):
    """Clips from onset to offset, with action units and emotions."""

    BUILDER_CONFIGS: ClassVar[list[Variant]] = [building.DEFAULT, building.CROPPED]
    MANUAL_DOWNLOAD_INSTRUCTIONS = (
        "Ask for CASME at http://casme.psych.ac.cn/casme/e1. Put casme.xlsx and the unpacked frames "
        "(CASME_raw_selected/sub01/EP01_01/EP01_01-1.jpg, or the crops) into one folder and give it as manual_dir."
    )

    def scan(self, root: Path) -> Archive:
        """Scan the archive below `root`. Raises CorpusError if no sheet can be read."""
        return scan(root, self.variant)


def scan(root: Path, variant: Variant) -> Archive:
    """Scan the archive below `root` as `variant` says."""
    contents = tree.walk(root)
    reading, remarks = annotation.read(contents, NEEDED, _said, dataset=NAME, columns=COLUMNS)
    return archive.gather_folders(
        NAME, reading.clips, contents, variant, official=RELEASES, **annotation.findings(reading, remarks)
    )


def _said(row: Row, where: str) -> Said:
    return annotation.clip(row, where, fps=FPS, subject="sub{:02d}")
