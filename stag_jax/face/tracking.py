"""Tracking of one face through a clip: a pure step on one frame, the whole clip, and checks of the result."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from absl import logging
from jaxtyping import Float, Int, UInt8

from stag_jax.config import FaceConfig
from stag_jax.face import appearance, face_checks, landmarks, smoothing
from stag_jax.face.face_checks import Exam, Face, Look
from stag_jax.face.landmarks import Box, NoFaceError

CHECK = 30  # a face is examined every 30 frames even if nothing has changed
CALM = 3  # good frames that a refused face needs before it is accepted, unless it looks as it did before
RETRY = 12  # a missing face is searched at all sizes every 12 frames, in the others only at its last size
FORGET = 50  # frames after which a missing face is given up
FADE = 0.99  # factor per frame on the stored score while the face is refused
SAME = 0.7  # mean correlation from which a face found elsewhere is the one that was lost
NEAR = 1.75  # outer eye distances within which a face found is taken for the one that was lost
MOST = 4  # most faces tried in one picture
EASY = 65  # pixels between the outer eye corners in the copy that is searched for a lost face
SLOW = 0.3  # step of the stored score towards a lower one at each examination, as a fraction
SHARE = 0.5  # largest fraction of refused frames in a usable clip
ON_TOP = 0.5  # outer eye distances within which two faces of similar size are the same
SIZES = 1.5  # largest ratio of their sizes

ANOTHER, UNSTEADY = "another face", "not yet steady"

Place = Float[np.ndarray, "2 3"]  # see face_checks.look


class TrackingState(NamedTuple):
    """The state of one track between two frames. `TrackingState()` is the initial state."""

    face: Face | None = None  # as last confirmed
    points: Float[np.ndarray, "p 2"] | None = None  # where it was last tracked
    place: Float[np.ndarray, "2 3"] | None = None  # where to look next: see face_checks.look
    age: int = 0  # frames since it was confirmed
    gone: int = 0  # frames since it was tracked
    calm: int = 0  # good frames since it was refused


class SeenFace(NamedTuple):
    """The result of one frame; fields as in Track."""

    landmarks: Float[np.ndarray, "p 2"]
    box: Box
    confidence: float
    jump: float
    refused: str
    faces: int  # number found, if the detector searched the frame; else 0


class Track(NamedTuple):
    """One face in all frames of a clip."""

    landmarks: Float[np.ndarray, "f p 2"]  # x, y in pixels; NaN where refused
    box: Int[np.ndarray, "f 4"]  # left, top, right, bottom of the face, or of where it is expected; zeros if unknown
    # 0 where refused, else the smaller of two numbers: the correlation of the least similar region with its last
    # confirmed view, and the agreement of landmarks from shifted boxes then (1: the same; 0: as without a face).
    confidence: Float[np.ndarray, " f"]
    jump: Float[np.ndarray, " f"]  # median movement since the last tracked frame, outer eye distances; 0 if none
    refused: tuple[str, ...]  # "" where tracked, else the reason


def step(
    state: TrackingState, frame: UInt8[np.ndarray, "y x 3"], cfg: FaceConfig, others: tuple[Place, ...] | None = None
) -> tuple[TrackingState, SeenFace]:
    """Process the next frame. Pure: a live stream calls it as frames arrive, `track` for all frames of a clip.

    A tracked face is followed by the predictor alone, from its place in the previous frame. It is examined every CHECK
    frames, and when it moved by more than `cfg.redetect_jump` or one of its regions no longer looks the same. A face
    that fails is refused and searched for, first at its old place, then in the whole frame.

    `others` are the places of other faces, if this is one of several (see crowd): a result on top of another face is
    refused, and a face that is not at its old place (`state.place`) is left for the caller to find.

    Raises:
      UserError: the predictor file is missing or unusable. The content of a frame never raises.
    """
    if state.face is None or state.gone:
        return _find(state, frame, cfg, others)
    seen = face_checks.look(frame, state.place, cfg.predictor)
    similarity = float(appearance.likeness(state.face.view, seen.view).min())
    jump = _jump(state, seen)
    objection = face_checks.objection(seen, frame.shape[:2], cfg.max_turn)
    if not objection and similarity >= face_checks.EQUAL and jump <= cfg.redetect_jump and state.age + 1 < CHECK:
        return _accept(state._replace(age=state.age + 1), seen, similarity, jump, 0)
    if not objection:
        exam = face_checks.examine(seen, cfg.predictor)
        if not face_checks.verdict(seen, exam, state.face, cfg.min_score):
            return _confirm(state, seen, exam, 0)
    return _find(state, frame, cfg, others)


def _find(
    state: TrackingState, frame: UInt8[np.ndarray, "y x 3"], cfg: FaceConfig, others: tuple[Place, ...] | None
) -> tuple[TrackingState, SeenFace]:
    """Search for the face at its old place, then everywhere. The first real face decides, accepted or refused."""
    refused = None
    for place, faces in _places(state, frame, cfg.min_score) if others is None else ((state.place, 0),):
        seen = face_checks.look(frame, place, cfg.predictor, times=2)
        if others and any(on_top(seen.place, other) for other in others):
            refused = refused or refuse(state, ANOTHER, state.place, faces)
            continue
        exam = face_checks.examine(seen, cfg.predictor)
        reason = face_checks.verdict(seen, exam, state.face, cfg.min_score)
        if reason == face_checks.NOTHING or _stranger(state, seen):
            continue
        lost = reason == face_checks.LOST and not faces  # then perhaps the old place is wrong and not the face
        reason = face_checks.objection(seen, frame.shape[:2], cfg.max_turn) or reason
        if not reason:
            return _confirm(state, seen, exam, faces)
        refused = refused or refuse(state, reason, state.place if lost else seen.place, faces)
        sure = exam.score > (face_checks.POOR if faces else cfg.min_score)
        if sure and not lost and (faces or state.gone % RETRY):
            break
    return refused or refuse(state, face_checks.NOTHING, state.place if state.gone < FORGET else None, 0)


def _places(
    state: TrackingState, frame: UInt8[np.ndarray, "y x 3"], least: float
) -> Iterator[tuple[Float[np.ndarray, "2 3"], int]]:
    """Yield places to look at, and how many faces the detector found: 0 for the old place, where it does not run."""
    scales, margin = landmarks.scales(max(frame.shape[:2])), True
    if state.place is not None:
        yield state.place, 0
        if state.gone == 0 or state.gone % RETRY:
            scale = EASY / face_checks.eyes(state.place)
            scales, margin = (min(max(scale, scales[0]), scales[-1]),), False
    elif state.gone % RETRY:
        scales, margin = scales[:1], False
    for faces in landmarks.search(frame, scales, least, margin=margin):
        starts = [face_checks.start(face) for face in faces[:MOST]]
        if state.place is not None:
            starts.sort(key=lambda place: away(state.place, place) > NEAR)
        for place in starts:
            yield place, len(faces)


def _stranger(state: TrackingState, seen: Look) -> bool:
    """Return whether this is another face, while the tracked one may still come back."""
    if state.face is None or away(state.place, seen.place) <= NEAR:
        return False
    return bool(appearance.likeness(state.face.view, seen.view).mean() < SAME)


def _confirm(state: TrackingState, seen: Look, exam: Exam, faces: int) -> tuple[TrackingState, SeenFace]:
    """Accept a good face as the new reference, or wait until it has been good for CALM frames."""
    spread = float(np.median(exam.spread))
    face, alike = Face(seen.view, exam.score, spread), 0.0
    if state.face is not None:
        similarities = appearance.likeness(state.face.view, seen.view)
        alike = float(similarities.min())
        if similarities.max() >= face_checks.KNOWN:
            face = face._replace(score=max(exam.score, state.face.score + SLOW * (exam.score - state.face.score)))
    if state.gone and alike < face_checks.ALIKE and state.calm + 1 < CALM:
        new_state, result = refuse(state, UNSTEADY, seen.place, faces)
        return new_state._replace(calm=state.calm + 1), result
    return _accept(state._replace(face=face, age=0), seen, 1.0, _jump(state, seen), faces)


def _accept(state: TrackingState, seen: Look, alike: float, jump: float, faces: int) -> tuple[TrackingState, SeenFace]:
    agree = 1 - state.face.spread / face_checks.CHAOS
    result = SeenFace(
        landmarks=seen.landmarks,
        box=face_checks.box(seen.place),
        confidence=float(np.clip(min(alike, agree), 0, 1)),
        jump=jump,
        refused="",
        faces=faces,
    )
    return state._replace(points=seen.landmarks, place=seen.place, gone=0, calm=0), result


def refuse(state: TrackingState, reason: str, place: Place | None, faces: int = 0) -> tuple[TrackingState, SeenFace]:
    """Process a frame in which the face is refused; `place`: where to look for it next, None for nowhere."""
    nowhere = np.full((landmarks.POINTS, 2), np.nan, np.float32)
    box = Box(0, 0, 0, 0) if place is None else face_checks.box(place)
    result = SeenFace(nowhere, box, confidence=0.0, jump=0.0, refused=reason, faces=faces)
    gone = state.gone + 1
    if state.face is None or gone > FORGET:
        return TrackingState(gone=gone, place=place), result
    face = state.face._replace(score=state.face.score * FADE)
    return state._replace(face=face, place=place, gone=gone, calm=0), result


def _jump(state: TrackingState, seen: Look) -> float:
    """Return the median movement of the landmarks since the face was last tracked, in outer eye distances."""
    if state.points is None:
        return 0.0
    return float(np.median(np.linalg.norm(seen.landmarks - state.points, axis=1))) / face_checks.eyes(seen.place)


def on_top(place: Place, other: Place) -> bool:
    """Return whether two places belong to one face."""
    size, other_size = face_checks.eyes(place), face_checks.eyes(other)
    return max(size, other_size) < SIZES * min(size, other_size) and away(place, other) < ON_TOP


def away(place: Place, other: Place) -> float:
    """Return the distance of two faces, in outer eye distances of the first."""
    return float(np.linalg.norm(face_checks.centre(other) - face_checks.centre(place))) / face_checks.eyes(place)


def track(frames: UInt8[np.ndarray, "f y x 3"], cfg: FaceConfig, *, clip: str) -> Track:
    """Track the face of a clip and smooth its landmarks by `cfg.smooth`; RGB frames of any size.

    If several faces are seen, the largest of the first frame is tracked, with one warning that names `clip`. The
    content of the frames never raises: see `require`.

    Raises:
      UserError: the predictor file is missing or unusable, or `cfg.smooth` is not a valid window.
    """
    state, seen = TrackingState(), []
    for frame in frames:
        state, result = step(state, frame, cfg)
        seen.append(result)
    crowded = [f for f, result in enumerate(seen) if result.faces > 1]
    if crowded:
        logging.warning("%s: %d faces in frame %d, the largest is used", clip, seen[crowded[0]].faces, crowded[0])
    points = np.array([result.landmarks for result in seen], np.float32).reshape(len(seen), landmarks.POINTS, 2)
    return Track(
        landmarks=smoothing.smooth(points, cfg.smooth, cfg.redetect_jump),
        box=np.array([result.box for result in seen], np.int64).reshape(len(seen), 4),
        confidence=np.array([result.confidence for result in seen], np.float32),
        jump=np.array([result.jump for result in seen], np.float32),
        refused=tuple(result.refused for result in seen),
    )


def require(track: Track, *, clip: str) -> None:
    """Check that a clip is usable: its first frame, and at least half of all frames, are tracked.

    The first frame is needed because it is the reference of all motion.

    Raises:
      NoFaceError: the clip is not usable; the message names clip, frame and reason.
    """
    if not track.refused:
        raise NoFaceError(f"{clip}: no frames")
    if track.refused[0]:
        raise NoFaceError(f"{clip} frame 0: {track.refused[0]}")
    refused = [f for f, reason in enumerate(track.refused) if reason]
    if len(refused) > SHARE * len(track.refused):
        reason = track.refused[refused[0]]
        raise NoFaceError(
            f"{clip} frame {refused[0]}: {reason}; {len(refused)} of {len(track.refused)} frames are refused"
        )
