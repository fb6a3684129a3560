"""Notice that the machine is wanted for something else."""

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator

import jax
from jax.experimental import multihost_utils

# What schedulers send ahead of the end: kill's own default, and those that Slurm jobs are usually warned by.
SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)


@contextlib.contextmanager
def notice() -> Iterator[Callable[[int], bool]]:
    """Gives a function of the step that says whether to save and leave.

    In one process that is so once one of `SIGNALS` has come. Several agree on one step: their runtime hears of SIGTERM
    or of the platform's notice in any of them.
    """
    if jax.process_count() > 1:
        yield multihost_utils.reached_preemption_sync_point
        return
    seen = threading.Event()
    # Signals are the main thread's business; a run in another thread goes without.
    old = {}
    if threading.current_thread() is threading.main_thread():
        old = {number: signal.signal(number, lambda *_: seen.set()) for number in SIGNALS}
    try:
        yield lambda step: seen.is_set()
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)
