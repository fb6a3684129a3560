"""Whether anything of the held-out clips reached the training of a run, or its score: a leak audit.

Everything is worked out anew from the tables, the recorded predictions and the exported networks. What metrics.json
says of itself is compared with that, and never believed.
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

SIDE, CORNER = 32, 8  # of the picture that is transformed, and of the corner of low frequencies that is kept
FLAT = 2.0  # standard deviation, in grey levels, below which a picture has nothing to be known by
# Bits of 64. On the 246 clips of synth_me a picture coded again at quality 60, made smaller, brighter and noisy moves
# by 8 at most; faces of different people are 10 apart or more, their motion 6, and both must be near.
HAMMING = 8
NEAR = 1e-3  # 2-norm of the difference of two clips' features, in that of the longer one
BLOCK = 256  # clips compared with all others at a time
# Statistics, in units of their scale: 32-bit sums in another order differ by 1e-6 in hundreds of clips. One clip more
# among 309 real ones moves them by 3e-3.
SAME = 3e-4
RECORDED = 1e-4  # probabilities: those recorded and those written come from two compiled programs
EXACT = 1e-9  # scores
SCORES = ("uf1", "uar", "accuracy")
COLUMNS = ("id", "subject", "group", "label", "tested_in", "left_out_of")


class Finding(NamedTuple):
    """One question to a run, and the answer."""

    name: str
    status: str  # "ok", "leak", "warning" or "not checked"
    text: str
    where: tuple[str, ...] = ()  # ids of clips, names of folds or of files at fault


def audit(
    run: LoadedRun, corpus: Corpus | None = None, tiles: Mapping[str, UInt8[np.ndarray, "y x 3"]] | None = None
) -> list[Finding]:
    """Looks for ways in which held-out clips can have reached the networks or the score.

    Args:
      run: the run.
      corpus: all clips of splits.csv with their features, those that are never tested among them; in any order. Without
        it statistics are not checked, and features are not compared.
      tiles: RGB pictures of clips by id, three of equal width side by side: the reference frame, another, and the
        motion in colour (`motion.quality.tile`). Without it pictures are not compared.

    Raises:
      UserError: splits.csv lacks a column, or `corpus` has other clips than it; the first one is named.
    """
    if absent := [name for name in COLUMNS if name not in run.splits]:
        raise UserError(f"{run.folder / workdir.SPLITS} has no column {absent[0]}")
    splits = folds_of(run.splits)
    found = [*_apart(run, splits), *_twice(run, splits, corpus, tiles), *_statistics(run, splits, corpus)]
    return [*found, _last_step(run), *_complete(run), _unchanged(run), *_rescored(run)]


def folds_of(table: pd.DataFrame) -> Splits:
    """The folds of splits.csv: a clip is trained on by all that neither test it nor leave it out. Rows as there."""
    tested, left_out = (
        [set(naming.split(cell)) for cell in table[column].astype(str)] for column in ("tested_in", "left_out_of")
    )
    names = tuple(sorted(set().union(*tested, *left_out)))
    test, left = (np.array([[name in cell for cell in cells] for name in names], bool) for cells in (tested, left_out))
    shape = (len(names), len(table))
    return Splits(names, test.reshape(shape), ~(test | left).reshape(shape))


def reduced(picture: UInt8[np.ndarray, "y x 3"]) -> Float[np.ndarray, "32 32"] | None:
    """The grey picture at 32 x 32, mean 0 and deviation 1; None of a flat one."""
    grey = cv2.cvtColor(np.ascontiguousarray(picture), cv2.COLOR_RGB2GRAY).astype(float)
    if grey.std() < FLAT:
        return None
    small = cv2.resize(grey, (SIDE, SIDE), interpolation=cv2.INTER_AREA)
    return (small - small.mean()) / max(float(small.std()), 1e-9)


def phash(small: Float[np.ndarray, "32 32"]) -> Bool[np.ndarray, "64"]:
    """Perceptual hash: which low frequencies of the picture are above their median.

    The corner of the discrete cosine transform. Its first value, the mean, is left out and its bit never set. Source:
    Zauner, "Implementation and benchmarking of perceptual image hash functions", 2010.
    """
    low = fft.dctn(small, norm="ortho")[:CORNER, :CORNER].ravel()
    found = low > np.median(low[1:])
    found[0] = False
    return found


def hashes(pictures: Sequence[UInt8[np.ndarray, "y x 3"] | None]) -> list[Bool[np.ndarray, "64"] | None]:
    """Hashes of what sets each picture apart from the mean of all; None for one that is missing or flat.

    Aligned faces are alike in what all faces have; with that in the hash, two people are often taken for one.
    """
    small = [None if each is None else reduced(each) for each in pictures]
    common = np.mean([each for each in small if each is not None] or [np.zeros((SIDE, SIDE))], axis=0)
    return [None if each is None else phash(each - common) for each in small]


def near(features: Float[np.ndarray, "b d"]) -> list[tuple[int, int]]:
    """Pairs of rows that are all but equal: nearer than `NEAR` of the longer one; rows of zeros are like no other."""
    # In 64 bits, so that what is left of a difference of squares can be told from rounding.
    exact = features.astype(float)
    square = np.einsum("bd,bd->b", exact, exact)
    found = []
    for start in range(0, len(exact), BLOCK):
        block = exact[start : start + BLOCK]
        far = square[start : start + BLOCK, None] + square[None] - 2 * block @ exact.T
        longer = np.maximum(square[start : start + BLOCK, None], square[None])
        one, other = np.nonzero((far < NEAR**2 * longer) & (longer > 0))
        found += [(int(i), int(j)) for i, j in zip(one + start, other, strict=True) if i < j]
    return found


def alike(hashes: Sequence[Bool[np.ndarray, "64"] | None]) -> list[tuple[int, int]]:
    """Pairs of hashes that differ in `HAMMING` bits or fewer; None is like no other."""
    known = np.flatnonzero([each is not None for each in hashes])
    signs = np.array([np.where(hashes[place], 1, -1) for place in known], np.int32).reshape(len(known), CORNER**2)
    found = []
    for start in range(0, len(known), BLOCK):
        far = (CORNER**2 - signs[start : start + BLOCK] @ signs.T) // 2
        one, other = np.nonzero(far <= HAMMING)
        found += [(int(known[i]), int(known[j])) for i, j in zip(one + start, other, strict=True) if i < j]
    return found


def _apart(run: LoadedRun, splits: Splits) -> list[Finding]:
    """Whether anybody is on both sides of a fold, and whether metrics.json says the same."""
    subjects = run.splits["subject"].astype(str).to_numpy()
    groups = run.splits["group"].astype(str).to_numpy()
    groups = np.where(groups == "", subjects, groups)
    found, both = [], {}
    for what, names in (("subject", subjects), ("group", groups)):
        both[what] = {
            fold: sorted(set(names[test]) & set(names[train]))
            for fold, test, train in zip(splits.names, splits.test_mask, splits.train_mask, strict=True)
        }
        bad = {fold: shared for fold, shared in both[what].items() if shared}
        text = f"no {what} is on both sides of any of {len(splits.names)} folds"
        if bad:
            fold, shared = next(iter(bad.items()))
            text = (
                f"{len(bad)} of {len(splits.names)} folds train on a {what} that they test: fold {fold} on "
                f"{_some(shared)}"
            )
        found.append(Finding(f"{what}s kept apart", LEAK if bad else OK, text, tuple(bad)))
    name, claimed = "subject independence as claimed", run.metrics.get("subject_independent")
    if claimed is None:
        return [*found, Finding(name, NOT_CHECKED, "metrics.json says nothing of it")]
    true = not any(both["subject"].values())
    counts = {fold: len(shared) for fold, shared in both["subject"].items()}
    if claimed != true or (not true and run.metrics.get("shared_subjects") != counts):
        text = f"metrics.json says subject_independent {claimed}; by splits.csv it is {true}, or others are shared"
        return [*found, Finding(name, LEAK if claimed and not true else WARNING, text, (workdir.METRICS,))]
    return [*found, Finding(name, OK, f"metrics.json says subject_independent {claimed}, and so does splits.csv")]


def _twice(
    run: LoadedRun, splits: Splits, corpus: Corpus | None, tiles: Mapping[str, UInt8[np.ndarray, "y x 3"]] | None
) -> Iterable[Finding]:
    """Clips, or faces, that are there under two subjects."""
    once = ~run.splits["id"].duplicated().to_numpy()
    ids, subjects = (run.splits[name].astype(str).to_numpy()[once] for name in ("id", "subject"))
    opposite = splits.test_mask[:, once].astype(np.float32).T @ splits.train_mask[:, once].astype(np.float32) > 0
    opposite |= opposite.T

    def finding(name: str, what: str, pairs: Sequence[tuple[int, int]], worst: str, note: str = "") -> Finding:
        pairs = [(i, j) for i, j in pairs if subjects[i] != subjects[j]]
        if not pairs:
            return Finding(name, OK, f"no two subjects have {what}{note}")
        # Clips that no fold has on its two sides cannot help each other.
        across = [(i, j) for i, j in pairs if opposite[i, j]]
        i, j = (across or pairs)[0]
        text = f"{len(pairs)} pairs of clips of different subjects have {what}, first {ids[i]} and {ids[j]}"
        text += f"; {len(across)} of them are on opposite sides of a fold{note}"
        where = tuple(dict.fromkeys(str(ids[place]) for pair in across or pairs for place in pair))
        return Finding(name, worst if across else WARNING, text, where)

    if tiles is None and corpus is None:
        yield Finding("clips under two names", NOT_CHECKED, "neither pictures nor features of the clips were given")
    if tiles is not None:
        third = {name: tile.shape[1] // 3 for name, tile in tiles.items()}
        face = hashes([tiles[name][:, : third[name]] if name in tiles else None for name in ids])
        motion = hashes([tiles[name][:, -third[name] :] if name in tiles else None for name in ids])
        blank = sum(each is None for each in face)
        note = f"; {blank} clips have no picture or a flat one" if blank else ""
        same_face, same_motion = set(alike(face)), set(alike(motion))
        both, faces = sorted(same_face & same_motion), sorted(same_face - same_motion)
        yield finding("clips under two names, by picture", "the same face and motion", both, LEAK, note)
        yield finding("faces under two names", "the same face in different motion", faces, WARNING, note)
    if corpus is not None:
        place = _places(run, corpus)
        shown = np.where(corpus.batch.frame_mask[:, :, None, None], corpus.batch.nodes, 0)
        pairs = near(shown.reshape(len(shown), -1)[[place[name] for name in ids]])
        yield finding("clips under two names, by features", "all but equal features", pairs, LEAK)


def _places(run: LoadedRun, corpus: Corpus) -> dict[str, int]:
    """Rows of the corpus by id, once it is sure that they are the clips of splits.csv."""
    ids = set(run.splits["id"].astype(str))
    if differ := sorted(ids ^ set(corpus.ids)):
        which = "splits.csv and not in the corpus" if differ[0] in ids else "the corpus and not in splits.csv"
        raise UserError(f"{run.folder}: clip {differ[0]} is in {which} given")
    return {name: row for row, name in enumerate(corpus.ids)}


def _statistics(run: LoadedRun, splits: Splits, corpus: Corpus | None) -> Iterable[Finding]:
    """Whether mean, scale and class weights of each exported fold are those of its training clips alone."""
    name = "statistics of training clips alone"
    if corpus is None:
        yield Finding(name, NOT_CHECKED, "the features of the clips were not given")
        return
    place = _places(run, corpus)
    rows = [place[each] for each in run.splits["id"].astype(str)]
    there = [fold for fold in splits.names if fold in set(run.folds)]
    if gone := tuple(fold for fold in splits.names if fold not in there):
        yield Finding(name, NOT_CHECKED, f"the networks of {len(gone)} folds are not there: {_some(gone)}", gone)
    if not there:
        return
    again = _measuring(run.trained.network, run.config.loss.class_balance, corpus.batch)
    own, power = {}, {}
    for fold in there:
        index = splits.names.index(fold)
        train, all_known = np.zeros((2, len(rows)), np.float32)
        train[rows] = splits.train_mask[index]
        all_known[rows] = splits.train_mask[index] | splits.test_mask[index]
        alone, leaky = again(train), again(all_known)
        stored = run.trained.weights(fold).statistics
        seeds = len(np.asarray(stored.mean))
        each = [Statistics(*(np.asarray(value)[seed] for value in stored)) for seed in range(seeds)]
        own[fold] = max(_distance(one, alone) for one in each)
        power[fold] = _distance(leaky, alone)
    bad = tuple(fold for fold in there if not own[fold] <= SAME)
    blind = tuple(fold for fold in there if power[fold] <= SAME)
    would = f"with the clips that they test they would be off by {min(power.values()):.2g} to {max(power.values()):.2g}"
    if bad:
        text = f"{len(bad)} of {len(there)} folds have other statistics, off by up to {max(own.values()):.2g}; {would}"
        yield Finding(name, LEAK, text, bad)
        return
    text = f"those of {len(there)} folds are off by {max(own.values()):.1g} of their scale at most; {would}"
    if blind:
        text += f"; of {len(blind)} folds nothing can be told, their test clips are too few: {_some(blind)}"
    yield Finding(name, NOT_CHECKED if len(blind) == len(there) else OK, text, blind)


def _measuring(
    network: Network, class_balance: float, batch: ClipBatch
) -> Callable[[Float[np.ndarray, " b"]], Statistics]:
    """Compile `measure` on one batch, once for all folds."""
    on_device = jax.tree.map(jnp.asarray, batch)
    compiled = jax.jit(lambda clips, mask: measure(network, clips, mask, class_balance))
    return lambda mask: Statistics(*map(np.asarray, compiled(on_device, jnp.asarray(mask))))


def _distance(one: Statistics, other: Statistics) -> float:
    """The largest difference: of means and scales in units of the scale, of class weights in that of the largest."""
    parts = (
        (one.mean - other.mean) / other.scale,
        (one.scale - other.scale) / other.scale,
        (one.class_weight - other.class_weight) / other.class_weight.max(),
    )
    return float(max(np.abs(part).max() for part in parts))


def _last_step(run: LoadedRun) -> Finding:
    """Whether predictions.csv is what the networks said after the last step, and not after one that was better."""
    name = "predictions of the last step"
    past, steps = run.history, run.config.train.steps
    if past is None:
        return Finding(name, NOT_CHECKED, "nothing was recorded along the way (config.checkpoint.history)")
    if run.partial:
        return Finding(name, NOT_CHECKED, f"the run is not finished: {run.partial}")
    if past.steps[-1] != steps:
        text = f"the last step recorded is {past.steps[-1]}, and config.train.steps is {steps}"
        return Finding(name, WARNING, text)
    tested = run.splits[run.splits["tested_in"] != ""].reset_index(drop=True)
    if past.probability.shape[2:] != (len(tested), len(run.classes)):
        return Finding(name, WARNING, "what was recorded is about other clips or classes than splits.csv")
    said = run.predictions.drop_duplicates("id").set_index("id").reindex(tested["id"])
    far = np.abs(past.probability.mean(axis=1) - loaded.probabilities(said, run.classes)).max(axis=-1)  # [i, b]
    known, folds = ~np.isnan(far[-1]), tested["tested_in"].astype(str).to_numpy()
    bad = tuple(dict.fromkeys(folds[known & (far[-1] > RECORDED)].tolist()))
    if not bad:
        return Finding(name, OK, f"predictions.csv is what was said after step {steps}, the last of config.train.steps")
    worst = np.stack([far[:, known & (folds == fold)].max(axis=1) for fold in bad], axis=1)  # [i, fold]
    text = f"{len(bad)} folds have other predictions than those of the last step, by up to {worst[-1].max():.2g}"
    fits = {fold: past.steps[each <= RECORDED] for fold, each in zip(bad, worst.T, strict=True)}
    if chosen := {fold: int(found[-1]) for fold, found in fits.items() if len(found)}:
        fold, step = next(iter(chosen.items()))
        text += f"; those of {len(chosen)} folds are of an earlier one, fold {fold} of step {step}"
    return Finding(name, LEAK if chosen else WARNING, text, bad)


def _complete(run: LoadedRun) -> Iterable[Finding]:
    """Whether every fold has its networks, and every tested clip its prediction, once, with the label of splits.csv."""
    name = "networks of all folds"
    if run.partial:
        yield Finding(name, NOT_CHECKED, f"the run is not finished: {run.partial}")
    else:
        text = f"missing: {_some(run.missing)}" if run.missing else "those of every fold that tests a clip are there"
        yield Finding(name, WARNING if run.missing else OK, text, run.missing)

    tested = run.splits[run.splits["tested_in"] != ""]
    said, wanted = set(run.predictions["id"]), set(tested["id"])
    absent, extra = sorted(wanted - said), sorted(said - wanted)
    name, never = "every tested clip predicted", len(run.splits) - len(tested)
    if extra:  # no fold held them out
        yield Finding(name, LEAK, f"{len(extra)} clips are scored that no fold tests: {_some(extra)}", tuple(extra))
    elif absent:
        text = f"{len(absent)} of {len(wanted)} clips have no prediction: {_some(absent)}"
        yield Finding(name, WARNING, text, tuple(absent))
    else:
        yield Finding(name, OK, f"{len(wanted)} clips are tested and predicted; {never} are never tested")

    twice = {
        workdir.SPLITS: run.splits["id"][run.splits["id"].duplicated()],
        workdir.PREDICTIONS: run.predictions["id"][run.predictions["id"].duplicated()],
        workdir.BY_SEED: run.by_seed["id"][run.by_seed.duplicated(["id", "seed"])],
        f"{workdir.SPLITS}, in two folds": tested["id"][tested["tested_in"].map(naming.split).map(len) > 1],
    }
    bad = {table: sorted(set(ids)) for table, ids in twice.items() if len(ids)}
    text = "; ".join(f"{table}: {_some(ids)}" for table, ids in bad.items()) or "no clip is in a table twice"
    yield Finding("every clip once", WARNING if bad else OK, text, tuple(sorted(set().union(*bad.values()))))

    known = run.splits.drop_duplicates("id").set_index("id")
    own = run.predictions[run.predictions["id"].isin(known.index)]
    there = known.loc[own["id"]]
    differs = np.zeros(len(own), bool)
    for column in ("label", "subject"):
        differs |= own[column].astype(str).to_numpy() != there[column].astype(str).to_numpy()
    wrong = tuple(own["id"][differs])
    text = f"{len(wrong)} clips differ: {_some(wrong)}" if wrong else "predictions.csv has those of splits.csv"
    yield Finding("labels and subjects the same", WARNING if wrong else OK, text, wrong)


def _unchanged(run: LoadedRun) -> Finding:
    """Whether the tables are those that the run wrote."""
    name, hashes = "tables unchanged", run.metrics.get("sha256")
    if not hashes:
        return Finding(name, NOT_CHECKED, "metrics.json has no hashes of them")
    text = f"changed after the run: {_some(run.changed)}" if run.changed else f"{len(hashes)} tables have their hashes"
    return Finding(name, WARNING if run.changed else OK, text, run.changed)


def _rescored(run: LoadedRun) -> Iterable[Finding]:
    """Whether predictions are the most probable classes, and metrics.json what they come to."""
    label, said = (loaded.labels(run.predictions, run.classes, column) for column in ("label", "prediction"))
    most = loaded.probabilities(run.predictions, run.classes).argmax(axis=1)
    odd = tuple(run.predictions["id"][said != most])
    text = f"not of {len(odd)} clips: {_some(odd)}" if odd else "no threshold was moved"
    yield Finding("most probable class predicted", WARNING if odd else OK, text, odd)
    name = "scores as the predictions give them"
    if not run.metrics:
        yield Finding(name, NOT_CHECKED, "there is no metrics.json")
        return
    confusion = metrics.confusion_matrix(label, said, len(run.classes))
    again = {score: float(metrics.scores(confusion)[score]) for score in SCORES}
    off = [
        f"{score} is {run.metrics.get(score)} and should be {value:.12g}"
        for score, value in again.items()
        if not abs(run.metrics.get(score, np.inf) - value) <= EXACT
    ]
    if run.metrics.get("confusion") != confusion.tolist():
        off.append(f"confusion is {run.metrics.get('confusion')} and should be {confusion.tolist()}")
    text = "; ".join(off) or f"metrics.json agrees with predictions.csv: UF1 {again['uf1']:.6f}"
    yield Finding(name, WARNING if off else OK, text, (workdir.METRICS,) if off else ())


def _some(names: Sequence[str]) -> str:
    """The first few."""
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
