import numpy as np
import pytest
from sklearn import metrics as sklearn

from stag_jax.protocol import spotting
from stag_jax.protocol.spotting import Span, SpottedRecording
from stag_jax.types import UserError

CLASSES = ("negative", "positive", "surprise")


def draw(seed, recordings=13, subjects=5, hard=0.3):
    """Recordings of several subjects: some expressions are found, more or less; others are missed or made up."""
    rng = np.random.default_rng(seed)
    made = []
    for r in range(recordings):
        onsets = np.cumsum(rng.uniform(500, 2000, rng.integers(0, 7)))
        truth = [Span(float(on), float(on + rng.uniform(120, 480)), str(rng.choice(CLASSES))) for on in onsets]
        found = []
        for span in truth:
            for _ in range(rng.choice((0, 1, 1, 1, 2))):
                onset, offset = np.sort(np.array(span[:2]) + rng.normal(0, 60, 2))
                emotion = str(rng.choice(CLASSES)) if rng.random() < hard else span.emotion
                found.append(Span(float(onset), float(offset), emotion))
        for onset in rng.uniform(0, 9000, rng.integers(0, 3)):
            found.append(Span(float(onset), float(onset + rng.uniform(100, 500)), str(rng.choice(CLASSES))))
        made.append(SpottedRecording(f"s{r % subjects:02d}", truth, [found[k] for k in rng.permutation(len(found))]))
    return made


def slow_iou(a, b, per=1):
    """By counting moments."""
    ours, theirs = (set(range(round(span.onset * per), round(span.offset * per))) for span in (a, b))
    return len(ours & theirs) / len(ours | theirs) if ours | theirs else 0.0


def slow_match(truth, found, least=0.5):
    """By trying, for each true span, to leave it alone or to give it any found one that is left."""

    def best(i, taken):
        if i == len(truth):
            return 0, 0.0, []
        options = [best(i + 1, taken)]
        for j in set(range(len(found))) - taken:
            alike = spotting.iou(truth[i], found[j])
            if alike >= least:
                count, total, pairs = best(i + 1, taken | {j})
                options.append((count + 1, total + alike, [(i, j), *pairs]))
        return max(options, key=lambda option: option[:2])

    return best(0, frozenset())[2]


@pytest.mark.parametrize("seed", range(5))
def test_iou_is_that_of_counting(seed):
    rng = np.random.default_rng(seed)
    for _ in range(101):
        a, b = (Span(*(int(v) for v in np.sort(rng.integers(0, 31, 2)))) for _ in range(2))
        assert spotting.iou(a, b) == pytest.approx(slow_iou(a, b)) == spotting.iou(b, a)
        longer = [Span(10 * span.onset + 7, 10 * span.offset + 7) for span in (a, b)]  # another unit, another start
        assert spotting.iou(*longer) == pytest.approx(spotting.iou(a, b))


def test_iou_by_hand():
    assert spotting.iou(Span(0, 4), Span(2, 6)) == pytest.approx(2 / 6)
    assert spotting.iou(Span(0, 4), Span(0, 2)) == 0.5
    assert spotting.iou(Span(3, 7), Span(3, 7, "positive")) == 1
    assert spotting.iou(Span(0, 4), Span(4, 8)) == 0  # they touch
    assert spotting.iou(Span(0, 4), Span(5, 8)) == 0
    assert spotting.iou(Span(3, 3), Span(3, 3)) == 0  # no length


@pytest.mark.parametrize("least", [0.2, 0.5, 0.7])
@pytest.mark.parametrize("seed", range(7))
def test_matches_are_the_best_there_are(seed, least):
    rng = np.random.default_rng(seed)
    for _ in range(13):  # dense, so that there is a choice
        truth, found = (
            [Span(float(on), float(on + rng.uniform(1, 9))) for on in rng.uniform(0, 13, rng.integers(0, 6))]
            for _ in range(2)
        )
        pairs = spotting.match(truth, found, least)
        assert pairs == slow_match(truth, found, least)
        assert len({i for i, _ in pairs}) == len({j for _, j in pairs}) == len(pairs)
        assert all(spotting.iou(truth[i], found[j]) >= least for i, j in pairs)
        assert sorted((j, i) for i, j in pairs) == spotting.match(found, truth, least)


def test_matches_at_the_edges():
    assert spotting.match([], [Span(0, 1)]) == spotting.match([Span(0, 1)], []) == spotting.match([], []) == []
    assert spotting.match([Span(0, 4)], [Span(0, 2)]) == [(0, 0)]  # one half is enough
    assert spotting.match([Span(0.1, 0.5)], [Span(0.1, 0.3)]) == [(0, 0)]  # also where it is rounded
    assert spotting.match([Span(0, 4)], [Span(0, 1.99)]) == []
    assert spotting.match([Span(0, 4), Span(4, 8)], [Span(4, 8), Span(0, 4)]) == [(0, 1), (1, 0)]
    assert spotting.match([Span(0, 4)], [Span(0, 3), Span(0, 4)]) == [(0, 1)]  # the better of two
    # The closest pair is (1, 0), but then the other two would be left alone: two pairs are more than one.
    assert spotting.match([Span(0, 10), Span(4, 14)], [Span(3, 13), Span(6, 17)], 0.5) == [(0, 0), (1, 1)]


@pytest.mark.parametrize("span", [Span(3, 2), Span(float("nan"), 4), Span(1, float("nan"))])
def test_spans_that_end_before_they_begin_are_refused(span):
    for truth, found in (([span], []), ([], [span])):
        with pytest.raises(UserError, match="ends before it begins: onset"):
            spotting.match(truth, found)


@pytest.mark.parametrize("least", [0.0, -1.0, 1.5])
def test_a_limit_outside_its_range_is_refused(least):
    with pytest.raises(UserError, match="least must be in"):
        spotting.match([Span(0, 1)], [Span(0, 1)], least)


@pytest.mark.parametrize("seed", range(5))
def test_spotting_is_pooled_over_recordings(seed):
    recordings = draw(seed)
    found = spotting.spotting(recordings)
    tp = sum(len(slow_match(each.truth, each.found)) for each in recordings)
    there, said = (sum(len(spans) for spans in each) for each in zip(*[r[1:] for r in recordings], strict=True))
    assert (found.tp, found.fp, found.fn) == (tp, said - tp, there - tp)
    # For scikit-learn every interval is a sample: is it there, is it said?
    label, prediction = [1] * tp + [1] * found.fn + [0] * found.fp, [1] * tp + [0] * found.fn + [1] * found.fp
    assert found.precision == pytest.approx(sklearn.precision_score(label, prediction))
    assert found.recall == pytest.approx(sklearn.recall_score(label, prediction))
    assert found.f1 == pytest.approx(sklearn.f1_score(label, prediction))


def test_a_second_detection_of_the_same_expression_is_false():
    truth = [Span(0, 10, "positive")]
    once, twice = (SpottedRecording("s1", truth, [Span(0, 9, "positive")] * times) for times in (1, 2))
    assert spotting.spotting([once]) == (1, 0, 0, 1.0, 1.0, 1.0)
    assert spotting.spotting([twice]) == (1, 1, 0, 0.5, 1.0, pytest.approx(2 / 3))


def test_nothing_found_and_nothing_there():
    span = Span(0, 10, "positive")
    for truth, found, counts in (([span], [], (0, 0, 1)), ([], [span], (0, 1, 0)), ([], [], (0, 0, 0))):
        recordings = [SpottedRecording("s1", truth, found)]
        assert spotting.spotting(recordings) == (*counts, 0.0, 0.0, 0.0)
        assert set(spotting.scores(recordings, CLASSES).values()) == {0.0}
        assert spotting.analysis(recordings, CLASSES)[:4] == (0.0,) * 4
    assert spotting.spotting([]) == (0, 0, 0, 0.0, 0.0, 0.0)
    # What is not there is not found in a silent recording, which changes nothing.
    full = SpottedRecording("s1", [span], [span])
    assert spotting.spotting([full, SpottedRecording("s2", [], [])]) == spotting.spotting([full])


@pytest.mark.parametrize("seed", range(5))
def test_recognition_is_scored_on_what_was_spotted(seed):
    recordings = draw(seed)
    label, prediction = [], []
    for each in recordings:
        for i, j in slow_match(each.truth, each.found):
            label.append(each.truth[i].emotion)
            prediction.append(each.found[j].emotion)
    found = spotting.analysis(recordings, CLASSES)
    np.testing.assert_array_equal(found.confusion, sklearn.confusion_matrix(label, prediction, labels=CLASSES))
    macro = {"labels": CLASSES, "average": "macro", "zero_division": 0}
    precision, recall = (score(label, prediction, **macro) for score in (sklearn.precision_score, sklearn.recall_score))
    assert found.uf1 == pytest.approx(sklearn.f1_score(label, prediction, **macro))
    assert found.uar == pytest.approx(recall)
    assert found.f1 == pytest.approx(2 * precision * recall / (precision + recall))
    assert found.accuracy == pytest.approx(sklearn.accuracy_score(label, prediction))
    assert spotting.strs(recordings, CLASSES) == pytest.approx(spotting.spotting(recordings).f1 * found.f1)


def test_a_class_that_was_missed_counts_and_one_that_is_not_there_does_not():
    truth = [Span(0, 10, "positive"), Span(20, 30, "negative"), Span(40, 50, "negative")]
    found = [Span(0, 10, "positive"), Span(20, 30, "negative")]
    whole = spotting.analysis([SpottedRecording("s1", truth, found)], CLASSES)
    assert whole[:4] == (1.0, 1.0, 1.0, 1.0)  # of two classes; nobody was surprised
    missed = spotting.analysis([SpottedRecording("s1", truth, found[:1])], CLASSES)
    assert missed[:4] == (0.5, 0.5, 0.5, 1.0)
    recordings = [SpottedRecording("s1", truth, [found[0], Span(20, 30, "surprise")])]
    assert spotting.analysis(recordings, CLASSES)[:4] == (0.5, 0.5, 0.5, 0.5)
    assert spotting.strs(recordings, CLASSES) == pytest.approx(2 * 2 / (3 + 2) * 0.5)


def test_perfect_is_one_and_the_unit_of_time_is_of_no_matter():
    truth = [SpottedRecording(each.subject, each.truth, each.truth) for each in draw(0)]
    assert set(spotting.scores(truth, CLASSES).values()) == {1.0}
    assert set(map(tuple, spotting.intervals(truth, CLASSES, resamples=23).values())) == {(1.0, 1.0)}
    in_ms = draw(1)
    in_seconds = [
        SpottedRecording(who, *([Span(a / 1000, b / 1000, e) for a, b, e in spans] for spans in rest))
        for who, *rest in in_ms
    ]
    assert spotting.scores(in_seconds, CLASSES) == spotting.scores(in_ms, CLASSES)


def test_an_unknown_emotion_is_named():
    span, odd = Span(0, 10, "positive"), Span(0, 10, "sleepy")
    for truth, found in ((odd, span), (span, odd)):
        with pytest.raises(UserError, match="s07: 'sleepy' is none of the classes negative, positive, surprise"):
            spotting.strs([SpottedRecording("s07", [truth], [found])], CLASSES)
    recording = SpottedRecording("s07", [span], [Span(50, 60, "sleepy"), span])
    assert spotting.analysis([recording], CLASSES).accuracy == 1  # false ones are not recognised as anything


def resample(recordings, seed, resamples):
    """The recordings of each resample, drawn in loops."""
    names, rng = sorted({each.subject for each in recordings}), np.random.default_rng(seed)
    for _ in range(resamples):
        times = rng.multinomial(len(names), [1 / len(names)] * len(names))
        yield [
            each
            for name, count in zip(names, times, strict=True)
            for each in recordings * count
            if each.subject == name
        ]


def test_intervals_are_those_of_resampling_subjects_in_loops():
    recordings = draw(2)
    found = spotting.intervals(recordings, CLASSES, resamples=43, seed=3)
    values = [spotting.scores(each, CLASSES) for each in resample(recordings, 3, 43)]
    for name, bounds in found.items():
        assert bounds == pytest.approx(np.quantile([each[name] for each in values], (0.025, 0.975)))
        assert bounds[0] <= spotting.scores(recordings, CLASSES)[name] <= bounds[1]
    assert set(found) == {"f1", "uf1", "uar", "f1_analysis", "strs"}
    often = spotting.intervals(recordings * 3, CLASSES, resamples=43, seed=3)
    for name, bounds in found.items():  # more of the same people says no more
        assert often[name] == pytest.approx(bounds)


def test_differences_are_paired():
    second = draw(4)
    rng = np.random.default_rng(0)
    first = [  # finds the same, but knows what it sees more often
        each._replace(found=[span._replace(emotion=str(rng.choice(CLASSES))) for span in each.found]) for each in second
    ]
    found = spotting.differences(second, first, CLASSES, resamples=43, seed=5)
    whole = [spotting.scores(each, CLASSES) for each in (second, first)]
    pairs = zip(resample(second, 5, 43), resample(first, 5, 43), strict=True)
    values = [[spotting.scores(each, CLASSES) for each in pair] for pair in pairs]
    for name, apart in found.items():
        drawn = np.array([one[name] - other[name] for one, other in values])
        assert apart.mean == pytest.approx(whole[0][name] - whole[1][name])
        assert (apart.low, apart.high) == pytest.approx(tuple(np.quantile(drawn, (0.025, 0.975))))
        assert apart.p == pytest.approx(np.mean(drawn <= 1e-12))
    assert found["f1"] == (0, 0, 0, 1)  # of spotting, which is the same: the people cancel
    assert found["strs"].mean > 0.1 and found["strs"].p < 0.1
    back = spotting.differences(first, second, CLASSES, resamples=43, seed=5)
    assert back["strs"][:3] == pytest.approx((-found["strs"].mean, -found["strs"].high, -found["strs"].low))


def test_differences_need_the_same_recordings():
    recordings = draw(0)
    with pytest.raises(UserError, match="different recordings: 13 and 12 of them"):
        spotting.differences(recordings, recordings[:-1], CLASSES, resamples=3)
    other = [*recordings[:-1], recordings[-1]._replace(truth=[Span(0, 1, "positive")])]
    with pytest.raises(UserError, match="recording 12 of s02 is another one"):
        spotting.differences(recordings, other, CLASSES, resamples=3)
    with pytest.raises(UserError, match="no recordings"):
        spotting.intervals([], CLASSES, resamples=3)
