"""One clip for playback: aligned faces, flow in colour, and the output of the networks that never saw it."""

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tensorflow_datasets as tfds
from jaxtyping import Bool, Float, Int, UInt8

from stag_jax.analysis import thumbnails
from stag_jax.analysis.loaded import LoadedRun
from stag_jax.config import Config
from stag_jax.corpora import records
from stag_jax.face import alignment, regions, template, tracking
from stag_jax.motion import extract, nodes, quality, times
from stag_jax.motion.observe import observe, placed
from stag_jax.types import Clip, ClipFeatures, FlowClip, UserError

MARKS = ("onset", "apex", "offset")


class Playback(NamedTuple):
    """Everything that is shown of one clip.

    Frames f are those in which the face was tracked. A corpus of flow images has none: then f is 0, t is 1, and
    pixels are those of the flow image instead of the canonical face.
    """

    features: ClipFeatures  # the network's input; with id, subject, emotion and annotated units
    action_units: str | None  # the annotators' own text
    frames: UInt8[np.ndarray, "f y x"]  # aligned, grey
    times_ms: Float[np.ndarray, " f"]  # after the clip's first frame
    raw: Int[np.ndarray, " f"]  # index of each among the clip's raw frames
    magnitude: Float[np.ndarray, " f"]  # movement since the reference, pixels; NaN in the first frame
    kept: Int[np.ndarray, " t"]  # indices into `frames`; their times are `features.times_ms`
    mask: Bool[np.ndarray, " t"]  # False where the clip has fewer
    flow_pictures: UInt8[np.ndarray, "t y x 3"]  # RGB; see `quality.coloured`
    centres: Float[np.ndarray, "n 2"]  # x, y of the nodes, pixels
    onset: int | None  # as annotated, indices into the clip's raw frames
    apex: int | None
    offset: int | None
    marks_ms: dict[str, float]  # those of the three that are known, in milliseconds
    probability: Float[np.ndarray, " k"] | None  # None if there are no networks
    aux: dict[str, np.ndarray]  # named intermediates as in `model.stag`, without the axis b; empty if there are none
    spoken: Int[np.ndarray, " t2"]  # the kept frames that `aux` covers; a key-frame network has one


def playback(run: LoadedRun, corpora: Sequence[Path], clip_id: str) -> Playback:
    """Read a clip, process it as in training, and apply the networks of the fold that holds it out.

    If these are missing (the run is not finished, the fold is missing, or no fold tests the clip), `probability` is
    None and `aux` is empty.

    Args:
      run: a run.
      corpora: the folders of its prepared corpora.
      clip_id: as in `run.predictions`.

    Raises:
      NoFaceError: no usable face in the clip.
      UserError: no such clip, or a damaged one; the clip is named.
    """
    clip = find_clip(corpora, clip_id)
    parts = _from_flow_image(clip, run.config) if isinstance(clip, FlowClip) else _from_frames(clip, run.config)
    features = parts.pop("features")
    features = features._replace(nodes=nodes.shown(features.nodes, run.config))
    probability, aux = _ask(run, features)
    marks = {name: getattr(clip, name, None) for name in MARKS}
    return Playback(
        features=features,
        action_units=clip.action_units,
        mask=features.frame_mask,
        probability=probability,
        aux=aux,
        spoken=_spoken(aux, features),
        **marks,
        **parts,
    )


class Faces(NamedTuple):
    """Some frames of a clip, to draw on; for a flow image its one picture, t = 1."""

    pictures: UInt8[np.ndarray, "t y x *c"]  # aligned and grey, or flow in colour
    centres: Float[np.ndarray, "n 2"]  # x, y of the nodes, pixels
    marks_ms: dict[str, float]  # as in `Playback`


def faces(run: LoadedRun, corpora: Sequence[Path], clip_id: str, keep: Int[np.ndarray, " t"]) -> Faces:
    """Return the frames `keep` of a clip, aligned as in training; nothing is measured in them.

    Raises:
      NoFaceError: no usable face in the clip.
      UserError: no such clip, or a damaged one; the clip is named.
    """
    clip, config = find_clip(corpora, clip_id), run.config
    if isinstance(clip, FlowClip):
        parts = _from_flow_image(clip, config)
        return Faces(parts["flow_pictures"], parts["centres"], parts["marks_ms"])
    track = tracking.track(clip.frames, config.face, clip=clip.identity.id)
    tracking.require(track, clip=clip.identity.id)
    transform, points = placed(track, config.face)
    pictures = np.stack([alignment.warp(clip.frames[f], transform, config.face.size) for f in keep])
    return Faces(pictures, nodes.kept(regions.roi_centres(points), config.graph), _marks(clip))


def find_clip(corpora: Sequence[Path], clip_id: str) -> Clip | FlowClip:
    """Return a clip of the prepared corpora. The ids of each folder are read once, in one pass over its records.

    Raises:
      UserError: no folder has it, or a folder holds no prepared corpus, or the clip is damaged.
    """
    for folder in corpora:
        source, row_of = _opened(folder)
        if clip_id in row_of:
            return records.to_clip(source[row_of[clip_id]])
    raise UserError(f"there is no clip {clip_id} in {', '.join(map(str, corpora))}")


@functools.cache
def _opened(folder: Path) -> tuple[Any, dict[str, int]]:
    """Return the corpus, and the row of each clip in it."""
    source = records.read_clips(folder)
    # Records are read as bytes: pictures and films in them are not decoded.
    name_only = tfds.features.FeaturesDict({"id": tfds.features.Text()})
    stored = (source.data_source[index] for index in range(len(source)))
    names = [name_only.deserialize_example_np(record)["id"].decode() for record in stored]
    return source, {name: index for index, name in enumerate(names)}


def _from_frames(clip: Clip, config: Config) -> dict[str, Any]:
    observation = observe(clip, config)
    raw = np.flatnonzero([not reason for reason in observation.track.refused])
    frame_ms = times.frame_times(len(clip.frames), clip.fps, clip.numbers).astype(np.float32)
    return {
        "features": extract.from_frames(clip, observation, config),
        "frames": np.stack([alignment.warp(clip.frames[f], observation.transform, config.face.size) for f in raw]),
        "times_ms": frame_ms[raw],
        "raw": raw,
        "magnitude": observation.magnitude[raw],
        "kept": np.searchsorted(raw, observation.index),
        "flow_pictures": np.stack([quality.coloured(flow, observation.reference) for flow in observation.flow]),
        "centres": nodes.kept(observation.centres, config.graph),
        "marks_ms": _marks(clip),
    }


def _marks(clip: Clip) -> dict[str, float]:
    frame_ms = times.frame_times(len(clip.frames), clip.fps, clip.numbers)
    return {name: float(frame_ms[getattr(clip, name)]) for name in MARKS if getattr(clip, name) is not None}


def _from_flow_image(clip: FlowClip, config: Config) -> dict[str, Any]:
    height, width = clip.flow.shape[:2]
    if config.graph.kind == "grid":
        positions = nodes.graph(config.graph, config.motion).position
    else:
        positions = template.in_flow_image(nodes.kept(regions.roi_centres(template.mean_face()), config.graph))
    background = np.full((height, width), 255, np.uint8)
    return {
        "features": extract.from_flow_image(clip, config),
        "frames": np.zeros((0, height, width), np.uint8),
        "times_ms": np.zeros(0, np.float32),
        "raw": np.zeros(0, int),
        "magnitude": np.zeros(0, np.float32),
        "kept": np.zeros(1, int),
        "flow_pictures": quality.coloured(thumbnails.flow_field(clip.flow), background)[None],
        "centres": template.to_pixels(positions, width, height),
        "marks_ms": {},
    }


def _ask(run: LoadedRun, found: ClipFeatures) -> tuple[Float[np.ndarray, " k"] | None, dict[str, np.ndarray]]:
    folds = run.predictions.loc[run.predictions["id"] == found.identity.id, "fold"].tolist()
    if run.partial or not folds or folds[0] not in run.folds:
        return None, {}
    probability, aux = run.model(folds[0]).apply(nodes.one(found, run.config))
    return probability[0], {name: value[0] for name, value in aux.items()}


def _spoken(aux: Mapping[str, np.ndarray], found: ClipFeatures) -> Int[np.ndarray, " t2"]:
    t = len(found.frame_mask)
    if "au_probability" not in aux or len(aux["au_probability"]) == t:
        return np.arange(t)
    return np.argmax(np.where(found.frame_mask, found.magnitude, -np.inf), keepdims=True)


def region_weights(aux: Mapping[str, np.ndarray]) -> dict[str, Float[np.ndarray, "t n"]]:
    """Return how much of the attention in each frame goes to each region, for each intermediate; sums to 1.

    `frame_over_nodes` is returned as it is. The layers' maps (`space_attention_<l>`), and the connectivity as the
    weights that it would give alone, are averaged over heads and over the regions that attend.
    Empty for a network with none of them.

    Args:
      aux: as in `Playback`.
    """
    weights = {}
    if "frame_over_nodes" in aux:
        weights["frame_over_nodes"] = aux["frame_over_nodes"]
    for name in sorted(aux):
        if name.startswith("space_attention_"):
            received = aux[name].mean(axis=(1, 2))
            # The rest of the attention goes to the same region at other times.
            weights[name] = received / received.sum(axis=-1, keepdims=True)
    if "connectivity" in aux:
        linked = np.exp(aux["connectivity"] - aux["connectivity"].max(axis=-1, keepdims=True))
        weights["connectivity"] = (linked / linked.sum(axis=-1, keepdims=True)).mean(axis=1)
    return weights
