"""One clip as it can be played: aligned faces, flow in colour, and what the networks that never saw it found in it."""

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
    """A clip with everything that is shown of it.

    Frames f are those in which the face was tracked. A corpus of flow images has none: then f is 0, t is 1, and pixels
    are those of the flow image instead of the canonical face.
    """

    features: ClipFeatures  # as the network gets them; with id, subject, emotion, and units as annotated
    action_units: str | None  # the annotators' own text
    frames: UInt8[np.ndarray, "f y x"]  # aligned, grey
    times_ms: Float[np.ndarray, " f"]  # after the clip's first frame
    raw: Int[np.ndarray, " f"]  # which of the clip's raw frames each is
    magnitude: Float[np.ndarray, " f"]  # movement since the reference, pixels; NaN in the first frame
    kept: Int[np.ndarray, " t"]  # indices into `frames`; their times are `features.times_ms`
    mask: Bool[np.ndarray, " t"]  # False where the clip has fewer
    flow_pictures: UInt8[np.ndarray, "t y x 3"]  # RGB; see `quality.coloured`
    centres: Float[np.ndarray, "n 2"]  # x, y of the nodes, pixels
    onset: int | None  # as annotated, indices into the clip's raw frames
    apex: int | None
    offset: int | None
    marks_ms: dict[str, float]  # the same in time, those that are known
    probability: Float[np.ndarray, " k"] | None  # None where there are no networks
    aux: dict[str, np.ndarray]  # named intermediates as in `model.stag`, without the axis b; empty likewise
    spoken: Int[np.ndarray, " t2"]  # which of the kept frames `aux` speaks of; a key-frame network has one


def playback(run: LoadedRun, corpora: Sequence[Path], clip_id: str) -> Playback:
    """Reads a clip, looks at it again as training did, and asks the networks of the fold that holds it out.

    Where these are not there (the run is not finished, the fold is missing, no fold tests the clip), `probability` is
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
    seen = _from_flow_image(clip, run.config) if isinstance(clip, FlowClip) else _from_frames(clip, run.config)
    found = seen.pop("features")
    found = found._replace(nodes=nodes.shown(found.nodes, run.config))
    probability, aux = _ask(run, found)
    marks = {name: getattr(clip, name, None) for name in MARKS}
    return Playback(
        features=found,
        action_units=clip.action_units,
        mask=found.frame_mask,
        probability=probability,
        aux=aux,
        spoken=_spoken(aux, found),
        **marks,
        **seen,
    )


class Faces(NamedTuple):
    """Some frames of a clip, to draw on; of a flow image its one picture, t = 1."""

    pictures: UInt8[np.ndarray, "t y x *c"]  # aligned and grey, or flow in colour
    centres: Float[np.ndarray, "n 2"]  # x, y of the nodes, pixels
    marks_ms: dict[str, float]  # as in `Playback`


def faces(run: LoadedRun, corpora: Sequence[Path], clip_id: str, keep: Int[np.ndarray, " t"]) -> Faces:
    """The frames `keep` of a clip, aligned as training did; nothing is measured in them.

    Raises:
      NoFaceError: no usable face in the clip.
      UserError: no such clip, or a damaged one; the clip is named.
    """
    clip, config = find_clip(corpora, clip_id), run.config
    if isinstance(clip, FlowClip):
        seen = _from_flow_image(clip, config)
        return Faces(seen["flow_pictures"], seen["centres"], seen["marks_ms"])
    track = tracking.track(clip.frames, config.face, clip=clip.id)
    tracking.require(track, clip=clip.id)
    transform, points = placed(track, config.face)
    pictures = np.stack([alignment.warp(clip.frames[f], transform, config.face.size) for f in keep])
    return Faces(pictures, nodes.kept(regions.roi_centres(points), config.graph), _marks(clip))


def find_clip(corpora: Sequence[Path], clip_id: str) -> Clip | FlowClip:
    """A clip of the prepared corpora. Each folder's ids are read once, which takes a pass over its records.

    Raises:
      UserError: no folder has it, or a folder holds no prepared corpus, or the clip is damaged.
    """
    for folder in corpora:
        source, places = _opened(folder)
        if clip_id in places:
            return records.to_clip(source[places[clip_id]])
    raise UserError(f"there is no clip {clip_id} in {', '.join(map(str, corpora))}")


@functools.cache
def _opened(folder: Path) -> tuple[Any, dict[str, int]]:
    """The corpus, and where each clip lies in it."""
    source = records.read_clips(folder)
    # The records as bytes: pictures and films in them are not decoded.
    name_only = tfds.features.FeaturesDict({"id": tfds.features.Text()})
    stored = (source.data_source[index] for index in range(len(source)))
    names = [name_only.deserialize_example_np(record)["id"].decode() for record in stored]
    return source, {name: index for index, name in enumerate(names)}


def _from_frames(clip: Clip, config: Config) -> dict[str, Any]:
    seen = observe(clip, config)
    raw = np.flatnonzero([not reason for reason in seen.track.refused])
    taken = times.frame_times(len(clip.frames), clip.fps, clip.numbers).astype(np.float32)
    return {
        "features": extract.from_frames(clip, seen, config),
        "frames": np.stack([alignment.warp(clip.frames[f], seen.transform, config.face.size) for f in raw]),
        "times_ms": taken[raw],
        "raw": raw,
        "magnitude": seen.magnitude[raw],
        "kept": np.searchsorted(raw, seen.index),
        "flow_pictures": np.stack([quality.coloured(flow, seen.reference) for flow in seen.flow]),
        "centres": nodes.kept(seen.centres, config.graph),
        "marks_ms": _marks(clip),
    }


def _marks(clip: Clip) -> dict[str, float]:
    taken = times.frame_times(len(clip.frames), clip.fps, clip.numbers)
    return {name: float(taken[getattr(clip, name)]) for name in MARKS if getattr(clip, name) is not None}


def _from_flow_image(clip: FlowClip, config: Config) -> dict[str, Any]:
    height, width = clip.flow.shape[:2]
    if config.graph.kind == "grid":
        places = nodes.graph(config.graph, config.motion).position
    else:
        places = template.in_flow_image(nodes.kept(regions.roi_centres(template.mean_face()), config.graph))
    paper = np.full((height, width), 255, np.uint8)
    return {
        "features": extract.from_flow_image(clip, config),
        "frames": np.zeros((0, height, width), np.uint8),
        "times_ms": np.zeros(0, np.float32),
        "raw": np.zeros(0, int),
        "magnitude": np.zeros(0, np.float32),
        "kept": np.zeros(1, int),
        "flow_pictures": quality.coloured(thumbnails.flow_field(clip.flow), paper)[None],
        "centres": template.to_pixels(places, width, height),
        "marks_ms": {},
    }


def _ask(run: LoadedRun, found: ClipFeatures) -> tuple[Float[np.ndarray, " k"] | None, dict[str, np.ndarray]]:
    folds = run.predictions.loc[run.predictions["id"] == found.id, "fold"].tolist()
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
    """How much of the attention in each frame goes to each region, by the intermediate that says so; sums to 1.

    `frame_over_nodes` as it is. Of the layers' maps (`space_attention_<l>`), and of the connectivity as weights that it
    would give alone, the mean over heads and over the regions that attend. Empty for a network that has none of them.

    Args:
      aux: as in `Playback`.
    """
    found = {}
    if "frame_over_nodes" in aux:
        found["frame_over_nodes"] = aux["frame_over_nodes"]
    for name in sorted(aux):
        if name.startswith("space_attention_"):
            received = aux[name].mean(axis=(1, 2))
            # The rest of the attention goes to the same region at other times.
            found[name] = received / received.sum(axis=-1, keepdims=True)
    if "connectivity" in aux:
        linked = np.exp(aux["connectivity"] - aux["connectivity"].max(axis=-1, keepdims=True))
        found["connectivity"] = (linked / linked.sum(axis=-1, keepdims=True)).mean(axis=1)
    return found
