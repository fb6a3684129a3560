"""The leak audit of clips that are there under two names: hashes, features, and what counts as a leak."""

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stag_jax.analysis import audit, load_run
from tests.analysis import runs

CLIPS, FACES = "clips under two names, by picture", "faces under two names"
FEATURES = "clips under two names, by features"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return runs.write(tmp_path_factory.mktemp("runs") / "run")


@pytest.fixture
def run(made):
    return load_run(made.folder)


def found(run, *inputs):
    return {each.name: each for each in audit.audit(run, *inputs)}


def test_copied_features_are_found_across_subjects_only(made, run):
    clips, nodes = made.corpus, made.corpus.batch.nodes.copy()
    rng = np.random.default_rng(0)

    def answer(source, target, noise):
        changed = nodes.copy()
        step = rng.normal(size=nodes[source].shape).astype(np.float32)
        # Measured over the frames that are there: frame 2 of these clips is.
        changed[target] = nodes[source] + noise * step / np.linalg.norm(step) * np.linalg.norm(nodes[source])
        return found(run, clips._replace(batch=clips.batch._replace(nodes=changed)))[FEATURES]

    assert clips.batch.frame_mask[[4, 5, 13]].all()
    assert answer(4, 13, 0.0)[1::2] == ("leak", ("s0/c004", "s2/c013"))
    assert answer(4, 13, 7e-4)[1::2] == ("leak", ("s0/c004", "s2/c013"))
    assert answer(4, 13, 2e-3).status == "ok"
    assert answer(4, 5, 0.0).status == "ok"  # the same subject twice
    assert "1 pairs of clips of different subjects have all but equal features" in answer(4, 13, 0.0).text


def test_copies_that_no_fold_separates_are_a_warning(tmp_path):
    clips = runs.corpus()
    nodes = clips.batch.nodes.copy()
    clips = clips._replace(batch=clips.batch._replace(nodes=nodes))
    run = load_run(runs.write(tmp_path / "run", clips=clips, protocol__split="group", protocol__folds=2).folder)
    home = dict(zip(run.splits["id"], run.splits["tested_in"], strict=True))
    mates = [name for name in clips.ids if home[name] == home[clips.ids[1]] and not name.startswith("s0")]
    row = clips.ids.index(mates[0])
    clips.batch.frame_mask[row] = clips.batch.frame_mask[1]
    nodes[row] = nodes[1]
    assert found(run, clips)[FEATURES][1::2] == ("warning", (clips.ids[1], mates[0]))


def test_what_hidden_frames_hold_does_not_count(made, run):
    clips, nodes = made.corpus, made.corpus.batch.nodes.copy()
    nodes[[0, 18], 0] = nodes[1, 0]  # both have their second frame hidden, and other numbers in it
    assert not clips.batch.frame_mask[[0, 18], 1].any()
    answer = found(run, clips._replace(batch=clips.batch._replace(nodes=nodes)))[FEATURES]
    assert answer.where == ("s0/c000", "s4/c018")


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_near_pairs_are_those_of_loops(seed):
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(13, 5)).astype(np.float32)
    for one, other in rng.integers(0, 13, (5, 2)):
        features[other] = features[one] * np.float32(1 + rng.choice([0, 9e-4, -9e-4, 2e-3]))
    features[rng.integers(0, 13, 3)] = 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(audit, "BLOCK", 4)
        pairs = audit.near(features)
    exact = features.astype(float)
    assert sorted(pairs) == [
        (i, j)
        for i in range(13)
        for j in range(i + 1, 13)
        if np.linalg.norm(exact[i] - exact[j]) < 1e-3 * max(map(np.linalg.norm, (exact[i], exact[j])))
    ]


def test_the_hash_is_that_of_the_formula():
    shown = runs.picture(np.random.default_rng(3))
    grey = shown @ [0.299, 0.587, 0.114]
    small = np.rint(grey).reshape(32, 3, 32, 3).mean(axis=(1, 3))
    cosine = np.cos(np.pi * np.outer(np.arange(8), 2 * np.arange(32) + 1) / 64)
    low = (cosine @ small @ cosine.T).ravel() / 16  # unnormalised, but for the first row and column
    low.reshape(8, 8)[0] /= 2**0.5
    low.reshape(8, 8)[:, 0] /= 2**0.5
    want = low > np.median(low[1:])
    want[0] = False
    np.testing.assert_array_equal(audit.phash(audit.reduced(shown)), want)


def bits(one, other):
    return int(np.sum(audit.phash(audit.reduced(one)) != audit.phash(audit.reduced(other))))


def test_the_hash_outlives_new_coding_and_not_another_picture():
    rng = np.random.default_rng(5)
    shown = [runs.picture(rng) for _ in range(29)]
    for each in shown:
        _, data = cv2.imencode(".jpg", each, (cv2.IMWRITE_JPEG_QUALITY, 60))
        for again in (
            cv2.imdecode(data, cv2.IMREAD_COLOR),
            np.clip(each * 0.8 + 20, 0, 255).astype(np.uint8),
            np.clip(each + rng.normal(0, 6, each.shape), 0, 255).astype(np.uint8),
            cv2.resize(each, (64, 64), interpolation=cv2.INTER_AREA),
        ):
            assert bits(each, again) <= audit.HAMMING
    far = [bits(shown[i], shown[j]) for i in range(29) for j in range(i)]
    assert min(far) > audit.HAMMING and np.mean(far) == pytest.approx(32, abs=2)
    assert audit.reduced(np.full((96, 96, 3), 200, np.uint8)) is None


def test_what_all_pictures_have_does_not_make_them_alike():
    """Pictures that differ little from one they all share, as aligned faces do."""
    rng = np.random.default_rng(11)
    shared = runs.picture(rng).astype(float)
    shown = [np.uint8(0.8 * shared + 0.2 * runs.picture(rng)) for _ in range(23)]
    plain = [audit.phash(audit.reduced(each)) for each in shown]
    assert len(audit.alike(plain)) > 50
    apart = audit.hashes([*shown, None, shown[4], np.full((96, 96, 3), 90, np.uint8)])
    assert audit.alike(apart) == [(4, 24)] and apart[23] is None and apart[25] is None
    assert audit.hashes([]) == [] and audit.hashes([None]) == [None]


def test_alike_hashes_are_those_of_loops(monkeypatch):
    monkeypatch.setattr(audit, "BLOCK", 5)
    rng = np.random.default_rng(7)
    base = rng.random((3, 64)) < 0.5
    hashes = [base[index % 3] ^ (rng.random(64) < 0.08) for index in range(17)]
    hashes[4] = hashes[11] = None
    pairs = [(i, j) for i in range(17) for j in range(i + 1, 17) if None not in (known(hashes[i]), known(hashes[j]))]
    want = [(i, j) for i, j in pairs if np.sum(hashes[i] != hashes[j]) <= audit.HAMMING]
    assert sorted(audit.alike(hashes)) == want and 0 < len(want) < len(pairs)
    assert audit.alike([None, None]) == [] and audit.alike([]) == []


def known(each):
    return None if each is None else True


def test_copied_pictures_are_found_across_subjects_only(made, run):
    tiles = runs.tiles(made.corpus)
    _, data = cv2.imencode(".jpg", tiles["s0/c004"], (cv2.IMWRITE_JPEG_QUALITY, 70))
    copied = found(run, None, tiles | {"s2/c013": cv2.imdecode(data, cv2.IMREAD_COLOR)})
    assert copied[CLIPS][1::2] == ("leak", ("s0/c004", "s2/c013"))
    # The face of c013 is now that of all other clips of s0 as well.
    assert copied[FACES].status == "warning" and len(copied[FACES].where) == 7
    same = found(run, None, tiles | {"s0/c005": tiles["s0/c004"]})
    assert same[CLIPS].status == same[FACES].status == "ok"
    # Another's motion in one's own face is nothing.
    mixed = tiles["s2/c013"].copy()
    mixed[:, 192:] = tiles["s0/c004"][:, 192:]
    mixed = found(run, None, tiles | {"s2/c013": mixed})
    assert mixed[CLIPS].status == mixed[FACES].status == "ok"


def test_clips_without_a_picture_are_counted(made, run):
    tiles = runs.tiles(made.corpus)
    tiles["s1/c008"] = np.full((96, 288, 3), 9, np.uint8)
    tiles["s2/c013"] = np.full((96, 288, 3), 9, np.uint8)
    del tiles["s0/c000"]
    answer = found(run, None, tiles | {"elsewhere": tiles["s0/c001"]})[CLIPS]
    assert answer.status == "ok" and answer.text.endswith("; 3 clips have no picture or a flat one")
