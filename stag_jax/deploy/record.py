"""Write the results of one recording: JSON with a schema, and tables. See docs/predictions.md for the fields."""

import importlib.resources
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from stag_jax.deploy.results import Gap, Interval, Score
from stag_jax.files import write_atomically, write_table
from stag_jax.types import UserError

VERSION = 1
DIGITS = 6  # after the decimal point


class Outcome(NamedTuple):
    """The results of a recording."""

    source: str  # its name
    model: str  # the recogniser's name
    frames: int  # read, including dropped ones
    seconds: float  # from the first frame to the last
    fps: float | None  # mean; None for fewer than two frames
    dropped: Mapping[str, int]  # number of frames that were not analysed, by reason
    classes: tuple[str, ...]  # emotions, axis k of the scores
    units: tuple[int, ...]  # action units, axis u of the scores
    scores: Sequence[tuple[int, Score]]  # (track, score of a window), in order of time
    intervals: Sequence[Interval]
    gaps: Sequence[Gap]
    settings: Mapping[str, Any]  # name -> number, text, list or None


def schema() -> dict[str, Any]:
    """Return the JSON Schema of what `write_json` writes."""
    return json.loads(
        importlib.resources.files("stag_jax.deploy").joinpath("predictions.schema.json").read_text("utf-8")
    )


def write_json(path: Path, outcome: Outcome) -> None:
    """Write all results atomically. Numbers have `DIGITS` digits after the point; NaN and infinity become null.

    Scores are read one after the other, so that a long recording's need not fit in memory.
    """
    with write_atomically(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        file.writelines(_pieces(outcome))


def _pieces(outcome: Outcome) -> Iterator[str]:
    """Yield the JSON text. Each window has its own line, so that files can be read and compared."""
    rows: dict[str, Iterable[dict[str, Any]]] = {
        "scores": ({"track": track} | score._asdict() for track, score in outcome.scores),
        "intervals": (interval._asdict() for interval in outcome.intervals),
        "gaps": (gap._asdict() for gap in outcome.gaps),
    }
    prefix = "{\n"
    for key, value in ({"version": VERSION} | outcome._asdict()).items():
        yield f"{prefix} {json.dumps(key)}: "
        prefix, has_rows = ",\n", False
        for row in rows.get(key, ()):
            yield (",\n  " if has_rows else "[\n  ") + json.dumps(_plain(row), allow_nan=False)
            has_rows = True
        if key in rows:
            yield "\n ]" if has_rows else "[]"
        else:
            yield json.dumps(_plain(value), allow_nan=False)
    yield "\n}\n"


def _plain(value: Any) -> Any:
    """Convert a value to types that JSON has."""
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    if isinstance(value, float):
        return round(value, DIGITS) if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value


def read(path: Path) -> Outcome:
    """Read what `write_json` wrote.

    Raises:
      UserError: the file is missing, of another kind or of another version.
    """
    try:
        tree = json.loads(path.read_text(encoding="utf-8"))
        version = tree.pop("version")
        if version != VERSION:
            raise UserError(f"{path} is of version {version} of the predictions; this is version {VERSION}")
        tree["scores"] = [(row.pop("track"), _record(Score, row)) for row in tree["scores"]]
        tree["intervals"] = [_record(Interval, row) for row in tree["intervals"]]
        tree["gaps"] = [Gap(**row) for row in tree["gaps"]]
        return Outcome(**tree | {"classes": tuple(tree["classes"]), "units": tuple(tree["units"])})
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path} holds no predictions: {' '.join(str(error).split())}") from error


def _record(kind: type, row: dict[str, Any]) -> Any:
    """Make a record, with lists as arrays and null as NaN."""
    values = {}
    for key, value in row.items():
        if isinstance(value, list):
            value = np.array([math.nan if item is None else item for item in value], np.float64)
        values[key] = math.nan if value is None else value
    return kind(**values)


def write_csv(path: Path, outcome: Outcome) -> Path:
    """Write a table with one row per interval; NaN is an empty cell. Return its path."""
    header = ["track", "onset_ms", "apex_ms", "offset_ms", "emotion", "confidence", *_columns(outcome)]
    rows = ([*interval[:6], *interval.probability, *interval.au_probability] for interval in outcome.intervals)
    return write_table(path, header, map(_cells, rows))


def write_scores(path: Path, outcome: Outcome) -> Path:
    """Write a table with one row per window of a track; NaN is an empty cell. Return its path."""
    names = ("start_ms", "end_ms", "expression", "onset_ms", "apex_ms", "offset_ms", "magnitude", "travel")
    rows = (
        [track, *(getattr(score, name) for name in names), *score.probability, *score.au_probability]
        for track, score in outcome.scores
    )
    return write_table(path, ["track", *names, *_columns(outcome)], map(_cells, rows))


def _columns(outcome: Outcome) -> list[str]:
    return [f"p_{name}" for name in outcome.classes] + [f"au_{unit}" for unit in outcome.units]


def _cells(row: Sequence[Any]) -> list[Any]:
    return ["" if cell is None else cell for cell in map(_plain, row)]
