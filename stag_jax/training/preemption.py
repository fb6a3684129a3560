"""Notice that the machine is wanted for something else."""

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator

from stag_jax.training import hosts

# What schedulers send ahead of the end: kill's own default, and those that Slurm jobs are usually warned by.
SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)


@contextlib.contextmanager
def notice() -> Iterator[Callable[[], bool]]:
    """Gives a function that says whether to save and leave: whether one of `SIGNALS` has come, to any process.

    All processes must call it together; it tells all of them the same.
    """
    seen = threading.Event()
    # Signals are the main thread's business; a run in another thread goes without.
    old = {}
    if threading.current_thread() is threading.main_thread():
        old = {number: signal.signal(number, lambda *_: seen.set()) for number in SIGNALS}
    try:
        yield lambda: hosts.smallest(int(not seen.is_set())) == 0
    finally:
        for number, handler in old.items():
            # None: what was there before is not Python's.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
