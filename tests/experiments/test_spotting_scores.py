"""The benchmark of spotting: thresholds come from other people, and runs that do not fit are named."""

import json

import numpy as np
import pytest

from stag_configs import base
from stag_experiments.benchmarks import spotting_scores as bench
from stag_jax.config import from_config_dict, to_dict
from stag_jax.protocol import spotting
from stag_jax.types import UserError


def people(rng, count):
    """Each has expressions, and movements that are none, each with a size."""
    made = []
    for index in range(count):
        onsets = 1000.0 * np.arange(7)
        sizes, real = rng.uniform(0, 1, 7), rng.integers(0, 2, 7).astype(bool)
        truth = [spotting.Span(t, t + 300.0, "positive") for t in onsets[real]]

        def find(threshold, index=index, onsets=onsets, sizes=sizes, truth=truth):
            found = [spotting.Span(t, t + 300.0, "positive") for t in onsets[sizes >= threshold]]
            return spotting.SpottedRecording(f"s{index}", truth, found)

        made.append(find)
    return made


THRESHOLDS = (0.1, 0.3, 0.5, 0.7, 0.9)


def test_the_threshold_of_a_person_is_the_best_of_the_others():
    each = people(np.random.default_rng(2), 5)
    chosen = bench._chosen(each, THRESHOLDS)
    for index, one in enumerate(chosen):
        others = [find for i, find in enumerate(each) if i != index]
        scores = [spotting.spotting([find(t) for find in others]).f1 for t in THRESHOLDS]
        assert one == each[index](THRESHOLDS[int(np.argmax(scores))])


def test_what_is_true_of_a_person_chooses_nothing_for_it():
    each = people(np.random.default_rng(7), 5)
    before = bench._chosen(each, THRESHOLDS)[3].found

    def lied(threshold):
        return each[3](threshold)._replace(truth=[spotting.Span(123.0, 456.0, "surprise")])

    after = bench._chosen([*each[:3], lied, each[4]], THRESHOLDS)[3].found
    assert before == after


def run(folder, folds, **data):
    """A workdir as far as it is looked at before anything is measured."""
    settings = base.get_config()
    settings.data.update(data)
    for name in folds:
        (folder / "folds" / name).mkdir(parents=True)
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(to_dict(from_config_dict(settings))))
    return folder


@pytest.mark.parametrize(
    "learned, said",
    [
        ({"folds": ("synth_me_s01",)}, "learned has no fold synth_me_s02, which .*clips has"),
        ({"folds": ("synth_me_s01", "synth_me_s02")}, "learned has no class 'none'"),
        ({"folds": (), "dataset": "casme2"}, "learned is no finished run of synth_me"),
    ],
)
def test_runs_that_do_not_fit_are_named(tmp_path, learned, said):
    clips = run(tmp_path / "clips", ("synth_me_s01", "synth_me_s02"))
    with pytest.raises(UserError, match=said):
        bench.measure(clips, [run(tmp_path / "learned", **learned)], 0)
