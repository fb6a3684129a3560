"""Worker processes, and how many of them this process may use: as in stag_jax, which nothing here imports.

Signals are the business of the main process: workers do not hear them, and go when it is gone.
"""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing.context import SpawnContext, SpawnProcess

SIGNALS = {signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2}


def cores() -> int:
    """Count the cores that this process may use: by affinity (taskset, Slurm) and by the limits of its container."""
    import joblib  # slow, and not needed by all who import this

    return joblib.cpu_count()


class _Worker(SpawnProcess):
    """A process that is started with `SIGNALS` blocked, so that not even its imports are interrupted."""

    def start(self) -> None:
        """Start it; what it inherits is the mask of this moment."""
        before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        try:
            super().start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


class _Context(SpawnContext):
    Process = _Worker


def pool(workers: int, initializer: Callable[[], None] | None = None) -> ProcessPoolExecutor:
    """Make a pool of spawned processes; a forked one could hang in the threads that JAX has started.

    `initializer` is called in each of them.
    """
    return ProcessPoolExecutor(workers, mp_context=_Context(), initializer=_begin, initargs=(initializer,))


def _begin(initializer: Callable[[], None] | None) -> None:
    threading.Thread(target=_follow, daemon=True).start()
    if initializer is not None:
        initializer()


def _follow() -> None:
    """End this process when the one that started it has ended, however it did."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
