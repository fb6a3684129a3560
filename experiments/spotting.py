"""Spotting on long rendered recordings: each by the networks that never saw its person, thresholds from the others.

Two ways to call a movement an expression, on the same movements: by its size, and by its size less what the movement of
the head may have left in it. Nothing is trained to spot: the one number that is chosen, the threshold, is for each
person the one that does best on all other persons' recordings.
"""

import functools
import multiprocessing
import os
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from tqdm import tqdm

from stag_datasets import corpus
from stag_datasets.synth_me import long
from stag_jax.deploy import intervals, predict, stream
from stag_jax.deploy.results import Score
from stag_jax.protocol import spotting
from stag_jax.training import restore, workdir
from stag_jax.types import UserError

THRESHOLDS = tuple(np.geomspace(0.05, 1.0, 14))  # pixels
RESAMPLES = 2000


class Watched(NamedTuple):
    """One recording: what is there, and what was seen of it."""

    subject: str
    truth: tuple[spotting.Span, ...]
    scores: tuple[tuple[int, Score], ...]


def measure(folder: Path, subjects: int) -> list[tuple[str, ...]]:
    """Rows (method, F1, STRS, found, false, missed, UF1 of those found) of the run in `folder`.

    Raises:
      UserError: no run of synth_me, or none of its folds is finished.
    """
    config = workdir.read_config(folder)
    names = [name for name in restore.fold_names(restore.open_run(folder)) if name.startswith("synth_me_s")]
    if config.data.dataset != "synth_me" or not names:
        raise UserError(f"{folder} is no finished run of synth_me, whose people the long recordings show")
    names = names[: subjects or None]
    work = functools.partial(_watch, folder)
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(os.cpu_count() or 1, len(names)), mp_context=context) as pool:
        watched = list(tqdm(pool.map(work, names), total=len(names), desc="recordings"))
    rows = []
    for name, turning in (("size of the movement", 0.0), ("less what the head leaves", stream.TURNING)):
        found = _chosen(watched, config.data.classes, turning)
        rows.append(_row(name, found, config.data.classes))
    return rows


def _watch(folder: Path, name: str) -> Watched:
    cv2.setNumThreads(1)
    recipe = corpus.builder("synth_me/long", data_dir="").builder_config.recipe
    number = int(name.rpartition("s")[2]) - 1
    recording = long.recording(recipe, number)
    # The threshold and what the head leaves come in afterwards: both only change `expression`.
    step, state = stream.make_step(predict.from_run(folder, [name]), stream.Settings()), stream.State()
    scores = []
    for f, frame in enumerate(recording.frames):
        state, result = step(state, frame, 1000 * f / recording.fps)
        scores += [(face.track, face.score) for face in result.faces if face.score is not None]
    tick = 1000 / recording.fps
    truth = tuple(spotting.Span(e.onset * tick, e.offset * tick, e.emotion) for e in recording.events)
    return Watched(name, truth, tuple(scores))


def _chosen(watched: Sequence[Watched], classes: Sequence[str], turning: float) -> list[spotting.Recording]:
    """What is found in each recording at the threshold that does best on the others."""
    found = {t: [_found(one, classes, turning, t) for one in watched] for t in THRESHOLDS}
    chosen = []
    for index in range(len(watched)):
        others = {t: [r for i, r in enumerate(each) if i != index] for t, each in found.items()}
        best = max(THRESHOLDS, key=lambda t: spotting.spotting(others[t]).f1)
        chosen.append(found[best][index])
    return chosen


def _found(one: Watched, classes: Sequence[str], turning: float, threshold: float) -> spotting.Recording:
    scores = [
        (track, score._replace(expression=stream.moves(score.magnitude, threshold + turning * score.travel)))
        for track, score in one.scores
    ]
    spans = [spotting.Span(i.onset_ms, i.offset_ms, i.emotion) for i in intervals.merged(scores, classes)]
    return spotting.Recording(one.subject, one.truth, spans)


def _row(name: str, found: Sequence[spotting.Recording], classes: Sequence[str]) -> tuple[str, ...]:
    ends, scores = spotting.intervals(found, classes, resamples=RESAMPLES), spotting.scores(found, classes)
    counts = spotting.spotting(found)
    told = [f"{scores[key]:.3f} [{ends[key][0]:.3f}, {ends[key][1]:.3f}]" for key in ("f1", "strs")]
    return (name, *told, str(counts.tp), str(counts.fp), str(counts.fn), f"{scores['uf1']:.3f}")


HEADER = ("an expression is told by", "F1", "STRS", "found", "false", "missed", "UF1 of those found")
