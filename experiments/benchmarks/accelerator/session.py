"""One measurement from start to end: processes that measure, a clock, and the results on disk.

One process has the device and compiles; another, for torch, has the CPU as far as jax goes. Of all jobs one runs at a
time. A job that overruns, or takes its process with it, ends that process only; the next one reads from the disk what
was compiled.
"""

import importlib.util
import os
import queue
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from stag_experiments.benchmarks.accelerator import measured, schedule, sizes
from stag_experiments.benchmarks.accelerator.measured import Measured
from stag_experiments.benchmarks.accelerator.process import CLOSING_S, Message, Process, environment
from stag_experiments.benchmarks.accelerator.schedule import Part, Planned

LOG = "accelerator.log"
PLUGINS = ("jax_plugins", "libtpu")
RESERVE_S = 3.0  # of the whole, for ending
START_S = 90.0  # a process gets so long to import jax and find its devices
STARTS = 2  # processes that may end without measuring anything before nothing more is tried
GRACE, GRACE_S = 2.0, 25.0  # a job is ended after so many times its seconds, and no sooner than so many beyond them
POLL_S = 1.0

Say = Callable[[str], None]


class Session:
    """The running measurement. Processes are known by whether they are for parts that run `alone`."""

    def __init__(
        self,
        results: Measured,
        parts: Sequence[Part],
        seconds: float,
        size: str,
        start: Callable[..., Process],
        say: Say,
    ) -> None:
        self._results, self._parts, self._size, self._new, self._say = results, parts, size, start, say
        self._end = time.monotonic() + seconds
        self._processes: dict[bool, Process] = {}
        self._messages: queue.Queue[tuple[Process, Message | None]] = queue.Queue()
        self._jobs: dict[str, Planned] = {}
        self._done: dict[str, str] = {}  # jobs, and why they have failed
        self._took: dict[str, float] = {}
        self._losses: dict[bool, list[str]] = {False: [], True: []}  # why processes ended that measured nothing
        self._alone = {part.name: part.alone for part in parts}

    def run(self) -> None:
        """Measure one job after the other, until all are done or the time is over."""
        for alone in sorted(set(self._alone.values())):
            self._start(alone)
            while not alone and self._processes and not self._all_opened() and self._left() > 0:
                self._receive(POLL_S)  # what the device is, the other needs to know
        while self._processes and (left := self._left()) > 0:
            jobs = [(job, self._ready(job)) for job in self._open()]
            if job := schedule.choose(jobs, left):
                self._measure(job)
            elif any(not ready and job.seconds <= left for job, ready in jobs) or not self._all_opened():
                self._receive(POLL_S)
            else:
                break
        self._conclude()

    def close(self, patience_s: float = CLOSING_S) -> None:
        """End the processes."""
        for alone in list(self._processes):
            self._processes.pop(alone).close(patience_s)

    def _left(self) -> float:
        return self._end - time.monotonic()

    def _start(self, alone: bool) -> None:
        hasty = size_of(self._results.facts, self._size).hasty
        self._processes[alone] = self._new(self._messages, cpu_only=alone, hasty=hasty)
        parts = [{"name": part.name, "module": part.module} for part in self._parts if part.alone == alone]
        facts, done = self._results.facts, list(self._done)
        self._processes[alone].send({"size": self._size, "facts": facts, "parts": parts, "done": done})

    def _open(self) -> list[Planned]:
        """Return the jobs that are still to be measured and for which there is a process."""
        return [
            job
            for job in self._jobs.values()
            if job.name not in self._done and self._alone[job.part] in self._processes
        ]

    def _ready(self, job: Planned) -> bool:
        process = self._processes[self._alone[job.part]]
        return process.opened and process.compiled.issuperset(job.programs)

    def _all_opened(self) -> bool:
        return all(process.opened for process in self._processes.values())

    def _compiling(self) -> int:
        """Return how many programs are being compiled."""
        device = self._processes.get(False)
        programs = {name for job in self._open() if not self._alone[job.part] for name in job.programs}
        return min(self._results.facts.get("_threads", 1), len(programs - device.compiled)) if device else 0

    def _receive(self, seconds: float, measuring: Process | None = None) -> Message | None:
        """Wait for a message and learn from it; return it if it is of the process that is measuring.

        That the process has ended is a message as well.
        """
        try:
            process, message = self._messages.get(timeout=max(0.0, min(seconds, self._left())))
        except queue.Empty:
            process, message = None, {}
        for alone, late in list(self._processes.items()):
            if not late.opened and time.monotonic() - late.started > START_S:
                self._lose(alone, f"no device after {START_S:.0f} s")
        alone = next((alone for alone, known in self._processes.items() if known is process), None)
        if alone is None:  # of one that is closed
            return None
        message = {"ended": process.ending()} if message is None else message
        if process is not measuring and ("ended" in message or "failed" in message):
            self._lose(alone, message.get("ended") or message["failed"])
        for job in message.get("jobs", ()):
            planned = Planned(**{**job, "programs": tuple(job["programs"])})
            self._jobs[planned.name] = planned
            process.opened = True
        if "compiled" in message:
            name, compile_s = message["compiled"], message["seconds"]
            process.compiled.add(name)
            self._results.learn({"_compile_s": {**self._results.facts.get("_compile_s", {}), name: compile_s}})
            self._say(f"  compiled in {compile_s:.0f} s: {name}")
        self._results.learn({name: fact for name, fact in message.get("facts", {}).items() if name != "_compile_s"})
        return message if process is measuring else None

    def _lose(self, alone: bool, reason: str) -> None:
        """Close a process that ended or hangs without measuring anything; start another, if that may help."""
        self._processes.pop(alone).close(0.2)
        self._losses[alone].append(f"{reason}; see {LOG}")
        self._say(f"  {reason}")
        if len(self._losses[alone]) < STARTS:
            self._start(alone)

    def _measure(self, job: Planned) -> None:
        """Measure one job; whatever happens to it, its rows and the reason are in the results."""
        alone, begin = self._alone[job.part], time.monotonic()
        soft = min(job.most_s, self._left())
        hard = min(self._left(), max(GRACE * soft, soft + GRACE_S))
        compiling = self._compiling()
        self._results.mark(job.part, measured.RUNNING)
        self._say(f"{job.name}: about {job.seconds:.0f} s, at most {hard:.0f}")
        process, reason = self._processes[alone], None
        process.send({"job": job.name, "seconds": soft, "facts": self._results.facts})
        while reason is None:
            left = begin + hard - time.monotonic()
            message = self._receive(left, process) if left > 0 else {"ended": f"ended after {hard:.0f} s"}
            if message is None:
                continue
            if "row" in message:
                row = {**message["row"], **({"programs compiling": compiling} if compiling else {})}
                self._results.add(job.part, row, job.place)
                self._say("  " + ", ".join(f"{key} {measured.cell(v)}" for key, v in row.items() if v))
            reason = "" if "done" in message else message.get("failed") or message.get("ended")
        self._done[job.name] = reason
        self._took[job.part] = self._took.get(job.part, 0.0) + time.monotonic() - begin
        if reason:
            self._say(f"  {reason}")
        # Nothing is known of the memory and the threads that it has left.
        if "ended" in message or ("JaxRuntimeError" in reason and "RESOURCE_EXHAUSTED" not in reason):
            wanted = bool([other for other in self._open() if self._alone[other.part] == alone])
            self._processes.pop(alone).close(0.2)
            if wanted and self._left() > 0:
                self._start(alone)

    def _conclude(self) -> None:
        """Write of each part what was not measured, and why."""
        for part in self._parts:
            jobs = [job for job in self._jobs.values() if job.part == part.name]
            short = {job.name: job.name.removeprefix(f"{part.name}: ") for job in jobs}
            failed = [f"{short[name]}: {self._done[name]}" for name in short if self._done.get(name)]
            missing = [short[name] for name in short if name not in self._done]
            losses = self._losses[part.alone][-1:] if missing or not jobs else []
            reasons = failed + ([f"no time for {', '.join(missing) or 'it'}"] * (bool(missing) or not jobs))
            rows, tried = self._results.rows(part.name), len(missing) < len(jobs)
            state = measured.DONE if not reasons else measured.PARTLY if rows else measured.FAILED
            if not tried and not losses:
                state = measured.LEFT_OUT
            self._results.mark(part.name, state, "; ".join(losses or reasons), self._took.get(part.name))


def run(out: Path, parts: Sequence[Part], seconds: float, size: str, say: Say, threads: int = 0) -> Measured:
    """Measure what fits into `seconds` and return it; it is in `out` as well, from the first figure on.

    `threads` compile at a time; 0 = as the cores allow.
    """
    end = time.monotonic() + seconds - RESERVE_S
    started = time.strftime("%Y-%m-%d %H:%M:%S")
    results = Measured(out, parts, started=started, seconds=seconds)
    results.learn({"_out": str(out.absolute()), "_threads": threads})
    programs = tempfile.mkdtemp(prefix="stag_programs_")
    present = []
    for part in parts:
        if part.package and not installed(part.package):
            results.mark(part.name, measured.LEFT_OUT, f"{part.package} is not installed")
        else:
            present.append(part)
    with (out / LOG).open("w") as log:

        def start(messages: queue.Queue, **how: bool) -> Process:
            return Process(log, environment(programs, **how), messages)

        session = Session(results, present, end - time.monotonic(), size, start, say)
        try:
            session.run()
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
    """Return the size that a process has told, or before that the one to be expected."""
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
