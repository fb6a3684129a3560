"""Record predictions of held-out clips and metrics of every member during training; one file a dispatch.

The record is for analysis only: learning curves of folds, and the score that a run would have reported if it had
chosen its epoch on the test subjects. Training and selection never read it.
"""

import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from stag_jax import files
from stag_jax.model import network
from stag_jax.model.network import Outputs
from stag_jax.training import hosts
from stag_jax.training.roster import Roster, by_fold, scatter
from stag_jax.types import UserError

FOLDER = "history"
PROBABILITY = "probability"


class History(NamedTuple):
    """The record of all dispatches of a run, first to last."""

    steps: Int[np.ndarray, " i"]  # steps taken at the end of each dispatch
    probability: Float[np.ndarray, "i seed b k"]  # of the clips that are tested, as in splits.csv
    metrics: dict[str, Float[np.ndarray, "i seed s"]]  # of the training steps of each dispatch, by member


def recorder(folder: Path, roster: Roster, clips: int) -> Callable[[int, Outputs, dict[str, Any]], None]:
    """Make the function that writes `<folder>/history/<step>.npz`, given step, predictions of test rows and metrics.

    A run that is resumed takes the same dispatches again and writes the same files again.
    """
    folds = roster.shape[-1]
    rows, mask = roster.test_rows[:folds], roster.test_mask[:folds]

    def record(step: int, predicted: Outputs, metrics: dict[str, Any]) -> None:
        if not hosts.first():
            return
        probability, _ = network.probabilities(predicted)
        ordered = scatter(by_fold(np.asarray(probability), roster), rows, mask, clips)[0]
        tested = ~np.isnan(ordered).any(axis=(0, 2))
        by_member = {name: by_fold(np.asarray(value), roster)[0] for name, value in metrics.items()}
        with files.write_atomically(folder / FOLDER / f"{step:08d}.npz") as temporary:
            np.savez(temporary, **{PROBABILITY: ordered[:, tested]}, **by_member)

    return record


def read(folder: Path) -> History | None:
    """Read the record of a workdir; None if there is none.

    Raises:
      UserError: a file is damaged, or belongs to another run; it is named.
    """
    records: list[tuple[int, dict[str, np.ndarray]]] = []
    for path in sorted((folder / FOLDER).glob("[0-9]*.npz")):
        try:
            with path.open("rb") as handle, np.load(handle) as file:
                arrays = {name: file[name] for name in file.files}
            step = int(path.stem)
        except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
            raise UserError(f"{path} is damaged ({error}); remove it to look at the run without it") from error
        shapes = {name: array.shape for name, array in arrays.items()}
        if PROBABILITY not in arrays or (records and shapes != {name: a.shape for name, a in records[0][1].items()}):
            raise UserError(f"{path} is not of the same run as the files beside it")
        records.append((step, arrays))
    if not records:
        return None
    stacked = {name: np.stack([arrays[name] for _, arrays in records]) for name in records[0][1]}
    probability = stacked.pop(PROBABILITY)
    return History(np.array([step for step, _ in records]), probability, stacked)
