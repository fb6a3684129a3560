"""4DME: micro-expressions in 4D, grey, colour and depth; the grey videos (60 frames a second), 267 clips."""

from pathlib import Path
from typing import ClassVar

from stag_datasets import annotation, archive, building, tree
from stag_datasets.archive import Archive, Said
from stag_datasets.building import Variant
from stag_datasets.sheets import Row

NAME, FPS = "fourd_me", 60.0
NEEDED = ("subject", "clip", "onset", "offset", "units", "positive", "negative")
CLASSES = ("positive", "negative", "surprise", "repression", "others")
RELEASES = ("gray_micro", "gray_micro_crop")
COLUMNS = {
    **annotation.titled(subject="sub_ID", clip="fold_name", onset="Onset", offset="Offset", units="AUs"),
    **{name: (name,) for name in CLASSES},
}


class Builder(building.ArchiveBuilder):
    """Clips from onset to offset, with action units; a clip may carry several emotions, joined by `+`."""

    BUILDER_CONFIGS: ClassVar[list[Variant]] = [building.DEFAULT, building.CROPPED]
    MANUAL_DOWNLOAD_INSTRUCTIONS = (
        "Ask for 4DME at the University of Oulu, CMVS (doi 10.1109/TAFFC.2022.3182342). Put "
        "4DME_Labelling_Micro_release v1.xlsx and the unpacked grey videos (gray_micro/<subject>/<clip>/, or "
        "gray_micro_crop) into one folder and give it as manual_dir."
    )

    def scan(self, root: Path) -> Archive:
        """Scan the archive below `root`. Raises CorpusError if no sheet can be read."""
        return scan(root, self.variant)


def scan(root: Path, variant: Variant) -> Archive:
    """Scan the archive below `root` as `variant` says."""
    contents = tree.walk(root)
    # The sheet named "extra" has the same rows and is not needed.
    reading, remarks = annotation.read(
        contents, NEEDED, _said, dataset=NAME, columns=COLUMNS,
        prefer=lambda sheet: "extra" not in sheet.path.name.casefold(),
    )  # fmt: skip
    # A folder that holds only its clip may count its frames otherwise than the sheet.
    return archive.gather_folders(
        NAME, reading.clips, contents, variant, official=RELEASES, all_frames=True,
        **annotation.findings(reading, remarks),
    )  # fmt: skip


def _said(row: Row, where: str) -> Said | None:
    if row.cells["subject"].casefold() in ("total", "sum"):
        return None
    subject, clip = annotation.required(row, "subject", "clip")
    clip = annotation.without_suffix(clip)
    emotions = [name for name in CLASSES if row.cells.get(name) not in (None, "", "0")]
    emotion = "+".join(emotions) or annotation.emotion(row).casefold()
    return Said(
        subject=subject,
        clip=clip,
        emotion=emotion,
        fps=FPS,
        where=where,
        folder=(annotation.number(subject), clip),
        marked=True,
        action_units=row.cells.get("units"),
        **annotation.marks(row),
    )
