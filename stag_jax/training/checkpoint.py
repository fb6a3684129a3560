"""Checkpoints on disk: the stacked state of all members for resuming, and one folder a fold for use.

The only module that imports Orbax. It writes into a temporary folder and commits at the end, so a kill in the middle
of a save leaves the checkpoint before it.
"""

import logging as std_logging
from pathlib import Path
from typing import Any

import jax
import numpy as np
from absl import logging as absl_logging
from orbax.checkpoint import v1 as ocp

from stag_jax.types import UserError

STATE = "state"
FOLDS = "folds"


class StateStore:
    """The stacked state of a run, saved in the background; a context manager that waits for the last save."""

    def __init__(self, workdir: Path, keep: int) -> None:
        policy = ocp.training.preservation_policies.LatestN(keep)
        _quiet()
        self._checkpointer = ocp.training.Checkpointer(
            (workdir / STATE).absolute(),
            # When to save is the loop's decision.
            save_decision_policy=ocp.training.save_decision_policies.FixedIntervalPolicy(1),
            preservation_policy=policy,
        )

    def __enter__(self) -> "StateStore":
        return self

    def __exit__(self, *error: object) -> None:
        self._checkpointer.close()

    def latest(self) -> int | None:
        """The newest saved step."""
        found = self._checkpointer.latest
        return None if found is None else int(found.step)

    def save(self, step: int, tree: Any) -> None:
        """Starts saving; the arrays are copied first, so that the run may go on."""
        if step != self.latest():
            self._checkpointer.save_async(step, jax.tree.map(np.array, tree))

    def load(self, step: int, like: Any) -> Any:
        """The state of `step`, in the structure, dtypes and shardings of `like`."""
        abstract = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), like)
        return self._checkpointer.load(step, abstract)


def save_fold(workdir: Path, name: str, tree: Any) -> None:
    """Writes one fold's parameters and statistics to `<workdir>/folds/<name>`, unless they are there."""
    folder = (workdir / FOLDS / name).absolute()
    if not ocp.is_orbax_checkpoint(folder):
        ocp.save(folder, tree, overwrite=True)


def load_fold(workdir: Path, name: str, like: Any = None) -> Any:
    """The tree of one fold, every leaf with a leading axis of seeds; in the structure of `like` if given.

    Raises:
      UserError: there is no such fold; the folds that exist are named.
    """
    folder = (workdir / FOLDS / name).absolute()
    if not folder.is_dir() or not ocp.is_orbax_checkpoint(folder):
        there = sorted(path.name for path in folder.parent.glob("*")) if folder.parent.is_dir() else []
        raise UserError(f"{workdir} has no fold {name!r}; there are: {', '.join(there) or 'none'}")
    _quiet()
    return ocp.load(folder, like)


def _quiet() -> None:
    """Orbax reports every step of every save at INFO, through absl's logger."""
    if absl_logging.get_verbosity() <= absl_logging.INFO:
        std_logging.getLogger("absl").setLevel(std_logging.WARNING)
