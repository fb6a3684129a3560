"""Checkpoints on disk: the stacked state of all members for resuming, and one folder for each trained fold.

The only module that imports Orbax. Orbax writes into a temporary folder and commits at the end, so a process killed
during a save leaves the checkpoint before it. Old states are deleted, folds never are.
"""

import logging as std_logging
import shutil
from pathlib import Path
from typing import Any

import jax
import numpy as np
from absl import logging as absl_logging
from orbax.checkpoint import v1 as ocp

from stag_jax.training import hosts, naming
from stag_jax.types import UserError

STATE = "state"
FOLDS = "folds"
UNFINISHED = ".orbax-checkpoint-tmp"  # in the names of folders that Orbax has not committed


class StateStore:
    """The saved states of a run, written in the background; a context manager that waits for the last save.

    All processes of a run save and load together, each the members on its own devices.
    """

    def __init__(self, workdir: Path, keep: int) -> None:
        _quiet()
        self.folder = (workdir / STATE).absolute()
        # Any: the policies of Orbax do not match its own protocols.
        save_every_step: Any = ocp.training.save_decision_policies.FixedIntervalPolicy(1)
        keep_newest: Any = ocp.training.preservation_policies.LatestN(keep)
        self._checkpointer = ocp.training.Checkpointer(
            str(self.folder),
            # The training loop decides when to save.
            save_decision_policy=save_every_step,
            preservation_policy=keep_newest,
            cleanup_tmp_directories=True,
        )

    def __enter__(self) -> "StateStore":
        return self

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        try:
            try:
                self.wait()  # closing ends the event loop of the thread that still saves
            finally:
                self._checkpointer.close()
        except Exception:
            # A background save fails for the same reason as the run itself, e.g. a removed folder: raise that one.
            if kind is None:
                raise

    def latest(self) -> int | None:
        """Return the newest saved step; None if there is none."""
        newest = self._checkpointer.latest
        return None if newest is None else int(newest.step)

    def save(self, step: int, chunks: list[Any], elapsed_s: float) -> None:
        """Start saving chunks of stacked members. Give copies: the arrays must not be donated meanwhile."""
        if step != self.latest():
            self._checkpointer.save_async(step, {"chunks": chunks, "elapsed_s": np.asarray(elapsed_s)})

    def wait(self) -> None:
        """Wait until all started saves are on disk."""
        self._checkpointer.wait()

    def load(self, member: Any, count: int) -> tuple[int, Any, float] | None:
        """Load the newest readable state: its step, `count` stacked members on the host, and the seconds so far.

        The state may have been saved in other chunks and on another number of devices. If one cannot be read, the one
        before it is loaded and the damaged one removed, so that its step can be saved again. None if nothing was saved.

        Args:
          member: shapes of one member.
          count: how many there are.

        Raises:
          UserError: there are states, but none can be read.
        """
        steps = sorted((int(saved.step) for saved in self._checkpointer.checkpoints), reverse=True)
        for index, step in enumerate(steps):
            try:
                loaded = (step, *self._load(step, member, count))
            except Exception as error:  # a damaged file can raise anything
                absl_logging.warning("%s/%d cannot be read (%s)", self.folder, step, str(error).partition("\n")[0])
                continue
            for damaged in steps[:index]:
                self._checkpointer.delete(damaged)
            return loaded
        if steps:
            raise UserError(f"none of the states in {self.folder} can be read; remove the folder to begin afresh")
        return None

    def _load(self, step: int, member: Any, count: int) -> tuple[Any, float]:
        saved = self._checkpointer.metadata(step).metadata["chunks"]
        sizes = [jax.tree.leaves(chunk)[0].shape[0] for chunk in saved]
        chunks = [
            jax.tree.map(lambda x, size=size: np.broadcast_to(np.zeros((), x.dtype), (size, *x.shape)), member)
            for size in sizes
        ]
        loaded = self._checkpointer.load(step, {"chunks": chunks, "elapsed_s": np.zeros(())})
        stacked = jax.tree.map(lambda *leaves: np.concatenate(leaves)[:count], *loaded["chunks"])
        for want, got in zip(jax.tree.leaves(member), jax.tree.leaves(stacked), strict=True):
            if got.shape != (count, *want.shape):
                raise ValueError(f"holds {got.shape} where {(count, *want.shape)} is needed")
        return stacked, float(loaded["elapsed_s"])


def remove_state(workdir: Path) -> None:
    """Remove the states for resuming, which a finished run does not need."""
    shutil.rmtree(workdir / STATE, ignore_errors=True)


def save_fold(workdir: Path, name: str, tree: Any) -> None:
    """Write one fold's parameters and statistics below `<workdir>/folds`, unless they exist.

    All processes of a run call this together.
    """
    folder = str(naming.find(workdir / FOLDS, name).absolute())
    if not hosts.same(np.asarray(ocp.is_orbax_checkpoint(folder))):
        ocp.save(folder, tree, overwrite=True)


def fold_names(workdir: Path) -> list[str]:
    """List the folds that were exported, sorted."""
    return [name for name in naming.names(workdir / FOLDS) if UNFINISHED not in name]


def load_fold(workdir: Path, name: str, like: Any = None) -> Any:
    """Load the tree of one fold, every leaf with a leading axis of seeds; in the structure of `like` if given.

    Raises:
      UserError: there is no such fold; the folds that exist are named.
    """
    folder = naming.find(workdir / FOLDS, name).absolute()
    if not folder.is_dir() or not ocp.is_orbax_checkpoint(str(folder)):
        raise UserError(f"{workdir} has no fold {name!r}; there are: {', '.join(fold_names(workdir)) or 'none'}")
    _quiet()
    return ocp.load(str(folder), like)


def _quiet() -> None:
    """Hide the log of Orbax: every step of every save, and tracebacks of errors that it also raises."""
    std_logging.getLogger("absl").addFilter(_not_of_orbax)  # added once, however often this is called


def _not_of_orbax(record: std_logging.LogRecord) -> bool:
    return "orbax" not in Path(record.pathname).parts
