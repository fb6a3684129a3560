"""A prepared corpus as one ClipBatch: records read, features extracted on all cores, and cached on disk."""

import functools
import hashlib
import json
import multiprocessing
import os
import zipfile
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import tensorflow_datasets as tfds
from absl import logging
from tqdm import tqdm

from stag_jax import config as config_lib
from stag_jax.config import Config
from stag_jax.face.landmarks import NoFaceError
from stag_jax.motion import nodes
from stag_jax.motion.extract import extract
from stag_jax.training.files import write_atomically
from stag_jax.types import Clip, ClipBatch, ClipFeatures, FaceGraph, FlowClip, UserError

SPLIT = "clips"
FEATURES_VERSION = 1  # raise it when face/ or motion/ change what they compute
STRAIN_STATISTIC = 2  # place of the mean strain among a node's pooled statistics


class Corpus(NamedTuple):
    """All clips of a run in the order of their ids, on the host."""

    ids: tuple[str, ...]
    subjects: tuple[str, ...]
    datasets: tuple[str, ...]
    batch: ClipBatch  # numpy
    graph: FaceGraph
    fingerprint: str  # of everything above


def load(folder: Path, config: Config) -> Corpus:
    """The corpus prepared in `folder`, as features, labelled by `config.data.classes`.

    Raises:
      UserError: clips without a face (all are named) unless `config.data.skip_faceless`; a class without a clip;
        no clip left.
    """
    clips, faceless = features(folder, config)
    if faceless and not config.data.skip_faceless:
        raise UserError(
            f"no face in {len(faceless)} of {len(clips) + len(faceless)} clips: {', '.join(sorted(faceless))} "
            "(leave them out with --config.data.skip_faceless=True, or --skip_faceless when preparing)"
        )
    for name in sorted(faceless):
        logging.warning("%s: left out, no face", name)
    return _assemble(clips, config)


def features(folder: Path, config: Config) -> tuple[list[ClipFeatures], list[str]]:
    """Features of every clip with a face, in the order of their ids, and the messages of those without one.

    They are cached in `config.data.data_dir`, keyed by the corpus' bytes and every setting that shapes them.
    """
    path = cache_path(folder, config)
    cached = _read_cache(path)
    if cached is not None:
        return cached
    found, faceless = [], []
    with tqdm(total=_count(folder), desc="features", unit="clip") as bar:
        for result in _extract_all(folder, config):
            (faceless if isinstance(result, str) else found).append(result)
            bar.update()
    found.sort(key=lambda clip: clip.id)
    _write_cache(path, found, faceless)
    return found, faceless


def cache_path(folder: Path, config: Config) -> Path:
    """Where the features of this corpus under these settings lie."""
    settings = {name: config_lib.to_dict(getattr(config, name)) for name in ("face", "motion", "graph")}
    key = json.dumps([FEATURES_VERSION, corpus_digest(folder), settings], sort_keys=True)
    name = f"{config.data.dataset.replace('/', '-')}-{hashlib.sha256(key.encode()).hexdigest()[:16]}.npz"
    return Path(config.data.data_dir) / "features" / name


def corpus_digest(folder: Path) -> str:
    """Hash of the prepared corpus' files."""
    digest = hashlib.sha256()
    for path in sorted(folder.glob("*.array_record*")):
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def read_clips(folder: Path) -> Any:
    """The prepared corpus as a random-access source of records, in TFDS's own order.

    Raises UserError where `folder` holds no prepared corpus.
    """
    if not (folder / "dataset_info.json").is_file():
        raise UserError(f"{folder} holds no prepared corpus")
    return tfds.builder_from_directory(str(folder)).as_data_source(split=SPLIT)


def to_clip(record: dict[str, Any]) -> Clip | FlowClip:
    """A record of datasets/corpus.py as the clip that `extract` takes."""
    text = {key: record[key].decode() for key in ("id", "subject", "dataset", "emotion", "action_units")}
    if not record["au_annotated"]:
        text["action_units"] = None
    if "flow" in record:
        return FlowClip(**text, flow=np.asarray(record["flow"]))
    frames = record["frames"]
    if len({frame.shape for frame in frames}) > 1:
        raise UserError(f"{text['id']}: frames differ in size")
    marks = {key: int(record[key]) if record[key] >= 0 else None for key in ("onset", "apex", "offset")}
    return Clip(**text, fps=float(record["fps"]), frames=np.stack(frames), **marks)


@functools.cache
def _source(folder: Path) -> Any:
    return read_clips(folder)


def _count(folder: Path) -> int:
    return len(_source(folder))


def _work(folder: Path, config: Config, index: int) -> ClipFeatures | str:
    """One clip's features, or the message of why it has no face."""
    try:
        return extract(to_clip(_source(folder)[index]), config)
    except NoFaceError as error:
        return str(error)


def _one_thread() -> None:
    cv2.setNumThreads(1)  # there is a process a core already


def _extract_all(folder: Path, config: Config) -> Iterator[ClipFeatures | str]:
    count = _count(folder)
    workers = min(config.data.workers or os.cpu_count() or 1, count)
    work = functools.partial(_work, folder, config)
    # Flow images cost less than starting a process.
    if workers <= 1 or "flow" in _source(folder)[0]:
        yield from map(work, range(count))
        return
    context = multiprocessing.get_context("spawn")  # forking a process in which JAX has started threads can hang
    with ProcessPoolExecutor(workers, mp_context=context, initializer=_one_thread) as pool:
        yield from pool.map(work, range(count), chunksize=4)


def _write_cache(path: Path, clips: list[ClipFeatures], faceless: list[str]) -> None:
    arrays = {"faceless": np.asarray(faceless, dtype=str)}
    if clips:
        arrays |= {name: np.stack([np.asarray(getattr(clip, name)) for clip in clips]) for name in ClipFeatures._fields}
    with write_atomically(path) as temporary, temporary.open("wb") as file:
        np.savez(file, **arrays)


def _read_cache(path: Path) -> tuple[list[ClipFeatures], list[str]] | None:
    """The cached features, or None where there are none or the file is damaged."""
    if not path.exists():
        return None
    try:
        with path.open("rb") as handle, np.load(handle, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        faceless = [str(message) for message in arrays.pop("faceless")]
        columns = [arrays[name] for name in ClipFeatures._fields] if arrays else []
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        logging.warning("%s is damaged (%s) and is made again", path, error)
        return None
    text = {"id", "subject", "dataset", "emotion"}
    rows = zip(*columns, strict=True)
    return [
        ClipFeatures(*(str(v) if k in text else v for k, v in zip(ClipFeatures._fields, row, strict=True)))
        for row in rows
    ], faceless


def _assemble(clips: list[ClipFeatures], config: Config) -> Corpus:
    classes = config.data.classes
    scored = [clip for clip in clips if clip.emotion in classes]
    present = {clip.emotion for clip in clips}
    for name in classes:
        if name not in present:
            raise UserError(
                f"config.data.classes names {name!r}, which no clip of {config.data.dataset} has; "
                f"its emotions are {', '.join(sorted(present)) or 'none'}"
            )
    if not scored:
        raise UserError(f"{config.data.dataset}: no clip is left")
    if len(scored) < len(clips):
        others = ", ".join(sorted(present - set(classes)))
        logging.warning("%d clips of other emotions (%s) are left out", len(clips) - len(scored), others)
    gone = {clip.subject for clip in clips} - {clip.subject for clip in scored}
    for subject in sorted(gone):
        logging.warning("subject %s has no clip of the scored classes and is left out", subject)
    graph = nodes.graph(config.graph, config.motion)
    stacked = {
        name: np.stack([getattr(clip, name) for clip in scored]) for name in ClipBatch._fields if name != "label"
    }
    if not config.model.strain:
        stacked["nodes"] = np.where(strain_features(config.motion.patch), 0, stacked["nodes"]).astype(np.float32)
    label = np.asarray([classes.index(clip.emotion) for clip in scored], np.int32)
    batch = ClipBatch(label=label, **stacked)
    ids = tuple(clip.id for clip in scored)
    digest = hashlib.sha256("\n".join(ids).encode())
    for array in batch:
        digest.update(np.ascontiguousarray(array).tobytes())
    return Corpus(
        ids=ids,
        subjects=tuple(clip.subject for clip in scored),
        datasets=tuple(clip.dataset for clip in scored),
        batch=batch,
        graph=graph,
        fingerprint=digest.hexdigest(),
    )


def strain_features(patch: int) -> np.ndarray:
    """Which of a node's features are optical strain: bool [d], laid out as in `motion.nodes.node_features`."""
    channel = np.tile(np.arange(nodes.CHANNELS), patch * patch)
    return np.concatenate([channel == nodes.CHANNELS - 1, np.arange(nodes.POOLED) == STRAIN_STATISTIC])
