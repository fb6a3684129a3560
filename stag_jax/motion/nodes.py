"""Node features: small patches of flow and strain, and their change when the face is flipped."""

import cv2
import numpy as np
from jaxtyping import Float, Int, Shaped, UInt8

from stag_jax.config import Config, GraphConfig, MotionConfig
from stag_jax.face import regions, template, topology
from stag_jax.motion.sampling import bilinear
from stag_jax.types import ClipBatch, ClipFeatures, FaceGraph, UserError

CHANNELS = 4  # u, v, strain, length of (u, v)
STRAIN = 2  # index of strain, in the channels and in the pooled values
POOLED = 6  # mean u, mean v, mean strain, mean magnitude, deviation of u, deviation of v
MEAN_MAGNITUDE = -3  # index of the mean magnitude in a node's features
LEVELS = 255  # 8-bit flow images
CANONICAL = 128  # side of the canonical face that `motion.spacing` refers to for flow images


def node_features(
    flow: Float[np.ndarray, "t y x 2"],
    strain: Float[np.ndarray, "t y x"],
    centres: Float[np.ndarray, "n 2"],
    patch: int,
    spacing: float,
) -> Float[np.ndarray, "t n d"]:
    """Sample a patch at each centre (x, y in pixels), `patch` x `patch` samples `spacing` pixels apart, and pool it.

    d = 4 patch² + 6: first the patch by row, column and channel (u, v, strain, length of the flow), then the six values
    of `POOLED`. Units as given: flow in pixels, strain per pixel.
    """
    field = np.concatenate([flow, strain[..., None], _length(flow)], axis=-1)
    return with_statistics(bilinear(field, samples(centres, patch, spacing)))


def node_magnitude(
    flow: Float[np.ndarray, "f y x 2"], centres: Float[np.ndarray, "n 2"], patch: int, spacing: float
) -> Float[np.ndarray, "f n"]:
    """Return the mean length of the flow over each node's patch, in pixels: the fourth of the pooled values alone."""
    return bilinear(_length(flow), samples(centres, patch, spacing)).mean(axis=(2, 3, 4))


def _length(flow: Float[np.ndarray, "*any 2"]) -> Float[np.ndarray, "*any 1"]:
    return np.linalg.norm(flow, axis=-1, keepdims=True)


def samples(centres: Float[np.ndarray, "n 2"], patch: int, spacing: float) -> Float[np.ndarray, "n rows columns 2"]:
    """Return the sampling points of each node: x, y in pixels."""
    steps = (np.arange(patch) - (patch - 1) / 2) * spacing
    return centres[:, None, None] + np.stack(np.meshgrid(steps, steps), axis=-1)


def with_statistics(patches: Float[np.ndarray, "t n rows columns 4"]) -> Float[np.ndarray, "t n d"]:
    """Return the features of patches of u, v, strain and length: see `node_features`."""
    t, n = patches.shape[:2]
    samples = patches.reshape(t, n, -1, CHANNELS)
    parts = (patches.reshape(t, n, -1), samples.mean(axis=2), samples[..., :2].std(axis=2))
    return np.concatenate(parts, axis=-1).astype(np.float32)


def kept(each: Shaped[np.ndarray, "*t n d"], cfg: GraphConfig) -> Shaped[np.ndarray, "*t n2 d"]:
    """Select the configured nodes (`cfg.nodes`) along the node axis, in the order of the graph.

    Motion is measured and frames are selected on all regions, so that networks of few and of all regions see the same
    frames.
    """
    return each[..., regions.places(cfg.nodes), :] if cfg.nodes else each


def patch_mirror(patch: int) -> tuple[Int[np.ndarray, " d"], Float[np.ndarray, " d"]]:
    """Return (index, sign) for flipping the features of a node: flipped = features[index] * sign.

    Columns are reversed, and u changes its sign except in deviations. (The graph's mirror swaps the nodes.)
    """
    layout = np.arange(CHANNELS * patch * patch).reshape(patch, patch, CHANNELS)
    pooled = layout.size + np.arange(POOLED)
    sign = np.ones(layout.size + POOLED, np.float32)
    sign[layout[..., 0]] = -1
    sign[pooled[0]] = -1
    return np.concatenate([layout[:, ::-1].ravel(), pooled]), sign


def flow_image_nodes(
    image: UInt8[np.ndarray, "y x 3"], graph: GraphConfig, motion: MotionConfig
) -> Float[np.ndarray, "1 n d"]:
    """Compute node features, laid out as in `node_features`, of an onset-to-apex flow image of any size: K = 1.

    The images of the MEGC2019 composite contain u, v, strain in red, green, blue, each scaled to 0 to 255 separately,
    so the zero and the unit of motion are lost. With `motion.clip_norm` the median of each channel is used as zero and
    its standard deviation as unit; without, u and v are from -1 to 1 and strain from 0 to 1.

    Nodes of kind "grid" are overlapping patches of twice their stride, averaged down to `motion.patch` samples a side;
    those of kind "roi" are at the regions of an average face, with the same distance of samples relative to the face
    as in the canonical face.
    """
    field = _scaled(image, motion.clip_norm)
    if graph.kind == "grid":
        field = np.concatenate([field, _length(field[..., :2])], axis=-1)
        return with_statistics(_grid_patches(field, graph.grid, motion.patch)[None])
    height, width = image.shape[:2]
    places = template.in_flow_image(regions.roi_centres(template.mean_face()))
    centres = template.to_pixels(places, width, height)
    spacing = motion.spacing * width * template.FLOW_OUTER_EYES[0] / (CANONICAL * template.OUTER_EYES)
    return node_features(field[None, ..., :2], field[None, ..., 2], centres, motion.patch, spacing)


def _scaled(image: UInt8[np.ndarray, "y x 3"], clip_norm: bool) -> Float[np.ndarray, "y x 3"]:
    field = image.astype(np.float32) / LEVELS
    if not clip_norm:
        return field * np.array((2, 2, 1), np.float32) - np.array((1, 1, 0), np.float32)
    field = field - np.median(field, axis=(0, 1))
    deviation = field.std(axis=(0, 1))
    return field / np.where(deviation > 0, deviation, 1)


def _grid_patches(field: Float[np.ndarray, "y x 4"], grid: int, patch: int) -> Float[np.ndarray, "n rows columns 4"]:
    # A stride is `patch` pixels, a node twice that: 28 x 28 with six nodes a side and patches of 4 needs no resizing.
    side = (grid + 1) * patch
    if field.shape[:2] != (side, side):
        field = cv2.resize(field, (side, side), interpolation=cv2.INTER_AREA)
    windows = np.lib.stride_tricks.sliding_window_view(field, (2 * patch, 2 * patch), axis=(0, 1))[::patch, ::patch]
    windows = windows.reshape(grid * grid, CHANNELS, patch, 2, patch, 2).mean(axis=(3, 5))
    return np.moveaxis(windows, 1, -1)


def shown(features: Float[np.ndarray, "*any d"], config: Config) -> Float[np.ndarray, "*any d"]:
    """Set strain features to zero if `config.model.strain` is off, as the network sees them."""
    if config.model.strain:
        return features
    return np.where(strain_features(config.motion.patch), 0, features).astype(np.float32)


def one(clip: ClipFeatures, config: Config) -> ClipBatch:
    """Return a single clip as a batch, b = 1, for prediction; its label is always 0."""
    arrays = {name: np.asarray(getattr(clip, name))[None] for name in ClipBatch._fields if name != "label"}
    arrays["nodes"] = shown(arrays["nodes"], config)
    return ClipBatch(**arrays, label=np.zeros(1, np.int32))


def strain_features(patch: int) -> np.ndarray:
    """Return which features of a node are optical strain: bool [d], laid out as in `node_features`."""
    channel = np.tile(np.arange(CHANNELS), patch * patch)
    return np.concatenate([channel == STRAIN, np.arange(POOLED) == STRAIN])


def graph(cfg: GraphConfig, motion: MotionConfig) -> FaceGraph:
    """Build the graph of the model: topology of the face, layout of the features.

    Raises:
      UserError: an unknown unit, regions in `cfg.nodes` that cannot be kept alone, or regions for a grid.
    """
    if cfg.kind == "grid" and cfg.nodes:
        raise UserError("config.graph.nodes names regions of the face; config.graph.kind='grid' has none")
    roi = cfg.kind == "roi"
    face_topology = topology.roi_topology(cfg.units, cfg.nodes) if roi else topology.grid_topology(cfg.units, cfg.grid)
    index, sign = patch_mirror(motion.patch)
    return FaceGraph(
        **face_topology._asdict(),
        feature_mirror=index,
        feature_sign=sign,
        strain=strain_features(motion.patch),
        pooled=POOLED,
    )
