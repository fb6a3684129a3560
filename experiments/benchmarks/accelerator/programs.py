"""Programs that are compiled ahead, several at a time, beside what is measured.

XLA compiles a program on about one core and leaves Python alone meanwhile; tracing is Python. So one thread traces the
programs one after the other, most wanted first, and pauses while something is measured; others compile them.
"""

import contextlib
import queue
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple, TypeVar

T = TypeVar("T")
POLL_S = 0.05


class Later:
    """The result of work in another thread; a call waits for it and calls it."""

    def __init__(self, future: Future) -> None:
        self._future = future

    def result(self) -> Any:
        """Wait for the result and return it. Raises what the work has raised."""
        return self._future.result()

    def __call__(self, *args: Any) -> Any:
        return self.result()(*args)


Compile = Callable[[Callable[[], Any]], Later]  # work that takes long, without Python -> its result, later


class Program(NamedTuple):
    """What is made ahead; two of one name are the same."""

    name: str
    build: Callable[..., Any]  # traces, and hands compiling to its first argument, a Compile, once at most
    after: tuple[str, ...] = ()  # names of what is finished, or has failed, before it is traced: its other arguments


class Programs:
    """All programs of a process.

    Args:
      programs: most wanted first.
      threads: how many are compiled at a time.
      tell: called with the name and the seconds of each program that is finished, or has failed, from any thread.
      known: seconds of programs that were compiled by an earlier process and are kept on disk.
    """

    def __init__(
        self,
        programs: Iterable[Program],
        threads: int,
        tell: Callable[[str, float], None],
        known: dict[str, float],
    ) -> None:
        self._pool = ThreadPoolExecutor(threads)
        self._tell = tell
        self._seconds = dict(known)
        self._built: dict[str, Future] = {}
        self._finished: set[str] = set()
        self._waiting: queue.SimpleQueue[Program] = queue.SimpleQueue()
        self._turn, self._free = threading.Lock(), threading.Event()
        self._free.set()
        self.add(programs)

    def begin(self) -> None:
        """Begin all of them."""
        threading.Thread(target=self._trace_all, daemon=True).start()

    def add(self, programs: Iterable[Program]) -> None:
        """Add further programs, least wanted."""
        for program in programs:
            if program.name not in self._built:
                self._built[program.name] = Future()
                self._waiting.put(program)

    def get(self, name: str) -> Any:
        """Wait until a program is traced, and return what its `build` returned. Raises what that has raised."""
        return self._built[name].result()

    def seconds(self, name: str) -> float:
        """Return how long a program took to trace and compile, once it is finished."""
        return self._seconds[name]

    @contextlib.contextmanager
    def quiet(self) -> Iterator[None]:
        """Let no Python run but the caller's; what is being compiled goes on."""
        self._free.clear()
        try:
            with self._turn:
                yield
        finally:
            self._free.set()

    def _trace_all(self) -> None:
        while True:
            program = self._waiting.get()
            if not self._finished.issuperset(program.after):
                self._waiting.put(program)
                time.sleep(POLL_S)  # for nothing else may be waiting
                continue
            self._free.wait()
            with self._turn:
                self._build(program)

    def _build(self, program: Program) -> None:
        """Trace a program, and tell of it when it is compiled."""
        begin, handed_over = time.perf_counter(), False

        def done(seconds: float) -> None:
            self._seconds.setdefault(program.name, seconds)
            self._finished.add(program.name)
            self._tell(program.name, self._seconds[program.name])

        def later(work: Callable[[], T]) -> Later:
            nonlocal handed_over
            handed_over, traced_s = True, time.perf_counter() - begin

            def run() -> T:
                start = time.perf_counter()  # not before there is a thread
                try:
                    return finish(work)
                finally:
                    done(traced_s + time.perf_counter() - start)

            return Later(self._pool.submit(run))

        try:
            self._built[program.name].set_result(program.build(later, *map(self.get, program.after)))
        except Exception as error:
            self._built[program.name].set_exception(error)
        if not handed_over:
            done(time.perf_counter() - begin)


def finish(work: Callable[[], T]) -> T:
    """Compile: every program goes through here."""
    return work()
