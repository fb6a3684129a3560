"""Trained folds back from a workdir, ready to be applied to clips."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from stag_jax.config import Config
from stag_jax.motion import nodes
from stag_jax.training import checkpoint, fold, workdir
from stag_jax.types import ClipBatch


class Run(NamedTuple):
    """A workdir that was opened: its settings, and its network compiled once for all folds."""

    folder: Path
    config: Config
    task: fold.Task
    forward: Callable[..., tuple[Array, dict[str, Array]]]


class TrainedFold(NamedTuple):
    """One fold's networks, one a seed: every leaf has a leading axis of seeds."""

    name: str
    params: Any
    statistics: fold.Statistics


def open_run(folder: Path) -> Run:
    """The run in a workdir. Raises UserError where there is none."""
    config = workdir.read_config(folder)
    task = fold.make_task(config, nodes.graph(config.graph, config.motion), config.train.batch_size)

    def forward(trained: tuple[Any, fold.Statistics], clips: ClipBatch) -> tuple[Array, dict[str, Array]]:
        logits, aux = fold.forward(task, clips, *trained)
        return jax.nn.softmax(logits), aux

    return Run(folder, config, task, jax.jit(jax.vmap(forward, in_axes=(0, None))))


def fold_names(run: Run) -> list[str]:
    """The folds that were exported, in order."""
    return checkpoint.fold_names(run.folder)


def load_fold(run: Run, name: str) -> TrainedFold:
    """The fold that held out `name`. Raises UserError where it does not exist."""
    tree = checkpoint.load_fold(run.folder, name)
    return TrainedFold(name, tree["params"], fold.Statistics(**tree["statistics"]))


def apply(run: Run, trained: TrainedFold, clips: ClipBatch) -> tuple[Float[np.ndarray, "b k"], dict[str, np.ndarray]]:
    """Probabilities of raw clips, and the named intermediates of the network, both averaged over seeds.

    Compiles once for each number of clips.
    """
    probability, aux = run.forward((trained.params, trained.statistics), jax.tree.map(jnp.asarray, clips))
    return np.asarray(probability).mean(axis=0), {name: np.asarray(value).mean(axis=0) for name, value in aux.items()}


def frames_seen(aux: Mapping[str, Any], frame_mask: Bool[np.ndarray, "b t"]) -> Bool[np.ndarray, "b t2"]:
    """Which frames the intermediates of `apply` speak of: the unmasked ones, or the one that a key-frame model kept."""
    frames = aux["au_probability"].shape[1] if "au_probability" in aux else frame_mask.shape[1]
    return frame_mask if frames == frame_mask.shape[1] else np.ones((len(frame_mask), frames), bool)
