"""One measurement from start to end: a process that measures, a clock, and the results on disk.

Parts run one after the other in one process, which keeps its devices and programs. A part that overruns, or takes the
process with it, ends that process only: the next part starts another.
"""

import contextlib
import importlib.util
import json
import os
import queue
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from stag_experiments.benchmarks.accelerator import measured, schedule, sizes
from stag_experiments.benchmarks.accelerator.measured import Measured
from stag_experiments.benchmarks.accelerator.schedule import Part, Slot

COMMAND = (sys.executable, "-m", "stag_experiments.benchmarks.accelerator.worker")
LOG = "accelerator.log"
PLUGINS = ("jax_plugins", "libtpu")
HASTE = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
RESERVE_S = 3.0  # of the whole, for ending
START_S = 90.0  # a process gets so long to import jax and find its devices
STARTS = 2  # that may fail before nothing more is tried
CLOSING_S = 5.0  # a process that is told to end gets so long

Say = Callable[[str], None]


class Overrun(Exception):
    """A part has used up its seconds."""


class Worker:
    """A process that measures; see worker.py."""

    def __init__(self, log: Any, environment: dict[str, str]) -> None:
        self._process = subprocess.Popen(
            COMMAND,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            env=environment,
            start_new_session=True,  # so that processes that it has started can be ended with it
        )
        self._answers: queue.Queue[dict[str, Any] | None] = queue.Queue()
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()

    def ask(self, command: dict[str, Any], seconds: float) -> Iterator[dict[str, Any]]:
        """Send a command; yield the answers up to the last.

        Raises:
          Overrun: the last answer is not there after so many seconds.
          ChildProcessError: the process has ended.
        """
        end = time.monotonic() + seconds
        with contextlib.suppress(OSError):  # then it has ended, which the answers tell
            self._process.stdin.write(json.dumps(command) + "\n")
            self._process.stdin.flush()
        while True:
            try:
                answer = self._answers.get(timeout=max(0.0, end - time.monotonic()))
            except queue.Empty:
                raise Overrun from None
            if answer is None:
                code = self._process.wait()
                raise ChildProcessError(f"the process ended with {_ending(code)}")
            yield answer
            if "done" in answer or "failed" in answer:
                return

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
                self._answers.put(json.loads(line))
        self._answers.put(None)


def _ending(code: int) -> str:
    return f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"


class Session:
    """The running measurement: at most one worker at a time."""

    def __init__(self, results: Measured, size: str, say: Say, log: Any, programs: str) -> None:
        self._results, self._size, self._say, self._log = results, size, say, log
        self._programs = programs
        self._worker: Worker | None = None
        self._alone = False

    def measure(self, slot: Slot) -> None:
        """Measure one part, after `start`; whatever happens to it, its rows and the reason are in the results."""
        part, results = slot.part, self._results
        results.mark(part.name, measured.RUNNING)
        self._say(f"{part.title}: {slot.soft_s:.0f} s, at most {slot.hard_s:.0f}")
        start = time.monotonic()
        state, reason, answer = measured.DONE, "", {}
        try:
            command = {"module": part.module, "seconds": slot.soft_s, "size": self._size, "facts": results.facts}
            for answer in self._worker.ask(command, slot.hard_s):
                if "facts" in answer:
                    results.learn(answer["facts"])
                elif "row" in answer:
                    results.add(part.name, answer["row"])
                    self._say("  " + ", ".join(f"{key} {measured.cell(v)}" for key, v in answer["row"].items() if v))
                elif "failed" in answer:
                    state, reason = measured.FAILED, answer["failed"]
        except Overrun:
            state, reason = measured.FAILED, f"ended after {slot.hard_s:.0f} s"
        except ChildProcessError as error:
            state, reason = measured.FAILED, f"{error}; see {LOG}"
        if state == measured.FAILED:
            if "failed" not in answer or "JaxRuntimeError" in reason:
                self.close(0.2)  # nothing is known of the memory and the threads that it has left
            state = measured.PARTLY if results.rows(part.name) else measured.FAILED
        results.mark(part.name, state, reason, time.monotonic() - start)
        if reason:
            self._say(f"  {state}: {reason}")

    def start(self, part: Part, seconds: float) -> bool:
        """Start a worker if the part needs another than there is; return whether it did.

        Raises ChildProcessError where it does not answer in time.
        """
        if self._worker and self._alone != part.alone:
            self.close()
        if self._worker:
            return False
        hasty = size_of(self._results.facts, self._size).hasty
        self._worker = Worker(self._log, environment(self._programs, cpu_only=part.alone, hasty=hasty))
        self._alone = part.alone
        try:
            for answer in self._worker.ask({"size": self._size, "facts": self._results.facts}, seconds):
                if "failed" in answer:
                    raise ChildProcessError(answer["failed"])
                self._results.learn(answer.get("facts", {}))
        except (Overrun, ChildProcessError) as error:
            self.close(0.2)
            reason = f"no device after {seconds:.0f} s" if isinstance(error, Overrun) else str(error)
            raise ChildProcessError(f"{reason}; see {LOG}") from error
        return True

    def close(self, patience_s: float = CLOSING_S) -> None:
        """End the worker, if there is one."""
        if self._worker:
            self._worker.close(patience_s)
        self._worker = None


def run(out: Path, parts: Sequence[Part], seconds: float, size: str, say: Say) -> Measured:
    """Measure what fits into `seconds` and return it; it is in `out` as well, from the first figure on."""
    end = time.monotonic() + seconds - RESERVE_S
    started = time.strftime("%Y-%m-%d %H:%M:%S")
    results = Measured(out, parts, started=started, seconds=seconds)
    results.learn({"_out": str(out.absolute())})
    programs = tempfile.mkdtemp(prefix="stag_programs_")
    waiting = []
    for part in parts:
        if part.package and not installed(part.package):
            results.mark(part.name, measured.LEFT_OUT, f"{part.package} is not installed")
        else:
            waiting.append(part)

    def plan() -> list[Slot]:
        return schedule.plan(waiting, size_of(results.facts, size).needs, end - time.monotonic())

    with (out / LOG).open("w") as log:
        session = Session(results, size, say, log, programs)
        try:
            failures = 0
            while failures < STARTS and (slots := plan()):
                part = slots[0].part
                try:
                    if session.start(part, min(START_S, end - time.monotonic())):
                        continue  # with the time that is left now
                    session.measure(slots[0])
                except ChildProcessError as error:
                    failures += 1
                    results.mark(part.name, measured.FAILED, str(error))
                waiting.remove(part)
            for part in waiting:
                need, left = size_of(results.facts, size).needs[part.name].least_s, max(0.0, end - time.monotonic())
                results.mark(part.name, measured.LEFT_OUT, f"{need:.0f} s are its least, {left:.0f} s were left")
        except BaseException as error:
            for part in parts:
                if results.state(part.name) in (measured.WAITING, measured.RUNNING):
                    results.mark(part.name, measured.LEFT_OUT, f"stopped: {type(error).__name__}")
            session.close(0.0)
            raise
        finally:
            session.close()
            shutil.rmtree(programs, ignore_errors=True)
    return results


def size_of(facts: dict[str, Any], name: str) -> sizes.Size:
    """Return the size that a worker has told, or before that the one to be expected."""
    return sizes.choose(facts.get("_size", name), accelerated())


def accelerated() -> bool:
    """Return whether jax is likely to find an accelerator, without asking it: that would take the device."""
    if os.environ.get("JAX_PLATFORMS", "") == "cpu":
        return False
    return any(installed(plugin) for plugin in PLUGINS)


def installed(package: str) -> bool:
    """Return whether a package can be imported, without importing it."""
    try:
        return importlib.util.find_spec(package) is not None
    except (ImportError, ValueError):
        return False


def environment(programs: str, *, cpu_only: bool, hasty: bool) -> dict[str, str]:
    """Return the environment of a worker.

    Compiled programs are kept in `programs`, for the workers that follow, unless the user keeps his own. jax takes most
    of the memory of an accelerator at once, as it does in training, so that large arrays find it in one piece. `hasty`
    leaves optimisation out of compiling, on a CPU.
    """
    given = dict(os.environ)
    given.setdefault("JAX_COMPILATION_CACHE_DIR", programs)
    given.setdefault("XLA_PYTHON_CLIENT_MEM_FRACTION", "0.9")
    given.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    if hasty and HASTE not in given.get("XLA_FLAGS", ""):
        given["XLA_FLAGS"] = f"{given.get('XLA_FLAGS', '')} {HASTE}".strip()
    platforms = given.get("JAX_PLATFORMS", "")
    if cpu_only:
        given["JAX_PLATFORMS"] = "cpu"
    elif platforms and "cpu" not in platforms.split(","):
        given["JAX_PLATFORMS"] = f"{platforms},cpu"  # losses are compared with those of the CPU
    return given
