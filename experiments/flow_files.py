"""Flow of many recordings as files: which clips a folder holds, what is written of each, and the sheet of all."""

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

VERSION = 1  # of what is written; raise it when the same input gives other files
SHEET = "flow.csv"
ARRAYS = "flow.npz"  # in the folder of a clip of which all frames are written
LABELS = ("dataset", "label")  # columns that the user fills in, kept when the sheet is written again
HEADER = (
    *("dataset", "sub", "filename_o", "label", "image", "arrays", "input", "frames", "fps"),
    *("reference_frame", "frame", "time_ms", "magnitude_px", "backend", "first_look", "reference"),
    *("stabilise", "average_ms", "align", "crop", "size", "u_low", "u_high", "v_low", "v_high", "strain_low"),
    "strain_high",
)


class Input(NamedTuple):
    """A clip that was found."""

    path: Path  # a film, or a folder of numbered pictures
    parts: tuple[str, ...]  # of its place below the folder that was walked, without a suffix

    @property
    def subject(self) -> str:
        """The first folder below the one that was walked; of a clip that lies in none, its own name."""
        return self.parts[0]

    @property
    def clip(self) -> str:
        """All that comes after the subject, joined."""
        return "_".join(self.parts[1:]) or self.parts[0]


class Options(NamedTuple):
    """What is written of a clip."""

    align: bool  # False: the pictures are crops already
    largest: bool  # one image a clip instead of one a frame
    size: int  # of an image, pixels
    crop: str  # see `fields.encode`
    fps: float | None


def find(root: Path, out: Path) -> list[Input]:
    """Finds the clips in a film, or below a folder: films, and folders that hold pictures; in order of their names.

    `out` is not looked into, so that it may lie in the folder.

    Raises:
      UserError: nothing there, or two clips that would get the same name.
    """
    if root.is_file():
        return [Input(root, (root.stem,))]
    if not root.is_dir():
        raise UserError(f"--input={root}: no such file or folder")
    clips: list[Input] = []
    seen: set[Path] = set()
    for name, folders, files in os.walk(root, followlinks=True):
        place = Path(name)
        if place.resolve() in seen or place.resolve() == out.resolve():
            folders.clear()
            continue
        seen.add(place.resolve())
        folders[:] = sorted(folder for folder in folders if not folder.startswith("."))
        shown = [place / file for file in sorted(files) if not file.startswith(".")]
        inside = place.relative_to(root).parts
        if any(file.suffix.lower() in media.PICTURES for file in shown):
            clips.append(Input(place, inside or (place.resolve().name,)))
        clips += [Input(file, (*inside, file.stem)) for file in shown if file.suffix.lower() in VIDEOS]
    if not clips:
        raise UserError(f"--input={root} holds neither films nor pictures")
    names: dict[tuple[str, str], Path] = {}
    for clip in clips:
        other = names.setdefault((clip.subject, clip.clip), clip.path)
        if other != clip.path:
            raise UserError(f"{clip.path} and {other} would both be written as {clip.subject}_{clip.clip}")
    return sorted(clips, key=lambda clip: clip.parts)


def make(source: Input, config: Config, options: Options, out: Path) -> dict[str, object]:
    """Writes what `options` ask of one clip, unless it is there already; returns its row of the sheet by `HEADER`.

    Of one image a clip, `<parents>/<subject>_<clip>.png` and `.npz`; else a folder of its own with an image a frame and
    `flow.npz`. The arrays come last, and with them the clip is done: a folder appears whole.

    Raises:
      UserError: the clip cannot be read, has no usable face or less than two frames, or the files cannot be written;
        what is at fault is named.
    """
    stem = out.joinpath(*source.parts[:-1], f"{source.subject}_{source.clip}")
    folder = out.joinpath(*source.parts)
    arrays = stem.with_name(f"{stem.name}.npz") if options.largest else folder / ARRAYS
    asked = _settings(source, config, options)
    done = _read(arrays, asked)
    if done is None:
        images, done = _measure(source.path, config, options)
        done["settings"] = np.asarray(asked)
        try:
            if options.largest:
                (picture,) = images.values()
                _write_image(arrays.with_suffix(".png"), picture)
                write_arrays(arrays, done)
            else:
                with _whole_folder(folder) as place:
                    for name, picture in images.items():
                        _write_image(place / f"{name}.png", picture)
                    write_arrays(place / ARRAYS, done)
        except OSError as error:
            raise UserError(f"{arrays} cannot be written: {error.strerror or error}") from error
    return _row(source, options, done, arrays.relative_to(out))


def _settings(source: Input, config: Config, options: Options) -> str:
    """All that the files of a clip follow from, as JSON: the input's hash, and the settings."""
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
    """The arrays of a clip that is done by these very settings; None where there are none, or an image is gone."""
    try:
        # Opened here, for numpy leaves a file open that is no archive.
        with arrays.open("rb") as content, np.load(content, allow_pickle=False) as file:
            done = dict(file) if str(file["settings"]) == settings else None
    except Exception:  # whatever a file that is no such archive raises: it is written anew
        return None
    return done if done and all(path.exists() for path in _images(arrays, done)) else None


def _images(arrays: Path, done: dict[str, np.ndarray]) -> list[Path]:
    """The image of each frame measured."""
    if arrays.name == ARRAYS:
        return [arrays.with_name(f"{name}.png") for name in done["names"].tolist()]
    return [arrays.with_suffix(".png")]


def _measure(path: Path, config: Config, options: Options) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Images of a clip by name, and its arrays; docs/flow.md says the shape and unit of each."""
    timed = not path.is_dir() or options.fps is not None  # a folder has no rate, and only averages need one
    if not timed and config.motion.average_ms:
        raise media.no_rate(path)
    clip = media.read_clip(path, options.fps if timed else 1.0)._replace(id=str(path))
    measure = fields.aligned if options.align else fields.unaligned
    flow = measure(clip, config, largest=options.largest)
    encoded = [fields.encode(*field, options.size, options.crop) for field in zip(flow.flow, flow.strain, strict=True)]
    names = np.array(_names(path, len(clip.frames)))[flow.index]
    taken = times.frame_times(len(clip.frames), clip.fps, clip.numbers)[flow.index].astype(np.float32)
    arrays = {
        **flow._asdict(),
        "times_ms": taken if timed else np.full_like(taken, np.nan),
        "limits": np.stack([limits for _, limits in encoded]),
        "names": names,
        "frames": len(clip.frames),
        "fps": clip.fps if timed else np.nan,
    }
    images = {name: picture for name, (picture, _) in zip(names.tolist(), encoded, strict=True)}
    return images, {name: np.asarray(value) for name, value in arrays.items()}


def _names(path: Path, count: int) -> list[str]:
    """Names the images of all frames: as the pictures are called, or by the numbers of frames in a film, from 0."""
    if path.is_dir():
        return [file.stem for file in media.numbered(path).values()]
    return [f"frame_{index:05d}" for index in range(count)]


def _write_image(path: Path, picture: np.ndarray) -> None:
    with write_atomically(path) as temporary:
        Image.fromarray(picture).save(temporary)


@contextlib.contextmanager
def _whole_folder(path: Path) -> Iterator[Path]:
    """Gives an empty folder beside `path` that takes its name, and its place, when the block ends without an error."""
    path.parent.mkdir(parents=True, exist_ok=True)
    place = path.with_name(f".{uuid.uuid4().hex}")
    place.mkdir()
    try:
        yield place
        shutil.rmtree(path, ignore_errors=True)
        place.rename(path)
    finally:
        shutil.rmtree(place, ignore_errors=True)


def _row(source: Input, options: Options, done: dict[str, np.ndarray], arrays: Path) -> dict[str, object]:
    """The row of a clip: of its one image, or of that with the largest movement."""
    place = int(done["magnitude"].argmax())
    image = _images(arrays, done)[place]
    motion = json.loads(str(done["settings"]))["motion"] | ({} if options.align else {"stabilise": "none"})
    values = [
        *("", source.subject, source.clip, "", image.as_posix(), arrays.as_posix(), "/".join(source.parts)),
        *(int(done["frames"]), _cell(done["fps"]), int(done["since"][place]), int(done["index"][place])),
        *(_cell(done["times_ms"][place]), _cell(done["magnitude"][place])),
        *(motion[name] for name in ("flow", "first_look", "reference", "stabilise", "average_ms")),
        *(options.align, options.crop, options.size, *map(_cell, done["limits"][place].reshape(-1))),
    ]
    return dict(zip(HEADER, values, strict=True))


def _cell(value: np.ndarray | np.floating) -> float | str:
    """A number of the sheet, nothing where it is not known."""
    return "" if np.isnan(value) else round(float(value), 6)


def write_sheet(rows: list[dict[str, object]], path: Path, dataset: str) -> None:
    """Writes the sheet of all clips. What stands in the columns of `LABELS` of an earlier sheet stays.

    Raises:
      UserError: it cannot be written, or the earlier one cannot be read.
    """
    before: dict[str, dict[str, str]] = {}
    try:
        if path.exists():
            with path.open(newline="", encoding="utf-8-sig") as file:
                before = {line.get("input", ""): line for line in csv.DictReader(file)}
        for row in rows:
            kept = {name: before.get(row["input"], {}).get(name) for name in LABELS}
            row |= {"dataset": dataset} | {name: value for name, value in kept.items() if value}
        write_table(path, HEADER, ([row[name] for name in HEADER] for row in rows))
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error.strerror or error}") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path}, which holds labels, cannot be read: {error}; move it away") from error
