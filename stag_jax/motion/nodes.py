"""Node features: small patches of flow and strain, and what they become when the face is flipped."""

import cv2
import numpy as np
from jaxtyping import Float, Int, Shaped, UInt8

from stag_jax.config import Config, GraphConfig, MotionConfig
from stag_jax.face import regions, template, topology
from stag_jax.motion.sampling import bilinear
from stag_jax.types import ClipBatch, ClipFeatures, FaceGraph, UserError

CHANNELS = 4  # u, v, strain, length of (u, v)
STRAIN = 2  # the third channel, and the third of the pooled values
POOLED = 6  # mean u, mean v, mean strain, mean magnitude, deviation of u, deviation of v
MEAN_MAGNITUDE = -3  # where the mean magnitude lies in a node's features
LEVELS = 255  # 8-bit flow images
CANONICAL = 128  # side of the canonical face that `motion.spacing` is taken to mean where there is only a flow image


def node_features(
    flow: Float[np.ndarray, "t y x 2"],
    strain: Float[np.ndarray, "t y x"],
    centres: Float[np.ndarray, "n 2"],
    patch: int,
    spacing: float,
) -> Float[np.ndarray, "t n d"]:
    """A patch around each centre (x, y in pixels), `patch` x `patch` samples `spacing` pixels apart, and statistics.

    d = 4 patch² + 6. First the patch by row, column and channel (u, v, strain, length of the flow), then the six values
    of `POOLED`. Flow in pixels, strain per pixel, as given.
    """
    field = np.concatenate([flow, strain[..., None], _length(flow)], axis=-1)
    return with_statistics(bilinear(field, samples(centres, patch, spacing)))


def node_magnitude(
    flow: Float[np.ndarray, "f y x 2"], centres: Float[np.ndarray, "n 2"], patch: int, spacing: float
) -> Float[np.ndarray, "f n"]:
    """Mean length of the flow over each node's patch, in pixels: the fourth of the pooled values, without the rest."""
    return bilinear(_length(flow), samples(centres, patch, spacing)).mean(axis=(2, 3, 4))


def _length(flow: Float[np.ndarray, "*any 2"]) -> Float[np.ndarray, "*any 1"]:
    return np.linalg.norm(flow, axis=-1, keepdims=True)


def samples(centres: Float[np.ndarray, "n 2"], patch: int, spacing: float) -> Float[np.ndarray, "n rows columns 2"]:
    """Where each node is sampled: x, y in pixels."""
    steps = (np.arange(patch) - (patch - 1) / 2) * spacing
    return centres[:, None, None] + np.stack(np.meshgrid(steps, steps), axis=-1)


def with_statistics(patches: Float[np.ndarray, "t n rows columns 4"]) -> Float[np.ndarray, "t n d"]:
    """The features of patches of u, v, strain and length: see `node_features`."""
    t, n = patches.shape[:2]
    samples = patches.reshape(t, n, -1, CHANNELS)
    parts = (patches.reshape(t, n, -1), samples.mean(axis=2), samples[..., :2].std(axis=2))
    return np.concatenate(parts, axis=-1).astype(np.float32)


def kept(each: Shaped[np.ndarray, "*t n d"], cfg: GraphConfig) -> Shaped[np.ndarray, "*t n2 d"]:
    """Of what belongs to every node of the face, that of the nodes kept (`cfg.nodes`), in the order of the graph.

    Everything is measured on all regions, and frames are chosen by all of them, so that a network of few regions sees
    the frames that one of all of them sees.
    """
    return each[..., regions.places(cfg.nodes), :] if cfg.nodes else each


def patch_mirror(patch: int) -> tuple[Int[np.ndarray, " d"], Float[np.ndarray, " d"]]:
    """What flipping the picture does to a node's features: flipped = features[index] * sign.

    Columns are reversed, u changes its sign wherever it is not a deviation. (That nodes change places too is the
    graph's business.)
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
    """Node features, laid out as in `node_features`, of an onset-to-apex flow image of any size: K = 1.

    The images of the MEGC2019 composite hold u, v, strain in red, green, blue, each stretched to 0 to 255 on its own,
    so the zero and the unit of motion are lost. With `motion.clip_norm` the median of each channel stands in for zero
    and its standard deviation for the unit; without, u and v run from -1 to 1 and strain from 0 to 1.

    Nodes of kind "grid" are overlapping patches of twice their stride, averaged down to `motion.patch` samples a side;
    those of kind "roi" lie where the regions of an average face would, their samples as far apart, in regions, as in
    the canonical face.
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
        return field * np.float32((2, 2, 1)) - np.float32((1, 1, 0))
    field = field - np.median(field, axis=(0, 1))
    spread = field.std(axis=(0, 1))
    return field / np.where(spread > 0, spread, 1)


def _grid_patches(field: Float[np.ndarray, "y x 4"], grid: int, patch: int) -> Float[np.ndarray, "n rows columns 4"]:
    # A stride is `patch` pixels, a node twice that: 28 x 28 with six nodes a side and patches of 4 needs no resizing.
    side = (grid + 1) * patch
    if field.shape[:2] != (side, side):
        field = cv2.resize(field, (side, side), interpolation=cv2.INTER_AREA)
    windows = np.lib.stride_tricks.sliding_window_view(field, (2 * patch, 2 * patch), axis=(0, 1))[::patch, ::patch]
    windows = windows.reshape(grid * grid, CHANNELS, patch, 2, patch, 2).mean(axis=(3, 5))
    return np.moveaxis(windows, 1, -1)


def shown(features: Float[np.ndarray, "*any d"], config: Config) -> Float[np.ndarray, "*any d"]:
    """Node features as networks of these settings are shown them: without strain where `config.model.strain` is off."""
    if config.model.strain:
        return features
    return np.where(strain_features(config.motion.patch), 0, features).astype(np.float32)


def one(clip: ClipFeatures, config: Config) -> ClipBatch:
    """A single clip as a batch, b = 1, to be asked about; its label is 0, whatever it is."""
    arrays = {name: np.asarray(getattr(clip, name))[None] for name in ClipBatch._fields if name != "label"}
    arrays["nodes"] = shown(arrays["nodes"], config)
    return ClipBatch(**arrays, label=np.zeros(1, np.int32))


def strain_features(patch: int) -> np.ndarray:
    """Which of a node's features are optical strain: bool [d], laid out as in `node_features`."""
    channel = np.tile(np.arange(CHANNELS), patch * patch)
    return np.concatenate([channel == STRAIN, np.arange(POOLED) == STRAIN])


def graph(cfg: GraphConfig, motion: MotionConfig) -> FaceGraph:
    """The graph that the model is built for: topology of the face, layout of the features.

    Raises UserError for an unknown unit, and for regions in `cfg.nodes` that cannot be kept alone, or of a grid.
    """
    if cfg.kind == "grid" and cfg.nodes:
        raise UserError("config.graph.nodes names regions of the face; config.graph.kind='grid' has none")
    roi = cfg.kind == "roi"
    made = topology.roi_topology(cfg.units, cfg.nodes) if roi else topology.grid_topology(cfg.units, cfg.grid)
    index, sign = patch_mirror(motion.patch)
    return FaceGraph(
        **made._asdict(),
        feature_mirror=index,
        feature_sign=sign,
        strain=strain_features(motion.patch),
        pooled=POOLED,
    )
