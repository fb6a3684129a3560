import numpy as np
import pytest
from sklearn.model_selection import GroupKFold

from stag_jax.config import ProtocolConfig
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
    found = splits.one_corpus_out(SUBJECTS, DATASETS)
    assert found.names == ("casme2", "samm", "smic")
    np.testing.assert_array_equal(found.test_mask.sum(axis=0), 1)
    for name, mask in zip(found.names, found.test_mask, strict=True):
        assert {DATASETS[clip] for clip in np.flatnonzero(mask)} == {name}
        held_out, rest = ({SUBJECTS[clip] for clip in np.flatnonzero(m)} for m in (mask, ~mask))
        assert not held_out & rest
    two = splits.one_corpus_out(["a/1", "b/1", "b/2"], ["a", "b", "b"])
    assert two.names == ("a", "b") and two.test_mask.tolist() == [[True, False, False], [False, True, True]]


def test_one_corpus_is_not_enough():
    with pytest.raises(UserError, match=r"^leaving one corpus out needs two corpora or more; there is only smic$"):
        splits.one_corpus_out(["smic/s1", "smic/s2"], ["smic", "smic"])
    with pytest.raises(UserError, match=r"there is only none$"):
        splits.one_corpus_out([], [])


def test_a_subject_of_two_corpora_cannot_be_held_out_with_one():
    with pytest.raises(UserError, match=r"^subject 07 is both in casme2 and in samm: leaving one out is not enough$"):
        splits.one_corpus_out(["s1", "07", "07", "11"], ["smic", "casme2", "samm", "samm"])


def test_the_split_is_chosen_by_name():
    plan = {
        "loso": splits.loso(SUBJECTS),
        "group": splits.group_kfold(SUBJECTS, 3),
        "dataset": splits.one_corpus_out(SUBJECTS, DATASETS),
    }
    for kind, expected in plan.items():
        found = splits.make_splits(ProtocolConfig(split=kind, folds=3, bootstrap=7), SUBJECTS, DATASETS)
        assert found.names == expected.names
        np.testing.assert_array_equal(found.test_mask, expected.test_mask)
    with pytest.raises(UserError, match=r"^config\.protocol\.split 'kfold' is none of loso, group, dataset$"):
        splits.make_splits(ProtocolConfig(split="kfold", folds=3, bootstrap=7), SUBJECTS, DATASETS)


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
