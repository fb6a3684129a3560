"""Cut recordings into windows as training clips, with and without an expression.

Each window is computed as for a stream. A window that holds an expression from onset to offset has its emotion and
action units. One that holds almost nothing of any expression is of the class `NONE`, whatever else the face does: it
blinks, speaks, turns away. Windows in between are left out, since their label is unclear.
"""

from typing import Any

import numpy as np

from stag_jax.config import Config
from stag_jax.face import action_units
from stag_jax.motion import incremental, times, watch
from stag_jax.protocol.labels import NONE
from stag_jax.types import ClipFeatures, Event, Recording, UserError

WHOLE, TRACE = 0.9, 0.3  # fraction of an expression: present from the first on, absent up to the second


def cut(recording: Recording, config: Config) -> list[ClipFeatures]:
    """Cut a recording into the windows that have a clear label, in order of time; one face is tracked.

    An id is the recording's and the time of the first frame in ms. Windows without an expression have no action unit
    labels, since speech and laughter move action units too. Empty if no face is seen for as long as a window.

    Raises:
      UserError: no frame rate, an event that is not within the recording, or a setting out of range; the recording is
        named.
    """
    name = recording.identity.id
    if not recording.fps > 0:
        raise UserError(f"{name}: frame rate {recording.fps} is not positive")
    count = len(recording.frames)
    for event in recording.events:
        if not 0 <= event.onset < event.offset < count:
            raise UserError(f"{name}: an event from frame {event.onset} to {event.offset} of a recording of {count}")
    frame_ms = times.frame_times(count, recording.fps, recording.numbers)
    state, clips = watch.WatchState(), []
    for frame, time_ms in zip(recording.frames, frame_ms.tolist(), strict=True):
        state, faces = watch.step(state, frame, time_ms, config, 1)
        for face in faces:
            if face.window:
                clips += _learnable(recording, frame_ms, face.window, config)
    return clips


def _learnable(
    recording: Recording, taken: np.ndarray, window: incremental.Window, config: Config
) -> list[ClipFeatures]:
    """Return the window as a clip; empty if it holds part of an expression, or expressions of several emotions."""
    start, end = window.start_ms, float(window.times_ms[-1])
    shares = [_share(taken[event.onset], taken[event.offset], start, end) for event in recording.events]
    if any(TRACE < share < WHOLE for share in shares):
        return []
    whole = [event for event, share in zip(recording.events, shares, strict=True) if share >= WHOLE]
    if len({event.emotion for event in whole}) > 1:
        return []
    clips = window.clips
    return [
        ClipFeatures(
            identity=recording.identity.grouped()._replace(
                id=f"{recording.identity.id}@{start:07.0f}", emotion=whole[0].emotion if whole else NONE
            ),
            nodes=np.asarray(clips.nodes[0]),
            times_ms=np.asarray(clips.times_ms[0]),
            magnitude=np.asarray(clips.magnitude[0]),
            frame_mask=np.asarray(clips.frame_mask[0]),
            frame_index=np.abs(taken[:, None] - start - np.asarray(clips.times_ms[0])).argmin(axis=0),
            **_units(whole, config, recording.identity.id),
        )
    ]


def _share(onset: float, offset: float, start: float, end: float) -> float:
    """Return the fraction of the time from onset to offset that lies between start and end."""
    return max(min(offset, end) - max(onset, start), 0.0) / (offset - onset)


def _units(whole: list[Event], config: Config, name: str) -> dict[str, Any]:
    au, au_mask = action_units.labels(whole[0].action_units if whole else None, config.graph.units, clip=name)
    return {"au": au, "au_mask": au_mask}
