"""One clip through the folds of a finished run."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from stag_jax.motion.extract import extract
from stag_jax.training import dataset, restore
from stag_jax.types import Clip, UserError


class Prediction(NamedTuple):
    """What the ensemble says of a clip."""

    classes: tuple[str, ...]
    probability: Float[np.ndarray, " k"]
    units: tuple[int, ...]
    au_probability: Float[np.ndarray, " u"]  # largest over the frames that were looked at


def predict(folder: Path, clip: Clip, folds: Sequence[str] = ()) -> Prediction:
    """The mean over the named folds (all, if none is named) of the run in `folder`.

    Raises:
      UserError: no run, no such fold, a run on flow images, or a clip that features cannot be extracted from.
    """
    run = restore.open_run(folder)
    config = run.config
    names = tuple(folds) or tuple(restore.fold_names(run))
    if not names:
        raise UserError(f"{folder} has no trained fold")
    batch = dataset.one(extract(clip, config), config)
    outputs = [restore.apply(run, restore.load_fold(run, name), batch) for name in names]
    probability = np.mean([probability[0] for probability, _ in outputs], axis=0)
    au = np.mean([_au_probability(aux, batch.frame_mask, len(config.graph.units)) for _, aux in outputs], axis=0)
    return Prediction(config.data.classes, probability, config.graph.units, au)


def _au_probability(aux: dict[str, np.ndarray], frame_mask: np.ndarray, units: int) -> Float[np.ndarray, " u"]:
    """The largest over the frames of the one clip, padding left out; NaN from a network without an AU head a frame."""
    if "au_probability" not in aux:
        return np.full(units, np.nan)
    seen = restore.frames_seen(aux, frame_mask)
    return np.max(aux["au_probability"], axis=1, where=seen[..., None], initial=0.0)[0]
