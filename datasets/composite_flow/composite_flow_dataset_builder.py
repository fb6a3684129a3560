"""The MEGC2019 composite as onset-to-apex flow images, in the form the public STSTNet and HTNet code reads."""

from pathlib import Path
from typing import Any, ClassVar

import cv2
import numpy as np
import tensorflow_datasets as tfds

from stag_datasets import annotation, archive, building, corpus, tree
from stag_datasets.archive import Archive, Entry, Said
from stag_datasets.errors import CorpusError
from stag_datasets.sheets import Row

NAME = "composite_flow"
COLUMNS = {"dataset": ("dataset",), "subject": ("sub",), "clip": ("filename_o",), "label": ("label",)}
EMOTIONS = {"0": "negative", "1": "positive", "2": "surprise"}


class Builder(building.ArchiveBuilder):
    """442 clips of 68 subjects when complete; any subset of the label sheet's corpora loads too."""

    VERSION = tfds.core.Version("1.1.0")
    RELEASE_NOTES: ClassVar[dict[str, str]] = {"1.0.0": "First release.", "1.1.0": "More columns of annotation."}
    BUILDER_CONFIGS: ClassVar[list[building.Variant]] = []
    MANUAL_DOWNLOAD_INSTRUCTIONS = (
        "Put the label sheet (combined_3_class2_for_optical_flow.csv) and the folder of 28x28 PNG flow images "
        "(STSNet_whole_norm_u_v_os) into one folder and give it as manual_dir."
    )

    def scan(self, root: Path) -> Archive:
        """Scan the archive below `root`. Raises CorpusError if no label sheet can be read."""
        return scan(root)

    def _info(self) -> tfds.core.DatasetInfo:
        return self.dataset_info_from_configs(features=corpus.flow_features(), metadata=tfds.core.MetadataDict())

    @staticmethod
    def record(entry: Entry, frames: list[bytes]) -> dict[str, Any]:
        """Return the record of a clip, whose only frame is its flow image."""
        clip = entry.said
        labels = corpus.labels(
            dataset=clip.dataset, subject=clip.subject, clip=clip.clip, emotion=clip.emotion, action_units=None
        )
        return {**labels, "flow": frames[0]}


def scan(root: Path) -> Archive:
    """Scan the clips of the label sheet below `root`, each with its image.

    Images are found by `<subject>_<clip>`, in any folder and with any spaces around their names (the public archive has
    one before `.png`).
    """
    contents = tree.walk(root)
    reading, remarks = annotation.read(contents, tuple(COLUMNS), _said, dataset=NAME, columns=COLUMNS)
    findings = annotation.findings(reading, remarks)
    result = Archive(NAME, [], findings["problems"], findings["remarks"], [], findings["about"], [], findings["sheets"])
    # Of two files with the same name the first in sorted order is used.
    images = {
        tree.plain(Path(name).stem): folder / name
        for folder, names in sorted(contents.images.items(), reverse=True)
        for name in sorted(names, reverse=True)
        if name.lower().endswith(".png")
    }
    missing: list[str] = []
    listed: dict[str, Said] = {}
    for clip in reading.clips:
        clip_id = archive.name(clip)
        if listed.setdefault(clip_id, clip) is not clip:
            result.problems.append(f"{clip_id}: listed twice, {listed[clip_id].where} and {clip.where}")
            continue
        image = images.get(tree.plain(f"{clip.subject}_{clip.clip}"))
        if image is None:
            result.missing.append(clip)
            missing.append(f"{clip_id}: {clip.where} names {clip.subject}_{clip.clip}.png, not found below {root}")
        elif fault := _fault(image):
            result.problems.append(f"{clip_id}: {fault}")
        else:
            result.entries.append(Entry(clip, image.parent, (image.name,), (), -1, -1, -1))
    if missing and not result.entries:
        there = contents.unread() or ("other pictures" if images else "no picture at all")
        missing = [f"no image of any of the {len(missing)} clips below {root}, such as {_name(missing[0])}: {there}"]
    result.problems.extend(missing)
    return archive.finish(result)


def _name(line: str) -> str:
    return next(word.strip(",") for word in line.split() if word.strip(",").endswith(".png"))


def _said(row: Row, where: str) -> Said:
    dataset, subject, clip = annotation.required(row, "dataset", "subject", "clip")
    label = row.cells["label"].removesuffix(".0")
    if label not in EMOTIONS:
        raise CorpusError(f"label {label!r} of {subject}/{clip} is none of {', '.join(EMOTIONS)}")
    return Said(subject, clip, EMOTIONS[label], 0.0, where, (), dataset=dataset)


def _fault(path: Path) -> str:
    """Return why an image cannot be used; empty if it is one of three channels of 8 bit."""
    try:
        data = path.read_bytes()
    except OSError as error:
        return f"{path} cannot be read: {error.strerror}"
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED) if data else None
    if image is None:
        return f"{path} cannot be read as an image"
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        return f"{path} is not an 8-bit image of three channels (shape {image.shape}, {image.dtype})"
    return ""
