"""Flow of many recordings as files: find the clips of a folder, write the files of each, write the sheet of all."""

import contextlib
import csv
import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from stag_jax import media
from stag_jax.config import Config, to_dict
from stag_jax.deploy.source import VIDEOS
from stag_jax.files import write_arrays, write_atomically, write_table
from stag_jax.motion import fields, times
from stag_jax.motion import optical_flow as flows
from stag_jax.types import UserError

VERSION = 1  # of the output files; increase it when the same input gives other files
SHEET = "flow.csv"
ARRAYS = "flow.npz"  # in the folder of a clip, if all its frames are written
LABELS = ("dataset", "label")  # columns that the user fills in, kept when the sheet is written again
HEADER = (
    *("dataset", "sub", "filename_o", "label", "image", "arrays", "input", "frames", "fps"),
    *("reference_frame", "frame", "time_ms", "magnitude_px", "backend", "first_look", "reference"),
    *("stabilise", "average_ms", "align", "crop", "size", "u_low", "u_high", "v_low", "v_high", "strain_low"),
    "strain_high",
)


class Input(NamedTuple):
    """A clip found on disk."""

    path: Path  # a film, or a folder of numbered pictures
    parts: tuple[str, ...]  # of its path below the input folder, without a suffix

    @property
    def subject(self) -> str:
        """The first folder below the input folder; the clip's own name if it lies in no folder."""
        return self.parts[0]

    @property
    def clip(self) -> str:
        """All path parts after the subject, joined by `_`."""
        return "_".join(self.parts[1:]) or self.parts[0]


class Options(NamedTuple):
    """Which files are written for a clip."""

    align: bool  # False: the pictures are crops already
    largest: bool  # one image per clip instead of one per frame
    size: int  # of an image, pixels
    crop: str  # see `fields.encode`
    fps: float | None


def find(root: Path, out: Path) -> list[Input]:
    """List the clips of a path, by name: the film itself, or all films and folders of pictures below a folder.

    `out` is not searched, so that it may lie in the folder.

    Raises:
      UserError: no clip is found, or two clips would get the same name.
    """
    if root.is_file():
        return [Input(root, (root.stem,))]
    if not root.is_dir():
        raise UserError(f"--input={root}: no such file or folder")
    clips: list[Input] = []
    visited: set[Path] = set()
    for name, folders, files in os.walk(root, followlinks=True):
        directory = Path(name)
        if directory.resolve() in visited or directory.resolve() == out.resolve():
            folders.clear()
            continue
        visited.add(directory.resolve())
        folders[:] = sorted(folder for folder in folders if not folder.startswith("."))
        paths = [directory / file for file in sorted(files) if not file.startswith(".")]
        below = directory.relative_to(root).parts
        if any(file.suffix.lower() in media.PICTURES for file in paths):
            clips.append(Input(directory, below or (directory.resolve().name,)))
        clips += [Input(file, (*below, file.stem)) for file in paths if file.suffix.lower() in VIDEOS]
    if not clips:
        raise UserError(f"--input={root} holds neither films nor pictures")
    names: dict[tuple[str, str], Path] = {}
    for clip in clips:
        other = names.setdefault((clip.subject, clip.clip), clip.path)
        if other != clip.path:
            raise UserError(f"{clip.path} and {other} would both be written as {clip.subject}_{clip.clip}")
    return sorted(clips, key=lambda clip: clip.parts)


def make(source: Input, config: Config, options: Options, out: Path) -> dict[str, object]:
    """Write the files of one clip, unless they exist already; return its row of the sheet, with the keys of `HEADER`.

    With one image per clip: `<parents>/<subject>_<clip>.png` and `.npz`; else a folder with one image per frame and
    `flow.npz`. The arrays are written last and mark the clip as done; a folder appears only when it is complete.

    Raises:
      UserError: the clip cannot be read, has no usable face or less than two frames, or the files cannot be written;
        the message names the file at fault.
    """
    stem = out.joinpath(*source.parts[:-1], f"{source.subject}_{source.clip}")
    folder = out.joinpath(*source.parts)
    arrays = stem.with_name(f"{stem.name}.npz") if options.largest else folder / ARRAYS
    settings = _settings(source, config, options)
    clip_arrays = _read(arrays, settings)
    if clip_arrays is None:
        images, clip_arrays = _measure(source.path, config, options)
        clip_arrays["settings"] = np.asarray(settings)
        try:
            if options.largest:
                (picture,) = images.values()
                _write_image(arrays.with_suffix(".png"), picture)
                write_arrays(arrays, clip_arrays)
            else:
                with _whole_folder(folder) as temporary:
                    for name, picture in images.items():
                        _write_image(temporary / f"{name}.png", picture)
                    write_arrays(temporary / ARRAYS, clip_arrays)
        except OSError as error:
            raise UserError(f"{arrays} cannot be written: {error.strerror or error}") from error
    return _row(source, options, clip_arrays, arrays.relative_to(out))


def _settings(source: Input, config: Config, options: Options) -> str:
    """Return everything that determines the files of a clip, as JSON: the hash of the input, and the settings."""
    digest = hashlib.sha256()
    try:
        for file in media.numbered(source.path).values() if source.path.is_dir() else (source.path,):
            with file.open("rb") as content:
                digest.update(file.name.encode() + b"\0" + hashlib.file_digest(content, "sha256").digest())
    except OSError as error:
        raise UserError(f"{source.path} cannot be read: {error.strerror or error}") from error
    motion = {name: getattr(config.motion, name) for name in ("reference", "stabilise", "average_ms")}
    motion |= {name: flows.resolve(getattr(config.motion, name), name) for name in ("first_look", "flow")}
    face = to_dict(config.face) if options.align else None
    tree = {"version": VERSION, "input_sha256": digest.hexdigest(), "motion": motion, "face": face}
    return json.dumps(tree | options._asdict(), sort_keys=True)


def _read(arrays: Path, settings: str) -> dict[str, np.ndarray] | None:
    """Return the arrays of a clip written with the same settings; None if there are none or an image is missing."""
    try:
        # Opened here because numpy leaves a file open that is not an archive.
        with arrays.open("rb") as content, np.load(content, allow_pickle=False) as file:
            loaded = dict(file) if str(file["settings"]) == settings else None
    except Exception:  # any error of a file that is not such an archive: it is written again
        return None
    return loaded if loaded and all(path.exists() for path in _images(arrays, loaded)) else None


def _images(arrays: Path, done: dict[str, np.ndarray]) -> list[Path]:
    """Return the image path of each measured frame."""
    if arrays.name == ARRAYS:
        return [arrays.with_name(f"{name}.png") for name in done["names"].tolist()]
    return [arrays.with_suffix(".png")]


def _measure(path: Path, config: Config, options: Options) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Return the images of a clip by name, and its arrays; docs/flow.md has the shape and unit of each."""
    timed = not path.is_dir() or options.fps is not None  # a folder has no frame rate, and only averages need one
    if not timed and config.motion.average_ms:
        raise media.no_rate(path)
    clip = media.read_clip(path, options.fps if timed else 1.0)
    clip = clip._replace(identity=clip.identity._replace(id=str(path)))
    compute_flow = fields.aligned if options.align else fields.unaligned
    flow = compute_flow(clip, config, largest=options.largest)
    encoded = [fields.encode(*field, options.size, options.crop) for field in zip(flow.flow, flow.strain, strict=True)]
    names = np.array(_names(path, len(clip.frames)))[flow.index]
    frame_times = times.frame_times(len(clip.frames), clip.fps, clip.numbers)[flow.index].astype(np.float32)
    arrays = {
        **flow._asdict(),
        "times_ms": frame_times if timed else np.full_like(frame_times, np.nan),
        "limits": np.stack([limits for _, limits in encoded]),
        "names": names,
        "frames": len(clip.frames),
        "fps": clip.fps if timed else np.nan,
    }
    images = {name: picture for name, (picture, _) in zip(names.tolist(), encoded, strict=True)}
    return images, {name: np.asarray(value) for name, value in arrays.items()}


def _names(path: Path, count: int) -> list[str]:
    """Return the image names of all frames: those of the pictures, or frame numbers from 0 for a film."""
    if path.is_dir():
        return [file.stem for file in media.numbered(path).values()]
    return [f"frame_{index:05d}" for index in range(count)]


def _write_image(path: Path, picture: np.ndarray) -> None:
    with write_atomically(path) as temporary:
        Image.fromarray(picture).save(temporary)


@contextlib.contextmanager
def _whole_folder(path: Path) -> Iterator[Path]:
    """Yield an empty folder next to `path`; rename it to `path`, replacing it, if the block ends without an error."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{uuid.uuid4().hex}")
    temporary.mkdir()
    try:
        yield temporary
        shutil.rmtree(path, ignore_errors=True)
        temporary.rename(path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _row(source: Input, options: Options, done: dict[str, np.ndarray], arrays: Path) -> dict[str, object]:
    """Return the sheet row of a clip, for its single image or the one with the largest movement."""
    index = int(done["magnitude"].argmax())
    image = _images(arrays, done)[index]
    motion = json.loads(str(done["settings"]))["motion"] | ({} if options.align else {"stabilise": "none"})
    values = [
        *("", source.subject, source.clip, "", image.as_posix(), arrays.as_posix(), "/".join(source.parts)),
        *(int(done["frames"]), _cell(done["fps"]), int(done["since"][index]), int(done["index"][index])),
        *(_cell(done["times_ms"][index]), _cell(done["magnitude"][index])),
        *(motion[name] for name in ("flow", "first_look", "reference", "stabilise", "average_ms")),
        *(options.align, options.crop, options.size, *map(_cell, done["limits"][index].reshape(-1))),
    ]
    return dict(zip(HEADER, values, strict=True))


def _cell(value: np.ndarray | np.floating) -> float | str:
    """Return a number for the sheet; empty if it is NaN."""
    return "" if np.isnan(value) else round(float(value), 6)


def write_sheet(rows: list[dict[str, object]], path: Path, dataset: str) -> None:
    """Write the sheet of all clips. Values in the columns of `LABELS` of an earlier sheet are kept.

    Raises:
      UserError: the sheet cannot be written, or the earlier one cannot be read.
    """
    old_rows: dict[str, dict[str, str]] = {}
    try:
        if path.exists():
            with path.open(newline="", encoding="utf-8-sig") as file:
                old_rows = {line.get("input", ""): line for line in csv.DictReader(file)}
        for row in rows:
            old_labels = {name: old_rows.get(row["input"], {}).get(name) for name in LABELS}
            row |= {"dataset": dataset} | {name: value for name, value in old_labels.items() if value}
        write_table(path, HEADER, ([row[name] for name in HEADER] for row in rows))
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error.strerror or error}") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path}, which holds labels, cannot be read: {error}; move it away") from error
