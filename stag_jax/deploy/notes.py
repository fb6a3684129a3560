"""What has been said of a recording so far: counts in memory, scores and gaps in files, the last seconds at hand."""

import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from stag_jax.deploy import intervals, journal, record, stream
from stag_jax.deploy.results import Gap, Interval, Recogniser, Result

RECENT = 5000.0  # ms for which scores are looked at for what is shown while a recording runs


class Tally(NamedTuple):
    """What has been said so far, but for the scores and gaps in the journal."""

    frames: int = 0
    dropped: Mapping[str, int] = {}  # frames, by reason
    first_ms: float | None = None
    last_ms: float = 0.0
    still_open: Mapping[int | None, Gap] = {}  # gaps, by track
    written: journal.Position = journal.Position()


NOTHING = Tally()


class Notes:
    """Takes in results, and writes what they say; a context manager. Only the last seconds are held in memory."""

    def __init__(
        self, recogniser: Recogniser, settings: stream.StreamSettings, name: str, folder: Path, tally: Tally = NOTHING
    ):
        """Goes on from `tally` with the journal in `folder`."""
        self.recogniser, self.settings, self.name, self.tally = recogniser, settings, name, tally
        self.journal = journal.Journal(folder, tally.written)
        self.scores = self.journal.since(tally.last_ms - RECENT)

    def __enter__(self) -> "Notes":
        return self

    def __exit__(self, *_: Any) -> None:
        self.journal.close()

    def add(self, result: Result) -> None:
        """Takes in the next frame. Raises UserError where what it says cannot be written."""
        tally = self.tally
        scores = [(face.track, face.score) for face in result.faces if face.score is not None]
        still_open, ended = intervals.gaps(tally.still_open, result)
        self.journal.add(scores, ended)
        dropped = {result.dropped: tally.dropped.get(result.dropped, 0) + 1} if result.dropped else {}
        self.tally = Tally(
            frames=tally.frames + 1,
            dropped={**tally.dropped, **dropped},
            first_ms=result.time_ms if tally.first_ms is None else tally.first_ms,
            last_ms=max(tally.last_ms, result.time_ms),
            still_open=still_open,
            written=self.journal.position,
        )
        oldest = self.tally.last_ms - RECENT
        self.scores = [*itertools.dropwhile(lambda tracked: tracked[1].end_ms < oldest, self.scores), *scores]

    def recent(self) -> list[Interval]:
        """The expressions of the last seconds."""
        later = [(track, score) for track, score in self.scores if score.end_ms > self.tally.last_ms - RECENT]
        return intervals.found(later, self.recogniser)

    def outcome(self) -> record.Outcome:
        """All of it. Scores are read from the journal when they are asked for."""
        tally, config, scores = self.tally, self.recogniser.config, self.journal.scores()
        seconds = (tally.last_ms - (tally.first_ms or 0.0)) / 1000
        gaps = [*self.journal.gaps(), *tally.still_open.values()]
        return record.Outcome(
            source=self.name,
            model=self.recogniser.name,
            frames=tally.frames,
            seconds=seconds,
            fps=(tally.frames - 1) / seconds if seconds > 0 else None,
            dropped=dict(tally.dropped),
            classes=self.recogniser.emotions,
            units=config.graph.units,
            scores=scores,
            intervals=intervals.found(scores, self.recogniser),
            gaps=sorted(gaps, key=lambda gap: gap.start_ms),
            settings={
                "window_ms": config.motion.window_ms,
                "hop_ms": self.settings.hop_ms or config.motion.hop_ms,
                "faces": self.settings.faces,
                **({} if self.recogniser.spots else {"threshold": self.settings.threshold}),
            },
        )
