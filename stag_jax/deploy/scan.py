"""Analyse a whole recording, and write its results."""

import contextlib
import dataclasses
import itertools
import math
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from absl import logging
from tqdm import tqdm

from stag_jax.deploy import film as films
from stag_jax.deploy import journal, overlay, realtime, record, source, stream, timeline, unfinished
from stag_jax.deploy.notes import NOTHING, Notes, Tally
from stag_jax.deploy.results import Gap, Interval, Recogniser, Result
from stag_jax.face import crowd, face_checks, tracking
from stag_jax.motion import incremental as motion
from stag_jax.motion import watch
from stag_jax.types import UserError

WAITING = 4  # camera frames that may wait; beyond it the oldest is dropped
EVERY = 300  # frames between saves of the progress


class Progress(NamedTuple):
    """All that is needed to resume a recording."""

    tally: Tally = NOTHING
    state: stream.StreamState = stream.StreamState()
    shown: tuple[Interval, ...] = ()  # drawn on the film
    place: films.Place | None = None  # of the film


KINDS = (
    *(
        Progress,
        Tally,
        journal.Position,
        films.Place,
        Gap,
        Interval,
        stream.StreamState,
        watch.WatchState,
        watch.Following,
    ),
    *(
        motion.MotionState,
        motion.Anchor,
        motion.Moment,
        crowd.Crowd,
        crowd.Tracked,
        tracking.TrackingState,
        face_checks.Face,
    ),
)


def names(paths: Sequence[Path]) -> list[str]:
    """Return an output name for each recording, from its file or folder.

    Raises:
      UserError: two recordings would get the same name.
    """
    by_name: dict[str, Path] = {}
    for path in paths:
        name = path.resolve().name if path.is_dir() else path.stem
        if name in by_name:
            raise UserError(f"{path} and {by_name[name]} would both be written as {name}; give them one at a time")
        by_name[name] = path
    return list(by_name)


def done(out: Path, name: str) -> bool:
    """Return whether a recording has its outputs; if so, remove what is left of its unfinished work."""
    if not (out / f"{name}.json").exists():
        return False
    unfinished.remove(out, name)  # the process may have been killed before it could do this
    return True


def file(
    recogniser: Recogniser,
    settings: stream.StreamSettings,
    recording: source.Source,
    out: Path | None,
    name: str,
    *,
    film: bool,
) -> record.Outcome:
    """Analyse a whole recording, and write into `out`; the JSON is written last, so that it marks a finished recording.

    Results are appended to files in a folder `<name>.unfinished`, and every `EVERY` frames the progress is saved. After
    a kill the same call resumes, and gives the same bytes (for a film: the same pictures). Resuming decodes the frames
    before the save again, and analyses fewer than `EVERY` frames again.

    Raises:
      UserError: the recording cannot be read, an output cannot be written, or another process works on the recording;
        no partial output is left.
    """
    draw_film = film and out is not None
    options = {**dataclasses.asdict(settings), "film": draw_film, "every": EVERY}
    about = unfinished.about(recogniser, recording, options) if out else None
    step = stream.make_step(recogniser, settings)
    with unfinished.opened(out, name, about, KINDS) as work:
        progress = _saved(work, name)
        if progress.tally.frames:
            logging.warning("%s: going on after frame %d", name, progress.tally.frames)
        with (
            tqdm(desc=name, total=recording.count, initial=progress.tally.frames, unit="frame") as bar,
            contextlib.closing(source.ahead(_from(recording, progress.tally.frames))) as frames,
        ):
            while True:
                with Notes(recogniser, settings, name, work.folder, progress.tally) as notes:
                    after = _stretch(notes, step, frames, progress, work.folder if draw_film else None, bar)
                    if after.tally.frames < progress.tally.frames + EVERY:
                        return _finished(notes, out, work.folder if draw_film else None)
                progress = unfinished.save(work.folder, after, KINDS)


def _saved(work: unfinished.Unfinished, name: str) -> Progress:
    """Return the progress saved by an earlier process, or a new one if its journal is incomplete."""
    if work.saved is None:
        return Progress()
    try:
        journal.Journal(work.folder, work.saved.tally.written).close()
    except ValueError as error:
        logging.warning("%s is begun anew: what was unfinished is damaged (%s)", name, error)
        return Progress()
    return work.saved


def _from(recording: source.Source, start: int) -> Iterator[source.Frame]:
    return recording.frames(start) if start else recording.frames()


def _stretch(
    notes: Notes,
    step: stream.Step,
    frames: Iterator[source.Frame],
    progress: Progress,
    folder: Path | None,
    bar: tqdm,
) -> Progress:
    """Analyse the next `EVERY` frames, or those that are left, and draw them into a part of the film in `folder`."""
    state, shown = progress.state, progress.shown
    emotions, units = notes.recogniser.emotions, notes.recogniser.config.graph.units
    with contextlib.ExitStack() as stack:
        part = folder and films.Film(_part(folder, progress.tally.frames), part=True, place=progress.place)
        writer = part and stack.enter_context(part)
        for frame in itertools.islice(frames, EVERY):
            state, result = stream.take(step, state, frame)
            notes.add(result)
            if writer and frame.pixels is not None:
                if any(face.score for face in result.faces):
                    shown = tuple(notes.recent())
                writer.add(overlay.draw(frame.pixels, result, emotions, units, notes.scores, shown), frame.time_ms)
            bar.update()
    return Progress(notes.tally, state, shown, writer.place if writer else None)


def _part(folder: Path, start: int) -> Path:
    """Return the path of the film's part that begins at frame `start`."""
    return folder / f"film_{start // EVERY:06d}.mkv"


def camera(
    recogniser: Recogniser,
    settings: stream.StreamSettings,
    recording: source.Source,
    out: Path | None,
    on_interval: Callable[[Interval], None],
) -> record.Outcome:
    """Analyse a camera's frames until Ctrl-C; call `on_interval` for each expression once its windows have ended.

    Raises:
      UserError: the camera fails, or an output cannot be written.
    """
    stop, window_ms = threading.Event(), recogniser.config.motion.window_ms
    told_onsets: dict[int, float] = {}  # onset of the latest reported expression, by track

    def on_result(result: Result) -> None:
        notes.add(result)
        if not any(face.score for face in result.faces):
            return
        for interval in notes.recent():
            if (
                interval.onset_ms > told_onsets.get(interval.track, -math.inf)
                and interval.offset_ms + window_ms < result.time_ms
            ):
                on_interval(interval)
                told_onsets[interval.track] = interval.onset_ms

    step = stream.make_step(recogniser, settings)
    # A camera cannot be replayed, so nothing is kept for resuming.
    with unfinished.opened(None, recording.name, None, KINDS) as work:
        with Notes(recogniser, settings, recording.name, work.folder) as notes:
            handler = signal.signal(signal.SIGINT, lambda *_: stop.set())
            try:
                realtime.run(
                    step, stream.StreamState(), recording.frames(), capacity=WAITING, on_result=on_result, stop=stop
                )
            finally:
                signal.signal(signal.SIGINT, handler)
            return _finished(notes, out, None)


def _finished(notes: Notes, out: Path | None, parts: Path | None) -> record.Outcome:
    """Write the outputs if `out` is given; `parts` is the folder with the parts of a film."""
    outcome = notes.outcome()
    if out and parts:
        films.join(sorted(parts.glob("film_*.mkv")), out / f"{notes.name}.mp4")
    if out:
        write(out, notes.name, outcome)
    return outcome


def write(out: Path, name: str, outcome: record.Outcome) -> None:
    """Write the tables, the picture and, last, the JSON. Raises UserError if they cannot be written."""
    try:
        record.write_csv(out / f"{name}.csv", outcome)
        record.write_scores(out / f"{name}_scores.csv", outcome)
        timeline.draw(out / f"{name}.png", outcome)
        record.write_json(out / f"{name}.json", outcome)
    except OSError as error:
        raise UserError(f"{out}: the results of {name} cannot be written: {error.strerror or error}") from error
