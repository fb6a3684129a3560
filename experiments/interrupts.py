"""Handle Ctrl-C and the signals of schedulers: one line and an exit code, at any point of a script.

This module is imported before anything slow, so that the imports themselves are covered; it does nothing unless the
program is one of the scripts in this folder. Before `raise_them` a signal ends the process at once, because no work has
started. Afterwards it is raised in the main thread as KeyboardInterrupt, so that unfinished files are removed, and
`leave` ends the process without finalising the interpreter, which can crash under XLA's threads. A main thread that
does not react within `GRACE_S`, for example while XLA compiles, is ended by another thread; a second signal ends the
process at once.
"""

import atexit
import os
import signal
import socket
import sys
import threading
import time
from pathlib import Path
from types import FrameType, TracebackType
from typing import NoReturn

INTERRUPTED = 130  # 128 + SIGINT, as shells have it
TRY_AGAIN = 75  # EX_TEMPFAIL of sysexits.h
GRACE_S = 3.0
# Ctrl-C; the default of kill; the two that usually warn Slurm jobs.
NUMBERS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)

_heard: list[int] = []  # the signals received, in order


def leave() -> NoReturn:
    """Print which signal came, remove unfinished files, and end the process and its workers."""
    number = _heard[0] if _heard else signal.SIGINT
    name = "interrupted" if number == signal.SIGINT else f"stopped by {signal.Signals(number).name}"
    files = sys.modules.get("stag_jax.files")
    if files is not None:
        files.discard_unfinished()
    processes = sys.modules.get("multiprocessing")
    if processes is not None:
        for child in processes.active_children():
            child.kill()
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            pass  # closed, or without a reader
    # Not with `print`: the main thread may be inside one. The line may already hold a progress bar.
    os.write(2, f"\n{name}; run the same command again to go on\n".encode())
    os._exit(INTERRUPTED if number == signal.SIGINT else TRY_AGAIN)


def raise_them() -> None:
    """Raise signals as KeyboardInterrupt in the main thread from now on; it then calls `leave`."""
    if not _ours():
        return
    reader, writer = socket.socketpair()
    writer.setblocking(False)
    sys.unraisablehook = _unraisable
    sys.excepthook = _uncaught
    for number in NUMBERS:
        signal.signal(number, _raise)
    # Handlers run only when the main thread is back in Python; this reports a signal at once.
    signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
    threading.Thread(target=_watch, args=(reader, writer), name="signals", daemon=True).start()


def end_at_once() -> None:
    """End the process at a signal from now on."""
    if _ours():
        for number in NUMBERS:
            signal.signal(number, _end)


def _raise(number: int, frame: FrameType | None) -> None:
    del frame
    _heard.append(number)
    if len(_heard) > 1:
        leave()
    raise KeyboardInterrupt


def _unraisable(args: "sys.UnraisableHookArgs") -> None:
    """Ignore an interrupt during a finaliser, where it cannot be raised; `_watch` still handles it."""
    if not issubclass(args.exc_type, KeyboardInterrupt):
        sys.__unraisablehook__(args)


def _uncaught(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Print an uncaught error, but not the echo of a failed save: its threads find their event loop closed."""
    if not (kind is RuntimeError and str(error) == "Event loop is closed"):
        sys.__excepthook__(kind, error, trace)


def _watch(reader: socket.socket, writer: socket.socket) -> None:
    del writer  # the argument keeps it open while this runs
    while True:
        number = reader.recv(1)[0]
        # Training and the camera install their own handlers while they run.
        if number in NUMBERS and signal.getsignal(number) is _raise:
            time.sleep(GRACE_S)
            if not _heard:
                _heard.append(number)
            leave()


def _end(number: int, frame: FrameType | None) -> None:
    del frame
    _heard.append(number)
    leave()


def pass_over() -> None:
    """From here on ignore signals: where Python ends, it would give them back to the system, which kills."""
    for number in NUMBERS:
        signal.signal(number, signal.SIG_IGN)


def _ours() -> bool:
    """Return whether this process runs a script of this folder and is not a worker of one."""
    script = getattr(sys.modules.get("__main__"), "__file__", None)
    processes = sys.modules.get("multiprocessing.process")
    worker = processes is not None and processes.parent_process() is not None
    return script is not None and Path(script).resolve().parent == Path(__file__).resolve().parent and not worker


end_at_once()
if _ours():
    atexit.register(pass_over)  # the first to be registered is the last to be called
