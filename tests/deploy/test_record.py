"""What is written of a recording is by its schema, and comes back."""

import csv
import json
import math
from pathlib import Path

import numpy as np
import pytest

from stag_jax.deploy import record
from stag_jax.deploy.results import Gap, Interval, Score
from stag_jax.types import UserError

CLASSES, UNITS = ("negative", "positive", "surprise"), (1, 4, 6, 12, 25)


def outcome(windows=7, **changes):
    """Two faces; the network has no AU head for the second."""
    rng = np.random.default_rng(3)
    scores = []
    for index in range(windows):
        probability, au = rng.dirichlet(np.ones(3)), rng.uniform(size=5)
        au = np.full(5, np.nan) if index % 2 else au.astype(np.float32)
        start = 1000 * index / 7
        scores.append(
            (
                index % 2,
                Score(start, start + 500, float(rng.uniform()), probability, au, start, start + 90, math.nan, 0.7, 0.3),
            )
        )
    interval = Interval(1, 1000 / 3, 433.0, 571.0, "positive", 0.91, scores[0][1].probability, np.full(5, np.nan))
    gaps = [Gap(None, 0.0, 40.0, "damaged"), Gap(1, 200.0, 400.5, "turned away")]
    made = record.Outcome(
        "film", "run", 211, 8.4, 25.0, {"damaged": 2}, CLASSES, UNITS, scores, [interval], gaps, {"window_ms": 500}
    )
    return made._replace(**changes)


def assert_same(one, other):
    if isinstance(one, np.ndarray | float):
        np.testing.assert_allclose(one, other, atol=10.0**-record.DIGITS)
    elif isinstance(one, list | tuple):
        assert len(one) == len(other)
        for left, right in zip(one, other, strict=True):
            assert_same(left, right)
    else:
        assert one == other


EMPTY = {"scores": [], "intervals": [], "gaps": [], "dropped": {}, "fps": None, "frames": 1, "seconds": 0.0}


@pytest.mark.parametrize("changes", [{}, EMPTY, {"settings": {"threshold": np.float32(0.5), "tracks": (1, None)}}])
def test_it_is_by_the_schema_and_comes_back(changes, tmp_path):
    validator = pytest.importorskip("jsonschema").Draft202012Validator
    validator.check_schema(record.schema())
    written = outcome(**changes)
    record.write_json(tmp_path / "deep" / "film.json", written)
    text = (tmp_path / "deep" / "film.json").read_text()
    tree = json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    assert list(validator(record.schema()).iter_errors(tree)) == []
    back = record.read(tmp_path / "deep" / "film.json")
    assert_same(written._replace(settings=0), back._replace(settings=0))
    assert len(text.splitlines()) < 40 and [each.name for each in (tmp_path / "deep").iterdir()] == ["film.json"]


def test_the_schema_sees_faults(tmp_path):
    validator = pytest.importorskip("jsonschema").Draft202012Validator(record.schema())
    record.write_json(tmp_path / "film.json", outcome())
    for where, key, value in (
        ((), "frames", -1),
        (("scores", 0), "expression", 1.5),
        (("intervals", 0), "emotion", None),
        (("gaps", 0), "seconds", 1.0),
    ):
        tree = json.loads((tmp_path / "film.json").read_text())
        part = tree
        for step in where:
            part = part[step]
        part[key] = value
        assert [tuple(error.path)[: len(where)] for error in validator.iter_errors(tree)] == [where]


def test_every_field_is_documented():
    text = Path(__file__).parents[2].joinpath("docs", "predictions.md").read_text(encoding="utf-8")
    schema = record.schema()
    names = set(schema["properties"])
    for part in ("scores", "intervals", "gaps"):
        names |= set(schema["properties"][part]["items"]["properties"])
    assert [name for name in sorted(names) if f"`{name}`" not in text] == []
    assert set(schema["properties"]) == {"version", *record.Outcome._fields}


def test_tables_have_a_row_each(tmp_path):
    made = outcome()
    with record.write_scores(tmp_path / "scores.csv", made).open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 7 and rows[1]["au_12"] == rows[1]["offset_ms"] == ""
    for row, (track, score) in zip(rows, made.scores, strict=True):
        assert int(row["track"]) == track and float(row["start_ms"]) == pytest.approx(score.start_ms)
        found = [float(row[f"p_{name}"]) for name in CLASSES]
        np.testing.assert_allclose(found, score.probability, atol=1e-6)
    with record.write_csv(tmp_path / "intervals.csv", made).open() as file:
        (row,) = csv.DictReader(file)
    assert (row["emotion"], row["onset_ms"], row["confidence"]) == ("positive", "333.333333", "0.91")
    with record.write_csv(tmp_path / "none.csv", outcome(intervals=[])).open() as file:
        assert len(list(csv.reader(file))) == 1


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (None, "cannot be read: No such file"),
        ("{", "holds no predictions"),
        ("[]", "holds no predictions"),
        ('{"version": 99}', "is of version 99 of the predictions; this is version 1"),
        ('{"version": 1, "scores": []}', "holds no predictions"),
    ],
)
def test_what_is_no_record_is_one_line(text, reason, tmp_path):
    path = tmp_path / "film.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(UserError, match=reason) as caught:
        record.read(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)
