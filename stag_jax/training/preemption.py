"""Notice signals that ask the run to save and stop."""

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator

from stag_jax.training import hosts

# Signals that schedulers send before they kill a job: the default of `kill`, and the usual warnings of Slurm.
SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)


@contextlib.contextmanager
def notice() -> Iterator[Callable[[], bool]]:
    """Yield a function that returns whether to save and stop: whether any process has received one of `SIGNALS`.

    All processes must call it together; it returns the same in all of them.
    """
    seen = threading.Event()
    # Python sets signal handlers in the main thread only; a run in another thread has none.
    old = {}
    if threading.current_thread() is threading.main_thread():
        old = {number: signal.signal(number, lambda *_: seen.set()) for number in SIGNALS}
    try:
        yield lambda: hosts.smallest(int(not seen.is_set())) == 0
    finally:
        for number, handler in old.items():
            # None: the previous handler was not set from Python.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
