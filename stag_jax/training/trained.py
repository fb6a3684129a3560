"""Load the trained networks of a run, and evaluate them: fold by fold, in batches, compiled once."""

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int

from stag_jax.model import network as network_lib
from stag_jax.model.network import Network, Statistics, Weights
from stag_jax.motion import nodes
from stag_jax.training import checkpoint, workdir
from stag_jax.types import ClipBatch, UserError

BATCH = 64  # clips evaluated at a time

# (weights of a fold stacked over seeds, raw clips, optional arrays with a row per clip) -> arrays with a row per clip
Question = Callable[..., Any]


class TrainedFolds:
    """The exported networks of a run, one set of weights for each seed and fold; read when first used."""

    def __init__(self, folder: Path) -> None:
        """Open the run in `folder`. Raise UserError if there is none."""
        self.folder = folder
        self.config = workdir.read_config(folder)
        graph = nodes.graph(self.config.graph, self.config.motion)
        self.network: Network = network_lib.make_network(self.config, graph)
        self._weights: dict[str, Weights] = {}

    @property
    def names(self) -> list[str]:
        """Names of the folds, sorted."""
        return checkpoint.fold_names(self.folder)

    def weights(self, fold: str) -> Weights:
        """Return the weights of a fold, with a leading axis of seeds. Raise UserError if the fold does not exist."""
        if fold not in self._weights:
            tree = checkpoint.load_fold(self.folder, fold)
            self._weights[fold] = Weights(tree["params"], Statistics(**tree["statistics"]))
        return self._weights[fold]

    def stacked(self, folds: Sequence[str] = ()) -> tuple[tuple[str, ...], Weights]:
        """Return the names and the weights of some folds, or of all, with one leading axis for folds and seeds.

        The mean over that axis is the mean over folds of means over seeds, since all folds have equally many seeds.

        Raises:
          UserError: a fold does not exist, or there are no folds.
        """
        names = tuple(folds) or tuple(self.names)
        if not names:
            raise UserError(f"{self.folder} has no trained fold")
        return names, jax.tree.map(lambda *leaves: np.concatenate(leaves), *map(self.weights, names))

    def ask(
        self,
        fold: str,
        clips: ClipBatch,
        rows: Int[np.ndarray, " b2"] | None = None,
        *,
        question: Question | None = None,
        given: Sequence[np.ndarray] = (),
        size: int = BATCH,
    ) -> Any:
        """Evaluate the networks of a fold on some clips, `size` at a time.

        Args:
          fold: name of the fold.
          clips: raw clips.
          rows: rows of `clips` to evaluate; None: all.
          question: a compiled function; None: `answers`.
          given: further arrays for `question`, with a row for each of `clips`.
          size: clips in a batch; the last batch is padded by repeating clips, so one program serves all.

        Returns the results of `question` on the host, in the order of `rows`.

        Raises:
          UserError: the fold does not exist.
        """
        weights, question = self.weights(fold), question or self.answers
        rows = np.arange(len(clips.label)) if rows is None else rows
        parts = []
        for start in range(0, len(rows), size):
            chunk = rows[start : start + size]
            padded = np.resize(chunk, size)
            batch = jax.tree.map(lambda x, at=padded: x[at], clips)
            part = jax.device_get(question(weights, batch, *(array[padded] for array in given)))
            count = len(chunk)
            parts.append(jax.tree.map(lambda x, n=count: x[:n], part))
        return jax.tree.map(lambda *leaves: np.concatenate(leaves), *parts)

    @functools.cached_property
    def answers(self) -> Question:
        """Compiled function for class probabilities [b, k] and action units by frame [b, t, u], averaged over seeds."""
        return jax.jit(over_seeds(lambda weights, clips: network_lib.answer(self.network, weights, clips)))

    @functools.cached_property
    def intermediates(self) -> Question:
        """Compiled function for class probabilities [b, k] and all named intermediates, averaged over seeds."""

        def ask(weights: Weights, clips: ClipBatch) -> tuple[Array, dict[str, Array]]:
            logits, aux = network_lib.forward(self.network, weights, clips)
            return jax.nn.softmax(logits), aux

        return jax.jit(over_seeds(ask))


def over_seeds(question: Question) -> Question:
    """Return `question` mapped over stacked weights, with its results averaged."""

    def ask(weights: Weights, *given: Any) -> Any:
        axes = (0, *[None] * len(given))
        return jax.tree.map(lambda x: jnp.mean(x, axis=0), jax.vmap(question, in_axes=axes)(weights, *given))

    return ask
