"""Worker processes, and the number of usable cores: as in stag_jax, which nothing in this package imports.

Only the main process handles signals: workers block them, and exit when the main process has ended.
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
    """A process started with `SIGNALS` blocked, so that its imports are not interrupted either."""

    def start(self) -> None:
        """Start the process; it inherits the signal mask set here."""
        before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        try:
            super().start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


class _Context(SpawnContext):
    Process = _Worker


def pool(workers: int, initializer: Callable[[], None] | None = None) -> ProcessPoolExecutor:
    """Make a pool of spawned processes; a forked one could hang because of threads that JAX has started.

    `initializer` is called in each process.
    """
    return ProcessPoolExecutor(workers, mp_context=_Context(), initializer=_begin, initargs=(initializer,))


def _begin(initializer: Callable[[], None] | None) -> None:
    threading.Thread(target=_follow, daemon=True).start()
    if initializer is not None:
        initializer()


def _follow() -> None:
    """Exit when the parent process has ended, for whatever reason."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
