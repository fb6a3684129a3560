"""Driving a pure step in real time: frames are taken as they come, and when analysis is late the oldest are dropped."""

import math
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

from absl import logging

from stag_jax.deploy.results import Result
from stag_jax.types import UserError

LATE, STOPPED, MISSING = "late", "stopped", "no picture"  # why a frame was dropped
PATIENCE = 2.0  # seconds that a source has to give its next frame when all is over
GLANCE = 0.1  # seconds between looks at `stop` while no frame comes
FINE = 1.02  # durations are counted in classes, each so much longer than the one before: hours take no more room
SHORTEST, LONGEST = 1e-3, 1e9  # ms, of those classes


class Spread(NamedTuple):
    """Of many durations, in ms. The percentiles are at most 2 % too high; NaN where there is none."""

    p50: float
    p99: float
    max: float


class Report(NamedTuple):
    """What became of the frames: taken = analysed + dropped + lost + stopped."""

    state: Any  # after the last frame that was analysed
    taken: int  # items that the source gave
    analysed: int
    dropped: int  # because analysis was late
    lost: int  # had no pixels to begin with
    stopped: int  # were waiting when `stop` was set
    seconds: float
    fps: float  # frames analysed a second
    latency: Spread  # from the arrival of a frame to its result
    step: Spread  # time of one step


class _Waiting(NamedTuple):
    pixels: Any  # None where there are none
    time_ms: float
    problem: str
    arrived: float  # seconds

    def passed_over(self, reason: str) -> Result:
        """The result if it is not analysed; a problem of its own comes before the reason."""
        return Result(self.time_ms, (), (self.problem or MISSING) if self.pixels is None else reason)


class _Line:
    """The frames that wait, oldest first; one thread puts, another takes."""

    def __init__(self, capacity: int):
        self.capacity = capacity
        self.taken = 0
        self.ended = False
        self.error: BaseException | None = None
        self._waiting: deque[_Waiting] = deque()
        self._late: list[_Waiting] = []  # without their pixels, unless they had none
        self._change = threading.Condition()

    def put(self, one: _Waiting) -> bool:
        """Appends a frame, at the cost of the oldest where the line is full. False where nobody takes any more."""
        with self._change:
            if self.ended:
                return False
            if len(self._waiting) == self.capacity:
                oldest = self._waiting.popleft()
                self._late.append(oldest if oldest.pixels is None else oldest._replace(pixels=()))
            self._waiting.append(one)
            self.taken += 1
            self._change.notify()
            return True

    def take(self, seconds: float) -> tuple[list[_Waiting], _Waiting | None]:
        """What was dropped since the last call, and the frame that comes next if there is one within `seconds`."""
        with self._change:
            self._change.wait_for(lambda: self._waiting or self.ended, seconds)
            late, self._late = self._late, []
            return late, self._waiting.popleft() if self._waiting else None

    def end(self, error: BaseException | None = None) -> None:
        """Takes no more in; `error`: why."""
        with self._change:
            self.ended, self.error = True, self.error or error
            self._change.notify()

    def over(self) -> bool:
        """Whether there is nothing to take and never will be."""
        with self._change:
            return self.ended and not self._waiting


class _Durations:
    """Counts of durations by classes of about the same length, so that any number of them takes the same room."""

    def __init__(self):
        self.classes: Counter[int] = Counter()
        self.longest = math.nan

    def add(self, seconds: float) -> None:
        """Counts one more."""
        ms = 1000 * seconds
        self.longest = ms if not self.classes else max(self.longest, ms)
        self.classes[math.ceil(math.log(min(max(ms, SHORTEST), LONGEST), FINE))] += 1

    def spread(self) -> Spread:
        """Percentiles: the upper ends of the classes in which they are."""
        return Spread(self._below(0.5), self._below(0.99), self.longest)

    def _below(self, share: float) -> float:
        left = share * self.classes.total()
        for index in sorted(self.classes):
            left -= self.classes[index]
            if left <= 0:
                return min(FINE**index, self.longest)
        return math.nan


def run(
    step: Callable[[Any, Any, float], tuple[Any, Result]],
    state: Any,
    frames: Iterable[tuple],
    *,
    capacity: int,
    on_result: Callable[[Result], None],
    stop: threading.Event | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> Report:
    """Calls `state, result = step(state, pixels, time_ms)` for the frames of a source that does not wait.

    `frames` gives pixels (RGB, uint8 y x 3) and time in ms, perhaps with a third item, a problem: see source.Frame. A
    thread takes them at the pace at which they come; the caller's thread runs `step` and `on_result`. At most
    `capacity` frames wait. When one more comes the oldest is dropped, so that a frame has its result at most
    (capacity + 1) x (time of step and on_result) after its arrival, however slow these are.

    `on_result` has a result for each item, in order: those dropped have no faces, and in `dropped` "late" or, where
    there are no pixels, the problem. When the source ends, what waits is still analysed; when `stop` is set, it is
    dropped as "stopped". An exception in the source is raised here after that, one of `step` or `on_result` and
    KeyboardInterrupt at once; the thread has then ended.

    Raises:
      UserError: `capacity` is less than 1.
    """
    if capacity < 1:
        raise UserError(f"capacity: {capacity} frames may wait; at least 1 must")
    line, counts = _Line(capacity), Counter()
    latency, steps = _Durations(), _Durations()

    def drop(one: _Waiting, reason: str) -> None:
        counts[MISSING if one.pixels is None else reason] += 1
        on_result(one.passed_over(reason))

    start = clock()
    reader = threading.Thread(target=_read, args=(frames, line, clock), daemon=True, name="frames")
    reader.start()
    try:
        while not line.over() and not (stop and stop.is_set()):
            late, one = line.take(GLANCE)
            for each in late:
                drop(each, LATE)
            if one is None:
                continue
            if one.pixels is None:
                drop(one, MISSING)
                continue
            begun = clock()
            state, result = step(state, one.pixels, one.time_ms)
            done = clock()
            latency.add(done - one.arrived)
            steps.add(done - begun)
            on_result(result)
        line.end()
        while not line.over():
            late, one = line.take(0.0)
            for each in late:
                drop(each, LATE)
            drop(one, STOPPED)
    finally:
        line.end()
        reader.join(PATIENCE)
        if reader.is_alive():
            logging.warning("the source of the frames gave no answer for %.0f s and is left behind", PATIENCE)
    if line.error:
        raise line.error
    seconds, analysed = clock() - start, steps.classes.total()
    return Report(
        state=state,
        taken=line.taken,
        analysed=analysed,
        dropped=counts[LATE],
        lost=counts[MISSING],
        stopped=counts[STOPPED],
        seconds=seconds,
        fps=analysed / seconds if seconds > 0 else math.nan,
        latency=latency.spread(),
        step=steps.spread(),
    )


def _read(frames: Iterable[tuple], line: _Line, clock: Callable[[], float]) -> None:
    """The other thread: puts all frames in the line until it has ended. Exceptions are raised by `run`."""
    try:
        source = iter(frames)
        try:
            for pixels, time_ms, *problem in source:
                if not line.put(_Waiting(pixels, time_ms, problem[0] if problem else "", clock())):
                    break
        finally:
            if hasattr(source, "close"):
                source.close()
    except BaseException as error:
        line.end(error)
    else:
        line.end()


def paced(
    frames: Iterable[tuple],
    speed: float = 1.0,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> Iterator[tuple]:
    """The items of a recording, each not before its time (the second of its fields, ms), as a camera would give them.

    The clock starts with the first item that is asked for. What is asked for later than its time comes at once.

    Args:
      frames: see `run`.
      speed: how many times faster than real time.
      clock: seconds.
      sleep: waits so many seconds.

    Raises:
      UserError: `speed` is not a positive number.
    """
    if not (0 < speed < math.inf):
        raise UserError(f"speed: {speed} is not a positive number")
    return _paced(frames, speed, clock, sleep)


def _paced(
    frames: Iterable[tuple], speed: float, clock: Callable[[], float], sleep: Callable[[float], None]
) -> Iterator[tuple]:
    source = iter(frames)
    try:
        start = first = None
        for item in source:
            if start is None:
                start, first = clock(), item[1]
            wait = start + (item[1] - first) / 1000 / speed - clock()
            if wait > 0:
                sleep(wait)
            yield item
    finally:
        if hasattr(source, "close"):
            source.close()
