"""CASME II: 200 frames a second, 26 subjects, 255 clips."""

from pathlib import Path
from typing import ClassVar

from stag_datasets import annotation, archive, building, tree
from stag_datasets.archive import Archive, Said
from stag_datasets.building import Variant
from stag_datasets.sheets import Row, Sheet

NAME, FPS = "casme2", 200.0
NEEDED = ("subject", "clip", "onset", "apex", "offset", "emotion")
VERSIONS = {
    "20190701": {
        "others": 99, "disgust": 63, "happiness": 32, "surprise": 28, "repression": 27, "sadness": 4, "fear": 2,
    },
    "20140508": {
        "others": 99, "disgust": 63, "happiness": 32, "repression": 27, "surprise": 25, "sadness": 7, "fear": 2,
    },
}  # fmt: skip
ERRATA: annotation.Errata = {("sub07", "EP06_01"): {"offset": (None, 91)}}


class Builder(building.ArchiveBuilder):
    """Clips from onset to offset, with action units, emotions and objective classes."""

    BUILDER_CONFIGS: ClassVar[list[Variant]] = [building.DEFAULT, building.AS_ANNOTATED, building.CROPPED]
    MANUAL_DOWNLOAD_INSTRUCTIONS = (
        "Ask for CASME II at http://casme.psych.ac.cn/casme/e2. Put the coding sheet (CASME2-coding-20190701.xlsx or "
        "another of its versions) and the unpacked folder of frames (CASME2_RAW_selected, CASME2-RAW or Cropped) into "
        "one folder and give it as manual_dir."
    )

    def scan(self, root: Path) -> Archive:
        """Raises CorpusError where no sheet can be read."""
        return scan(root, self.builder_config)


def scan(root: Path, variant: Variant) -> Archive:
    """What lies below `root`."""
    found = tree.walk(root)
    sheet = annotation.sheet(found, NEEDED, best=_rank)
    said, problems = annotation.describe(sheet, _said)
    if variant.errata:
        said = [annotation.amend(each, ERRATA) for each in said]
    # Some releases of the frames have the f at the end of a clip's name that others leave out.
    said = [each if found.find(*each.folder) else _other_name(each, found) for each in said]
    about = {"sheet": str(sheet.path), "version": annotation.version(said, VERSIONS)}
    return archive.gather_folders(NAME, said, found, cropped=variant.cropped, problems=problems, about=about)


def _rank(sheet: Sheet) -> tuple[bool, str]:
    """Known versions first, of those the newest."""
    version = annotation.version(annotation.describe(sheet, _said)[0], VERSIONS)
    return (version in VERSIONS, version if version in VERSIONS else "")


def _said(row: Row, where: str) -> Said:
    return annotation.clip(row, where, fps=FPS, subject="sub{:02d}")


def _other_name(said: Said, found: tree.Tree) -> Said:
    subject, clip = said.folder
    other = (subject, clip.removesuffix("f") if clip.endswith("f") else f"{clip}f")
    return said._replace(folder=other) if found.find(*other) else said
