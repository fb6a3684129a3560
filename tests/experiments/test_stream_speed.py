"""What the benchmark of a stream measures on."""

import math

import numpy as np
import pytest

from stag_configs import base
from stag_experiments.benchmarks import stream_soak, stream_speed
from stag_jax.config import from_config_dict
from stag_jax.deploy import source
from stag_jax.deploy.results import Answer, Recogniser
from stag_jax.types import UserError

FILM = stream_speed.film


@pytest.fixture(scope="module")
def film(tmp_path_factory):
    return stream_speed.film(tmp_path_factory.mktemp("films") / "person.mp4", 25, frames=53)


@pytest.fixture(scope="module")
def recogniser():
    def forward(clips):
        b, t = clips.nodes.shape[:2]
        return Answer(np.full((b, 3), 1 / 3, np.float32), np.zeros((b, t, 12), np.float32))

    return Recogniser("constant", from_config_dict(base.get_config()), forward)


def test_a_film_has_the_rate_that_was_asked_for(film):
    """Of 100 rendered frames a second every fourth."""
    frames = list(source.open_path(film).frames())
    assert len(frames) == 14 and frames[0].pixels.shape == (480, 640, 3)
    np.testing.assert_allclose(np.diff([frame.time_ms for frame in frames]), 40, atol=0.01)


def test_time_goes_on_from_pass_to_pass(film):
    times = [frame.time_ms for frame in stream_speed.looped(film, 3)]
    assert len(times) == 3 * 14
    np.testing.assert_allclose(np.diff(times), 40, atol=0.01)


def test_a_film_is_repeated_without_a_seam(film, tmp_path):
    once = list(source.open_path(film).frames())
    whole = list(source.open_path(stream_speed.repeated(film, 3, tmp_path / "long.mp4")).frames())
    assert len(whole) == 3 * len(once) and not any(frame.problem for frame in whole)
    np.testing.assert_allclose(np.diff([frame.time_ms for frame in whole]), 40, atol=0.01)
    for index, frame in enumerate(whole):
        np.testing.assert_array_equal(frame.pixels, once[index % len(once)].pixels)


def test_passes_are_compared():
    one = [(100.0, 420.0), (900.0, 1220.0)]
    assert stream_soak._apart(one, one) == 0
    assert stream_soak._apart(one, [(100.0, 420.0), (880.0, 1240.0)]) == 20
    assert math.isnan(stream_soak._apart(one, one[:1])) and stream_soak._apart([], []) == 0


def test_an_hour_that_is_too_short_is_refused(recogniser, tmp_path, monkeypatch):
    monkeypatch.setattr(stream_soak, "film", lambda path, rate: FILM(path, rate, frames=53))
    with pytest.raises(UserError, match="less than three times the film of 1 s"):
        stream_soak.soak(recogniser, tmp_path, minutes=0.02)


def test_a_short_hour_has_its_rows(recogniser, tmp_path, monkeypatch):
    monkeypatch.setattr(stream_soak, "film", lambda path, rate: FILM(path, rate, frames=101))
    monkeypatch.setattr(stream_soak, "MINUTE", 1000.0)
    rows = dict(stream_soak.soak(recogniser, tmp_path, minutes=4.5))
    assert rows["video"].startswith("4.0 min of 15 frames/s, 60 frames, 4 passes")
    assert rows["faces that were numbered"] == "1" and "growth" in rows
