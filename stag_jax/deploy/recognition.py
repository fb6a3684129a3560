"""The folds of a finished run as a recogniser, and one clip through any recogniser."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from stag_jax.deploy.results import Answer, Recogniser, largest_units
from stag_jax.motion import nodes
from stag_jax.motion.extract import extract
from stag_jax.types import Clip, ClipBatch


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
    from stag_jax.training.trained import TrainedFolds

    trained = TrainedFolds(folder)
    _, weights = trained.stacked(folds)
    digest = hashlib.sha256()
    for leaf in jax.tree.leaves(weights):
        digest.update(np.ascontiguousarray(leaf).tobytes())
    weights = jax.tree.map(jnp.asarray, weights)  # on the device once, and not for every window

    def forward(clips: ClipBatch) -> Answer:
        return Answer(*jax.device_get(trained.answers(weights, clips)))

    return Recogniser(folder.name, trained.config, forward, digest.hexdigest())


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
