"""Spotting on long rendered recordings: each by the networks that never saw its person.

Criteria for an expression, in the same windows: the size of the movement; the size minus the possible residue of head
movement; and networks that were trained to spot. A threshold is either fixed or, for each person, the one that is best
on all other persons' recordings.
"""

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from absl import flags
from tqdm import tqdm

from stag_datasets import corpus
from stag_datasets.synth_me import long
from stag_experiments import cli
from stag_jax import processes
from stag_jax.analysis import comparison
from stag_jax.corpora import windows
from stag_jax.deploy import intervals, recognition, stream
from stag_jax.deploy.results import Interval, Recogniser, Score
from stag_jax.motion import times, watch
from stag_jax.protocol import spotting
from stag_jax.training import checkpoint, workdir
from stag_jax.types import UserError

THRESHOLDS = tuple(np.geomspace(0.05, 1.0, 14))  # pixels
SCORES = tuple(np.linspace(0.1, 0.9, 17))
RESAMPLES = 2000


FIRST = "size of the movement"


def define_flags() -> None:
    """Define the flags of `benchmark.py spotting`."""
    cli.workdir_flag()
    flags.DEFINE_list("against", [], "Finished runs that were trained to spot, by commas.")
    flags.DEFINE_integer("clips", 0, "People, 0 = all.", lower_bound=0)


def main() -> None:
    """Measure the spotting scores and print the table."""
    learned = [Path(folder) for folder in flags.FLAGS.against]
    rows = measure(cli.read_workdir(flags.FLAGS["workdir"]), learned, flags.FLAGS.clips)
    print(comparison.markdown(HEADER, rows))


class WatchedRecording(NamedTuple):
    """One recording with its true expressions and the scores of each run."""

    subject: str
    truth: tuple[spotting.Span, ...]
    scores: tuple[tuple[tuple[int, Score], ...], ...]  # by run


def measure(folder: Path, learned: Sequence[Path], subjects: int) -> list[tuple[str, ...]]:
    """Return rows of `HEADER`: size of movement, by the run of clips in `folder`, and the spotting runs in `learned`.

    Raises:
      UserError: a run is not of synth_me, lacks folds of the first run, or was not trained to spot.
    """
    runs = [folder, *learned]
    names = _folds(folder)[: subjects or None]
    for run in learned:
        if missing := sorted(set(names) - set(_folds(run))):
            raise UserError(f"{run} has no fold {missing[0]}, which {folder} has")
        if windows.NONE not in workdir.read_config(run).data.classes:
            raise UserError(f"{run} has no class {windows.NONE!r}: it was not trained to spot")
    work = functools.partial(_watch, runs)
    with processes.pool(min(processes.cores(), len(names))) as pool:
        watched = list(tqdm(pool.map(work, names), total=len(names), desc="recordings"))
    makers = [recognition.from_run(run, names[:1]) for run in runs]
    detections = {
        FIRST: _chosen([_sized(recording, makers[0], 0.0) for recording in watched], THRESHOLDS),
        "size less what the head leaves": _chosen(
            [_sized(recording, makers[0], stream.TURNING) for recording in watched], THRESHOLDS
        ),
    }
    for index, run in enumerate(learned, start=1):
        spotters = [functools.partial(_learned, recording, index, makers[index]) for recording in watched]
        detections[f"{run.name}, score of {intervals.LEAST}"] = [find(intervals.LEAST) for find in spotters]
        detections[f"{run.name}, score from the others"] = _chosen(spotters, SCORES)
    classes = makers[0].emotions
    return [_row(name, detected, detections[FIRST], classes) for name, detected in detections.items()]


def _folds(folder: Path) -> list[str]:
    """Return the folds of a finished run of synth_me, one per person."""
    config = workdir.read_config(folder)
    names = [name for name in checkpoint.fold_names(folder) if name.startswith("synth_me_s")]
    if config.data.dataset.partition("/")[0] != "synth_me" or not names:
        raise UserError(f"{folder} is no finished run of synth_me, whose people the long recordings show")
    return names


def _watch(runs: Sequence[Path], name: str) -> WatchedRecording:
    cv2.setNumThreads(1)
    recipe = corpus.builder("synth_me/long", data_dir="").builder_config.recipe
    number = int(name.rpartition("s")[2]) - 1
    recording = long.recording(recipe, number)
    makers = [recognition.from_run(run, [name]) for run in runs]
    configs = [stream.prepared(maker, stream.StreamSettings()) for maker in makers]
    if any(config.motion != configs[0].motion or config.face != configs[0].face for config in configs):
        raise UserError(f"{runs[0]} and {', '.join(map(str, runs[1:]))} differ in config.face or config.motion")
    state, scores = watch.WatchState(), [[] for _ in runs]
    frame_times = times.frame_times(len(recording.frames), recording.fps, None).tolist()
    for frame, time_ms in zip(recording.frames, frame_times, strict=True):
        state, faces = watch.step(state, frame, time_ms, configs[0], 1)
        for face, _, window in faces:
            for maker, run_scores in zip(makers, scores, strict=True):
                if window:
                    # The thresholds and the residue of head movement are applied later.
                    run_scores.append((face.track, stream.score(window, maker, stream.StreamSettings.threshold)))
    truth = tuple(spotting.Span(frame_times[e.onset], frame_times[e.offset], e.emotion) for e in recording.events)
    return WatchedRecording(name, truth, tuple(map(tuple, scores)))


Find = Callable[[float], spotting.SpottedRecording]  # threshold -> expressions found in a recording


def _chosen(each: Sequence[Find], thresholds: Sequence[float]) -> list[spotting.SpottedRecording]:
    """Return the result of each recording at the threshold that is best on the others."""
    results = {t: [find(t) for find in each] for t in thresholds}
    chosen = []
    for index in range(len(each)):
        others = {t: [r for i, r in enumerate(row) if i != index] for t, row in results.items()}
        best = max(thresholds, key=lambda t: spotting.spotting(others[t]).f1)
        chosen.append(results[best][index])
    return chosen


def _sized(one: WatchedRecording, maker: Recogniser, turning: float) -> Find:
    def find(threshold: float) -> spotting.SpottedRecording:
        scores = [
            (track, score._replace(expression=stream.moves(score.magnitude, threshold + turning * score.travel)))
            for track, score in one.scores[0]
        ]
        return _recording(one, intervals.found(scores, maker))

    return find


def _learned(one: WatchedRecording, index: int, maker: Recogniser, least: float) -> spotting.SpottedRecording:
    return _recording(one, intervals.found(one.scores[index], maker, least))


def _recording(one: WatchedRecording, found: Sequence[Interval]) -> spotting.SpottedRecording:
    return spotting.SpottedRecording(
        one.subject, one.truth, [spotting.Span(i.onset_ms, i.offset_ms, i.emotion) for i in found]
    )


def _row(
    name: str,
    found: Sequence[spotting.SpottedRecording],
    first: Sequence[spotting.SpottedRecording],
    classes: Sequence[str],
) -> tuple[str, ...]:
    bounds, scores = spotting.intervals(found, classes, resamples=RESAMPLES), spotting.scores(found, classes)
    counts = spotting.spotting(found)
    cells = [f"{scores[key]:.3f} [{bounds[key][0]:.3f}, {bounds[key][1]:.3f}]" for key in ("f1", "strs")]
    difference_text = ""
    if found is not first:
        difference = spotting.differences(found, first, classes, resamples=RESAMPLES)["f1"]
        difference_text = f"{difference.mean:+.3f} [{difference.low:+.3f}, {difference.high:+.3f}]"
    return (name, *cells, difference_text, str(counts.tp), str(counts.fp), str(counts.fn), f"{scores['uf1']:.3f}")


HEADER = (
    "an expression is told by", "F1", "STRS", "F1 more than the first", "found", "false", "missed",
    "UF1 of those found",
)  # fmt: skip
