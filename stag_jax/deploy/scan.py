"""A recording from its first frame to its last: what is said of it, gathered and written."""

import contextlib
import math
import signal
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from tqdm import tqdm

from stag_jax.deploy import intervals, live, overlay, record, source, stream, timeline
from stag_jax.deploy.film import Film
from stag_jax.deploy.results import Gap, Interval, Recogniser, Result, Score
from stag_jax.types import UserError

WAITING = 4  # frames of a camera that may wait before the oldest is dropped
RECENT = 5000.0  # ms for which scores are looked at for what is shown while a recording runs


class Notes:
    """What has been said so far."""

    def __init__(self, recogniser: Recogniser, settings: stream.Settings, name: str):
        self.recogniser, self.settings, self.name = recogniser, settings, name
        self.scores: list[tuple[int, Score]] = []
        self.dropped: Counter[str] = Counter()
        self.frames = 0
        self.first_ms: float | None = None
        self.last_ms = 0.0
        self._gaps: list[Gap] = []
        self._open: dict[int | None, Gap] = {}

    def add(self, result: Result) -> None:
        """Takes in the next frame."""
        self.frames += 1
        if result.dropped:
            self.dropped[result.dropped] += 1
        self.first_ms = result.time_ms if self.first_ms is None else self.first_ms
        self.last_ms = max(self.last_ms, result.time_ms)
        self.scores += [(face.track, face.score) for face in result.faces if face.score is not None]
        self._open, ended = intervals.gaps(self._open, result)
        self._gaps += ended

    def recent(self) -> list[Interval]:
        """The expressions of the last seconds."""
        start = len(self.scores)
        while start and self.scores[start - 1][1].end_ms > self.last_ms - RECENT:
            start -= 1
        return intervals.found(self.scores[start:], self.recogniser)

    def outcome(self) -> record.Outcome:
        """All of it."""
        seconds = (self.last_ms - (self.first_ms or 0.0)) / 1000
        config = self.recogniser.config
        return record.Outcome(
            source=self.name,
            model=self.recogniser.name,
            frames=self.frames,
            seconds=seconds,
            fps=(self.frames - 1) / seconds if seconds > 0 else None,
            dropped=dict(self.dropped),
            classes=self.recogniser.emotions,
            units=config.graph.units,
            scores=self.scores,
            intervals=intervals.found(self.scores, self.recogniser),
            gaps=sorted([*self._gaps, *self._open.values()], key=lambda gap: gap.start_ms),
            settings={
                "window_ms": config.motion.window_ms,
                "hop_ms": self.settings.hop_ms or config.motion.hop_ms,
                "faces": self.settings.faces,
                **({} if self.recogniser.spots else {"threshold": self.settings.threshold}),
            },
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


def file(
    recogniser: Recogniser,
    settings: stream.Settings,
    recording: source.Source,
    out: Path | None,
    name: str,
    *,
    film: bool,
) -> record.Outcome:
    """Looks at a whole recording; writes into `out`, the JSON last, so that it stands for a recording that is done.

    Raises:
      UserError: the recording cannot be read, or an output cannot be written; then no half of it is left.
    """
    notes, units = Notes(recogniser, settings, name), recogniser.config.graph.units
    shown: list[Interval] = []
    with contextlib.ExitStack() as stack:
        found = stack.enter_context(contextlib.closing(stream.results(recogniser, settings, recording.frames())))
        writer = stack.enter_context(Film(out / f"{name}.mp4")) if out and film else None
        for frame, result in tqdm(found, desc=name, total=recording.count, unit="frame"):
            notes.add(result)
            if writer and frame.pixels is not None:
                if any(face.score for face in result.faces):
                    shown = notes.recent()
                drawn = overlay.draw(frame.pixels, result, recogniser.emotions, units, notes.scores, shown)
                writer.add(drawn, frame.time_ms)
    return _finished(notes, out)


def camera(
    recogniser: Recogniser,
    settings: stream.Settings,
    recording: source.Source,
    out: Path | None,
    on_interval: Callable[[Interval], None],
) -> record.Outcome:
    """Looks at what a camera gives until Ctrl-C; `on_interval` hears of each expression once its windows are over.

    Raises:
      UserError: the camera, or an output that cannot be written.
    """
    notes, stop = Notes(recogniser, settings, recording.name), threading.Event()
    window_ms = recogniser.config.motion.window_ms
    told: dict[int, float] = {}  # onset of the latest that was told, by track

    def on_result(result: Result) -> None:
        notes.add(result)
        if not any(face.score for face in result.faces):
            return
        for one in notes.recent():
            if one.onset_ms > told.get(one.track, -math.inf) and one.offset_ms + window_ms < result.time_ms:
                on_interval(one)
                told[one.track] = one.onset_ms

    before = signal.signal(signal.SIGINT, lambda *_: stop.set())
    try:
        step = stream.make_step(recogniser, settings)
        live.run(step, stream.State(), recording.frames(), capacity=WAITING, on_result=on_result, stop=stop)
    finally:
        signal.signal(signal.SIGINT, before)
    return _finished(notes, out)


def _finished(notes: Notes, out: Path | None) -> record.Outcome:
    outcome = notes.outcome()
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
