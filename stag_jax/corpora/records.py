"""Read the records of a prepared corpus, as datasets/ writes them, and convert them to clips and recordings."""

import contextlib
import functools
import hashlib
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from jaxtyping import UInt8

from stag_jax import files, media
from stag_jax.types import Clip, ClipIdentity, Event, FlowClip, Recording, UserError

SPLIT = "clips"
INFO, METADATA = "dataset_info.json", "metadata.json"  # file names of TFDS
DIGEST, ANNOTATIONS = "digest.json", "annotations.json"  # kept beside the records


def corpus_digest(folder: Path) -> str:
    """Return a hash of the files of a prepared corpus."""

    def compute() -> str:
        digest = hashlib.sha256()
        for path in _shards(folder):
            with path.open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
        return digest.hexdigest()

    return _kept(folder, DIGEST, compute)


def _shards(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.array_record*"))


def _kept(folder: Path, name: str, compute: Callable[[], Any]) -> Any:
    """Return what `compute` makes of all records, from a file beside them while they have the same sizes and times.

    A corpus may be as large as tens of gigabytes, and every start of a script asks.
    """
    stats = [(path.name, path.stat()) for path in _shards(folder)]
    key = [[path_name, stat.st_size, stat.st_mtime_ns] for path_name, stat in stats]
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        kept = json.loads((folder / name).read_text(encoding="utf-8"))
        if kept["files"] == key:
            return kept["value"]
    value = compute()
    with contextlib.suppress(OSError):  # the corpus may be read-only
        files.write_text(folder / name, json.dumps({"files": key, "value": value}))
    return value


def open_builder(folder: Path) -> Any:
    """Open the TFDS builder of a prepared corpus; `Any` because TFDS annotates its methods incompletely."""
    return tfds.builder_from_directory(str(folder))


@functools.cache
def read_clips(folder: Path) -> Any:
    """Open the prepared corpus as a random-access source of records, in the order of TFDS.

    Raises UserError if `folder` has no prepared corpus.
    """
    _require_corpus(folder)
    return open_builder(folder).as_data_source(split=SPLIT)


class _Undecoded(tfds.decode.SkipDecoding):
    """A decoder that leaves pictures as bytes. (The one of TFDS does not support reading without TensorFlow.)"""

    def decode_example_np(self, serialized: Any) -> Any:
        """Return the bytes unchanged."""
        return serialized

    decode_batch_example_np = decode_example_np


def read_annotations(folder: Path) -> list[dict[str, Any]]:
    """Read the identity fields of all records, and `events`, the emotions of a recording's events (None: a clip).

    Pictures are not decoded, and the second time not even read.

    Raises UserError if `folder` has no prepared corpus.
    """
    _require_corpus(folder)

    def compute() -> list[dict[str, Any]]:
        builder = open_builder(folder)
        pictures = {name: _Undecoded() for name in ("frames", "flow") if name in builder.info.features}
        return [_annotation(record) for record in builder.as_data_source(split=SPLIT, decoders=pictures)]

    return _kept(folder, ANNOTATIONS, compute)


def _annotation(record: dict[str, Any]) -> dict[str, Any]:
    events = [each.decode() for each in record["events"]["emotion"]] if "events" in record else None
    return identity_of(record)._asdict() | {"events": events}


def _require_corpus(folder: Path) -> None:
    if not (folder / INFO).is_file():
        raise UserError(f"{folder} holds no prepared corpus")


def about(folder: Path) -> dict[str, Any]:
    """Read the builder's notes: which sheet, its version, what was repaired. Empty if there are none."""
    path = folder / METADATA
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def identity_of(record: dict[str, Any]) -> ClipIdentity:
    """Return the identity fields of a record."""
    return ClipIdentity(*(record[name].decode() for name in ClipIdentity._fields))


def to_clip(record: dict[str, Any]) -> Clip | FlowClip | Recording:
    """Convert a record of datasets/corpus.py to a clip for `extract`, or to a recording for `windows.cut`.

    Raises:
      UserError: a film that cannot be decoded, or frames that differ in size; the clip is named.
    """
    identity = identity_of(record)
    action_units = record["action_units"].decode() if record["au_annotated"] else None
    if "flow" in record:
        return FlowClip(identity, action_units, np.asarray(record["flow"]))
    marks: dict[str, Any] = {key: int(record[key]) if record[key] >= 0 else None for key in ("onset", "apex", "offset")}
    if record.get("video"):
        return _from_film(record, identity, action_units, marks)
    frames = [_three_channels(frame) for frame in record["frames"]]
    if not frames:
        raise UserError(f"{identity.id}: {'its film is empty' if record.get('suffix') else 'it has no frames'}")
    if len({frame.shape for frame in frames}) > 1:
        raise UserError(f"{identity.id}: frames differ in size")
    numbers = np.asarray(record["numbers"], int)
    if "events" in record:
        return _recording(record, identity, np.stack(frames), numbers)
    return Clip(identity, action_units, float(record["fps"]), np.stack(frames), numbers=numbers, **marks)


def _recording(record: dict[str, Any], identity: ClipIdentity, frames: np.ndarray, numbers: np.ndarray) -> Recording:
    events = record["events"]
    columns = (events[name] for name in ("onset", "offset", "emotion", "action_units"))
    return Recording(
        identity,
        fps=float(record["fps"]),
        frames=frames,
        events=tuple(
            Event(int(on), int(off), emotion.decode(), au.decode())
            for on, off, emotion, au in zip(*columns, strict=True)
        ),
        numbers=numbers,
    )


def _three_channels(frame: UInt8[np.ndarray, "y x c"]) -> UInt8[np.ndarray, "y x 3"]:
    """Repeat a grey channel three times; drop an alpha channel."""
    return np.repeat(frame, 3, axis=-1) if frame.shape[-1] == 1 else frame[..., :3]


def _from_film(
    record: dict[str, Any], identity: ClipIdentity, action_units: str | None, marks: dict[str, int | None]
) -> Clip:
    """Decode a record that holds a video file; cut it to onset and offset, which are indices into all of its frames."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, f"film{record['suffix'].decode()}")
        path.write_bytes(record["video"])
        try:
            film = media.read_clip(path, float(record["fps"]) or None)
        except UserError as error:
            raise UserError(f"{identity.id}: {str(error).removeprefix(f'{path} ')}") from error
    count = len(film.frames)
    for name, mark in marks.items():
        if mark is not None and mark >= count:
            raise UserError(f"{identity.id}: {name} is frame {mark} of a film that has {count} (counted from 0)")
    first, last = marks["onset"] or 0, count - 1 if marks["offset"] is None else marks["offset"]
    shifted: dict[str, Any] = {name: None if mark is None else mark - first for name, mark in marks.items()}
    apex = marks["apex"]
    if apex is not None and not first <= apex <= last:
        shifted["apex"] = None
    return Clip(identity, action_units, film.fps, film.frames[first : last + 1], **shifted)


@functools.cache
def holds_recordings(folder: Path) -> bool:
    """Return whether the corpus consists of recordings."""
    return "events" in open_builder(folder).info.features
