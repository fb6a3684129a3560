"""Whole flow fields of a clip for use by other code: arrays of u, v and strain, and images of 8 bits per channel.

The fields are those of `motion.observe`, measured in the same way.
"""

from typing import NamedTuple

import cv2
import numpy as np
from jaxtyping import Float, Int, UInt8

from stag_jax.config import Config, replace
from stag_jax.face import template
from stag_jax.motion import optical_flow as flows
from stag_jax.motion import selection
from stag_jax.motion.observe import observe
from stag_jax.types import Clip, UserError

LEVELS = 255
CHANNELS = ("u", "v", "strain")  # in red, green, blue of an image
CROPS = ("composite", "none")


class Fields(NamedTuple):
    """The flow of one clip. Axis g: the measured frames, in order; pixels are of the aligned face (or the crop)."""

    index: Int[np.ndarray, " g"]  # frames of the clip
    since: Int[np.ndarray, " g"]  # the frame that each one is measured from
    flow: Float[np.ndarray, "g y x 2"]  # u (right), v (down), pixels
    strain: Float[np.ndarray, "g y x"]  # per pixel
    magnitude: Float[np.ndarray, " g"]  # of the face as a whole (`selection.frame_magnitude`), pixels
    reference: UInt8[np.ndarray, "y x"]  # the first frame
    transform: Float[np.ndarray, "2 3"]  # from pixels of the recording; the identity without alignment
    head: Float[np.ndarray, "g 2 3"]  # head motion that was removed; the identity without alignment


def aligned(clip: Clip, config: Config, *, largest: bool = False) -> Fields:
    """Measure a clip as `motion.observe` does: on the aligned face, without head motion.

    Args:
      clip: a clip.
      config: `face` and `motion` are used, except `motion.frames` and `motion.selection`.
      largest: measure only the frame of largest movement, not all frames in which the face was tracked.

    Raises:
      NoFaceError, UserError: as `observe`.
    """
    count = 1 if largest else max(len(clip.frames) - 1, 1)
    changes = {"motion.frames": count, "motion.selection": "magnitude", "graph.kind": "roi"}
    seen = observe(clip, replace(config, changes))
    # Frames that the tracker refused are replaced by other frames, which are masked.
    index, flow = seen.index[seen.mask], seen.flow[seen.mask]
    tracked = np.flatnonzero([not reason for reason in seen.track.refused])
    return Fields(
        index=index,
        since=_since(tracked, index, config.motion.reference),
        flow=flow,
        strain=flows.strain(flow),
        magnitude=seen.magnitude[index],
        reference=seen.reference,
        transform=seen.transform,
        head=seen.head[index],
    )


def unaligned(clip: Clip, config: Config, *, largest: bool = False) -> Fields:
    """Measure pictures that already are crops of a face: no landmarks, no removal of head motion.

    The frame of largest movement is chosen by `selection.frame_magnitude` over pixels, in flow by
    `motion.first_look`.

    Args:
      clip: a clip.
      config: `motion.first_look`, `motion.optical_flow` and `motion.reference` are used.
      largest: measure only the frame of largest movement.

    Raises:
      UserError: fewer than two frames, or an unknown backend.
    """
    motion = config.motion
    if len(clip.frames) < 2:
        raise UserError(f"{clip.identity.id}: {len(clip.frames)} frame(s); motion needs at least two")
    scout, backend = flows.resolve(motion.first_look, "first_look"), flows.resolve(motion.flow)
    faces = np.stack([cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in clip.frames])
    before = np.broadcast_to(faces[:1], faces[1:].shape) if motion.reference == "onset" else faces[:-1]
    flow = flows.flows(before, faces[1:], scout)
    magnitude = selection.frame_magnitude(np.linalg.norm(flow, axis=-1).reshape(len(flow), -1))
    rows = np.array([int(magnitude.argmax())]) if largest else np.arange(len(flow))
    flow = flow[rows] if backend == scout else flows.flows(before[rows], faces[1:][rows], backend)
    return Fields(
        index=rows + 1,
        since=_since(np.arange(len(faces)), rows + 1, motion.reference),
        flow=flow,
        strain=flows.strain(flow),
        magnitude=magnitude[rows],
        reference=faces[0],
        transform=np.eye(2, 3),
        head=np.tile(np.eye(2, 3), (len(rows), 1, 1)),
    )


def _since(seen: Int[np.ndarray, " f"], index: Int[np.ndarray, " g"], reference: str) -> Int[np.ndarray, " g"]:
    """Return the frame that each of `index` is measured from: the one before it among `seen`, or the first."""
    return np.full(len(index), seen[0]) if reference == "onset" else seen[np.searchsorted(seen, index) - 1]


def encode(
    flow: Float[np.ndarray, "y x 2"], strain: Float[np.ndarray, "y x"], size: int, crop: str
) -> tuple[UInt8[np.ndarray, "{size} {size} 3"], Float[np.ndarray, "3 2"]]:
    """Encode a field as in the MEGC2019 composite: RGB = u, v, strain, each channel scaled to 0 to 255 separately.

    Args:
      flow: pixels.
      strain: per pixel.
      size: side of the image.
      crop: "composite": the part of the aligned face that its images show; "none": all of it.

    Returns:
      The image, and for each channel the values of levels 0 and 255: value = low + level / 255 (high - low). Only they
      contain the sign, the zero and the unit of motion. A constant channel is 0 everywhere.

    Raises:
      UserError: unknown crop.
    """
    if crop not in CROPS:
        raise UserError(f"--crop={crop} is none of {', '.join(CROPS)}")
    field = np.concatenate([flow, strain[..., None]], axis=-1)
    if crop == "composite":
        (top, bottom), (left, right) = composite_part(*field.shape[:2])
        field = field[top:bottom, left:right]
    smaller = size < min(field.shape[:2])
    # No cubic interpolation: it can make strain negative.
    kind = cv2.INTER_AREA if smaller else cv2.INTER_LINEAR
    field = cv2.resize(np.ascontiguousarray(field), (size, size), interpolation=kind)
    low, high = field.min(axis=(0, 1)), field.max(axis=(0, 1))
    extent = np.where(high > low, high - low, 1)
    return np.rint(LEVELS * (field - low) / extent).astype(np.uint8), np.stack([low, high], axis=-1)


def decode(
    image: UInt8[np.ndarray, "y x 3"], limits: Float[np.ndarray, "3 2"]
) -> tuple[Float[np.ndarray, "y x 2"], Float[np.ndarray, "y x"]]:
    """Decode flow and strain from an image and the limits of `encode`, exact to half a level of 255 per channel."""
    field = limits[:, 0] + image / np.float32(LEVELS) * (limits[:, 1] - limits[:, 0])
    return field[..., :2], field[..., 2]


def composite_part(height: int, width: int) -> tuple[tuple[int, int], tuple[int, int]]:
    """Return the rows and columns, (first, last + 1) each, of a canonical face that the composite's images show."""
    corners = (np.array([(0, 0), (1, 1)]) - (0.5, template.FLOW_EYE_LINE)) / template.FLOW_OUTER_EYES
    (left, top), (right, bottom) = np.rint(template.in_canonical(corners) * (width, height)).astype(int).tolist()
    return (top, bottom), (left, right)
