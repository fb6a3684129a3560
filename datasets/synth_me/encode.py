"""Render and encode the clips of subjects, on several processes. TFDS is not imported, so that workers start fast."""

from collections import deque
from collections.abc import Iterator
from concurrent.futures.process import BrokenProcessPool
from typing import NamedTuple

import cv2
import numpy as np
from jaxtyping import UInt8

from stag_datasets import processes
from stag_datasets.synth_me import long, long_script, order, script
from stag_datasets.synth_me.labels import notation
from stag_datasets.synth_me.render import render_clip, set_stage
from stag_datasets.synth_me.script import Recipe

QUALITY = 95  # of the JPEG frames
TASKS = {"emotion": script.subject_clips, "order": order.subject_clips}


class Encoded(NamedTuple):
    """A clip as the corpus stores it."""

    subject: str
    clip: str
    emotion: str
    action_units: str | None  # None for a long recording, whose events have them
    fps: float
    onset: int
    apex: int
    offset: int
    frames: list[bytes]  # JPEG
    events: tuple[long.Event, ...] = ()  # of a long recording


def encode_subject(recipe: Recipe, subject: int) -> list[Encoded]:
    """Render and encode all clips of one subject."""
    cv2.setNumThreads(1)  # the processes are the parallelism
    if recipe.task == long_script.TASK:
        return _encode_long(recipe, subject)
    clips = TASKS[recipe.task](recipe, subject)
    stage = set_stage(clips[0].who, recipe.size)
    encoded = []
    for spec in clips:
        clip = render_clip(spec, stage)
        encoded.append(
            Encoded(
                subject=spec.subject,
                clip=spec.clip,
                emotion=spec.emotion,
                action_units=notation(spec.actions),
                fps=spec.fps,
                onset=clip.onset,
                apex=clip.apex,
                offset=clip.offset,
                frames=[_jpeg(frame) for frame in clip.frames],
            )
        )
    return encoded


def _encode_long(recipe: Recipe, subject: int) -> list[Encoded]:
    """Render and encode all recordings of one subject, keeping only the JPEG of each frame."""
    stage, encoded = None, []
    for spec in long_script.subject_recordings(recipe, subject):
        stage = stage or set_stage(spec.who, spec.size)
        played = long.play(spec, stage)
        encoded.append(
            Encoded(
                subject=spec.subject,
                clip=spec.clip,
                emotion=long_script.TASK,
                action_units=None,
                fps=spec.fps,
                onset=-1,
                apex=-1,
                offset=-1,
                frames=[_jpeg(frame) for frame in played.film()],
                events=played.events,
            )
        )
    return encoded


def encode_corpus(recipe: Recipe, *, workers: int | None = None) -> Iterator[list[Encoded]]:
    """Yield the clips of each subject, subjects in order; at most a few subjects wait in memory.

    With one worker, or if processes cannot be started (a script without `if __name__ == "__main__"`, or one that was
    piped into the interpreter), this process renders everything; the clips are the same.
    """
    workers = min(workers or processes.cores(), recipe.subjects)
    finished = 0
    if workers > 1:
        try:
            for clips in _on_processes(recipe, workers):
                yield clips
                finished += 1
        except BrokenProcessPool:
            pass
    for subject in range(finished, recipe.subjects):
        yield encode_subject(recipe, subject)


def _on_processes(recipe: Recipe, workers: int) -> Iterator[list[Encoded]]:
    with processes.pool(workers) as pool:
        pending = deque()
        for subject in range(recipe.subjects):
            pending.append(pool.submit(encode_subject, recipe, subject))
            if len(pending) > workers + 1:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()


def _jpeg(frame: UInt8[np.ndarray, "y x 3"]) -> bytes:
    success, data = cv2.imencode(".jpg", cv2.cvtColor(frame, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
    if not success:
        raise RuntimeError("OpenCV could not encode a frame as JPEG")
    return data.tobytes()
