"""Several processes as one run, by the multi-process runtime of JAX, which detects Slurm, Open MPI and TPU pods."""

import hashlib
from collections.abc import Callable
from typing import Any, TypeVar, cast

import jax
import numpy as np
from jax.experimental import multihost_utils

from stag_jax.types import UserError

T = TypeVar("T")

SHUTDOWN_S = 30  # a failed process waits so long for the others, which are then ended


def connect(coordinator: str | None = None, processes: int | None = None, process: int | None = None) -> None:
    """Join the run given by the environment, or by `coordinator` ("host:port"). Call it before any other use of jax.

    Raises:
      UserError: there is no run to join, or it did not answer.
    """
    # The runtime's own service would catch SIGTERM, and report it only through its own step counter.
    jax.config.update("jax_enable_preemption_service", False)
    try:
        jax.distributed.initialize(coordinator, processes, process, shutdown_timeout_seconds=SHUTDOWN_S)
    except (ValueError, RuntimeError) as error:
        raise UserError(
            f"--distributed: {error}; outside of Slurm, Open MPI and TPU pods give --coordinator=HOST:PORT, "
            "--num_processes and --process_id"
        ) from error


def first() -> bool:
    """Return whether this is the process that writes files and prints."""
    return jax.process_index() == 0


def say(line: str) -> None:
    """Print a line once, however many processes there are."""
    if first():
        print(line, flush=True)


def in_turn(work: Callable[[], T]) -> T:
    """Do `work` in the first process, then in the others, which find the files of the first on a shared disk."""
    if jax.process_count() == 1:
        return work()
    # A process that failed must still take part in the collective, or the others would wait for ever.
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
    return cast(T, result)


def agree(what: str, value: str) -> None:
    """Raise UserError unless all processes have the same text, e.g. the fingerprint of the data."""
    if jax.process_count() == 1:
        return
    digest = np.frombuffer(hashlib.sha256(value.encode()).digest(), np.uint8)
    digests = multihost_utils.process_allgather(digest)
    for index, other in enumerate(digests):
        if not np.array_equal(other, digests[0]):
            raise UserError(f"{what} of process {index} is not that of process 0")


def same(value: Any) -> Any:
    """Return the first process's value in all processes."""
    return value if jax.process_count() == 1 else np.asarray(multihost_utils.broadcast_one_to_all(value))


def smallest(value: int) -> int:
    """Return the smallest value of all processes."""
    return value if jax.process_count() == 1 else int(multihost_utils.process_allgather(np.asarray(value)).min())


def describe() -> str:
    """Describe the devices and the number of processes in a few words."""
    devices = jax.devices()
    kind = f"{len(devices)} {devices[0].platform} device{'s' * (len(devices) > 1)} ({devices[0].device_kind})"
    if jax.process_count() > 1:
        kind += f" in {jax.process_count()} processes"
    return kind
