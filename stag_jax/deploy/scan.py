"""A recording from its first frame to its last: what is said of it, gathered and written."""

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

WAITING = 4  # frames of a camera that may wait before the oldest is dropped
EVERY = 300  # frames after which all is saved that is needed to go on from there


class Progress(NamedTuple):
    """All that is needed to go on with a recording."""

    tally: Tally = NOTHING
    state: stream.StreamState = stream.StreamState()
    shown: tuple[Interval, ...] = ()  # on the film
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
    """A name for the output of each recording: of the file or folder.

    Raises:
      UserError: two recordings would get the same.
    """
    found: dict[str, Path] = {}
    for path in paths:
        name = path.resolve().name if path.is_dir() else path.stem
        if name in found:
            raise UserError(f"{path} and {found[name]} would both be written as {name}; give them one at a time")
        found[name] = path
    return list(found)


def done(out: Path, name: str) -> bool:
    """Whether a recording has its outputs already; of one that has, nothing else is kept."""
    if not (out / f"{name}.json").exists():
        return False
    unfinished.remove(out, name)  # a process may have been killed between the two
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
    """Looks at a whole recording; writes into `out`, the JSON last, so that it stands for a recording that is done.

    What has been said is written as it comes, into a folder `<name>.unfinished`. Every `EVERY` frames all is saved that
    is needed to go on, and the same call does after the process was killed: to the same bytes (of a film: to the same
    pictures), at the cost of decoding what was looked at, and of looking again at less than `EVERY` frames.

    Raises:
      UserError: the recording cannot be read, an output cannot be written, or another process is at the recording; no
        half of an output is left.
    """
    drawn = film and out is not None
    how = {**dataclasses.asdict(settings), "film": drawn, "every": EVERY}
    about = unfinished.about(recogniser, recording, how) if out else None
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
                    after = _stretch(notes, step, frames, progress, work.folder if drawn else None, bar)
                    if after.tally.frames < progress.tally.frames + EVERY:
                        return _finished(notes, out, work.folder if drawn else None)
                progress = unfinished.save(work.folder, after, KINDS)


def _saved(work: unfinished.Unfinished, name: str) -> Progress:
    """What an earlier process has saved, if all that it had written by then is there."""
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
    """Takes in the next `EVERY` frames, or those that are left, and draws them into a part of the film in `folder`."""
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
    """The part of a film that begins with a frame."""
    return folder / f"film_{start // EVERY:06d}.mkv"


def camera(
    recogniser: Recogniser,
    settings: stream.StreamSettings,
    recording: source.Source,
    out: Path | None,
    on_interval: Callable[[Interval], None],
) -> record.Outcome:
    """Looks at what a camera gives until Ctrl-C; `on_interval` hears of each expression once its windows are over.

    Raises:
      UserError: the camera, or an output that cannot be written.
    """
    stop, window_ms = threading.Event(), recogniser.config.motion.window_ms
    told: dict[int, float] = {}  # onset of the latest that was told, by track

    def on_result(result: Result) -> None:
        notes.add(result)
        if not any(face.score for face in result.faces):
            return
        for one in notes.recent():
            if one.onset_ms > told.get(one.track, -math.inf) and one.offset_ms + window_ms < result.time_ms:
                on_interval(one)
                told[one.track] = one.onset_ms

    step = stream.make_step(recogniser, settings)
    # What a camera showed is gone, so nothing of it is kept to be gone on with.
    with unfinished.opened(None, recording.name, None, KINDS) as work:
        with Notes(recogniser, settings, recording.name, work.folder) as notes:
            before = signal.signal(signal.SIGINT, lambda *_: stop.set())
            try:
                realtime.run(
                    step, stream.StreamState(), recording.frames(), capacity=WAITING, on_result=on_result, stop=stop
                )
            finally:
                signal.signal(signal.SIGINT, before)
            return _finished(notes, out, None)


def _finished(notes: Notes, out: Path | None, parts: Path | None) -> record.Outcome:
    """Writes the outputs, if there is a folder for them; `parts`: where those of a film are."""
    outcome = notes.outcome()
    if out and parts:
        films.join(sorted(parts.glob("film_*.mkv")), out / f"{notes.name}.mp4")
    if out:
        write(out, notes.name, outcome)
    return outcome


def write(out: Path, name: str, outcome: record.Outcome) -> None:
    """The tables, the picture and, last, the JSON. Raises UserError where they cannot be written."""
    try:
        record.write_csv(out / f"{name}.csv", outcome)
        record.write_scores(out / f"{name}_scores.csv", outcome)
        timeline.draw(out / f"{name}.png", outcome)
        record.write_json(out / f"{name}.json", outcome)
    except OSError as error:
        raise UserError(f"{out}: the results of {name} cannot be written: {error.strerror or error}") from error
