"""The network that comes with stag-jax: small, readable, and better than chance on a rendered person it never saw."""

import dataclasses

import numpy as np
import pytest

from stag_datasets import corpus
from stag_datasets.synth_me import long
from stag_jax.deploy import TO_TRY, load_export, stream


@pytest.fixture(scope="module")
def recogniser():
    return load_export(TO_TRY)


def test_it_is_small_and_says_what_it_is(recogniser):
    assert TO_TRY.stat().st_size < 5e6
    assert recogniser.spots and recogniser.emotions == ("negative", "positive", "surprise")
    assert recogniser.config.data.dataset == "synth_me/spotting" and recogniser.config.protocol.split == "all"
    assert recogniser.config.data.data_dir == "" or not recogniser.config.data.data_dir.startswith("/")


def test_windows_with_an_expression_score_higher(recogniser):
    """Three people of another seed: of most windows the network says rightly which of two holds an expression."""
    recipe = corpus.builder("synth_me/long_tiny", data_dir="").builder_config.recipe
    recipe = dataclasses.replace(recipe, seed=77)
    inside, outside = [], []
    for subject in range(recipe.subjects):
        made = long.recording(recipe, subject)
        step, state = stream.make_step(recogniser, stream.StreamSettings()), stream.StreamState()
        for f, frame in enumerate(made.frames):
            state, result = step(state, frame, 10.0 * f)
            for score in (face.score for face in result.faces if face.score):
                whole = [e for e in made.events if score.start_ms <= 10 * e.onset and 10 * e.offset <= score.end_ms]
                clear = all(score.end_ms < 10 * e.onset or 10 * e.offset < score.start_ms for e in made.events)
                if whole:
                    inside.append(score.expression)
                elif clear:
                    outside.append(score.expression)
    assert len(inside) > 10 and len(outside) > 50
    higher = np.mean([a > b for a in inside for b in outside])
    assert higher > 0.85
