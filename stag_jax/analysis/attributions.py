"""Predictions and explanations of each held-out clip, by the networks that did not see it."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Bool, Float, Int
from tqdm import tqdm

from stag_jax.analysis import faithfulness, loaded, saliency
from stag_jax.analysis.loaded import LoadedRun
from stag_jax.corpora.dataset import Corpus
from stag_jax.model import network as network_lib
from stag_jax.model.network import Network, Weights
from stag_jax.training.trained import Question, over_seeds
from stag_jax.types import ClipBatch

INTEGRATED, ROLLOUT = "integrated gradients", "attention rollout"
STEPS = 6  # of integrated gradients
LARGEST = 16  # most clips in one call over all devices; all clips of a call are of one fold
CALL = 1  # fixed cost of a call, in clips
EMBEDDED = 32  # clips in one call where nothing is explained
CURVED = 100  # curves are computed for at least this many clips, of whole folds
QUICK = {"xla_backend_optimization_level": 1}  # 0.6 of the compile time, 1.2 of the run time
AGREEMENT = 1e-4  # largest difference between a checkpoint's probability and the run's own
KEPT = ("au_probability", "connectivity", "temporal_attention")


@dataclasses.dataclass(frozen=True)
class Evidence:
    """Explanations of the clips whose fold's networks are there, in prediction order; averaged over seeds."""

    corpus: Corpus  # these clips
    probability: Float[np.ndarray, "b k"]
    target: Int[np.ndarray, " b"]  # the class predicted, which is explained
    aux: dict[str, np.ndarray]  # intermediates of `KEPT` that the network has, [b, t, ...]
    seen: Bool[np.ndarray, "b t"]  # frames that `aux` covers; a key-frame network has one
    saliency: dict[str, Float[np.ndarray, "b t n"]]  # by method
    curved: Int[np.ndarray, " c"]  # rows of clips with curves: all, or those of evenly chosen folds
    curves: dict[str, Float[np.ndarray, "mode share c"]]  # by method and `RANDOM`; see `faithfulness.curves`
    differing: tuple[str, ...]  # clips whose row in predictions.csv differs from the networks' output


class _Explained(NamedTuple):
    """The result of one pass over a chunk of clips; clips are the first axis."""

    probability: Array
    aux: dict[str, Array]
    saliency: dict[str, Array]


def collect(run: LoadedRun, corpus: Corpus, *, quiet: bool = False) -> Evidence | None:
    """Apply each fold's networks to the clips that it holds out, and explain their predictions.

    Args:
      run: a run.
      corpus: the clips of `run.predictions`, in their order (`LoadedRun.corpus`).
      quiet: no progress bar.

    Returns None if no fold's networks are there.
    """
    names = sorted(set(run.folds) & set(run.predictions["fold"]))
    if not names:
        return None
    has_network = run.predictions["fold"].isin(names).to_numpy()
    which_fold = run.predictions["fold"][has_network].map(names.index).to_numpy(int)
    probability = loaded.probabilities(run.predictions, run.classes)[has_network]
    target = probability.argmax(axis=1).astype(np.int32)
    corpus = corpus.take(has_network)
    clips, trained = corpus.batch, run.trained

    def ask(question: Question, folds: Sequence[int], title: str, *given: np.ndarray) -> tuple[np.ndarray, Any]:
        """Apply folds to the clips that they hold out; return the rows of these clips, in order, and the answers."""
        asked, parts = [], []
        with tqdm(total=int(np.isin(which_fold, folds).sum()), desc=title, unit="clip", disable=quiet) as bar:
            for number in folds:
                rows = np.flatnonzero(which_fold == number)
                parts.append(trained.ask(names[number], clips, rows, question=question, given=given, size=size))
                asked.append(rows)
                bar.update(len(rows))
        order = np.argsort(np.concatenate(asked))
        return np.concatenate(asked)[order], jax.tree.map(lambda *part: np.concatenate(part)[order], *parts)

    mesh = Mesh(np.asarray(jax.local_devices()), ("clip",))
    everywhere, by_clip = (NamedSharding(mesh, PartitionSpec(*axes)) for axes in ((), ("clip",)))
    size = _chunk(np.bincount(which_fold, minlength=len(names)), mesh.size)
    some_rows = np.resize(np.arange(len(target)), size)
    noise = faithfulness.random_saliency(corpus.ids, clips.nodes.shape[1:3])
    first = trained.weights(names[0])
    given = first, jax.tree.map(lambda x: x[some_rows], clips), target[some_rows]
    explain, check = _explanation(trained.network), _deletion(trained.network)
    with ThreadPoolExecutor() as pool:
        # Compiling does not block Python: meanwhile both programs are traced and the networks are read.
        explained = pool.submit(_lowered(explain, (everywhere, by_clip, by_clip), given))
        shapes = jax.eval_shape(explain, *given).saliency
        blank = np.zeros((size, len(shapes) + 1, *noise.shape[1:]), np.float32)
        checked = pool.submit(_lowered(check, (everywhere, by_clip, by_clip, by_clip), (*given, blank)))
        for name in names:
            trained.weights(name)
        explained, checked = explained.result(), checked.result()
    _, result = ask(explained, range(len(names)), "explaining", target)
    saliences = result.saliency | {faithfulness.RANDOM: noise}
    stacked = np.stack(list(saliences.values()), axis=1)
    checked_folds = _evenly(np.bincount(which_fold, minlength=len(names)), CURVED)
    curved, curves = ask(checked, checked_folds, "checking", target, stacked)
    curves = np.moveaxis(curves, 0, -1)  # [mode, method, share, c]
    differs = np.abs(probability - result.probability).max(axis=1) > AGREEMENT
    return Evidence(
        corpus=corpus,
        probability=result.probability,
        target=target,
        aux=result.aux,
        seen=_seen(result.aux, clips.frame_mask),
        saliency=result.saliency,
        curved=curved,
        curves={name: curves[:, index] for index, name in enumerate(saliences)},
        differing=tuple(np.asarray(corpus.ids)[differs].tolist()),
    )


def _lowered(function: Callable, shardings: tuple, given: tuple) -> Callable[[], Callable]:
    """Trace a function for arguments like those given; return a function that compiles it."""
    options = QUICK if jax.default_backend() == "cpu" else None
    return jax.jit(function, in_shardings=shardings, compiler_options=options).lower(*given).compile


def _seen(aux: Mapping[str, Any], frame_mask: Bool[np.ndarray, "b t"]) -> Bool[np.ndarray, "b t2"]:
    """Return which frames the intermediates cover."""
    frames = aux["au_probability"].shape[1] if "au_probability" in aux else frame_mask.shape[1]
    return network_lib.frames_seen(frames, frame_mask)


def _chunk(sizes: Int[np.ndarray, " s"], devices: int) -> int:
    """Return the chunk size with the least padding for folds of these sizes; a multiple of the number of devices."""
    candidates = range(devices, max(LARGEST, devices) + 1, devices)
    return min(candidates, key=lambda size: (np.ceil(sizes / size).sum() * (size + CALL), -size))


def _evenly(sizes: Int[np.ndarray, " s"], clips: int) -> list[int]:
    """Return folds that hold this many clips or a few more, evenly spread in name order; all if they hold fewer."""
    for count in range(1, len(sizes)):
        chosen = np.unique(np.round(np.linspace(0, len(sizes) - 1, count)).astype(int))
        if sizes[chosen].sum() >= clips:
            return chosen.tolist()
    return list(range(len(sizes)))


def _explanation(network: Network) -> Question:
    """Build the pass over clips of one fold: probabilities, intermediates, saliency; averaged over seeds."""

    def of_seed(weights: Weights, clips: ClipBatch, target: Int[Array, " b"]) -> _Explained:
        logits, aux = network_lib.forward(network, weights, clips)
        maps = {INTEGRATED: saliency.integrated_gradients(network, weights, clips, target, STEPS)}
        rolled = saliency.rollout(aux, clips.frame_mask, network.config.window)
        if rolled is not None:
            maps[ROLLOUT] = _in_place(rolled, clips)
        return _Explained(jax.nn.softmax(logits), {name: aux[name] for name in KEPT if name in aux}, maps)

    return over_seeds(of_seed)


def _deletion(network: Network) -> Question:
    """Build the pass that deletes and inserts: [b, mode, method, share], given saliency [b, method, t, n]."""

    def follow(
        weights: Weights,
        clips: ClipBatch,
        target: Int[Array, " b"],
        saliences: Float[Array, "b method t n"],
    ) -> Float[Array, "b mode method share"]:
        def answer(changed: ClipBatch) -> Float[Array, "b k"]:
            return over_seeds(lambda seed, clips: network_lib.answer(network, seed, clips)[0])(weights, changed)

        return jnp.moveaxis(faithfulness.curves(answer, clips, target, jnp.moveaxis(saliences, 1, 0)), -1, 0)

    return follow


def _in_place(rolled: Float[Array, "b t2 n"], clips: ClipBatch) -> Float[Array, "b t n"]:
    """Place the saliency of a key-frame network at its frame of the clip."""
    frames = clips.nodes.shape[1]
    if rolled.shape[1] == frames:
        return rolled
    key_frame = jnp.argmax(jnp.where(clips.frame_mask, clips.magnitude, -jnp.inf), axis=1)
    return jax.nn.one_hot(key_frame, frames)[:, :, None] * rolled


def features(run: LoadedRun, names: Sequence[str], corpus: Corpus) -> dict[str, Float[np.ndarray, "b d"]]:
    """Return classifier features of all clips for some folds, by fold name; the seeds' features are side by side."""

    # Without the mirror image, which gives the same answer.
    network = run.trained.network
    network = network._replace(config=dataclasses.replace(network.config, symmetric=False))

    def embed(weights: Weights, clips: ClipBatch) -> Float[Array, "b d"]:
        per_seed = jax.vmap(lambda seed: network_lib.forward(network, seed, clips)[1]["features"])(weights)
        return jnp.concatenate(list(per_seed), axis=-1)

    question = jax.jit(embed)
    return {name: run.trained.ask(name, corpus.batch, question=question, size=EMBEDDED) for name in names}


def by_method(evidence: Evidence) -> Mapping[str, Float[np.ndarray, "b t n"]]:
    """Return the positive part of each saliency, as shares of the whole."""
    return {name: saliency.spread(value) for name, value in evidence.saliency.items()}
