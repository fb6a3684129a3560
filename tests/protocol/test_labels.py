"""Label schemes against the counts of the sheets, which stand once with the builders and once here."""

import pytest

from stag_datasets.casme2 import casme2_dataset_builder as casme2
from stag_datasets.casme3 import casme3_dataset_builder as casme3
from stag_datasets.dfme import dfme_dataset_builder as dfme
from stag_datasets.megc2019 import megc2019_dataset_builder as megc2019
from stag_datasets.mmew import mmew_dataset_builder as mmew
from stag_datasets.samm import samm_dataset_builder as samm
from stag_datasets.smic import smic_dataset_builder as smic
from stag_jax.config import settings
from stag_jax.protocol import labels
from stag_jax.types import UserError

SHEETS = {
    (name, version): counts
    for name, module in {
        "casme2": casme2,
        "casme3": casme3,
        "dfme": dfme,
        "mmew": mmew,
        "samm": samm,
        "smic": smic,
    }.items()
    for version, counts in module.VERSIONS.items()
}
# (corpus, version, scheme) -> clips in all, as the literature counts them.
TOTALS = {
    ("casme2", "20190701", "5class"): 249,
    ("casme2", "20140508", "5class"): 246,
    ("casme2", "20190701", "3class"): 150,
    ("casme2", "20190701", "4class"): 249,
    ("casme2", "20190701", "7class"): 255,
    ("casme2", "20140508", "7class"): 255,
    ("samm", "v2", "3class"): 133,
    ("samm", "v2", "5class"): 136,
    ("smic", "HS", "3class"): 164,
    ("casme3", "part A v2", "3class"): 699,
    ("casme3", "part A v2", "7class"): 860,
    ("mmew", "MMEW", "7class"): 300,
    ("dfme", "train", "7class"): 1856,
    ("dfme", "testA", "7class"): 474,
    ("dfme", "testB", "7class"): 299,
}


def classes(scheme, dataset, counts):
    return [
        labels.label(scheme, dataset=dataset, emotion=emotion.title(), objective="")
        for emotion, count in counts.items()
        for _ in range(count)
    ]


@pytest.mark.parametrize("key", TOTALS)
def test_a_scheme_gives_as_many_clips_as_the_field_counts(key):
    dataset, version, scheme = key
    made = classes(scheme, dataset, SHEETS[dataset, version])
    assert sum(name is not None for name in made) == TOTALS[key]


@pytest.mark.parametrize("key", [key for key in labels.EXPECTED if key[0] != "objective"])
def test_the_expected_counts_follow_from_the_sheets(key):
    scheme, dataset, version = key
    made = classes(scheme, dataset, SHEETS[dataset, version])
    assert labels.miscounted(scheme, dataset=dataset, version=version, found=made) is None


def test_a_difference_is_said():
    made = classes("3class", "casme2", SHEETS["casme2", "20140508"])
    line = labels.miscounted("3class", dataset="casme2", version="20190701", found=made)
    assert line == "casme2, sheet 20190701, 3class: surprise 25 instead of 28"
    assert labels.miscounted("3class", dataset="casme2", version="another", found=made) is None


def test_objective_classes_are_of_no_emotion():
    assert labels.label("objective", dataset="samm", emotion="Anger", objective="III") == "III"
    assert labels.label("objective", dataset="samm", emotion="Anger", objective="") is None


def test_no_scheme_no_change():
    assert labels.label("", dataset="anything", emotion="Odd One", objective="") == "Odd One"
    words = next(setting.rule.words for setting in settings() if setting.key == "data.labels")
    assert set(words) == {"", *labels.SCHEMES}
    with pytest.raises(UserError, match="'5class' says nothing of corpus dfme, only of casme2, samm"):
        labels.label("5class", dataset="dfme", emotion="fear", objective="")


def test_the_composite_is_made_of_442_clips():
    assert sum(sum(counts.values()) for counts in megc2019.EXPECTED.values()) == 442
    assert sum(megc2019.SUBJECTS.values()) == 68
    for name, total in (("negative", 250), ("positive", 109), ("surprise", 83)):
        assert sum(counts[name] for counts in megc2019.EXPECTED.values()) == total
