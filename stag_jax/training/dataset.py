"""A prepared corpus as one ClipBatch."""

import hashlib
from collections.abc import Mapping, Sequence
from itertools import chain, pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
from absl import logging
from jaxtyping import Bool

from stag_jax.config import Config
from stag_jax.motion import nodes
from stag_jax.protocol import labels
from stag_jax.protocol.splits import Clips
from stag_jax.training import features
from stag_jax.types import ClipBatch, ClipFeatures, FaceGraph, UserError

TEXTS = ("ids", "subjects", "datasets", "groups", "parts")


class Corpus(NamedTuple):
    """All clips of a run in the order of their ids, on the host."""

    ids: tuple[str, ...]
    subjects: tuple[str, ...]
    datasets: tuple[str, ...]
    groups: tuple[str, ...]
    parts: tuple[str, ...]
    batch: ClipBatch  # numpy
    graph: FaceGraph
    fingerprint: str  # of ids and batch

    @property
    def clips(self) -> Clips:
        """What a split may depend on."""
        return Clips(self.subjects, self.datasets, self.groups, self.parts, self.batch.label)

    def take(self, chosen: Bool[np.ndarray, " b"]) -> "Corpus":
        """Some of the clips; the fingerprint stays that of all."""
        rows = np.flatnonzero(chosen)
        picked = {name: tuple(getattr(self, name)[row] for row in rows) for name in TEXTS}
        return self._replace(**picked, batch=ClipBatch(*(np.asarray(array)[rows] for array in self.batch)))


def load(folders: Path | Sequence[Path], config: Config) -> Corpus:
    """The corpus prepared in a folder, or several as one, as features, labelled as `config.data` says.

    Raises:
      UserError: clips without a face (all are named) unless `config.data.skip_faceless`; a class without a clip; a
        label scheme that does not fit; the same clip twice; no clip left.
    """
    folders = [folders] if isinstance(folders, Path) else list(folders)
    return assemble(folders, [features.prepare(folder, config) for folder in folders], config)


def assemble(folders: Sequence[Path], each: Sequence[features.Prepared], config: Config) -> Corpus:
    """The same from what has been prepared already of each folder; raises as `load` does."""
    for folder, prepared in zip(folders, each, strict=True):
        for line in miscounted(prepared.clips, features.about(folder), config.data.labels):
            logging.warning("%s", line)
    found = features.Prepared(*(list(chain(*lists)) for lists in zip(*each, strict=True)))
    if found.faceless and not config.data.skip_faceless:
        raise UserError(
            f"no face in {len(found.faceless)} of {len(found.clips) + len(found.faceless)} clips: "
            f"{', '.join(sorted(found.faceless))} "
            "(leave them out with --config.data.skip_faceless=True, or --skip_faceless when preparing)"
        )
    for message in sorted(found.faceless):
        logging.warning("%s: left out", message)
    return _labelled(sorted(found.clips, key=lambda clip: clip.id), config)


def miscounted(clips: Sequence[ClipFeatures], about: Mapping[str, str], scheme: str) -> list[str]:
    """Where the clips of a corpus are not as many of each class as its sheet must give, one line a corpus."""
    lines = []
    for dataset in sorted({clip.dataset for clip in clips}):
        version = about.get(f"{dataset} version", about.get("version", ""))
        own = [_class(clip, scheme) for clip in clips if clip.dataset == dataset]
        line = labels.miscounted(scheme, dataset=dataset, version=version, found=own)
        lines += [line] if line else []
    return lines


def _class(clip: ClipFeatures, scheme: str) -> str | None:
    return labels.label(scheme, dataset=clip.dataset, emotion=clip.emotion, objective=clip.objective)


def _labelled(clips: list[ClipFeatures], config: Config) -> Corpus:
    classes = config.data.classes
    for one, other in pairwise(clips):
        if one.id == other.id:
            raise UserError(f"clip {one.id} is there twice")
    classed = [(clip, _class(clip, config.data.labels)) for clip in clips]
    present = {name for _, name in classed if name is not None}
    for name in classes:
        if name not in present:
            raise UserError(
                f"config.data.classes names {name!r}, which no clip of {config.data.dataset} has; "
                f"there are {', '.join(sorted(present)) or 'none'}"
            )
    scored = [(clip, name) for clip, name in classed if name in classes]
    if not scored:
        raise UserError(f"{config.data.dataset}: no clip is left")
    if len(scored) < len(clips):
        others = ", ".join(sorted({clip.emotion for clip, name in classed if name not in classes}))
        logging.warning("%d clips of other emotions (%s) are left out", len(clips) - len(scored), others)
    gone = {clip.subject for clip in clips} - {clip.subject for clip, _ in scored}
    for subject in sorted(gone):
        logging.warning("subject %s has no clip of the scored classes and is left out", subject)
    graph = nodes.graph(config.graph, config.motion)
    stacked = {
        name: np.stack([getattr(clip, name) for clip, _ in scored]) for name in ClipBatch._fields if name != "label"
    }
    stacked["nodes"] = nodes.shown(nodes.kept(stacked["nodes"], config.graph), config)
    batch = ClipBatch(label=np.asarray([classes.index(name) for _, name in scored], np.int32), **stacked)
    ids = tuple(clip.id for clip, _ in scored)
    digest = hashlib.sha256("\n".join(ids).encode())
    for array in batch:
        digest.update(np.ascontiguousarray(array).tobytes())
    return Corpus(
        ids=ids,
        subjects=tuple(clip.subject for clip, _ in scored),
        datasets=tuple(clip.dataset for clip, _ in scored),
        groups=tuple(clip.group for clip, _ in scored),
        parts=tuple(clip.part for clip, _ in scored),
        batch=batch,
        graph=graph,
        fingerprint=digest.hexdigest(),
    )
