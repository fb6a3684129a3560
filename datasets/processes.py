"""Worker processes, and the number of usable cores: as in stag_jax, which nothing in this package imports.

Only the main process handles signals: workers block them, and end when the main process has ended.
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
    import joblib  # slow to import, and not always needed

    return joblib.cpu_count()


class _Worker(SpawnProcess):
    """A process started with `SIGNALS` blocked, so that not even its imports are interrupted."""

    def start(self) -> None:
        """Start the process; it inherits the current signal mask."""
        previous_mask = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        try:
            super().start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, previous_mask)


class _Context(SpawnContext):
    Process = _Worker


def pool(workers: int, initializer: Callable[[], None] | None = None) -> ProcessPoolExecutor:
    """Make a pool of spawned processes; forked ones could hang because of the threads that JAX has started.

    `initializer` is called in each of them.
    """
    return ProcessPoolExecutor(workers, mp_context=_Context(), initializer=_begin, initargs=(initializer,))


def _begin(initializer: Callable[[], None] | None) -> None:
    threading.Thread(target=_follow, daemon=True).start()
    if initializer is not None:
        initializer()


def _follow() -> None:
    """End this process when its parent has ended for any reason."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
