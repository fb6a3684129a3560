"""Quality of preprocessing: one row of numbers and one small picture per clip, for inspection by a person."""

from typing import NamedTuple

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from stag_jax.config import MotionConfig
from stag_jax.face import alignment, template
from stag_jax.motion import nodes, selection, stabilise, times
from stag_jax.motion.observe import Observation
from stag_jax.motion.sampling import bilinear
from stag_jax.types import Clip

TILE = 96  # side of each of the three pictures, pixels
FULL = 1.5  # pixels of motion at which the colour is fully saturated

# Limits beyond which a person should look at a clip (`doubts`).
SMALL_EYES = 50.0  # pixels of the frame: an expression moves skin by a few hundredths of this
JUMP = 0.08  # outer eye distances from one frame to the next
RESIDUAL = 0.3  # pixels
STILL = 0.15  # pixels; flow noise alone gives about half of this


class ClipReport(NamedTuple):
    """The measurements of one clip in preprocessing. Pixels are of the canonical face; raw ones are of the frame."""

    id: str
    subject: str
    frames: int
    fps: float
    refused: int  # frames without a usable face
    reason: str  # of the first refused frame
    left: int  # box of the face in the first frame, raw
    top: int
    right: int
    bottom: int
    eyes_raw_px: float  # distance of the outer eye corners: the available resolution
    confidence: float  # of the landmarks, lowest over the frames tracked
    jump: float  # of the landmarks from frame to frame, largest, in outer eye distances
    head_px: float  # head motion, largest over frames and rigid points
    residual_px: float  # remaining head motion in the kept frames, root mean square at the rigid points
    peak_px: float  # movement of the region that moves most, largest over the kept frames
    onset: int  # found from the magnitude (`selection.phases`)
    apex: int
    offset: int
    annotated_onset: int  # -1: not annotated
    annotated_apex: int
    annotated_offset: int
    annotated_onset_ms: float  # after the first frame; -1: not annotated
    annotated_apex_ms: float
    annotated_offset_ms: float


def report(clip: Clip, seen: Observation, motion: MotionConfig) -> ClipReport:
    """Return the quality numbers of an observed clip."""
    track = seen.track
    tracked = np.array([not reason for reason in track.refused])
    eyes = track.landmarks[0, template.EYE_CORNERS[1]] - track.landmarks[0, template.EYE_CORNERS[0]]
    residual = bilinear(seen.flow[seen.mask], seen.rigid)
    times_ms = times.frame_times(len(clip.frames), clip.fps, clip.numbers)
    left, top, right, bottom = (int(edge) for edge in track.box[0])
    onset, apex, offset = selection.phases(seen.magnitude)
    marks = [-1 if mark is None else mark for mark in (clip.onset, clip.apex, clip.offset)]
    marks_ms = [-1.0 if mark < 0 else float(times_ms[mark]) for mark in marks]
    return ClipReport(
        id=clip.identity.id,
        subject=clip.identity.subject,
        frames=len(clip.frames),
        fps=clip.fps,
        refused=int((~tracked).sum()),
        reason=next((reason for reason in track.refused if reason), ""),
        left=left,
        top=top,
        right=right,
        bottom=bottom,
        eyes_raw_px=float(np.linalg.norm(eyes)),
        confidence=float(track.confidence[tracked].min()),
        jump=float(track.jump[tracked].max()),
        head_px=float(stabilise.reach(seen.head, seen.rigid).max()),
        residual_px=float(np.sqrt((residual**2).sum(axis=-1).mean())),
        peak_px=float(nodes.node_magnitude(seen.flow[seen.mask], seen.centres, motion.patch, motion.spacing).max()),
        onset=onset,
        apex=apex,
        offset=offset,
        annotated_onset=marks[0],
        annotated_apex=marks[1],
        annotated_offset=marks[2],
        annotated_onset_ms=marks_ms[0],
        annotated_apex_ms=marks_ms[1],
        annotated_offset_ms=marks_ms[2],
    )


def tile(clip: Clip, seen: Observation) -> UInt8[np.ndarray, "y x 3"]:
    """Return an RGB picture: the reference with regions, the face at its largest movement, and that movement in colour.

    Hue is the direction (red to the right, cyan to the left, green-yellow down, violet up), saturation the length, full
    at `FULL` pixels.
    """
    kept = int(np.argmax(np.where(seen.mask, seen.magnitude[seen.index], -np.inf)))
    size = seen.reference.shape[0]
    peak = alignment.warp(clip.frames[seen.index[kept]], seen.transform, size)
    start = cv2.cvtColor(seen.reference, cv2.COLOR_GRAY2RGB)
    for x, y in np.rint(seen.centres).astype(int):
        cv2.circle(start, (int(x), int(y)), max(1, size // 64), (255, 220, 0), -1, cv2.LINE_AA)
    pictures = (start, cv2.cvtColor(peak, cv2.COLOR_GRAY2RGB), coloured(seen.flow[kept], seen.reference))
    return np.concatenate([cv2.resize(p, (TILE, TILE), interpolation=cv2.INTER_AREA) for p in pictures], axis=1)


def coloured(flow: Float[np.ndarray, "y x 2"], face: UInt8[np.ndarray, "y x"]) -> UInt8[np.ndarray, "y x 3"]:
    """Draw flow in colour over a grey face."""
    angle = np.arctan2(flow[..., 1], flow[..., 0]) % (2 * np.pi)
    hue = np.uint8(angle * (180 / (2 * np.pi)) % 180)  # OpenCV's hue is in units of 2 degrees
    saturation = np.uint8(255 * np.clip(np.linalg.norm(flow, axis=-1) / FULL, 0, 1))
    return cv2.cvtColor(np.stack([hue, saturation, face // 2 + 127], axis=-1), cv2.COLOR_HSV2RGB)


def doubts(found: ClipReport) -> tuple[str, ...]:
    """Return the reasons why a person should look at the clip; empty if there are none."""
    signs = {
        f"{found.refused} frames refused: {found.reason}": found.refused > 0,
        f"outer eye corners only {found.eyes_raw_px:.0f} px apart": found.eyes_raw_px < SMALL_EYES,
        f"landmarks jump by {found.jump:.2f}": found.jump > JUMP,
        f"{found.residual_px:.2f} px of head movement left": found.residual_px > RESIDUAL,
        f"hardly moves ({found.peak_px:.2f} px)": found.peak_px < STILL,
        "largest movement at the end": found.apex == found.frames - 1,
    }
    return tuple(text for text, holds in signs.items() if holds)
