"""Starts and ends the processes that measure; see worker.py for what they do."""

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from typing import Any

COMMAND = (sys.executable, "-m", "stag_experiments.benchmarks.accelerator.worker")
HASTE = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
CLOSING_S = 5.0  # a process that is told to end gets so long

Message = dict[str, Any]


class Process:
    """A process that measures. Its answers are put into `messages` beside it, and at last None."""

    def __init__(self, log: Any, environment: dict[str, str], messages: queue.Queue) -> None:
        self.started = time.monotonic()
        self.opened = False  # it has told its jobs
        self.compiled: set[str] = set()  # names of programs
        self._messages = messages
        self._process = subprocess.Popen(
            COMMAND,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            env=environment,
            start_new_session=True,  # so that processes that it has started can be ended with it
        )
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()

    def send(self, command: Message) -> None:
        """Send a command."""
        with contextlib.suppress(OSError):  # then it has ended, which the answers tell
            self._process.stdin.write(json.dumps(command) + "\n")
            self._process.stdin.flush()

    def ending(self) -> str:
        """Return how a process that has ended did so."""
        code = self._process.wait()
        return f"the process ended with {f'signal {signal.Signals(-code).name}' if code < 0 else f'exit code {code}'}"

    def close(self, patience_s: float = CLOSING_S) -> None:
        """End the process and all that it has started."""
        with contextlib.suppress(OSError):
            self._process.stdin.close()  # it ends by itself
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=patience_s)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._listener.join()
        self._process.stdout.close()

    def _listen(self) -> None:
        for line in self._process.stdout:
            with contextlib.suppress(json.JSONDecodeError):
                self._messages.put((self, json.loads(line)))
        self._messages.put((self, None))


def environment(programs: str, *, cpu_only: bool, hasty: bool) -> dict[str, str]:
    """Return the environment of a process.

    All compiled programs are kept in `programs`, for a process that follows one that has died, unless the user keeps
    his own. jax takes most of the memory of an accelerator at once, as it does in training, so that large arrays find
    it in one piece; torch needs some beside it. `hasty` leaves optimisation out of compiling, on a CPU.
    """
    given = dict(os.environ)
    given.setdefault("JAX_COMPILATION_CACHE_DIR", programs)
    given["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
    given["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "0"
    given.setdefault("XLA_PYTHON_CLIENT_MEM_FRACTION", "0.85")
    given.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    if hasty and HASTE not in given.get("XLA_FLAGS", ""):
        given["XLA_FLAGS"] = f"{given.get('XLA_FLAGS', '')} {HASTE}".strip()
    platforms = given.get("JAX_PLATFORMS", "")
    if cpu_only:
        given["JAX_PLATFORMS"] = "cpu"
    elif platforms and "cpu" not in platforms.split(","):
        given["JAX_PLATFORMS"] = f"{platforms},cpu"  # losses are compared with those of the CPU
    return given
