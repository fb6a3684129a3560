"""Several processes as one run: XLA's own multi-process runtime, which finds Slurm, Open MPI and TPU pods by itself."""

import hashlib
from collections.abc import Callable
from typing import Any, TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils

from stag_jax.types import UserError

T = TypeVar("T")

SHUTDOWN_S = 30  # a process that fails waits so long for the others, who are then ended


def connect(coordinator: str | None = None, processes: int | None = None, process: int | None = None) -> None:
    """Joins the run that the environment tells of, or the one at `coordinator` ("host:port"); before any use of jax.

    Raises:
      UserError: there is nothing to join, or it did not answer.
    """
    # The runtime would take SIGTERM for itself, and tell of it only at the very next number of a count of steps.
    jax.config.update("jax_enable_preemption_service", False)
    try:
        jax.distributed.initialize(coordinator, processes, process, shutdown_timeout_seconds=SHUTDOWN_S)
    except (ValueError, RuntimeError) as error:
        raise UserError(
            f"--distributed: {error}; outside of Slurm, Open MPI and TPU pods give --coordinator=HOST:PORT, "
            "--num_processes and --process_id"
        ) from error


def first() -> bool:
    """Whether this process is the one that writes files and prints."""
    return jax.process_index() == 0


def say(line: str) -> None:
    """Prints a line once, however many processes there are."""
    if first():
        print(line, flush=True)


def in_turn(work: Callable[[], T]) -> T:
    """The first process does `work` before the others, who then find on a shared disk what it has left there."""
    if jax.process_count() == 1:
        return work()
    # Whoever failed must still meet the others, or they would wait for ever.
    result, error = None, None
    for turn in (True, False):
        if first() == turn:
            try:
                result = work()
            except Exception as caught:
                error = caught
        failed = multihost_utils.process_allgather(np.asarray(error is not None))
        if failed.any():
            raise error or UserError(f"process {int(np.flatnonzero(failed)[0])} has failed; see its own message")
    return result


def agree(what: str, value: str) -> None:
    """Raises UserError unless all processes hold the same text, e.g. the fingerprint of the data."""
    if jax.process_count() == 1:
        return
    own = np.frombuffer(hashlib.sha256(value.encode()).digest(), np.uint8)
    all_of_them = multihost_utils.process_allgather(own)
    for index, other in enumerate(all_of_them):
        if not np.array_equal(other, all_of_them[0]):
            raise UserError(f"{what} of process {index} is not that of process 0")


def same(value: Any) -> Any:
    """The array of the first process, in all of them."""
    return value if jax.process_count() == 1 else np.asarray(multihost_utils.broadcast_one_to_all(value))


def smallest(value: int) -> int:
    """The smallest of what the processes say."""
    return value if jax.process_count() == 1 else int(multihost_utils.process_allgather(np.asarray(value)).min())


def describe() -> str:
    """The devices that were found, and in how many processes."""
    devices = jax.devices()
    kind = f"{len(devices)} {devices[0].platform} device{'s' * (len(devices) > 1)} ({devices[0].device_kind})"
    if jax.process_count() > 1:
        kind += f" in {jax.process_count()} processes"
    return kind
