"""What the networks of a run say of the clips that they did not see, and on what they rest it; clip by clip."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int
from tqdm import tqdm

from stag_jax.analysis import faithfulness, loaded, saliency
from stag_jax.analysis.loaded import LoadedRun
from stag_jax.training import fold, restore
from stag_jax.training.dataset import Corpus
from stag_jax.types import ClipBatch

INTEGRATED, ROLLOUT = "integrated gradients", "attention rollout"
STEPS = 12  # of integrated gradients
CHUNK = 8  # clips at a time; those of a fold are padded to a multiple
AGREEMENT = 1e-4  # how far a probability from a checkpoint may lie from the run's own
KEPT = ("au_probability", "connectivity", "temporal_attention")


@dataclasses.dataclass(frozen=True)
class Evidence:
    """Of the clips whose fold's networks are there, in the order of the run's predictions; averaged over seeds."""

    corpus: Corpus  # these clips
    probability: Float[np.ndarray, "b k"]
    target: Int[np.ndarray, " b"]  # the class predicted, which is explained
    aux: dict[str, np.ndarray]  # those of `KEPT` that the network has, [b, t, ...]
    seen: Bool[np.ndarray, "b t"]  # frames that `aux` speaks of; a key-frame network has one
    saliency: dict[str, Float[np.ndarray, "b t n"]]  # by method
    curves: dict[str, Float[np.ndarray, "mode share b"]]  # by method and `RANDOM`; see `faithfulness.curves`
    differing: tuple[str, ...]  # clips of which predictions.csv says something else than the networks


class _Seen(NamedTuple):
    """What one pass over a chunk of clips gives; all but `curves` with clips first."""

    probability: Array
    aux: dict[str, Array]
    saliency: dict[str, Array]
    curves: Array


def collect(run: LoadedRun, corpus: Corpus, *, quiet: bool = False) -> Evidence | None:
    """Applies each fold's networks to the clips that it holds out, and asks them why.

    Args:
      run: a run.
      corpus: the clips of `run.predictions`, in their order (`LoadedRun.corpus`).
      quiet: no progress bar.

    Returns None where no fold's networks are there.
    """
    there = set(run.folds)
    known = run.predictions["fold"].isin(there).to_numpy()
    if not known.any():
        return None
    target = loaded.probabilities(run.predictions, run.classes).argmax(axis=1)
    examine = jax.jit(_examiner(run))
    noise = faithfulness.random_saliency(corpus.ids, corpus.batch.nodes.shape[1:3])
    parts: list[tuple[np.ndarray, Any]] = []
    with tqdm(total=int(known.sum()), desc="explaining", unit="clip", disable=quiet) as bar:
        for name, own in run.predictions[known].groupby("fold", sort=True).indices.items():
            trained = restore.load_fold(run.restored, name)
            rows = np.flatnonzero(known)[own]
            for start in range(0, len(rows), CHUNK):
                chunk = rows[start : start + CHUNK]
                padded = np.resize(chunk, CHUNK)
                clips = jax.tree.map(lambda x, padded=padded: x[padded], corpus.batch)
                found = examine((trained.params, trained.statistics), clips, target[padded], noise[padded])
                parts.append((chunk, _cut(jax.device_get(found), len(chunk))))
                bar.update(len(chunk))
    order = np.argsort(np.concatenate([rows for rows, _ in parts]))
    found = jax.tree.map(lambda *each: np.concatenate(each)[order], *(part for _, part in parts))
    corpus = corpus.take(known)
    methods = [*found.saliency, faithfulness.RANDOM]
    said = loaded.probabilities(run.predictions[known], run.classes)
    wrong = np.abs(said - found.probability).max(axis=1) > AGREEMENT
    return Evidence(
        corpus=corpus,
        probability=found.probability,
        target=target[known],
        aux=found.aux,
        seen=restore.frames_seen(found.aux, corpus.batch.frame_mask),
        saliency=found.saliency,
        curves={name: np.moveaxis(found.curves[:, :, index], 0, -1) for index, name in enumerate(methods)},
        differing=tuple(np.asarray(corpus.ids)[wrong].tolist()),
    )


def _examiner(run: LoadedRun) -> Any:
    """The one compiled pass over a chunk: answers, intermediates, saliency and curves."""
    task, window = run.restored.task, run.config.model.window

    def of_seed(
        trained: tuple[Any, fold.Statistics], clips: ClipBatch, target: Int[Array, " b"]
    ) -> tuple[Array, dict[str, Array], dict[str, Array]]:
        logits, aux = fold.forward(task, clips, *trained)
        found = {INTEGRATED: saliency.integrated_gradients(task, *trained, clips, target, STEPS)}
        rolled = saliency.rollout(aux, clips.frame_mask, window)
        if rolled is not None:
            found[ROLLOUT] = _in_place(rolled, clips)
        return jax.nn.softmax(logits), {name: aux[name] for name in KEPT if name in aux}, found

    def examine(
        trained: tuple[Any, fold.Statistics], clips: ClipBatch, target: Int[Array, " b"], noise: Float[Array, "b t n"]
    ) -> _Seen:
        each = jax.vmap(of_seed, in_axes=(0, None, None))(trained, clips, target)
        probability, aux, found = jax.tree.map(lambda x: jnp.mean(x, axis=0), each)

        def answer(changed: ClipBatch) -> Float[Array, "b k"]:
            logits = jax.vmap(lambda own: fold.forward(task, changed, *own)[0])(trained)
            return jnp.mean(jax.nn.softmax(logits), axis=0)

        curves = faithfulness.curves(answer, clips, target, jnp.stack([*found.values(), noise]))
        return _Seen(probability, aux, found, jnp.moveaxis(curves, -1, 0))

    return examine


def _in_place(rolled: Float[Array, "b t2 n"], clips: ClipBatch) -> Float[Array, "b t n"]:
    """The saliency of a key-frame network where its frame lies in the clip."""
    frames = clips.nodes.shape[1]
    if rolled.shape[1] == frames:
        return rolled
    best = jnp.argmax(jnp.where(clips.frame_mask, clips.magnitude, -jnp.inf), axis=1)
    return jax.nn.one_hot(best, frames)[:, :, None] * rolled


def _cut(found: _Seen, count: int) -> _Seen:
    """Without the clips that only pad."""
    return jax.tree.map(lambda x: np.asarray(x)[:count], found)


def features(run: LoadedRun, names: Sequence[str], corpus: Corpus) -> dict[str, Float[np.ndarray, "b d"]]:
    """What the classifiers of some folds see of all clips, by the name of the fold; seeds side by side."""

    def embed(trained: tuple[Any, fold.Statistics], clips: ClipBatch) -> Float[Array, "b d"]:
        return fold.forward(run.restored.task, clips, *trained)[1]["features"]

    program = jax.jit(jax.vmap(embed, in_axes=(0, None)))
    count, size = len(corpus.ids), CHUNK * CHUNK
    found = {}
    for name in names:
        trained = restore.load_fold(run.restored, name)
        parts = []
        for start in range(0, count, size):
            rows = np.resize(np.arange(start, min(start + size, count)), size)
            clips = jax.tree.map(lambda x, rows=rows: x[rows], corpus.batch)
            parts.append(np.asarray(program((trained.params, trained.statistics), clips)))
        together = np.concatenate(parts, axis=1)[:, :count]  # [seed, b, d]
        found[name] = np.concatenate(list(together), axis=-1)
    return found


def by_method(evidence: Evidence) -> Mapping[str, Float[np.ndarray, "b t n"]]:
    """The positive part of each saliency, as shares of the whole."""
    return {name: saliency.spread(value) for name, value in evidence.saliency.items()}
