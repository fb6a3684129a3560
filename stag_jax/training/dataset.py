"""A prepared corpus as one ClipBatch."""

import hashlib
from pathlib import Path
from typing import NamedTuple

import numpy as np
from absl import logging

from stag_jax.config import Config
from stag_jax.motion import nodes
from stag_jax.training import features
from stag_jax.types import ClipBatch, ClipFeatures, FaceGraph, UserError


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
    return assemble(features.prepare(folder, config), config)


def assemble(found: features.Prepared, config: Config) -> Corpus:
    """The same from what has been prepared already; raises as `load` does."""
    if found.faceless and not config.data.skip_faceless:
        raise UserError(
            f"no face in {len(found.faceless)} of {len(found.clips) + len(found.faceless)} clips: "
            f"{', '.join(sorted(found.faceless))} "
            "(leave them out with --config.data.skip_faceless=True, or --skip_faceless when preparing)"
        )
    for message in sorted(found.faceless):
        logging.warning("%s: left out", message)
    return _labelled(found.clips, config)


def _labelled(clips: list[ClipFeatures], config: Config) -> Corpus:
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
    return np.concatenate([channel == nodes.STRAIN, np.arange(nodes.POOLED) == nodes.STRAIN])
