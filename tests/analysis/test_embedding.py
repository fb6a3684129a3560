"""Projections and neighbours against scikit-learn, and what must hold of a leak."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.decomposition import PCA
from sklearn.metrics import balanced_accuracy_score
from sklearn.neighbors import KNeighborsClassifier
from sklearn.preprocessing import StandardScaler

from stag_jax.analysis import embedding
from stag_jax.types import UserError


def draw(seed, b=47, d=11, subjects=7, classes=3, own=0.0, felt=0.0):
    """Features in units far apart, to which a subject adds `own` and an emotion `felt`."""
    rng = np.random.default_rng(seed)
    who, label = rng.integers(0, subjects, b), rng.integers(0, classes, b)
    features = rng.normal(size=(b, d))
    features += own * rng.normal(size=(subjects, d))[who] + felt * rng.normal(size=(classes, d))[label]
    return features * 10.0 ** rng.integers(-3, 4, d) + 5, [f"s{each}" for each in who], label


@pytest.mark.parametrize("b, d", [(47, 11), (5, 13), (2, 3), (3, 2)])
def test_the_projection_is_that_of_scikit_learn(b, d):
    features = np.random.default_rng(b).normal(size=(b, d)) * np.arange(1, d + 1)
    found = embedding.project(features)
    want = PCA(min(2, b - 1), svd_solver="full").fit_transform(features)
    np.testing.assert_allclose(np.abs(found[:, : want.shape[1]]), np.abs(want), atol=1e-9)
    np.testing.assert_array_equal(found[:, want.shape[1] :], 0)


def test_the_picture_is_always_the_same():
    features, _, _ = draw(0)
    found = embedding.project(features)
    order = np.random.default_rng(1).permutation(len(features))
    np.testing.assert_allclose(embedding.project(features[order]), found[order], rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(embedding.project(features + 1000), found, rtol=1e-6, atol=1e-6)  # moved
    heaviest = [np.argmax(np.abs(features.T @ found[:, axis])) for axis in (0, 1)]
    for axis, feature in enumerate(heaviest):
        centred = features[:, feature] - features[:, feature].mean()
        assert centred @ found[:, axis] > 0


def test_what_has_no_second_dimension():
    line = np.outer(np.arange(5.0), [3.0, -4.0, 0.0])
    found = embedding.project(line)
    np.testing.assert_allclose(found[:, 0], [10, 5, 0, -5, -10], atol=1e-9)  # -4 weighs most, and is made positive
    np.testing.assert_array_equal(found[:, 1], 0)
    np.testing.assert_array_equal(embedding.project(np.ones((3, 5), np.float32)), np.zeros((3, 2)))
    np.testing.assert_array_equal(embedding.project(np.ones((1, 7))), np.zeros((1, 2)))
    np.testing.assert_allclose(embedding.project(np.array([[1.0], [4.0]]))[:, 0], [-1.5, 1.5])


def left_out(features, label, allowed, neighbours):
    """Predictions of scikit-learn, one fit for each clip, and whether votes tie there."""
    scaled = StandardScaler().fit_transform(features)
    said, tied = [], []
    for clip, mask in enumerate(allowed):
        knn = KNeighborsClassifier(neighbours).fit(scaled[mask], label[mask])
        share = np.sort(knn.predict_proba(scaled[[clip]])[0])
        said.append(knn.predict(scaled[[clip]])[0])
        tied.append(len(share) > 1 and share[-1] == share[-2])
    return np.array(said), np.array(tied)


@pytest.mark.parametrize("neighbours", [1, 3, 5])
def test_neighbours_are_those_of_scikit_learn(neighbours):
    features, subject, label = draw(neighbours, own=0.5, felt=0.5)
    who = np.array([int(name[1:]) for name in subject])
    far = embedding.distances(features)
    for what, allowed in ((who, ~np.eye(47, dtype=bool)), (label, who[:, None] != who)):
        want, tied = left_out(features, what, allowed, neighbours)
        found = embedding.vote(far, what, allowed, neighbours)
        np.testing.assert_array_equal(found[~tied], want[~tied])
        assert (~tied).sum() > 20
        assert embedding.balanced_accuracy(what, found) == pytest.approx(balanced_accuracy_score(what, found))


def test_a_leak_is_that_of_scikit_learn():
    features, subject, label = draw(3, own=0.7, felt=0.7)
    who = np.array([int(name[1:]) for name in subject])
    found = embedding.leak(features, subject, label)
    by_subject = balanced_accuracy_score(who, left_out(features, who, ~np.eye(47, dtype=bool), 1)[0])
    by_emotion = balanced_accuracy_score(label, left_out(features, label, who[:, None] != who, 1)[0])
    assert (found.subject_accuracy, found.emotion_accuracy) == pytest.approx((by_subject, by_emotion))
    assert found.subject == pytest.approx((by_subject - 1 / 7) / (6 / 7))
    assert found.emotion == pytest.approx((by_emotion - 1 / 3) / (2 / 3))
    assert (found.subject_chance, found.emotion_chance, found.clips) == pytest.approx((1 / 7, 1 / 3, 47))


def test_votes_that_tie_go_to_the_nearest():
    far = np.array([[0.0, 3, 1, 2, 9], *[[0.0] * 5] * 4])
    label = np.array([4, 0, 2, 0, 1])
    allowed = np.ones((5, 5), bool)
    allowed[0, 0] = False
    said = [embedding.vote(far, label, allowed, neighbours)[0] for neighbours in (1, 2, 3, 4)]
    assert said == [2, 2, 0, 0]
    allowed[0, 2] = False
    assert embedding.vote(far, label, allowed, 1)[0] == 0


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 3))
def test_votes_are_those_of_loops(seed, neighbours):
    rng = np.random.default_rng(seed)
    far, label = rng.random((13, 13)), rng.integers(0, 3, 13)
    allowed = rng.random((13, 13)) < 0.7
    allowed[:, :3] = True
    found = embedding.vote(far, label, allowed, neighbours)
    for clip in range(13):
        near = sorted((far[clip, other], other) for other in range(13) if allowed[clip, other])[:neighbours]
        votes = [label[other] for _, other in near]
        assert found[clip] == max(votes, key=lambda each: (votes.count(each), -votes.index(each)))


def test_the_leak_tells_identity_from_emotion():
    noise, who, felt = (embedding.leak(*draw(5, b=211, **add)) for add in ({}, {"own": 3}, {"felt": 3}))
    assert abs(noise.subject) < 0.15 and abs(noise.emotion) < 0.15
    assert who.subject > 0.9 and who.emotion < 0.2
    assert felt.emotion > 0.9 and felt.subject < 0.2


def test_a_perfect_likeness_is_one_and_units_do_not_matter():
    features, subject, label = draw(7, own=0.4, felt=0.4)
    found = embedding.leak(features, subject, label)
    assert embedding.leak(features * 10.0 ** np.arange(-5, 6) - 3, subject, label) == pytest.approx(found)
    dull = np.concatenate([features, np.full((47, 2), 1 / 3)], axis=1)
    assert embedding.leak(dull, subject, label) == pytest.approx(found)
    who = np.array([int(name[1:]) for name in subject])
    assert embedding.leak(np.eye(7)[who], subject, label).subject == 1
    # Every emotion in one subject only: others never show it, so it is never found.
    apart = embedding.leak(np.eye(7)[who], subject, who)
    assert apart.subject == 1 and apart.emotion_accuracy == 0 and apart.emotion < 0


def test_subjects_of_one_clip_are_left_out():
    features, subject, label = draw(9, own=0.4)
    more = np.concatenate([features, features[:1] + 1e-3])
    found = embedding.leak(more, [*subject, "alone"], np.append(label, 2))
    assert found.clips == 47
    assert found == embedding.leak(features, subject, label)


def test_what_cannot_be_asked():
    features, subject, label = draw(11)
    with pytest.raises(UserError, match="among two subjects of two clips and two emotions or more"):
        embedding.leak(features, ["s0"] * 47, label)
    with pytest.raises(UserError, match="two emotions"):
        embedding.leak(features, subject, np.zeros(47, int))
    with pytest.raises(UserError, match="two subjects"):
        embedding.leak(features, [f"s{each}" for each in range(47)], label)
    for wrong in (0, 47):
        with pytest.raises(UserError, match=rf"^neighbours must be from 1 to the \d+ clips of others, got {wrong}$"):
            embedding.leak(features, subject, label, wrong)
    features[13, 2] = np.nan
    for ask in (lambda: embedding.project(features), lambda: embedding.leak(features, subject, label)):
        with pytest.raises(UserError, match=r"^the features of clip 13, counted from 0, are not all finite"):
            ask()
