"""The folds of a finished run as a recogniser, and one clip through any recogniser."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Float

from stag_jax.deploy.results import Answer, Recogniser, largest_units
from stag_jax.motion import nodes
from stag_jax.motion.extract import extract
from stag_jax.types import Clip, ClipBatch, UserError


class Prediction(NamedTuple):
    """What the ensemble says of a clip."""

    classes: tuple[str, ...]
    probability: Float[np.ndarray, " k"]
    units: tuple[int, ...]
    au_probability: Float[np.ndarray, " u"]  # largest over the frames that were looked at


def from_run(folder: Path, folds: Sequence[str] = ()) -> Recogniser:
    """The mean over the named folds (all, if none is named) of the run in `folder`, in one program.

    Raises:
      UserError: no run, no such fold, or none trained.
    """
    # Here alone, so that an exported network looks at clips without the packages of training.
    from stag_jax.training import restore

    run = restore.open_run(folder)
    names = tuple(folds) or tuple(restore.fold_names(run))
    if not names:
        raise UserError(f"{folder} has no trained fold")
    each = [restore.load_fold(run, name) for name in names]
    # Folds and seeds are one axis: the mean over both is the mean of the means, since folds have as many seeds.
    together = jax.tree.map(lambda *leaves: np.concatenate(leaves), *((fold.params, fold.statistics) for fold in each))
    units = len(run.config.graph.units)

    def forward(clips: ClipBatch) -> Answer:
        shown = clips._replace(nodes=nodes.shown(clips.nodes, run.config))
        # Not by `restore.apply`, which averages every intermediate: a third more time for each window of a stream.
        probability, aux = run.forward(together, shown)
        missing = np.full((len(clips.nodes), 1, units), np.nan)
        au = np.asarray(aux["au_probability"]).mean(axis=0) if "au_probability" in aux else missing
        return Answer(np.asarray(probability).mean(axis=0), au)

    digest = hashlib.sha256()
    for leaf in jax.tree.leaves(together):
        digest.update(np.ascontiguousarray(leaf).tobytes())
    return Recogniser(folder.name, run.config, forward, digest.hexdigest())


def predict(recogniser: Recogniser, clip: Clip) -> Prediction:
    """What a recogniser says of one clip, taken to begin at its onset.

    Raises:
      UserError: a network for flow images, or a clip that features cannot be extracted from.
    """
    config = recogniser.config
    batch = nodes.one(extract(clip, config), config)
    answer = recogniser.forward(batch)
    units = largest_units(answer, batch.frame_mask)[0]
    return Prediction(config.data.classes, answer.probability[0], config.graph.units, units)
