"""The MEGC2019 composite as onset-to-apex flow images, in the form the public STSTNet and HTNet code reads."""

import csv
import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import cv2
import numpy as np
import tensorflow_datasets as tfds

from stag_datasets import corpus
from stag_datasets.archive import Archive, Entry, Said

COLUMNS = ("dataset", "sub", "filename_o", "label")
EMOTIONS = {"0": "negative", "1": "positive", "2": "surprise"}


class Row(NamedTuple):
    """One clip of the label sheet."""

    dataset: str
    subject: str
    clip: str
    emotion: str
    image: Path


class Builder(tfds.core.ShardBasedBuilder):
    """442 clips of 68 subjects when complete; any subset of the label sheet's corpora loads too."""

    VERSION = tfds.core.Version("1.1.0")
    RELEASE_NOTES: ClassVar[dict[str, str]] = {"1.0.0": "First release.", "1.1.0": "More columns of annotation."}
    MANUAL_DOWNLOAD_INSTRUCTIONS = (
        "Put the label sheet (combined_3_class2_for_optical_flow.csv) and the folder of 28x28 PNG flow images "
        "(STSNet_whole_norm_u_v_os) into one folder and give it as manual_dir."
    )

    def scan(self, root: Path) -> Archive:
        """Scan the archive below `root`, for `prepare.py --check`. Raises CorpusError as `read_rows` does."""
        rows = read_rows(root)
        entries = [
            Entry(
                Said(row.subject, row.clip, row.emotion, 0.0, row.image.name, (), dataset=row.dataset),
                (row.image,),
                (),
                *(-1, -1, -1),
            )
            for row in rows
        ]
        return Archive(self.name, entries, [], [], [], {"clips": str(len(rows))}, [])

    def _info(self) -> tfds.core.DatasetInfo:
        return self.dataset_info_from_configs(features=corpus.flow_features())

    def _shard_iterators_per_split(self, dl_manager: tfds.download.DownloadManager) -> dict[str, list[Any]]:
        # The sheet and every image are checked before the first record is written.
        rows = read_rows(Path(dl_manager.manual_dir))
        images = [_readable(row.image) for row in rows]
        return {corpus.SPLIT: [functools.partial(self._generate_examples, rows, images)]}

    def _generate_examples(self, rows: list[Row], images: list[bytes]) -> Iterator[tuple[str, dict[str, Any]]]:
        for row, image in zip(rows, images, strict=True):
            record = corpus.labels(
                dataset=row.dataset, subject=row.subject, clip=row.clip, emotion=row.emotion, action_units=None
            )
            yield record["id"], {**record, "flow": image}


def read_rows(folder: Path) -> list[Row]:
    """Return the rows of the label sheet in `folder`, each with its image.

    Images are found by `<subject>_<clip>`, in any folder and with any spaces around their names (the public archive has
    one before `.png`).

    Raises:
      CorpusError: no sheet or several, a missing column, a row without subject or clip, an unknown label, a clip
        listed twice, or a missing image; the message names the row of the sheet or the file.
    """
    sheet, table = _sheet(folder)
    # Names without surrounding spaces; of two files with the same name the first in sorted order is used.
    images = {path.stem.strip(): path for path in sorted(folder.rglob("*.png"), reverse=True)}
    rows: dict[tuple[str, str, str], Row] = {}
    missing = []
    for number, line in enumerate(table, start=2):
        dataset, subject, clip, label = ((line[column] or "").strip() for column in COLUMNS)
        place = f"{sheet.name} row {number}"
        if not dataset or not subject:
            raise corpus.CorpusError(f"{place}: no {'subject' if dataset else 'dataset'} given")
        if not clip:
            raise corpus.CorpusError(f"{place}: subject {subject} of {dataset} has no clip (filename_o is empty)")
        if label not in EMOTIONS:
            raise corpus.CorpusError(f"{place}: label {label!r} of {subject}/{clip} is none of {', '.join(EMOTIONS)}")
        if (dataset, subject, clip) in rows:
            raise corpus.CorpusError(f"{place}: clip {dataset}/{subject}/{clip} is listed twice")
        image = images.get(f"{subject}_{clip}")
        if image is None:
            missing.append(f"{subject}_{clip}.png")
            continue
        rows[dataset, subject, clip] = Row(dataset, subject, clip, EMOTIONS[label], image)
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise corpus.CorpusError(f"{sheet.name} names {missing[0]}{more}, not found below {folder}")
    if not rows:
        raise corpus.CorpusError(f"{sheet} lists no clip")
    return list(rows.values())


def _sheet(folder: Path) -> tuple[Path, list[dict[str, str]]]:
    """Return the only CSV of the folder with the columns of a label sheet. Raises CorpusError for none or several."""
    sheets = []
    for path in sorted(folder.glob("*.csv")):
        try:
            with path.open(newline="", encoding="utf-8-sig") as file:
                reader = csv.DictReader(file)
                reader.fieldnames = [name.strip().lower() for name in reader.fieldnames or ()]
                if set(COLUMNS) <= set(reader.fieldnames):
                    sheets.append((path, list(reader)))
        except (UnicodeDecodeError, csv.Error) as error:
            raise corpus.CorpusError(f"{path} cannot be read as CSV: {error}") from error
    if len(sheets) != 1:
        count_text = "no CSV" if not sheets else f"several CSVs ({', '.join(path.name for path, _ in sheets)})"
        raise corpus.CorpusError(f"{count_text} with the columns {', '.join(COLUMNS)} in {folder}")
    return sheets[0]


def _readable(path: Path) -> bytes:
    """Return the bytes of a file. Raises CorpusError unless they decode to a three-channel 8-bit image."""
    data = path.read_bytes()
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED) if data else None
    if image is None:
        raise corpus.CorpusError(f"{path} cannot be read as an image")
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise corpus.CorpusError(f"{path} is not an 8-bit image of three channels (shape {image.shape}, {image.dtype})")
    return data
