"""Extract the features of a corpus on all cores, and cache them on disk."""

import contextlib
import dataclasses
import functools
import hashlib
import importlib.metadata
import json
import os
import platform
import shutil
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import jax
import numpy as np
from absl import logging
from tqdm import tqdm

from stag_jax import config as config_lib
from stag_jax import processes
from stag_jax.config import Config
from stag_jax.corpora import records, windows
from stag_jax.face import landmarks
from stag_jax.face.landmarks import NoFaceError
from stag_jax.files import require_writable, write_atomically
from stag_jax.motion import extract, optical_flow, quality
from stag_jax.motion.observe import observe
from stag_jax.motion.quality import ClipReport
from stag_jax.types import ClipFeatures, ClipIdentity, FlowClip, Recording

FEATURES_VERSION = 5  # raise it when face/ or motion/ change what they compute
CHUNK = 128  # clips cached at a time during extraction
RECORDINGS = 4  # recordings cached at a time
TILE_QUALITY = 90  # JPEG quality of tiles
PACKAGES = ("stag-jax", "numpy", "opencv-python-headless", "dlib-bin", "jax", "scipy")  # that features depend on


class SeenClip(NamedTuple):
    """The features of one clip, with a report unless it is a flow image or a window of a recording."""

    features: ClipFeatures
    report: ClipReport | None
    tile: bytes  # JPEG of `quality.tile`; empty without a report


class Prepared(NamedTuple):
    """The features of all clips of a corpus, sorted by id."""

    clips: list[ClipFeatures]
    faceless: list[str]  # one message for each clip without a usable face
    reports: list[ClipReport]  # of the same clips; empty for flow images and windows
    tiles: list[bytes]
    origin: dict[str, Any]  # how the features were made (`origin`); empty in files of older versions


def prepare(folder: Path, config: Config) -> Prepared:
    """Extract the features of every clip of the corpus prepared in `folder`, at all regions of the face.

    They are cached in `config.data.data_dir`, keyed by the corpus' bytes and every setting that affects features.
    Processes that extract at the same time do the work twice and leave one complete file. A run that is stopped leaves
    the finished parts of `CHUNK` clips for the next run.
    """
    config = _resolved(config)
    path = cache_path(folder, config)
    cached = _read_cache(path)
    if cached is not None and _same_predictor(cached.origin, path, config):
        return cached
    # Fail now, not after the work is done.
    require_writable(path.parent)
    chunks = path.with_suffix(".part")
    parts = []
    count = _count(folder)
    with tqdm(total=count, desc="features", unit="clip") as bar, _extractor(folder, config) as extract_all:
        step = RECORDINGS if records.holds_recordings(folder) else CHUNK
        for start in range(0, count, step):
            indices = range(start, min(start + step, count))
            part = _read_cache(chunks / f"{start}.npz")
            if part is None:
                part = _collected(extract_all(indices), bar)
                # A faster process may have removed the folder, even while this one creates it.
                with contextlib.suppress(FileNotFoundError, FileExistsError):
                    _write_cache(chunks / f"{start}.npz", part)
            else:
                bar.update(len(indices))
            parts.append(part)
    prepared = _sorted(parts)._replace(origin=origin(folder, config))
    _write_cache(path, prepared)
    shutil.rmtree(chunks, ignore_errors=True)
    return prepared


def _collected(results: Iterable[list[SeenClip] | str], bar: tqdm) -> Prepared:
    clips: list[SeenClip] = []
    faceless: list[str] = []
    for result in results:
        if isinstance(result, str):
            faceless.append(result)
        else:
            clips += result
        bar.update()
    return Prepared(
        clips=[clip.features for clip in clips],
        faceless=faceless,
        reports=[clip.report for clip in clips if clip.report],
        tiles=[clip.tile for clip in clips if clip.report],
        origin={},
    )


def _sorted(parts: list[Prepared]) -> Prepared:
    """Join all parts, sorted by id."""
    clips, faceless, reports, tiles = (list(chain(*lists)) for lists in zip(*(part[:4] for part in parts), strict=True))
    pairs = sorted(zip(reports, tiles, strict=True), key=lambda pair: pair[0].id)
    return Prepared(
        clips=sorted(clips, key=lambda clip: clip.identity.id),
        faceless=sorted(faceless),
        reports=[report for report, _ in pairs],
        tiles=[tile for _, tile in pairs],
        origin={},
    )


def origin(folder: Path, config: Config) -> dict[str, Any]:
    """Describe how the features of a corpus are made, in enough detail to make them again; stored with them.

    Contains the corpus and its hash, all settings of face, motion and graph with "auto" resolved, the landmark
    predictor and its hash, and the versions of `PACKAGES`.
    """
    config = _resolved(config)
    info = json.loads((folder / records.INFO).read_text(encoding="utf-8"))
    flow_images = "flow" in records.open_builder(folder).info.features
    return {
        "format": FEATURES_VERSION,
        "corpus": {key: info.get(key, "") for key in ("name", "configName", "version")} | records.about(folder),
        "corpus_sha256": records.corpus_digest(folder),
        "settings": {name: config_lib.to_dict(getattr(config, name)) for name in ("face", "motion", "graph")},
        "predictor": None if flow_images else _predictor(config),
        "packages": versions(PACKAGES),
        "python": platform.python_version(),
        "machine": platform.machine(),
        "jax_backend": jax.default_backend(),
    }


def versions(packages: Iterable[str]) -> dict[str, str]:
    """Return the versions of those packages that are installed."""
    installed = {}
    for name in packages:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            installed[name] = importlib.metadata.version(name)
    return installed


def _predictor(config: Config) -> dict[str, str]:
    path = landmarks.predictor_path(config.face.predictor)
    return {"file": path.name, "sha256": landmarks.predictor_digest(config.face.predictor)}


def _same_predictor(made: dict[str, Any], path: Path, config: Config) -> bool:
    """Return whether cached features were made with the present predictor file; True if they do not tell."""
    if not made.get("predictor") or made["predictor"]["sha256"] == landmarks.predictor_digest(config.face.predictor):
        return True
    logging.warning("%s was made by another landmark predictor and is made again", path)
    return False


def cache_path(folder: Path, config: Config) -> Path:
    """Return the path of the cached features of this corpus under these settings."""
    settings = {name: config_lib.to_dict(getattr(_resolved(config), name)) for name in ("face", "motion", "graph")}
    del settings["graph"]["nodes"]  # features are always of all regions
    if not records.holds_recordings(folder):
        for name in ("window_ms", "hop_ms"):  # clips are not cut into windows
            del settings["motion"][name]
    key = json.dumps([FEATURES_VERSION, records.corpus_digest(folder), settings], sort_keys=True)
    info = json.loads((folder / records.INFO).read_text(encoding="utf-8"))
    corpus = "-".join(info[key] for key in ("name", "configName") if info.get(key))
    name = f"{corpus}-{hashlib.sha256(key.encode()).hexdigest()[:16]}.npz"
    return Path(config.data.data_dir) / "features" / name


def _resolved(config: Config) -> Config:
    """Replace "auto" by the flow backend of this machine, so that workers need not find it out, and select all regions.

    The regions of a network are selected in `dataset`, so that all networks share one cache.
    """
    names = {name: optical_flow.resolve(getattr(config.motion, name), name) for name in ("first_look", "flow")}
    graph = dataclasses.replace(config.graph, nodes=())
    return dataclasses.replace(config, motion=dataclasses.replace(config.motion, **names), graph=graph)


def _source(folder: Path) -> Any:
    return records.read_clips(folder)


def _count(folder: Path) -> int:
    return len(_source(folder))


def _work(folder: Path, config: Config, index: int) -> list[SeenClip] | str:
    """Extract one clip, or each window of a recording; return the message instead if there is no usable face."""
    clip = records.to_clip(_source(folder)[index])
    if isinstance(clip, FlowClip):
        return [SeenClip(extract.from_flow_image(clip, config), None, b"")]
    if isinstance(clip, Recording):
        cut = windows.cut(clip, config)
        return [
            SeenClip(window, None, b"") for window in cut
        ] or f"{clip.identity.id}: no face is seen for as long as a window"
    try:
        seen = observe(clip, config)
    except NoFaceError as error:
        return str(error)
    _, tile = cv2.imencode(".jpg", quality.tile(clip, seen)[..., ::-1], (cv2.IMWRITE_JPEG_QUALITY, TILE_QUALITY))
    return [
        SeenClip(extract.from_frames(clip, seen, config), quality.report(clip, seen, config.motion), tile.tobytes())
    ]


def _start_worker() -> None:
    cv2.setNumThreads(1)  # there is already one process for each core
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # workers share the accelerator, if there is one


@contextlib.contextmanager
def _extractor(folder: Path, config: Config) -> Iterator[Callable[[range], Iterable[list[SeenClip] | str]]]:
    """Yield a function that extracts the clips of a range of indices, on as many processes as there are cores."""
    workers = min(config.data.workers or processes.cores(), _count(folder))
    work = functools.partial(_work, folder, config)
    # Flow images cost less than starting a process.
    if workers <= 1 or "flow" in _source(folder)[0]:
        yield lambda indices: map(work, indices)
        return
    with processes.pool(workers, _start_worker) as pool:
        # A recording takes as long as many clips, and there may be few recordings.
        size = 1 if records.holds_recordings(folder) else 4
        yield lambda indices: pool.map(work, indices, chunksize=size)


def _write_cache(path: Path, prepared: Prepared) -> None:
    arrays: dict[str, Any] = {
        "faceless": np.asarray(prepared.faceless, dtype=str),
        "tiles": np.asarray(prepared.tiles, dtype=bytes),
        "origin": np.asarray(json.dumps(prepared.origin)),
    }
    clips = [clip._asdict() for clip in prepared.clips]
    clips = [clip.pop("identity")._asdict() | clip for clip in clips]
    for kind, rows in (("clip", clips), ("report", [report._asdict() for report in prepared.reports])):
        for name in rows[0] if rows else ():
            arrays[f"{kind}.{name}"] = np.stack([np.asarray(row[name]) for row in rows])
    with write_atomically(path) as temporary, temporary.open("wb") as file:
        np.savez(file, **arrays)


def _read_cache(path: Path) -> Prepared | None:
    """Read cached features; return None if the file is missing or damaged."""
    if not path.exists():
        return None
    try:
        with path.open("rb") as handle, np.load(handle, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        return Prepared(
            clips=_clips(arrays),
            faceless=[str(message) for message in arrays["faceless"]],
            reports=[ClipReport(**row) for row in _rows(arrays, "report", ClipReport._fields)],
            tiles=[bytes(tile) for tile in arrays["tiles"]],
            origin=json.loads(arrays["origin"].item()) if "origin" in arrays else {},
        )
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        logging.warning("%s is damaged (%s) and is made again", path, error)
        return None


def _clips(arrays: dict[str, np.ndarray]) -> list[ClipFeatures]:
    names, numbers = ClipIdentity._fields, [name for name in ClipFeatures._fields if name != "identity"]
    identities, rows = (_rows(arrays, "clip", fields) for fields in (names, numbers))
    return [ClipFeatures(ClipIdentity(**text), **row) for text, row in zip(identities, rows, strict=True)]


def _rows(arrays: dict[str, np.ndarray], kind: str, names: Iterable[str]) -> list[dict[str, Any]]:
    if not any(name.startswith(f"{kind}.") for name in arrays):
        return []
    columns = {name: arrays[f"{kind}.{name}"] for name in names}
    # Turn 0-d arrays back into the plain Python values that were stored.
    return [
        {name: value.item() if value.ndim == 0 else value for name, value in zip(columns, row, strict=True)}
        for row in zip(*columns.values(), strict=True)
    ]
