"""Render a script to frames with their ground truth: landmarks, dense flow, muscles over time."""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from stag_datasets.synth_me import timing
from stag_datasets.synth_me.face import MARGIN, OVERSAMPLE, RIM, Face, draw
from stag_datasets.synth_me.identity import Identity
from stag_datasets.synth_me.muscles import GRID, inverse_field, sample_field, stage_field
from stag_datasets.synth_me.script import ClipSpec, stream

HEAD, _LIGHT, _NOISE = 10, 11, 12


class Stage(NamedTuple):
    """A person ready to be rendered: the neutral face, and a cache of the muscle fields used so far."""

    who: Identity
    face: Face
    fields: dict[tuple[int, str], Float[np.ndarray, "gy gx 2"]]

    def field(self, unit: int, side: str) -> Float[np.ndarray, "gy gx 2"]:
        """Return the displacement by one half of a unit at full strength, pixels."""
        if (unit, side) not in self.fields:
            self.fields[unit, side] = stage_field(self.who, self.face, unit, side)
        return self.fields[unit, side]


class Rendered(NamedTuple):
    """A rendered clip with its ground truth. Places and displacements are x, y in pixels of the frame."""

    spec: ClipSpec
    frames: UInt8[np.ndarray, "f y x 3"]  # RGB
    landmarks: Float[np.ndarray, "f 68 2"]
    units: tuple[str, ...]  # the halves of action units that move, "L12": the columns of `intensity`
    intensity: Float[np.ndarray, "f u"]  # 1 is full strength; the blink is not among them
    blink: Float[np.ndarray, " f"]  # 1 is shut
    expression: Float[np.ndarray, "f 68 2"]  # displacement of the landmarks by the expression alone
    onset: int
    apex: int  # frame of the largest mean of `expression`
    offset: int
    face_width: float  # pixels, jaw point to jaw point, before head motion
    pose: Float[np.ndarray, "f 2 3"]  # stage to frame
    fields: Float[np.ndarray, "m gy gx 2"]  # of the units, then of the two lids' blink; see muscles.stage_field
    weights: Float[np.ndarray, "f m"]  # weight of each field in each frame

    def head_motion(self, f: int) -> Float[np.ndarray, "2 3"]:
        """Return the similarity that moves the head from frame 0 to frame f."""
        first, current = (np.vstack([self.pose[index], (0, 0, 1)]) for index in (0, f))
        return (current @ np.linalg.inv(first))[:2]

    def muscle_flow(self, f: int) -> Float[np.ndarray, "y x 2"]:
        """Return the displacement of each pixel of frame 0 by muscles alone, blink included, without head motion."""
        moved = _carry(mix(self.weights[f], self.fields), self.pose[0], self.spec.size)
        return np.einsum("ij,yxj->yxi", self.pose[0, :, :2], moved).astype(np.float32)

    def true_flow(self, f: int) -> Float[np.ndarray, "y x 2"]:
        """Return the displacement of each pixel of frame 0 to its place in frame f: muscles, then head.

        It is the flow of the face and what moves with it. Rims of glasses, which move with the head only, are ignored.
        """
        size = self.spec.size
        start = np.stack(np.meshgrid(np.arange(size), np.arange(size)), axis=-1)
        matrix = self.head_motion(f)
        end = np.einsum("ij,yxj->yxi", matrix[:, :2], start + self.muscle_flow(f)) + matrix[:, 2]
        return (end - start).astype(np.float32)


def set_stage(who: Identity, size: int = 256) -> Stage:
    """Draw the person once, for all clips."""
    return Stage(who, draw(who, size), {})


def render_clip(
    spec: ClipSpec,
    stage: Stage | None = None,
    *,
    nuisance: bool = True,
    head: Float[np.ndarray, "f 2 3"] | None = None,
) -> Rendered:
    """Render a clip. `stage` saves drawing the same person again.

    Without `nuisance` there is no change of light and no noise; head and blinks still move. `head` adds a movement of
    the head, one transform of the frame's pixels per frame.
    """
    if stage is None:
        stage = set_stage(spec.who, spec.size)
    face, pulses = stage.face, spec.pulses + spec.blinks
    fields = np.stack([stage.field(pulse.unit, pulse.side) for pulse in pulses])
    weights = np.stack([timing.envelope(pulse, spec.frames) for pulse in pulses], axis=1).astype(np.float32)
    count = len(spec.pulses)
    # Landmarks move by the same fields as the picture.
    landmark_shift = np.stack([sample_field(field, face.landmarks) for field in fields])
    displacement = np.einsum("fu,upc->fpc", weights[:, :count], landmark_shift[:count])
    gain = spec.peak * face.width / 128 / np.linalg.norm(displacement, axis=-1).max()
    fields[:count] *= gain
    landmark_shift[:count] *= gain
    displacement *= gain
    for column, pulse in enumerate(spec.blinks, start=count):
        weights[:, column] *= left_open(displacement, face.landmarks, pulse.side)

    pivot = (float(face.origin[0]), float(face.origin[1] + 0.9 * face.width))  # heads turn about the neck
    pose = timing.head_motion(stream(*spec.seed, HEAD), spec.frames, pivot=pivot)
    pose[..., 2] -= MARGIN
    if head is not None:
        shift = head[..., 2] + np.einsum("fij,fj->fi", head[..., :2], pose[..., 2])
        pose = np.concatenate([head[..., :2] @ pose[..., :2], shift[..., None]], axis=-1)
    neutral = face.landmarks + np.einsum("fm,mpc->fpc", weights, landmark_shift)
    landmarks = np.einsum("fij,fpj->fpi", pose[..., :2], neutral) + pose[:, None, :, 2]
    frames = (picture(face, mix(weights[f], fields), pose[f], spec.size) for f in range(spec.frames))
    if nuisance:
        frames = expose(frames, spec.frames, spec.seed)
    return Rendered(
        spec=spec,
        frames=np.stack([*frames]),
        landmarks=landmarks,
        units=tuple(f"{pulse.side}{pulse.unit}" for pulse in spec.pulses),
        intensity=weights[:, :count],
        blink=weights[:, count:].mean(axis=1) if spec.blinks else np.zeros(spec.frames),
        expression=displacement,
        onset=spec.onset,
        apex=int(np.linalg.norm(displacement, axis=-1).mean(axis=1).argmax()),
        offset=spec.offset,
        face_width=face.width,
        pose=pose,
        fields=fields,
        weights=weights,
    )


def mix(weights: Float[np.ndarray, " m"], fields: Float[np.ndarray, "m gy gx 2"]) -> Float[np.ndarray, "gy gx 2"]:
    """Return the weighted sum of all fields."""
    # A loop instead of a matrix product, whose last bit depends on the machine.
    total = np.zeros_like(fields[0])
    for weight, field in zip(weights, fields, strict=True):
        if weight:
            total += weight * field
    return total


def left_open(
    moved: Float[np.ndarray, "f 68 2"], points: Float[np.ndarray, "68 2"], side: str
) -> Float[np.ndarray, " f"]:
    """Return the fraction of a blink that the expression leaves: half-closed lids have half the distance to go."""
    upper, lower = (43, 47) if side == "L" else (37, 41)
    closed = (moved[:, upper, 1] - moved[:, lower, 1]) / (points[lower, 1] - points[upper, 1])
    return np.clip(1 - closed, 0, 1)


def _carry(
    field: Float[np.ndarray, "gy gx 2"], pose: Float[np.ndarray, "2 3"], size: int
) -> Float[np.ndarray, "y x 2"]:
    """Resample a field of the stage at the pixels of a frame; its vectors stay in stage coordinates."""
    back = cv2.invertAffineTransform(pose) / GRID
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return cv2.warpAffine(field.astype(np.float32), back, (size, size), flags=flags, borderMode=cv2.BORDER_REPLICATE)


def picture(
    face: Face, field: Float[np.ndarray, "gy gx 2"], pose: Float[np.ndarray, "2 3"], size: int
) -> UInt8[np.ndarray, "y x 3"]:
    """Render the face with its skin displaced by `field`, in one pose."""
    back = cv2.invertAffineTransform(pose).astype(np.float32)
    step = np.arange(size, dtype=np.float32)
    row, column = step[:, None], step[None, :]
    x = back[0, 0] * column + back[0, 1] * row + back[0, 2]
    y = back[1, 0] * column + back[1, 1] * row + back[1, 2]
    skin_x, skin_y = x, y
    if field.any():
        offset = _carry(inverse_field(field), pose, size)
        skin_x, skin_y = x + offset[..., 0], y + offset[..., 1]
    frame = _look_up(face.canvas, skin_x, skin_y)
    if face.glasses is not None:
        hidden = _look_up(face.glasses, x, y)[..., None]
        frame = np.rint(frame + (np.float32(RIM) - frame) * hidden).astype(np.uint8)
    return frame


def _look_up(canvas: np.ndarray, x: Float[np.ndarray, "y x"], y: Float[np.ndarray, "y x"]) -> np.ndarray:
    """Sample the canvas at places of the stage, aligning the centres of its finer pixels."""
    shift = (OVERSAMPLE - 1) / 2
    canvas_xy = x * OVERSAMPLE + shift, y * OVERSAMPLE + shift
    return cv2.remap(canvas, *canvas_xy, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)


def expose(
    frames: Iterable[UInt8[np.ndarray, "y x 3"]], count: int, seed: tuple[int, ...]
) -> Iterator[UInt8[np.ndarray, "y x 3"]]:
    """Apply brightness of the clip, flicker of each of its `count` frames, and sensor noise; yield frame by frame."""
    rng = stream(*seed, _LIGHT)
    gain, lift, deviation = rng.uniform(0.88, 1.08), rng.uniform(-6, 6), rng.uniform(1.0, 3.0)
    light = gain * timing.flicker(rng, count)
    grain = stream(*seed, _NOISE)
    for frame, bright in zip(frames, light, strict=True):
        # The same for the three colours, because video compression removes most coloured noise.
        noise = grain.standard_normal(frame.shape[:2], dtype=np.float32) * np.float32(deviation) + np.float32(lift)
        yield cv2.add(frame * np.float32(bright), cv2.merge([noise] * 3), dtype=cv2.CV_8U)
