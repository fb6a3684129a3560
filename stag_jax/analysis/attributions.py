"""What the networks of a run say of the clips that they did not see, and on what they rest it; clip by clip."""

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
LARGEST = 16  # clips at a time on all devices, all of one fold
CALL = 1  # what a call costs beside its clips, in clips
EMBEDDED = 32  # clips at a time where nothing is explained
CURVED = 100  # so many clips, of whole folds, are asked for curves
QUICK = {"xla_backend_optimization_level": 1}  # compiles in 0.6 of the time and runs in 1.2 of it
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
    curved: Int[np.ndarray, " c"]  # clips that curves were asked of: all, or those of folds evenly chosen
    curves: dict[str, Float[np.ndarray, "mode share c"]]  # by method and `RANDOM`; see `faithfulness.curves`
    differing: tuple[str, ...]  # clips of which predictions.csv says something else than the networks


class _Explained(NamedTuple):
    """What one pass over a chunk of clips gives; clips come first."""

    probability: Array
    aux: dict[str, Array]
    saliency: dict[str, Array]


def collect(run: LoadedRun, corpus: Corpus, *, quiet: bool = False) -> Evidence | None:
    """Applies each fold's networks to the clips that it holds out, and asks them why.

    Args:
      run: a run.
      corpus: the clips of `run.predictions`, in their order (`LoadedRun.corpus`).
      quiet: no progress bar.

    Returns None where no fold's networks are there.
    """
    names = sorted(set(run.folds) & set(run.predictions["fold"]))
    if not names:
        return None
    known = run.predictions["fold"].isin(names).to_numpy()
    which = run.predictions["fold"][known].map(names.index).to_numpy(int)
    probability = loaded.probabilities(run.predictions, run.classes)[known]
    target = probability.argmax(axis=1).astype(np.int32)
    corpus = corpus.take(known)
    clips, trained = corpus.batch, run.trained

    def ask(question: Question, folds: Sequence[int], title: str, *given: np.ndarray) -> tuple[np.ndarray, Any]:
        """Ask folds about the clips that they hold out; give these clips' rows, in order, and the answers."""
        asked, parts = [], []
        with tqdm(total=int(np.isin(which, folds).sum()), desc=title, unit="clip", disable=quiet) as bar:
            for number in folds:
                rows = np.flatnonzero(which == number)
                parts.append(trained.ask(names[number], clips, rows, question=question, given=given, size=size))
                asked.append(rows)
                bar.update(len(rows))
        back = np.argsort(np.concatenate(asked))
        return np.concatenate(asked)[back], jax.tree.map(lambda *part: np.concatenate(part)[back], *parts)

    mesh = Mesh(np.asarray(jax.local_devices()), ("clip",))
    everywhere, by_clip = (NamedSharding(mesh, PartitionSpec(*axes)) for axes in ((), ("clip",)))
    size = _chunk(np.bincount(which, minlength=len(names)), mesh.size)
    some_rows = np.resize(np.arange(len(target)), size)
    noise = faithfulness.random_saliency(corpus.ids, clips.nodes.shape[1:3])
    first = trained.weights(names[0])
    given = first, jax.tree.map(lambda x: x[some_rows], clips), target[some_rows]
    explain, check = _explanation(trained.network), _deletion(trained.network)
    with ThreadPoolExecutor() as pool:
        # Compiling leaves Python alone: meanwhile both programs are traced and the networks read.
        explained = pool.submit(_lowered(explain, (everywhere, by_clip, by_clip), given))
        shapes = jax.eval_shape(explain, *given).saliency
        blank = np.zeros((size, len(shapes) + 1, *noise.shape[1:]), np.float32)
        checked = pool.submit(_lowered(check, (everywhere, by_clip, by_clip, by_clip), (*given, blank)))
        for name in names:
            trained.weights(name)
        explained, checked = explained.result(), checked.result()
    _, found = ask(explained, range(len(names)), "explaining", target)
    saliences = found.saliency | {faithfulness.RANDOM: noise}
    stacked = np.stack(list(saliences.values()), axis=1)
    some = _evenly(np.bincount(which, minlength=len(names)), CURVED)
    curved, curves = ask(checked, some, "checking", target, stacked)
    curves = np.moveaxis(curves, 0, -1)  # [mode, method, share, c]
    wrong = np.abs(probability - found.probability).max(axis=1) > AGREEMENT
    return Evidence(
        corpus=corpus,
        probability=found.probability,
        target=target,
        aux=found.aux,
        seen=_seen(found.aux, clips.frame_mask),
        saliency=found.saliency,
        curved=curved,
        curves={name: curves[:, index] for index, name in enumerate(saliences)},
        differing=tuple(np.asarray(corpus.ids)[wrong].tolist()),
    )


def _lowered(function: Callable, shardings: tuple, given: tuple) -> Callable[[], Callable]:
    """What compiles a function for arguments like those given."""
    options = QUICK if jax.default_backend() == "cpu" else None
    return jax.jit(function, in_shardings=shardings, compiler_options=options).lower(*given).compile


def _seen(aux: Mapping[str, Any], frame_mask: Bool[np.ndarray, "b t"]) -> Bool[np.ndarray, "b t2"]:
    """Say which frames the intermediates speak of."""
    frames = aux["au_probability"].shape[1] if "au_probability" in aux else frame_mask.shape[1]
    return network_lib.frames_seen(frames, frame_mask)


def _chunk(sizes: Int[np.ndarray, " s"], devices: int) -> int:
    """So many clips at a time that folds of these sizes leave the least to padding; a multiple of the devices."""
    candidates = range(devices, max(LARGEST, devices) + 1, devices)
    return min(candidates, key=lambda size: (np.ceil(sizes / size).sum() * (size + CALL), -size))


def _evenly(sizes: Int[np.ndarray, " s"], clips: int) -> list[int]:
    """Folds of so many clips or a few more, all where there are fewer; spread over the order of their names."""
    for count in range(1, len(sizes)):
        chosen = np.unique(np.round(np.linspace(0, len(sizes) - 1, count)).astype(int))
        if sizes[chosen].sum() >= clips:
            return chosen.tolist()
    return list(range(len(sizes)))


def _explanation(network: Network) -> Question:
    """Make the pass over a batch of clips of one fold: probabilities, intermediates, saliency; averaged over seeds."""

    def of_seed(weights: Weights, clips: ClipBatch, target: Int[Array, " b"]) -> _Explained:
        logits, aux = network_lib.forward(network, weights, clips)
        maps = {INTEGRATED: saliency.integrated_gradients(network, weights, clips, target, STEPS)}
        rolled = saliency.rollout(aux, clips.frame_mask, network.config.window)
        if rolled is not None:
            maps[ROLLOUT] = _in_place(rolled, clips)
        return _Explained(jax.nn.softmax(logits), {name: aux[name] for name in KEPT if name in aux}, maps)

    return over_seeds(of_seed)


def _deletion(network: Network) -> Question:
    """Make the pass that deletes and inserts: [b, mode, method, share], given saliency [b, method, t, n]."""

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
    """The saliency of a key-frame network where its frame lies in the clip."""
    frames = clips.nodes.shape[1]
    if rolled.shape[1] == frames:
        return rolled
    best = jnp.argmax(jnp.where(clips.frame_mask, clips.magnitude, -jnp.inf), axis=1)
    return jax.nn.one_hot(best, frames)[:, :, None] * rolled


def features(run: LoadedRun, names: Sequence[str], corpus: Corpus) -> dict[str, Float[np.ndarray, "b d"]]:
    """What the classifiers of some folds see of all clips, by the name of the fold; seeds side by side."""

    # The clip's own side only: its mirror image has the same answer.
    network = run.trained.network
    network = network._replace(config=dataclasses.replace(network.config, symmetric=False))

    def embed(weights: Weights, clips: ClipBatch) -> Float[Array, "b d"]:
        each = jax.vmap(lambda seed: network_lib.forward(network, seed, clips)[1]["features"])(weights)
        return jnp.concatenate(list(each), axis=-1)

    question = jax.jit(embed)
    return {name: run.trained.ask(name, corpus.batch, question=question, size=EMBEDDED) for name in names}


def by_method(evidence: Evidence) -> Mapping[str, Float[np.ndarray, "b t n"]]:
    """The positive part of each saliency, as shares of the whole."""
    return {name: saliency.spread(value) for name, value in evidence.saliency.items()}
