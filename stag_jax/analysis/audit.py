"""Leak audit: whether held-out clips reached the training of a run, or its score.

Everything is recomputed from the tables, the recorded predictions and the exported networks. What metrics.json claims
is compared with the result, and never trusted.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, UInt8
from scipy import fft

from stag_jax.analysis import loaded
from stag_jax.analysis.loaded import LoadedRun
from stag_jax.corpora.dataset import Corpus
from stag_jax.model.network import Network, Statistics, measure
from stag_jax.protocol import metrics
from stag_jax.protocol.splits import Splits
from stag_jax.training import naming, workdir
from stag_jax.types import ClipBatch, UserError

OK, LEAK, WARNING, NOT_CHECKED = "ok", "leak", "warning", "not checked"

SIDE, CORNER = 32, 8  # pixels: side of the transformed picture, side of its low-frequency corner that is kept
FLAT = 2.0  # standard deviation, in grey levels, below which a picture is too flat to be recognised
# Bits of 64. On the 246 clips of synth_me, encoding a picture again at quality 60, smaller, brighter and noisy, changes
# at most 8 bits. Faces of different people differ by 10 or more, their motion by 6 or more; both must be near.
HAMMING = 8
NEAR = 1e-3  # 2-norm of the difference of two clips' features, relative to the longer one
BLOCK = 256  # clips compared with all others at a time
# Difference of statistics, in units of their scale. For hundreds of clips, summing in another order in 32 bits changes
# them by 1e-6; one more clip among 309 real ones changes them by 3e-3.
SAME = 3e-4
RECORDED = 1e-4  # difference of probabilities: the recorded and the written ones come from two compiled programs
EXACT = 1e-9  # difference of scores
SCORES = ("uf1", "uar", "accuracy")
COLUMNS = ("id", "subject", "group", "label", "tested_in", "left_out_of")


class Finding(NamedTuple):
    """The result of one check of a run."""

    name: str
    status: str  # "ok", "leak", "warning" or "not checked"
    text: str
    where: tuple[str, ...] = ()  # ids of clips, names of folds or of files at fault


def audit(
    run: LoadedRun, corpus: Corpus | None = None, tiles: Mapping[str, UInt8[np.ndarray, "y x 3"]] | None = None
) -> list[Finding]:
    """Look for ways in which held-out clips can have reached the networks or the score.

    Args:
      run: the run.
      corpus: all clips of splits.csv with their features, including those that are never tested; in any order. Without
        it, statistics are not checked and features are not compared.
      tiles: RGB pictures of clips by id, three of equal width side by side: the reference frame, another frame, and the
        motion in colour (`motion.quality.tile`). Without it, pictures are not compared.

    Raises:
      UserError: splits.csv lacks a column, or `corpus` has other clips than splits.csv; the first one is named.
    """
    if absent := [name for name in COLUMNS if name not in run.splits]:
        raise UserError(f"{run.folder / workdir.SPLITS} has no column {absent[0]}")
    splits = folds_of(run.splits)
    findings = [*_apart(run, splits), *_twice(run, splits, corpus, tiles), *_statistics(run, splits, corpus)]
    return [*findings, _last_step(run), *_complete(run), _unchanged(run), *_rescored(run)]


def folds_of(table: pd.DataFrame) -> Splits:
    """Return the folds of splits.csv, clips in its order; a fold trains on clips it neither tests nor leaves out."""
    tested, left_out = (
        [set(naming.split(cell)) for cell in table[column].astype(str)] for column in ("tested_in", "left_out_of")
    )
    names = tuple(sorted(set().union(*tested, *left_out)))
    test, left = (np.array([[name in cell for cell in cells] for name in names], bool) for cells in (tested, left_out))
    shape = (len(names), len(table))
    return Splits(names, test.reshape(shape), ~(test | left).reshape(shape))


def reduced(picture: UInt8[np.ndarray, "y x 3"]) -> Float[np.ndarray, "32 32"] | None:
    """Return the grey picture at 32 x 32 with mean 0 and standard deviation 1; None if it is flat."""
    grey = cv2.cvtColor(np.ascontiguousarray(picture), cv2.COLOR_RGB2GRAY).astype(float)
    if grey.std() < FLAT:
        return None
    small = cv2.resize(grey, (SIDE, SIDE), interpolation=cv2.INTER_AREA)
    return (small - small.mean()) / max(float(small.std()), 1e-9)


def phash(small: Float[np.ndarray, "32 32"]) -> Bool[np.ndarray, "64"]:
    """Return the perceptual hash of a picture: which of its low frequencies are above their median.

    The low frequencies are the corner of the discrete cosine transform. The first one, the mean, is left out of the
    median and its bit is never set. Source: Zauner, "Implementation and benchmarking of perceptual image hash
    functions", 2010.
    """
    low = fft.dctn(small, norm="ortho")[:CORNER, :CORNER].ravel()
    bits = low > np.median(low[1:])
    bits[0] = False
    return bits


def hashes(pictures: Sequence[UInt8[np.ndarray, "y x 3"] | None]) -> list[Bool[np.ndarray, "64"] | None]:
    """Hash what sets each picture apart from the mean of all; None for one that is missing or flat.

    Aligned faces share what all faces have; if that is part of the hash, two people are often taken for one.
    """
    small = [None if picture is None else reduced(picture) for picture in pictures]
    common = np.mean([picture for picture in small if picture is not None] or [np.zeros((SIDE, SIDE))], axis=0)
    return [None if picture is None else phash(picture - common) for picture in small]


def near(features: Float[np.ndarray, "b d"]) -> list[tuple[int, int]]:
    """Return pairs of nearly equal rows: nearer than `NEAR` times the longer one. Rows of zeros match no other row."""
    # In 64 bits, so that a small difference of squares is not lost in rounding.
    exact = features.astype(float)
    squared_norm = np.einsum("bd,bd->b", exact, exact)
    pairs = []
    for start in range(0, len(exact), BLOCK):
        block = exact[start : start + BLOCK]
        squared_distance = squared_norm[start : start + BLOCK, None] + squared_norm[None] - 2 * block @ exact.T
        longer = np.maximum(squared_norm[start : start + BLOCK, None], squared_norm[None])
        first, second = np.nonzero((squared_distance < NEAR**2 * longer) & (longer > 0))
        pairs += [(int(i), int(j)) for i, j in zip(first + start, second, strict=True) if i < j]
    return pairs


def alike(hashes: Sequence[Bool[np.ndarray, "64"] | None]) -> list[tuple[int, int]]:
    """Return pairs of hashes that differ in `HAMMING` bits or fewer; None matches no other hash."""
    present = np.flatnonzero([value is not None for value in hashes])
    signs = np.array([np.where(hashes[row], 1, -1) for row in present], np.int32).reshape(len(present), CORNER**2)
    pairs = []
    for start in range(0, len(present), BLOCK):
        bits_apart = (CORNER**2 - signs[start : start + BLOCK] @ signs.T) // 2
        first, second = np.nonzero(bits_apart <= HAMMING)
        pairs += [(int(present[i]), int(present[j])) for i, j in zip(first + start, second, strict=True) if i < j]
    return pairs


def _apart(run: LoadedRun, splits: Splits) -> list[Finding]:
    """Check that no subject or group is on both sides of a fold, and that metrics.json claims the same."""
    subjects = run.splits["subject"].astype(str).to_numpy()
    groups = run.splits["group"].astype(str).to_numpy()
    groups = np.where(groups == "", subjects, groups)
    findings, overlap = [], {}
    for kind, names in (("subject", subjects), ("group", groups)):
        overlap[kind] = {
            fold: sorted(set(names[test]) & set(names[train]))
            for fold, test, train in zip(splits.names, splits.test_mask, splits.train_mask, strict=True)
        }
        bad = {fold: shared for fold, shared in overlap[kind].items() if shared}
        text = f"no {kind} is on both sides of any of {len(splits.names)} folds"
        if bad:
            fold, shared = next(iter(bad.items()))
            text = (
                f"{len(bad)} of {len(splits.names)} folds train on a {kind} that they test: fold {fold} on "
                f"{_some(shared)}"
            )
        findings.append(Finding(f"{kind}s kept apart", LEAK if bad else OK, text, tuple(bad)))
    name, claimed = "subject independence as claimed", run.metrics.get("subject_independent")
    if claimed is None:
        return [*findings, Finding(name, NOT_CHECKED, "metrics.json says nothing of it")]
    true = not any(overlap["subject"].values())
    counts = {fold: len(shared) for fold, shared in overlap["subject"].items()}
    if claimed != true or (not true and run.metrics.get("shared_subjects") != counts):
        text = f"metrics.json says subject_independent {claimed}; by splits.csv it is {true}, or others are shared"
        return [*findings, Finding(name, LEAK if claimed and not true else WARNING, text, (workdir.METRICS,))]
    return [*findings, Finding(name, OK, f"metrics.json says subject_independent {claimed}, and so does splits.csv")]


def _twice(
    run: LoadedRun, splits: Splits, corpus: Corpus | None, tiles: Mapping[str, UInt8[np.ndarray, "y x 3"]] | None
) -> Iterable[Finding]:
    """Check whether a clip, or a face, appears under two subjects."""
    keep = ~run.splits["id"].duplicated().to_numpy()
    ids, subjects = (run.splits[name].astype(str).to_numpy()[keep] for name in ("id", "subject"))
    opposite = splits.test_mask[:, keep].astype(np.float32).T @ splits.train_mask[:, keep].astype(np.float32) > 0
    opposite |= opposite.T

    def finding(name: str, what: str, pairs: Sequence[tuple[int, int]], worst: str, note: str = "") -> Finding:
        pairs = [(i, j) for i, j in pairs if subjects[i] != subjects[j]]
        if not pairs:
            return Finding(name, OK, f"no two subjects have {what}{note}")
        # Only clips on opposite sides of some fold can leak into each other.
        across = [(i, j) for i, j in pairs if opposite[i, j]]
        i, j = (across or pairs)[0]
        text = f"{len(pairs)} pairs of clips of different subjects have {what}, first {ids[i]} and {ids[j]}"
        text += f"; {len(across)} of them are on opposite sides of a fold{note}"
        where = tuple(dict.fromkeys(str(ids[row]) for pair in across or pairs for row in pair))
        return Finding(name, worst if across else WARNING, text, where)

    if tiles is None and corpus is None:
        yield Finding("clips under two names", NOT_CHECKED, "neither pictures nor features of the clips were given")
    if tiles is not None:
        third_width = {name: tile.shape[1] // 3 for name, tile in tiles.items()}
        face = hashes([tiles[name][:, : third_width[name]] if name in tiles else None for name in ids])
        motion = hashes([tiles[name][:, -third_width[name] :] if name in tiles else None for name in ids])
        blank = sum(value is None for value in face)
        note = f"; {blank} clips have no picture or a flat one" if blank else ""
        same_face, same_motion = set(alike(face)), set(alike(motion))
        both, faces = sorted(same_face & same_motion), sorted(same_face - same_motion)
        yield finding("clips under two names, by picture", "the same face and motion", both, LEAK, note)
        yield finding("faces under two names", "the same face in different motion", faces, WARNING, note)
    if corpus is not None:
        row_of = _places(run, corpus)
        visible = np.where(corpus.batch.frame_mask[:, :, None, None], corpus.batch.nodes, 0)
        pairs = near(visible.reshape(len(visible), -1)[[row_of[name] for name in ids]])
        yield finding("clips under two names, by features", "all but equal features", pairs, LEAK)


def _places(run: LoadedRun, corpus: Corpus) -> dict[str, int]:
    """Return corpus rows by clip id; raise UserError unless they are the clips of splits.csv."""
    ids = set(run.splits["id"].astype(str))
    if differ := sorted(ids ^ set(corpus.ids)):
        which = "splits.csv and not in the corpus" if differ[0] in ids else "the corpus and not in splits.csv"
        raise UserError(f"{run.folder}: clip {differ[0]} is in {which} given")
    return {name: row for row, name in enumerate(corpus.ids)}


def _statistics(run: LoadedRun, splits: Splits, corpus: Corpus | None) -> Iterable[Finding]:
    """Check that mean, scale and class weights of each exported fold come from its training clips alone."""
    name = "statistics of training clips alone"
    if corpus is None:
        yield Finding(name, NOT_CHECKED, "the features of the clips were not given")
        return
    index_of = _places(run, corpus)
    rows = [index_of[clip_id] for clip_id in run.splits["id"].astype(str)]
    trained = [fold for fold in splits.names if fold in set(run.folds)]
    if gone := tuple(fold for fold in splits.names if fold not in trained):
        yield Finding(name, NOT_CHECKED, f"the networks of {len(gone)} folds are not there: {_some(gone)}", gone)
    if not trained:
        return
    compute = _measuring(run.trained.network, run.config.loss.class_balance, corpus.batch)
    error, power = {}, {}
    for fold in trained:
        index = splits.names.index(fold)
        train_mask, leaky_mask = np.zeros((2, len(rows)), np.float32)
        train_mask[rows] = splits.train_mask[index]
        leaky_mask[rows] = splits.train_mask[index] | splits.test_mask[index]
        clean, leaky = compute(train_mask), compute(leaky_mask)
        stored = run.trained.weights(fold).statistics
        seeds = len(np.asarray(stored.mean))
        per_seed = [Statistics(*(np.asarray(value)[seed] for value in stored)) for seed in range(seeds)]
        error[fold] = max(_distance(statistics, clean) for statistics in per_seed)
        power[fold] = _distance(leaky, clean)
    bad = tuple(fold for fold in trained if not error[fold] <= SAME)
    unclear = tuple(fold for fold in trained if power[fold] <= SAME)
    would = f"with the clips that they test they would be off by {min(power.values()):.2g} to {max(power.values()):.2g}"
    if bad:
        text = (
            f"{len(bad)} of {len(trained)} folds have other statistics, off by up to {max(error.values()):.2g}; {would}"
        )
        yield Finding(name, LEAK, text, bad)
        return
    text = f"those of {len(trained)} folds are off by {max(error.values()):.1g} of their scale at most; {would}"
    if unclear:
        text += f"; of {len(unclear)} folds nothing can be told, their test clips are too few: {_some(unclear)}"
    yield Finding(name, NOT_CHECKED if len(unclear) == len(trained) else OK, text, unclear)


def _measuring(
    network: Network, class_balance: float, batch: ClipBatch
) -> Callable[[Float[np.ndarray, " b"]], Statistics]:
    """Compile `measure` on one batch, once for all folds."""
    on_device = jax.tree.map(jnp.asarray, batch)
    compiled = jax.jit(lambda clips, mask: measure(network, clips, mask, class_balance))
    return lambda mask: Statistics(*map(np.asarray, compiled(on_device, jnp.asarray(mask))))


def _distance(one: Statistics, other: Statistics) -> float:
    """Return the largest difference: means and scales in units of the scale, class weights in that of the largest."""
    parts = (
        (one.mean - other.mean) / other.scale,
        (one.scale - other.scale) / other.scale,
        (one.class_weight - other.class_weight) / other.class_weight.max(),
    )
    return float(max(np.abs(part).max() for part in parts))


def _last_step(run: LoadedRun) -> Finding:
    """Check that predictions.csv holds the networks' output after the last step, and not after a better one."""
    name = "predictions of the last step"
    history, steps = run.history, run.config.train.steps
    if history is None:
        return Finding(name, NOT_CHECKED, "nothing was recorded along the way (config.checkpoint.history)")
    if run.partial:
        return Finding(name, NOT_CHECKED, f"the run is not finished: {run.partial}")
    if history.steps[-1] != steps:
        text = f"the last step recorded is {history.steps[-1]}, and config.train.steps is {steps}"
        return Finding(name, WARNING, text)
    tested = run.splits[run.splits["tested_in"] != ""].reset_index(drop=True)
    if history.probability.shape[2:] != (len(tested), len(run.classes)):
        return Finding(name, WARNING, "what was recorded is about other clips or classes than splits.csv")
    rows = run.predictions.drop_duplicates("id").set_index("id").reindex(tested["id"])
    error = np.abs(history.probability.mean(axis=1) - loaded.probabilities(rows, run.classes)).max(axis=-1)  # [i, b]
    has_prediction, folds = ~np.isnan(error[-1]), tested["tested_in"].astype(str).to_numpy()
    bad = tuple(dict.fromkeys(folds[has_prediction & (error[-1] > RECORDED)].tolist()))
    if not bad:
        return Finding(name, OK, f"predictions.csv is what was said after step {steps}, the last of config.train.steps")
    worst = np.stack([error[:, has_prediction & (folds == fold)].max(axis=1) for fold in bad], axis=1)  # [i, fold]
    text = f"{len(bad)} folds have other predictions than those of the last step, by up to {worst[-1].max():.2g}"
    matching = {fold: history.steps[errors <= RECORDED] for fold, errors in zip(bad, worst.T, strict=True)}
    if chosen := {fold: int(match[-1]) for fold, match in matching.items() if len(match)}:
        fold, step = next(iter(chosen.items()))
        text += f"; those of {len(chosen)} folds are of an earlier one, fold {fold} of step {step}"
    return Finding(name, LEAK if chosen else WARNING, text, bad)


def _complete(run: LoadedRun) -> Iterable[Finding]:
    """Check that every fold has its networks, and every tested clip one prediction with the label of splits.csv."""
    name = "networks of all folds"
    if run.partial:
        yield Finding(name, NOT_CHECKED, f"the run is not finished: {run.partial}")
    else:
        text = f"missing: {_some(run.missing)}" if run.missing else "those of every fold that tests a clip are there"
        yield Finding(name, WARNING if run.missing else OK, text, run.missing)

    tested = run.splits[run.splits["tested_in"] != ""]
    predicted, expected = set(run.predictions["id"]), set(tested["id"])
    absent, extra = sorted(expected - predicted), sorted(predicted - expected)
    name, untested = "every tested clip predicted", len(run.splits) - len(tested)
    if extra:  # no fold held them out
        yield Finding(name, LEAK, f"{len(extra)} clips are scored that no fold tests: {_some(extra)}", tuple(extra))
    elif absent:
        text = f"{len(absent)} of {len(expected)} clips have no prediction: {_some(absent)}"
        yield Finding(name, WARNING, text, tuple(absent))
    else:
        yield Finding(name, OK, f"{len(expected)} clips are tested and predicted; {untested} are never tested")

    duplicated = {
        workdir.SPLITS: run.splits["id"][run.splits["id"].duplicated()],
        workdir.PREDICTIONS: run.predictions["id"][run.predictions["id"].duplicated()],
        workdir.BY_SEED: run.by_seed["id"][run.by_seed.duplicated(["id", "seed"])],
        f"{workdir.SPLITS}, in two folds": tested["id"][tested["tested_in"].map(naming.split).map(len) > 1],
    }
    bad = {table: sorted(set(ids)) for table, ids in duplicated.items() if len(ids)}
    text = "; ".join(f"{table}: {_some(ids)}" for table, ids in bad.items()) or "no clip is in a table twice"
    yield Finding("every clip once", WARNING if bad else OK, text, tuple(sorted(set().union(*bad.values()))))

    by_id = run.splits.drop_duplicates("id").set_index("id")
    predictions = run.predictions[run.predictions["id"].isin(by_id.index)]
    reference = by_id.loc[predictions["id"]]
    differs = np.zeros(len(predictions), bool)
    for column in ("label", "subject"):
        differs |= predictions[column].astype(str).to_numpy() != reference[column].astype(str).to_numpy()
    wrong = tuple(predictions["id"][differs])
    text = f"{len(wrong)} clips differ: {_some(wrong)}" if wrong else "predictions.csv has those of splits.csv"
    yield Finding("labels and subjects the same", WARNING if wrong else OK, text, wrong)


def _unchanged(run: LoadedRun) -> Finding:
    """Check that the tables are those that the run wrote."""
    name, hashes = "tables unchanged", run.metrics.get("sha256")
    if not hashes:
        return Finding(name, NOT_CHECKED, "metrics.json has no hashes of them")
    text = f"changed after the run: {_some(run.changed)}" if run.changed else f"{len(hashes)} tables have their hashes"
    return Finding(name, WARNING if run.changed else OK, text, run.changed)


def _rescored(run: LoadedRun) -> Iterable[Finding]:
    """Check that predictions are the most probable classes, and that metrics.json has the scores they give."""
    label, prediction = (loaded.labels(run.predictions, run.classes, column) for column in ("label", "prediction"))
    most_probable = loaded.probabilities(run.predictions, run.classes).argmax(axis=1)
    different = tuple(run.predictions["id"][prediction != most_probable])
    text = f"not of {len(different)} clips: {_some(different)}" if different else "no threshold was moved"
    yield Finding("most probable class predicted", WARNING if different else OK, text, different)
    name = "scores as the predictions give them"
    if not run.metrics:
        yield Finding(name, NOT_CHECKED, "there is no metrics.json")
        return
    confusion = metrics.confusion_matrix(label, prediction, len(run.classes))
    recomputed = {score: float(metrics.scores(confusion)[score]) for score in SCORES}
    problems = [
        f"{score} is {run.metrics.get(score)} and should be {value:.12g}"
        for score, value in recomputed.items()
        if not abs(run.metrics.get(score, np.inf) - value) <= EXACT
    ]
    if run.metrics.get("confusion") != confusion.tolist():
        problems.append(f"confusion is {run.metrics.get('confusion')} and should be {confusion.tolist()}")
    text = "; ".join(problems) or f"metrics.json agrees with predictions.csv: UF1 {recomputed['uf1']:.6f}"
    yield Finding(name, WARNING if problems else OK, text, (workdir.METRICS,) if problems else ())


def _some(names: Sequence[str]) -> str:
    """Return the first three names and how many more there are."""
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
