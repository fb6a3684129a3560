"""Trained folds back from a workdir, ready to be applied to clips."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from stag_jax.motion import nodes
from stag_jax.training import checkpoint, fold, workdir
from stag_jax.types import ClipBatch


class TrainedFold(NamedTuple):
    """One fold's networks, one a seed: every leaf of `params` and `statistics` has a leading axis of seeds."""

    name: str
    task: fold.Task
    params: Any
    statistics: fold.Statistics


def fold_names(folder: Path) -> list[str]:
    """The folds that were exported to a workdir, in order."""
    return sorted(path.name for path in (folder / checkpoint.FOLDS).glob("*") if path.is_dir())


def load_fold(folder: Path, name: str) -> TrainedFold:
    """The fold that held out `name`. Raises UserError where the workdir or the fold does not exist."""
    config = workdir.read_config(folder)
    graph = nodes.graph(config.graph, config.motion)
    tree = checkpoint.load_fold(folder, name)
    task = fold.make_task(config, graph, config.train.batch_size)
    return TrainedFold(name, task, tree["params"], fold.Statistics(**tree["statistics"]))


def apply(trained: TrainedFold, clips: ClipBatch) -> tuple[Float[np.ndarray, "b k"], dict[str, np.ndarray]]:
    """Probabilities of raw clips, and the named intermediates of the network, both averaged over seeds."""
    clips = jax.tree.map(jnp.asarray, clips)

    def one(params: Any, statistics: fold.Statistics) -> tuple[Array, dict[str, Array]]:
        logits, aux = fold.forward(trained.task, clips, params, statistics)
        return jax.nn.softmax(logits), aux

    probability, aux = jax.vmap(one)(trained.params, trained.statistics)
    return np.asarray(probability).mean(axis=0), {name: np.asarray(value).mean(axis=0) for name, value in aux.items()}


def frames_seen(aux: Mapping[str, Any], frame_mask: Bool[np.ndarray, "b t"]) -> Bool[np.ndarray, "b t2"]:
    """Which frames the intermediates of `apply` speak of: the unmasked ones, or the one that a key-frame model kept."""
    frames = aux["au_probability"].shape[1] if "au_probability" in aux else frame_mask.shape[1]
    return frame_mask if frames == frame_mask.shape[1] else np.ones((len(frame_mask), frames), bool)
