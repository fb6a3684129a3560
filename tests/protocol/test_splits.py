import numpy as np
import pytest
from sklearn.model_selection import GroupKFold, StratifiedGroupKFold

from stag_jax.config import ProtocolConfig, settings
from stag_jax.protocol import splits
from stag_jax.types import UserError

SUBJECTS = ["smic/s2", "casme2/07", "smic/s2", "samm/11", "casme2/01", "casme2/07", "smic/s1"]
DATASETS = [subject.split("/")[0] for subject in SUBJECTS]


def test_each_clip_is_held_out_once_with_its_subject():
    found = splits.loso(SUBJECTS)
    assert found.names == ("casme2/01", "casme2/07", "samm/11", "smic/s1", "smic/s2")
    assert found.test_mask.shape == (5, 7) and found.test_mask.dtype == bool
    np.testing.assert_array_equal(found.test_mask.sum(axis=0), 1)
    for name, mask in zip(found.names, found.test_mask, strict=True):
        assert mask.tolist() == [subject == name for subject in SUBJECTS]
        held_out, rest = ({SUBJECTS[clip] for clip in np.flatnonzero(m)} for m in (mask, ~mask))
        assert held_out == {name} and not held_out & rest


def test_the_order_of_clips_does_not_matter():
    order = np.array([3, 6, 0, 5, 1, 4, 2])
    one, two = splits.loso(SUBJECTS), splits.loso([SUBJECTS[clip] for clip in order])
    assert one.names == two.names
    np.testing.assert_array_equal(one.test_mask[:, order], two.test_mask)


def test_one_subject_is_not_enough():
    with pytest.raises(UserError, match=r"there is only smic/s2$"):
        splits.loso(["smic/s2"] * 3)
    with pytest.raises(UserError, match=r"there is only none$"):
        splits.loso([])


def test_each_corpus_is_held_out_once():
    found = splits.across(DATASETS, SUBJECTS, (), "corpus")
    assert found.names == ("casme2", "samm", "smic")
    np.testing.assert_array_equal(found.test_mask.sum(axis=0), 1)
    for name, mask in zip(found.names, found.test_mask, strict=True):
        assert {DATASETS[clip] for clip in np.flatnonzero(mask)} == {name}
        held_out, rest = ({SUBJECTS[clip] for clip in np.flatnonzero(m)} for m in (mask, ~mask))
        assert not held_out & rest
    two = splits.across(["a", "b", "b"], ["a/1", "b/1", "b/2"], (), "corpus")
    assert two.names == ("a", "b") and two.test_mask.tolist() == [[True, False, False], [False, True, True]]


def test_one_corpus_is_not_enough():
    with pytest.raises(UserError, match=r"^leaving one corpus out needs two or more; there is only smic$"):
        splits.across(["smic", "smic"], ["smic/s1", "smic/s2"], (), "corpus")
    with pytest.raises(UserError, match=r"there is only none$"):
        splits.across([], [], (), "corpus")


def test_a_subject_of_two_corpora_cannot_be_held_out_with_one():
    with pytest.raises(
        UserError, match=r"^subject 07 is both in casme2 and in samm: leaving one corpus out is not enough$"
    ):
        splits.across(["smic", "casme2", "samm", "samm"], ["s1", "07", "07", "11"], (), "corpus")


LABELS = np.array([0, 1, 1, 0, 1, 0, 0])
CLIPS = splits.Clips(tuple(SUBJECTS), tuple(DATASETS), tuple(SUBJECTS), tuple("xxyyxxy"), LABELS)


def protocol(**changes):
    return ProtocolConfig(**{"split": "loso", "folds": 3, "seed": 0, "test": (), "bootstrap": 7} | changes)


def test_the_split_is_chosen_by_name():
    plan = {
        "loso": splits.loso(SUBJECTS),
        "group": splits.group_kfold(SUBJECTS, 3),
        "stratified_group": splits.stratified_group_kfold(SUBJECTS, LABELS, 3, 0),
        "stratified": splits.stratified_kfold(LABELS, 3, 0),
        "dataset": splits.across(DATASETS, SUBJECTS, (), "corpus"),
    }
    for kind, expected in plan.items():
        found = splits.make_splits(protocol(split=kind), CLIPS)
        assert found.names == expected.names
        np.testing.assert_array_equal(found.test_mask, expected.test_mask)
        np.testing.assert_array_equal(found.train_mask, ~found.test_mask)
    words = next(setting.rule.words for setting in settings() if setting.key == "protocol.split")
    assert set(words) == {*plan, "part", splits.ALL}


def test_what_is_to_be_tested_is_never_trained_on():
    found = splits.make_splits(protocol(split="dataset", test=("smic", "samm")), CLIPS)
    assert found.names == ("smic", "samm")
    for name, test, train in zip(*found, strict=True):
        assert {DATASETS[clip] for clip in np.flatnonzero(test)} == {name}
        assert {DATASETS[clip] for clip in np.flatnonzero(train)} == {"casme2"}
    assert splits.shared_subjects(found, SUBJECTS) == [[], []]
    with pytest.raises(UserError, match=r"no clip of corpus 'casme3'; there are casme2, samm, smic$"):
        splits.make_splits(protocol(split="dataset", test=("casme3",)), CLIPS)
    with pytest.raises(UserError, match="names every corpus: nothing is left to train on"):
        splits.make_splits(protocol(split="dataset", test=("smic", "samm", "casme2")), CLIPS)


def test_official_parts():
    parts = ["train", "train", "testA", "testB", "testA"]
    clips = splits.Clips(tuple("abcde"), ("dfme",) * 5, tuple("abcde"), tuple(parts), np.zeros(5, int))
    found = splits.make_splits(protocol(split="part", test=("testA", "testB")), clips)
    assert found.names == ("testA", "testB")
    np.testing.assert_array_equal(found.test_mask, [[0, 0, 1, 0, 1], [0, 0, 0, 1, 0]])
    np.testing.assert_array_equal(found.train_mask, [[1, 1, 0, 0, 0]] * 2)
    with pytest.raises(UserError, match="subject a is both in train and in testB"):
        splits.make_splits(protocol(split="part"), clips._replace(subjects=tuple("abcad")))
    with pytest.raises(UserError, match="there is only one without a name"):
        splits.make_splits(protocol(split="part"), clips._replace(parts=("",) * 5))


def random_clips(seed, subjects=23):
    rng = np.random.default_rng(seed)
    who = [f"s{index:02d}" for index in range(subjects) for _ in range(rng.integers(1, 12))]
    return who, rng.choice(3, len(who), p=(0.6, 0.25, 0.15))


@pytest.mark.parametrize("seed", range(5))
def test_stratified_groups_are_whole_and_their_classes_alike(seed):
    who, labels = random_clips(seed)
    found = splits.stratified_group_kfold(who, labels, 5, seed)
    np.testing.assert_array_equal(found.test_mask.sum(axis=0), 1)
    assert splits.shared_subjects(found, who) == [[]] * 5

    def spread(masks):
        return np.std([[np.mean(labels[mask] == k) for k in range(3)] for mask in masks], axis=0).mean()

    theirs = [np.isin(np.arange(len(who)), test) for _, test in StratifiedGroupKFold(5).split(who, labels, groups=who)]
    assert spread(found.test_mask) <= spread(theirs) + 0.02
    assert spread(found.test_mask) < spread(splits.group_kfold(who, 5).test_mask) + 0.02
    again = splits.stratified_group_kfold(who, labels, 5, seed)
    np.testing.assert_array_equal(found.test_mask, again.test_mask)


def test_stratified_folds_share_every_class_out_and_every_subject_too():
    who, labels = random_clips(3)
    found = splits.stratified_kfold(labels, 5, 1)
    np.testing.assert_array_equal(found.test_mask.sum(axis=0), 1)
    counts = np.array([np.bincount(labels[mask], minlength=3) for mask in found.test_mask])
    assert (np.ptp(counts, axis=0) <= 1).all() and np.ptp(counts.sum(axis=1)) <= 1
    assert all(splits.shared_subjects(found, who))
    assert not np.array_equal(found.test_mask, splits.stratified_kfold(labels, 5, 2).test_mask)


@pytest.mark.parametrize("folds", [1, 24])
def test_numbers_of_folds_that_cannot_be(folds):
    who, labels = random_clips(0)
    with pytest.raises(UserError, match="must be from 2 to the 23 subjects"):
        splits.stratified_group_kfold(who, labels, folds, 0)
    with pytest.raises(UserError, match="must be from 2 to the 5 clips"):
        splits.stratified_kfold(labels[:5], folds, 0)


def test_groups_of_subjects_are_held_out_once_and_are_alike_in_size():
    rng = np.random.default_rng(1)
    subjects = [f"s{index}" for index in range(13) for _ in range(rng.integers(1, 12))]
    found = splits.group_kfold(subjects, 5)
    assert found.names == ("group1", "group2", "group3", "group4", "group5")
    np.testing.assert_array_equal(found.test_mask.sum(axis=0), 1)
    for mask in found.test_mask:
        assert not set(np.asarray(subjects)[mask]) & set(np.asarray(subjects)[~mask])
    sizes = found.test_mask.sum(axis=1)
    # Greedy dealing leaves groups no further apart than the largest subject; scikit-learn deals the same way.
    assert np.ptp(sizes) <= max(np.unique(subjects, return_counts=True)[1])
    theirs = [len(test) for _, test in GroupKFold(5).split(subjects, groups=subjects)]
    assert sorted(sizes) == sorted(theirs)
    order = rng.permutation(len(subjects))
    again = splits.group_kfold([subjects[clip] for clip in order], 5)
    np.testing.assert_array_equal(found.test_mask[:, order], again.test_mask)


@pytest.mark.parametrize("folds", [0, 1, 6])
def test_a_number_of_groups_that_cannot_be(folds):
    with pytest.raises(UserError, match=rf"^config\.protocol\.folds must be from 2 to the 5 subjects, got {folds}$"):
        splits.group_kfold(SUBJECTS, folds)


def test_classes_that_a_fold_cannot_learn():
    labels = np.array([2, 0, 0, 1, 0, 1, 0])  # class 2 is shown by smic/s2 alone
    found = splits.untrained_classes(splits.loso(SUBJECTS), labels, ("negative", "positive", "surprise", "fear"))
    assert found == [
        ("casme2/01", "fear"),
        ("casme2/07", "fear"),
        ("samm/11", "fear"),
        ("smic/s1", "fear"),
        ("smic/s2", "surprise"),
        ("smic/s2", "fear"),
    ]
    labels = np.array([0, 0, 0, 1, 1, 1, 0])
    assert splits.untrained_classes(splits.loso(SUBJECTS), labels, ("negative", "positive")) == []
