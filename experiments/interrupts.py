"""Ctrl-C and the signals of schedulers: one line and an exit code, wherever in a script they come.

Imported before anything slow, so that the imports themselves are covered; it does nothing unless the program is one of
the scripts beside it. Until `raise_them` a signal ends the process at once, since nothing has been begun. Afterwards it
is raised in the main thread as KeyboardInterrupt, so that what is half-written is put away, and `leave` ends the
process without finalising the interpreter, which under XLA's threads can crash. A main thread that does not hear, as
while XLA compiles, has `GRACE_S`; so has one that hears a second time.
"""

import atexit
import os
import signal
import socket
import sys
import threading
import time
from pathlib import Path
from types import FrameType
from typing import NoReturn

INTERRUPTED = 130  # 128 + SIGINT, as shells have it
TRY_AGAIN = 75  # EX_TEMPFAIL of sysexits.h
GRACE_S = 3.0
# Ctrl-C; kill's default; those that Slurm jobs are usually warned by.
NUMBERS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)

_heard: list[int] = []  # the signals that came, in order


def leave() -> NoReturn:
    """Say which signal came, put away what is half-written, and end the process and its workers."""
    number = _heard[0] if _heard else signal.SIGINT
    name = "interrupted" if number == signal.SIGINT else f"stopped by {signal.Signals(number).name}"
    files = sys.modules.get("stag_jax.training.files")
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
            pass  # closed, or nobody reads it
    # Not by `print`: the main thread may be in the middle of one. A progress bar may stand in the line.
    os.write(2, f"\n{name}; run the same command again to go on\n".encode())
    os._exit(INTERRUPTED if number == signal.SIGINT else TRY_AGAIN)


def raise_them() -> None:
    """From here on raise signals as KeyboardInterrupt in the main thread, which then calls `leave`."""
    if not _ours():
        return
    reader, writer = socket.socketpair()
    writer.setblocking(False)
    sys.unraisablehook = _unraisable
    for number in NUMBERS:
        signal.signal(number, _raise)
    # Handlers run when the main thread comes back to Python; this tells of a signal at once.
    signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
    threading.Thread(target=_watch, args=(reader, writer), name="signals", daemon=True).start()


def end_at_once() -> None:
    """From here on end the process at a signal."""
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
    """Pass over an interrupt that came while a finaliser ran, where it cannot be raised; `_watch` still hears it."""
    if not issubclass(args.exc_type, KeyboardInterrupt):
        sys.__unraisablehook__(args)


def _watch(reader: socket.socket, writer: socket.socket) -> None:
    del writer  # held open for as long as this runs
    while True:
        number = reader.recv(1)[0]
        # Training, and a camera, have handlers of their own while they listen.
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
    """Return whether this process runs one of the scripts of this folder, and is no worker of one."""
    script = getattr(sys.modules.get("__main__"), "__file__", None)
    processes = sys.modules.get("multiprocessing.process")
    worker = processes is not None and processes.parent_process() is not None
    return script is not None and Path(script).resolve().parent == Path(__file__).resolve().parent and not worker


end_at_once()
if _ours():
    atexit.register(pass_over)  # the first to be registered is the last to be called
