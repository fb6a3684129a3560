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
COLUMNS = {**annotation.COLUMNS, **{name: (name,) for name in CLASSES}}


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
        return scan(root, self.builder_config)


def scan(root: Path, variant: Variant) -> Archive:
    """Scan the archive below `root` as `variant` says."""
    contents = tree.walk(root)
    # The sheet named "extra" has the same rows and is not needed.
    sheet = annotation.sheet(
        contents, NEEDED, columns=COLUMNS, best=lambda sheet: "extra" not in sheet.path.name.casefold()
    )
    clips, problems = annotation.describe(sheet, _said)
    clips = [_fit(clip, contents) for clip in clips]
    about = {"sheet": str(sheet.path)}
    return archive.gather_folders(NAME, clips, contents, cropped=variant.cropped, problems=problems, about=about)


def _fit(said: Said, found: tree.Tree) -> Said:
    """Remove the marks of a clip whose folder holds only this clip with new frame numbers: all frames belong to it."""
    folders = found.find(*said.folder)
    if not folders or said.onset is None or said.offset is None:
        return said
    frames = tree.numbered(found.images[folders[0]])
    if any(said.onset <= number <= said.offset for number in frames) or len(frames) == said.offset - said.onset + 1:
        return said
    return said._replace(onset=None, apex=None, offset=None)


def _said(row: Row, where: str) -> Said | None:
    if row.cells["subject"].casefold() in ("total", "sum"):
        return None
    subject, clip = annotation.required(row, "subject", "clip")
    emotions = [name for name in CLASSES if row.cells.get(name) not in (None, "", "0")]
    emotion = "+".join(emotions) or row.cells.get("emotion", "").casefold()
    if not emotion:
        raise ValueError(f"{clip}: no emotion given")
    return Said(
        subject=subject,
        clip=clip,
        emotion=emotion,
        fps=FPS,
        where=where,
        folder=(subject, clip),
        action_units=row.cells.get("units"),
        **annotation.marks(row),
    )
