"""Whole flow fields of a clip, as other code takes them: arrays of u, v and strain, and images of 8 bit a channel.

The fields are those of `motion.observe`; nothing is measured here in another way.
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
CHANNELS = ("u", "v", "strain")  # red, green, blue of an image
CROPS = ("composite", "none")


class Fields(NamedTuple):
    """Flow of a clip. Axis g: the frames measured, in order; pixels are those of the aligned face (or of the crop)."""

    index: Int[np.ndarray, " g"]  # frames of the clip
    since: Int[np.ndarray, " g"]  # the frame that each is measured from
    flow: Float[np.ndarray, "g y x 2"]  # u (right), v (down), pixels
    strain: Float[np.ndarray, "g y x"]  # per pixel
    magnitude: Float[np.ndarray, " g"]  # of the face as a whole (`selection.frame_magnitude`), pixels
    reference: UInt8[np.ndarray, "y x"]  # the first frame
    transform: Float[np.ndarray, "2 3"]  # from pixels of the recording; the identity without alignment
    head: Float[np.ndarray, "g 2 3"]  # movement of the head that was taken out; the identity without alignment


def aligned(clip: Clip, config: Config, *, largest: bool = False) -> Fields:
    """Measures a clip as `motion.observe` does, on the aligned face, free of the head's movement.

    Args:
      clip: a clip.
      config: `face` and `motion` are used; of the latter neither `frames` nor `selection`.
      largest: only the frame of largest movement, instead of all in which the face was tracked.

    Raises:
      NoFaceError, UserError: as `observe`.
    """
    count = 1 if largest else max(len(clip.frames) - 1, 1)
    changes = {"motion.frames": count, "motion.selection": "magnitude", "graph.kind": "roi"}
    seen = observe(clip, replace(config, changes))
    # Frames that the tracker refused are filled up with others, masked.
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
    """Measures pictures that are crops of a face already: no landmarks, nothing taken out.

    The magnitude, by which the largest movement is chosen, is that of `selection.frame_magnitude` over pixels, in flow
    by `motion.first_look`.

    Args:
      clip: a clip.
      config: `motion.first_look`, `motion.optical_flow` and `motion.reference` are used.
      largest: only the frame of largest movement.

    Raises:
      UserError: fewer than two frames, or an unknown backend.
    """
    motion = config.motion
    if len(clip.frames) < 2:
        raise UserError(f"{clip.id}: {len(clip.frames)} frame(s); motion needs at least two")
    scout, backend = flows.resolve(motion.first_look, "first_look"), flows.resolve(motion.flow)
    faces = np.stack([cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in clip.frames])
    before = np.broadcast_to(faces[:1], faces[1:].shape) if motion.reference == "onset" else faces[:-1]
    flow = flows.flows(before, faces[1:], scout)
    magnitude = selection.frame_magnitude(np.linalg.norm(flow, axis=-1).reshape(len(flow), -1))
    kept = np.array([int(magnitude.argmax())]) if largest else np.arange(len(flow))
    flow = flow[kept] if backend == scout else flows.flows(before[kept], faces[1:][kept], backend)
    return Fields(
        index=kept + 1,
        since=_since(np.arange(len(faces)), kept + 1, motion.reference),
        flow=flow,
        strain=flows.strain(flow),
        magnitude=magnitude[kept],
        reference=faces[0],
        transform=np.eye(2, 3),
        head=np.tile(np.eye(2, 3), (len(kept), 1, 1)),
    )


def _since(seen: Int[np.ndarray, " f"], index: Int[np.ndarray, " g"], reference: str) -> Int[np.ndarray, " g"]:
    """The frame before each of `index` among those seen, or the first of all."""
    return np.full(len(index), seen[0]) if reference == "onset" else seen[np.searchsorted(seen, index) - 1]


def encode(
    flow: Float[np.ndarray, "y x 2"], strain: Float[np.ndarray, "y x"], size: int, crop: str
) -> tuple[UInt8[np.ndarray, "{size} {size} 3"], Float[np.ndarray, "3 2"]]:
    """Encodes a field as the MEGC2019 composite has it: RGB = u, v, strain, each stretched to 0 to 255 on its own.

    Args:
      flow: pixels.
      strain: per pixel.
      size: side of the image.
      crop: "composite": the part of the aligned face that its images show; "none": all of it.

    Returns:
      The image, and for each channel the values that 0 and 255 stand for: value = low + level / 255 (high - low). The
      sign, the zero and the unit of motion are in them alone. A channel that is the same everywhere is 0 everywhere.

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
    # Strain is not negative, which cubic interpolation does not know.
    kind = cv2.INTER_AREA if smaller else cv2.INTER_LINEAR
    field = cv2.resize(np.ascontiguousarray(field), (size, size), interpolation=kind)
    low, high = field.min(axis=(0, 1)), field.max(axis=(0, 1))
    spread = np.where(high > low, high - low, 1)
    return np.rint(LEVELS * (field - low) / spread).astype(np.uint8), np.stack([low, high], axis=-1)


def decode(
    image: UInt8[np.ndarray, "y x 3"], limits: Float[np.ndarray, "3 2"]
) -> tuple[Float[np.ndarray, "y x 2"], Float[np.ndarray, "y x"]]:
    """Decodes flow and strain from an image and the limits of `encode`, to half a level of 255 a channel."""
    field = limits[:, 0] + image / np.float32(LEVELS) * (limits[:, 1] - limits[:, 0])
    return field[..., :2], field[..., 2]


def composite_part(height: int, width: int) -> tuple[tuple[int, int], tuple[int, int]]:
    """Finds the rows and columns, (first, last + 1) each, that images of the composite show of a canonical face."""
    corners = (np.array([(0, 0), (1, 1)]) - (0.5, template.FLOW_EYE_LINE)) / template.FLOW_OUTER_EYES
    (left, top), (right, bottom) = np.rint(template.in_canonical(corners) * (width, height)).astype(int).tolist()
    return (top, bottom), (left, right)
