"""The process that measures: reads one command a line, answers one JSON object a line.

The first command opens it: it finds the devices, tells what jobs there are, and begins to compile their programs. Each
further one measures a job. Answers are facts, rows, jobs, names of programs that are compiled, and at last that a job
is done or has failed.

It ends when the pipe of its commands is closed, whatever it is doing, so that nothing is left behind when the process
that started it is killed. jax is imported after a command has come.
"""

import importlib
import json
import math
import os
import queue
import signal
import sys
import threading
import traceback
from collections.abc import Callable
from typing import Any

PACKAGE = "stag_experiments.benchmarks.accelerator"
SHARE = 2 / 3  # of the cores compile

Message = dict[str, Any]
Send = Callable[[Message], None]


def main() -> None:
    """Measure what is asked for until nothing more is asked."""
    answers, lock = os.fdopen(os.dup(1), "w", buffering=1), threading.Lock()
    os.dup2(2, 1)  # what libraries print is no answer
    commands: queue.Queue[Message] = queue.Queue()
    threading.Thread(target=_listen, args=(commands,), daemon=True).start()

    def send(message: Message) -> None:
        with lock:
            answers.write(json.dumps(message) + "\n")
            answers.flush()

    worker = None
    while True:
        command = commands.get()
        try:
            if worker is None:
                worker = Worker(command, send)
                worker.begin()
            else:
                worker.measure(command)
        except Exception as error:
            traceback.print_exc()
            from stag_experiments.benchmarks.accelerator import bench

            send({"failed": bench.reason(error)})


def _listen(commands: queue.Queue) -> None:
    for line in sys.stdin:
        commands.put(json.loads(line))
    if os.getpgrp() == os.getpid():  # as the session starts it: what this process has started is to end as well
        os.killpg(os.getpid(), signal.SIGKILL)
    os._exit(0)


class Worker:
    """The devices, the jobs of all parts, and their programs."""

    def __init__(self, command: Message, send: Send) -> None:
        import jax

        from stag_experiments.benchmarks.accelerator import bench, product_rates, sizes

        self._send, facts = send, command["facts"]
        if "_platform" not in facts:
            facts |= {"_platform": jax.default_backend()}
            facts |= product_rates.device_facts()
        size = sizes.choose(command["size"], facts["_platform"] != "cpu")
        facts["_threads"] = facts["_threads"] or max(1, int(SHARE * bench.cores()))
        facts |= {"sizes": size.note, "_size": size.name, "programs compiled at a time": facts["_threads"]}
        self._bench = bench.Bench(size, facts)
        self._jobs: dict[str, bench.Job] = {}
        self._parts: dict[str, str] = {}
        for part in command["parts"]:
            module = importlib.import_module(f"{PACKAGE}.{part['module']}")
            for job in module.jobs(self._bench):
                self._add(part["name"], job)
        for name in command["done"]:
            self._jobs.pop(name, None)

    def begin(self) -> None:
        """Tell the jobs and begin their programs, those of the most wanted jobs first."""
        from stag_experiments.benchmarks.accelerator import programs, schedule

        jobs = sorted(self._jobs.values(), key=lambda job: schedule.WANTED.index(job.wanted))
        self._bench.programs = programs.Programs(
            [program for job in jobs for program in job.programs],
            self._bench.facts["_threads"],
            lambda name, seconds: self._send({"compiled": name, "seconds": seconds}),
            self._bench.facts.get("_compile_s", {}),
        )
        self._send({"facts": self._bench.facts, "jobs": [self._known(name) for name in self._jobs]})
        self._bench.programs.begin()

    def measure(self, command: Message) -> None:
        """Measure a job; in place of one for which the memory is too small, tell a smaller one."""
        from stag_experiments.benchmarks.accelerator import bench

        self._bench.facts.update(command["facts"])
        name, clock, built = command["job"], bench.Clock(command["seconds"]), ()
        job = self._jobs[name]
        try:
            built = [self._bench.programs.get(program.name) for program in job.programs]
            with self._bench.programs.quiet():
                for row in job.measure(clock, *built):
                    self._send({"facts": self._bench.facts, "row": _plain(row)})
        except Exception as error:
            smaller = job.smaller(*built) if built and bench.out_of_memory(error) else None
            if smaller is None:
                raise
            traceback.print_exc()
            new = self._add(self._parts[name], smaller)
            self._send({"jobs": [self._known(new)]})
            self._bench.programs.add(smaller.programs)
        self._send({"facts": self._bench.facts, "done": True})

    def _add(self, part: str, job: Any) -> str:
        name = f"{part}: {job.name}"
        self._jobs[name], self._parts[name] = job, part
        return name

    def _known(self, name: str) -> Message:
        """Return a `schedule.Planned` of a job."""
        from stag_experiments.benchmarks.accelerator import schedule

        job, pace = self._jobs[name], self._bench.size.pace
        return schedule.Planned(
            part=self._parts[name],
            name=name,
            wanted=schedule.WANTED.index(job.wanted),
            place=list(self._parts).index(name),
            seconds=pace * job.seconds,
            most_s=pace * max(job.seconds, job.most_s),
            programs=tuple(program.name for program in job.programs),
        )._asdict()


def _plain(row: Message) -> Message:
    """Return the row with numbers that JSON knows; what is not finite becomes a word."""
    plain = {key: value.item() if hasattr(value, "item") else value for key, value in row.items()}
    return {k: str(v) if isinstance(v, float) and not math.isfinite(v) else v for k, v in plain.items()}


if __name__ == "__main__":
    main()
