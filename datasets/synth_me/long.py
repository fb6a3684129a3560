"""Render the script of a long recording, one frame at a time, with its ground truth.

Expressions and speech move the skin by the fields of render.py, each scaled to its own largest displacement. A turned
head moves sideways and becomes narrower, and the parts in front of the plane of its outline (eyes, mouth, and most of
all the nose) move further: the surface used for shading is rotated.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from stag_datasets.synth_me import labels, long_script, render, timing
from stag_datasets.synth_me.face import MARGIN
from stag_datasets.synth_me.long_script import LongSpec, Turn
from stag_datasets.synth_me.muscles import BLINK, GRID, sample_field, stage_grid
from stag_datasets.synth_me.relief import heights
from stag_datasets.synth_me.script import Recipe, stream
from stag_datasets.synth_me.timing import Pulse

# Distance of the outline in front of the axis that the head turns about, in face units. Up to it the surface counts as
# flat, because a frontal picture does not show what lies behind.
AXIS = 0.30
_SOFT = 0.03  # blur of the surface, face units; otherwise steep parts would fold the skin over itself
_MEMORY = 0.5  # time constant of the sway of the head, seconds
_SIDES = ((BLINK, "L"), (BLINK, "R"))


class Event(NamedTuple):
    """One expression of a recording, to be spotted. Onset, apex, offset are frames of the recording."""

    onset: int  # last frame before any movement
    apex: int  # frame of the largest mean movement of the landmarks by the expression
    offset: int  # first frame after all movement
    emotion: str
    action_units: str  # FACS notation


class Recording(NamedTuple):
    """A recording as a stream of frames."""

    frames: Iterator[UInt8[np.ndarray, "y x 3"]]  # RGB, each rendered on demand
    events: tuple[Event, ...]
    fps: float


class Played(NamedTuple):
    """A recording with its ground truth, ready to be rendered. Places and displacements are x, y in pixels."""

    spec: LongSpec
    stage: render.Stage
    landmarks: Float[np.ndarray, "f 68 2"]  # in the frame
    expression: Float[np.ndarray, "f 68 2"]  # displacement of the landmarks by expressions alone, on the stage
    speech: Float[np.ndarray, "f 68 2"]  # and by speech alone
    blink: Float[np.ndarray, " f"]  # 1 is shut
    yaw: Float[np.ndarray, " f"]  # radians, positive towards image right
    events: tuple[Event, ...]  # the expressions, in order of time
    pose: Float[np.ndarray, "f 2 3"]  # stage to frame
    fields: Float[np.ndarray, "m gy gx 2"]  # of halves of units, of the two lids' blink, and of the turned surface
    weights: Float[np.ndarray, "f m"]  # weight of each field in each frame

    def picture(self, f: int) -> UInt8[np.ndarray, "y x 3"]:
        """Render frame f in even light and without noise; RGB."""
        field = render.mix(self.weights[f], self.fields)
        return render.picture(self.stage.face, field, self.pose[f], self.spec.size)

    def film(self, *, nuisance: bool = True) -> Iterator[UInt8[np.ndarray, "y x 3"]]:
        """Yield all frames in order, each rendered on demand; `nuisance` as in render.render_clip."""
        pictures = (self.picture(f) for f in range(self.spec.frames))
        return render.expose(pictures, self.spec.frames, self.spec.seed) if nuisance else pictures


def recording(recipe: Recipe, subject: int, clip: int = 0) -> Recording:
    """Return one recording of a subject (both counted from 0) as a stream of frames.

    Raises ValueError for a recipe whose expressions do not fit into the recording.
    """
    played = play(long_script.recording(recipe, subject, clip))
    return Recording(played.film(), played.events, played.spec.fps)


def play(spec: LongSpec, stage: render.Stage | None = None) -> Played:
    """Compute the ground truth of all frames without rendering any. `stage` saves drawing the same person again."""
    if stage is None:
        stage = render.set_stage(spec.who, spec.size)
    face = stage.face
    parts = (*spec.expressions, *spec.speech)
    keys = sorted({(pulse.unit, pulse.side) for part in parts for pulse in part.pulses})
    fields = np.stack([*(stage.field(*key) for key in (*keys, *_SIDES)), _surface(stage)])
    landmark_shift = np.stack([sample_field(field, face.landmarks) for field in fields])
    weights = np.zeros((spec.frames, len(fields)), np.float32)
    moved = {"expression": np.zeros((spec.frames, 68, 2)), "speech": np.zeros((spec.frames, 68, 2))}
    apexes = []
    for index, part in enumerate(parts):
        contraction = _weights(part.pulses, keys, spec.frames)
        motion = np.einsum("fm,mpc->fpc", contraction, landmark_shift[: len(keys)])
        gain = part.peak * face.width / 128 / np.linalg.norm(motion, axis=-1).max()
        weights[:, : len(keys)] += gain * contraction
        moved["expression" if index < len(spec.expressions) else "speech"] += gain * motion
        apexes.append(int(np.linalg.norm(motion, axis=-1).mean(axis=1).argmax()))
    lids = _weights(spec.blinks, _SIDES, spec.frames)
    for column, (_, side) in enumerate(_SIDES):
        lids[:, column] *= render.left_open(moved["expression"], face.landmarks, side)
    weights[:, len(keys) : -1] = lids
    yaw, roll = _posture(spec.turns, spec.frames)
    weights[:, -1] = np.sin(yaw)
    pose = _pose(spec, stage, yaw, roll)
    neutral = face.landmarks + np.einsum("fm,mpc->fpc", weights, landmark_shift)
    return Played(
        spec=spec,
        stage=stage,
        landmarks=np.einsum("fij,fpj->fpi", pose[..., :2], neutral) + pose[:, None, :, 2],
        **moved,
        blink=lids.mean(axis=1),
        yaw=yaw,
        events=tuple(
            Event(expression.onset, apex, expression.offset, expression.emotion, labels.notation(expression.actions))
            for expression, apex in zip(spec.expressions, apexes, strict=False)
        ),
        pose=pose,
        fields=fields,
        weights=weights,
    )


def _weights(pulses: Sequence[Pulse], keys: Sequence[tuple[int, str]], frames: int) -> Float[np.ndarray, "f m"]:
    """Return the contraction of each half of a unit in each frame: the sum of its pulses."""
    total = np.zeros((frames, len(keys)))
    for pulse in pulses:
        total[:, keys.index((pulse.unit, pulse.side))] += timing.envelope(pulse, frames)
    return total


def _surface(stage: render.Stage) -> Float[np.ndarray, "gy gx 2"]:
    """Return the sideways displacement of the skin relative to the outline, per radian of head turn; pixels."""
    face = stage.face
    out = np.clip(heights(stage.who, *stage_grid(face)) - AXIS, 0, None) * face.width
    out = cv2.GaussianBlur(out.astype(np.float32), (0, 0), _SOFT * face.width / GRID)
    return np.dstack([out, np.zeros_like(out)])


def _posture(turns: Sequence[Turn], frames: int) -> tuple[Float[np.ndarray, " f"], Float[np.ndarray, " f"]]:
    """Return yaw and roll in radians; each turn starts from the posture after the one before."""
    t = np.arange(frames)
    yaw, roll, previous = np.zeros(frames), np.zeros(frames), (0.0, 0.0)
    for turn in turns:
        progress = timing.settle((t - turn.onset) / (turn.offset - turn.onset))
        yaw += (turn.yaw - previous[0]) * progress
        roll += (turn.roll - previous[1]) * progress
        previous = turn.yaw, turn.roll
    return yaw, roll


def _pose(
    spec: LongSpec, stage: render.Stage, yaw: Float[np.ndarray, " f"], roll: Float[np.ndarray, " f"]
) -> Float[np.ndarray, "f 2 3"]:
    """Return the transforms from stage to frame: the head sways, turns and leans about the neck.

    The stage is not wider than that of short clips. At the largest turn and lean, the upper corners show a few pixels
    of backdrop beyond the stage, which repeat its edge; the lower corners do not.
    """
    face, rng = stage.face, stream(*spec.seed, render.HEAD)
    memory = _MEMORY * spec.fps
    shift_x, shift_y = (timing.sway(rng, spec.frames, 2.0 * rng.beta(1.3, 2.5), memory) for _ in range(2))
    tilt = timing.sway(rng, spec.frames, np.radians(1.0) * rng.beta(1.2, 3.0), memory)
    scale = np.exp(timing.sway(rng, spec.frames, 0.01 * rng.beta(1.2, 3.0), memory))
    pivot = (float(face.origin[0]), float(face.origin[1] + 0.9 * face.width))
    shift = AXIS * face.width * np.sin(yaw)
    pose = timing.similarity(scale, tilt + roll, shift_x + shift, shift_y, pivot=pivot)
    narrow = np.cos(yaw)[:, None]
    pose[..., 2] += pose[..., 0] * pivot[0] * (1 - narrow) - MARGIN
    pose[..., 0] *= narrow
    return pose
