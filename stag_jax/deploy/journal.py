"""Append the scores and gaps of a recording to files, so that memory does not grow with its length."""

import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, overload

import numpy as np

from stag_jax.deploy.results import Gap, Score
from stag_jax.types import UserError

SCORES, GAPS = "scores.bin", "gaps.jsonl"
ARRAYS = ("probability", "au_probability")  # array fields of a score; the others are numbers
CHUNK = 1024  # rows in memory at a time

Tracked = tuple[int, Score]  # (track, its score)


class Position(NamedTuple):
    """The lengths of a journal's files."""

    scores: int = 0  # rows
    gaps: int = 0  # bytes
    layout: tuple[tuple[str, int], ...] = ()  # dtype and length of each of `ARRAYS`; empty before the first score


BEGINNING = Position()


class ScoreFile(Sequence[Tracked]):
    """The scores in a file, in the order they were added; each is read on access."""

    def __init__(self, path: Path, position: Position):
        """Map the first `position.scores` rows of the file at `path`."""
        count = position.scores
        self._rows = np.memmap(path, _row_type(position.layout), "r", shape=(count,)) if count else np.empty(0)

    def __len__(self) -> int:
        return len(self._rows)

    @overload
    def __getitem__(self, index: int) -> Tracked: ...
    @overload
    def __getitem__(self, index: slice) -> list[Tracked]: ...
    def __getitem__(self, index: int | slice) -> Tracked | list[Tracked]:
        if isinstance(index, slice):
            return [_score(row) for row in self._rows[index]]
        return _score(self._rows[index])

    def __iter__(self) -> Iterator[Tracked]:
        for start in range(0, len(self), CHUNK):
            yield from self[start : start + CHUNK]


class Journal:
    """The files `SCORES` and `GAPS` in a folder, open for appending; a context manager that closes them.

    Raises (from every method):
      UserError: a file cannot be written; names the file.
    """

    def __init__(self, folder: Path, position: Position = BEGINNING):
        """Open a journal in an existing `folder`, and truncate its files to `position`.

        Raises:
          ValueError: the files are shorter than `position`.
        """
        self.folder, self.position = folder, position
        sizes = position.scores * (_row_type(position.layout).itemsize if position.layout else 0), position.gaps
        self._files: dict[str, BinaryIO] = {}
        try:
            for name, size in zip((SCORES, GAPS), sizes, strict=True):
                file = self._files[name] = (folder / name).open("ab")
                if file.tell() < size:
                    raise ValueError(f"{folder / name} has {file.tell()} bytes, and {size} were written")
                file.truncate(size)
        except OSError as error:
            self.close()
            raise UserError(f"{folder} cannot be written to: {error.strerror or error}") from error
        except ValueError:
            self.close()
            raise

    def __enter__(self) -> "Journal":
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()

    def close(self) -> None:
        """Close the files."""
        for file in self._files.values():
            file.close()

    def add(self, scores: Iterable[Tracked], gaps: Iterable[Gap]) -> None:
        """Append to both files; the data is flushed when this returns.

        Raises:
          ValueError: the arrays of a score differ in length or dtype from those before.
        """
        count, layout = self.position.scores, self.position.layout
        rows, lines = b"", b""
        for track, score in scores:
            score_layout = tuple((array.dtype.str, len(array)) for array in (getattr(score, name) for name in ARRAYS))
            layout = layout or score_layout
            if score_layout != layout:
                raise ValueError(f"a score of {score_layout} after one of {layout}")
            rows += np.array((track, *score), _row_type(layout)).tobytes()
            count += 1
        for gap in gaps:
            lines += json.dumps(gap).encode() + b"\n"
        self._append(SCORES, rows)
        self._append(GAPS, lines)
        self.position = Position(count, self.position.gaps + len(lines), layout)

    def _append(self, name: str, content: bytes) -> None:
        if content:
            try:
                self._files[name].write(content)
                self._files[name].flush()
            except OSError as error:
                raise UserError(f"{self.folder / name} cannot be written: {error.strerror or error}") from error

    def scores(self) -> ScoreFile:
        """Return all scores so far, each read on access."""
        return ScoreFile(self.folder / SCORES, self.position)

    def since(self, time_ms: float) -> list[Tracked]:
        """Return the scores whose windows end at `time_ms` or later; scores are stored in order of their ends."""
        scores, latest = self.scores(), []
        for index in range(len(scores) - 1, -1, -1):
            latest.append(scores[index])
            if latest[-1][1].end_ms < time_ms:
                latest.pop()
                break
        return latest[::-1]

    def gaps(self) -> list[Gap]:
        """Return all gaps so far, in the order in which they ended."""
        with (self.folder / GAPS).open("rb") as file:
            return [Gap(*json.loads(line)) for line in file.read(self.position.gaps).splitlines()]


def _row_type(layout: tuple[tuple[str, int], ...]) -> np.dtype:
    arrays = {name: (dtype, (length,)) for name, (dtype, length) in zip(ARRAYS, layout, strict=True)}
    fields = [(name, *arrays.get(name, ("<f8",))) for name in Score._fields]
    return np.dtype([("track", "<i8"), *fields])


def _score(row: np.void) -> Tracked:
    values = {name: row[name].copy() if name in ARRAYS else float(row[name]) for name in Score._fields}
    return int(row["track"]), Score(**values)
