import numpy as np
import pytest

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
    for kind, expected in (("loso", splits.loso(SUBJECTS)), ("dataset", splits.one_corpus_out(SUBJECTS, DATASETS))):
        found = splits.make_splits(kind, SUBJECTS, DATASETS)
        assert found.names == expected.names
        np.testing.assert_array_equal(found.test_mask, expected.test_mask)
    with pytest.raises(UserError, match=r"^config\.protocol\.split 'kfold' is none of loso, dataset$"):
        splits.make_splits("kfold", SUBJECTS, DATASETS)


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
