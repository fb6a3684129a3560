"""Load prepared corpora as one ClipBatch with labels."""

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence, Set
from itertools import chain, pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from absl import logging
from jaxtyping import Bool

from stag_jax.config import Config
from stag_jax.corpora import features, records
from stag_jax.motion import nodes
from stag_jax.protocol import labels
from stag_jax.protocol.splits import Clips, make_splits
from stag_jax.types import ClipBatch, ClipFeatures, ClipIdentity, FaceGraph, UserError

TEXTS = ("ids", "subjects", "datasets", "groups", "parts")


class Corpus(NamedTuple):
    """All clips of a run, sorted by id, on the host."""

    ids: tuple[str, ...]
    subjects: tuple[str, ...]
    datasets: tuple[str, ...]
    groups: tuple[str, ...]
    parts: tuple[str, ...]
    batch: ClipBatch  # numpy
    graph: FaceGraph
    fingerprint: str  # of ids and batch
    origin: tuple[dict[str, Any], ...] = ()  # how the features of each corpus were made (`features.origin`)

    @property
    def clips(self) -> Clips:
        """The columns that a split may depend on."""
        return Clips(self.subjects, self.datasets, self.groups, self.parts, self.batch.label)

    def take(self, chosen: Bool[np.ndarray, " b"]) -> "Corpus":
        """Select clips by a mask; the fingerprint stays that of all clips."""
        rows = np.flatnonzero(chosen)
        picked = {name: tuple(getattr(self, name)[row] for row in rows) for name in TEXTS}
        return self._replace(**picked, batch=ClipBatch(*(np.asarray(array)[rows] for array in self.batch)))


def load(folders: Path | Sequence[Path], config: Config) -> Corpus:
    """Load the corpora prepared in one or more folders as features, labelled as `config.data` says.

    Raises:
      UserError: clips without a face (all are named) unless `config.data.skip_faceless`; a class without a clip; a
        label scheme that does not fit; the same clip twice; no clip left.
    """
    folders = [folders] if isinstance(folders, Path) else list(folders)
    require_classes(folders, config)
    return assemble(folders, [features.prepare(folder, config) for folder in folders], config)


def assemble(folders: Sequence[Path], each: Sequence[features.Prepared], config: Config) -> Corpus:
    """Do the same as `load` from the prepared features of each folder; raise as `load` does."""
    for folder, prepared in zip(folders, each, strict=True):
        for line in miscounted(prepared.clips, records.about(folder), config.data.labels):
            logging.warning("%s", line)
    corpus = _labelled(all_clips(each, skip_faceless=config.data.skip_faceless), config)
    return corpus._replace(origin=tuple(prepared.origin for prepared in each))


def all_clips(each: Sequence[features.Prepared], *, skip_faceless: bool) -> list[ClipFeatures]:
    """Join the clips of several corpora, sorted by id.

    Raises:
      UserError: clips without a face (all are named) unless they are to be skipped; the same clip twice.
    """
    clips, faceless = (list(chain(*(getattr(prepared, name) for prepared in each))) for name in ("clips", "faceless"))
    if faceless and not skip_faceless:
        raise UserError(
            f"no face in {len(faceless)} of {len(clips) + len(faceless)} clips: {', '.join(sorted(faceless))} "
            "(leave them out with --config.data.skip_faceless=True, or --skip_faceless when preparing)"
        )
    for message in sorted(faceless):
        logging.warning("%s: left out", message)
    clips.sort(key=lambda clip: clip.identity.id)
    for clip, following in pairwise(clips):
        if clip.identity.id == following.identity.id:
            raise UserError(f"clip {clip.identity.id} is there twice")
    return clips


def counts(clips: Sequence[ClipFeatures]) -> dict[str, Counter[str]]:
    """Count the clips of each emotion (under ""), and of each class of every scheme that fits all of `clips`."""
    fitting = {}
    for scheme in ("", *labels.SCHEMES):
        if not scheme or {clip.identity.dataset for clip in clips} <= set(labels.SCHEMES[scheme]):
            fitting[scheme] = Counter(name for name in (_class(clip.identity, scheme) for clip in clips) if name)
    return fitting


def require_classes(folders: Sequence[Path], config: Config) -> None:
    """Check that prepared corpora have a clip of every class, before features are extracted.

    Raises:
      UserError: a class that no clip has, or a label scheme that does not fit.
    """
    _require(config, {name for _, names in _annotated(folders, config) for name in names})


def require_splits(folders: Path | Sequence[Path], config: Config) -> None:
    """Check that prepared corpora can be split as configured, before features are extracted.

    Raises:
      UserError: as `require_classes`, or clips that cannot be split as configured.
    """
    folders = [folders] if isinstance(folders, Path) else list(folders)
    require_classes(folders, config)
    # A recording gives many windows, so the number of clips to split is not known yet.
    if any(records.holds_recordings(folder) for folder in folders) and config.protocol.split.startswith("stratified"):
        return
    classes = config.data.classes
    scored = [(text, [name for name in names if name in classes]) for text, names in _annotated(folders, config)]
    columns = _columns([identity for identity, names in scored if names])
    label = np.asarray([classes.index(names[0]) for _, names in scored if names])
    clips = Clips(**{name: columns[name] for name in ("subjects", "datasets", "groups", "parts")}, labels=label)
    make_splits(config.protocol, clips)


def _annotated(folders: Sequence[Path], config: Config) -> list[tuple[ClipIdentity, list[str]]]:
    """List each record's identity and classes; a recording has the classes of its windows."""
    rows = []
    for folder in folders:
        for record in records.read_annotations(folder):
            identity = ClipIdentity(*(record[name] for name in ClipIdentity._fields))
            events = record["events"]
            emotions = [identity.emotion] if events is None else [labels.NONE, *events]
            classes = (_class(identity._replace(emotion=emotion), config.data.labels) for emotion in emotions)
            rows.append((identity, [name for name in classes if name is not None]))
    return rows


def _require(config: Config, present: Set[str]) -> None:
    for name in config.data.classes:
        if name not in present:
            raise UserError(
                f"config.data.classes names {name!r}, which no clip of {config.data.dataset} has; "
                f"there are {', '.join(sorted(present)) or 'none'}"
            )


def miscounted(clips: Sequence[ClipFeatures], about: Mapping[str, str], scheme: str) -> list[str]:
    """Return one line for each corpus whose number of clips of a class differs from its annotation sheet."""
    lines = []
    for dataset in sorted({clip.identity.dataset for clip in clips}):
        version = about.get(f"{dataset} version", about.get("version", ""))
        classes = [_class(clip.identity, scheme) for clip in clips if clip.identity.dataset == dataset]
        line = labels.miscounted(scheme, dataset=dataset, version=version, found=classes)
        lines += [line] if line else []
    return lines


def _class(identity: ClipIdentity, scheme: str) -> str | None:
    return labels.label(scheme, dataset=identity.dataset, emotion=identity.emotion, objective=identity.objective)


def _labelled(clips: list[ClipFeatures], config: Config) -> Corpus:
    classes = config.data.classes
    classed = [(clip, _class(clip.identity, config.data.labels)) for clip in clips]
    _require(config, {name for _, name in classed if name is not None})
    scored = [(clip, name) for clip, name in classed if name in classes]
    if not scored:
        raise UserError(f"{config.data.dataset}: no clip is left")
    if len(scored) < len(clips):
        others = ", ".join(sorted({clip.identity.emotion for clip, name in classed if name not in classes}))
        logging.warning("%d clips of other emotions (%s) are left out", len(clips) - len(scored), others)
    unscored = {clip.identity.subject for clip in clips} - {clip.identity.subject for clip, _ in scored}
    for subject in sorted(unscored):
        logging.warning("subject %s has no clip of the scored classes and is left out", subject)
    graph = nodes.graph(config.graph, config.motion)
    stacked = {
        name: np.stack([getattr(clip, name) for clip, _ in scored]) for name in ClipBatch._fields if name != "label"
    }
    stacked["nodes"] = nodes.shown(nodes.kept(stacked["nodes"], config.graph), config)
    batch = ClipBatch(label=np.asarray([classes.index(name) for _, name in scored], np.int32), **stacked)
    columns = _columns([clip.identity for clip, _ in scored])
    digest = hashlib.sha256("\n".join(columns["ids"]).encode())
    for array in batch:
        digest.update(np.ascontiguousarray(array).tobytes())
    return Corpus(
        **columns,
        batch=batch,
        graph=graph,
        fingerprint=digest.hexdigest(),
    )


def _columns(identities: Sequence[ClipIdentity]) -> dict[str, Any]:
    """Return the columns `TEXTS` of a corpus."""
    return {name: tuple(getattr(each, name.removesuffix("s")) for each in identities) for name in TEXTS}
