"""Run a pure step in real time: frames are taken as they arrive, and if analysis is late the oldest are dropped."""

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
PATIENCE = 2.0  # seconds to wait for the source's thread to end
GLANCE = 0.1  # seconds between checks of `stop` while no frame arrives
FINE = 1.02  # ratio of consecutive bins in which durations are counted, so that memory does not grow
SHORTEST, LONGEST = 1e-3, 1e9  # ms, range of the bins


class Spread(NamedTuple):
    """Percentiles and maximum of durations, in ms. Percentiles are at most 2 % too high; NaN without durations."""

    p50: float
    p99: float
    max: float


class Report(NamedTuple):
    """Counts and timings of a run; taken = analysed + dropped + lost + stopped."""

    state: Any  # after the last frame that was analysed
    taken: int  # items from the source
    analysed: int
    dropped: int  # because analysis was late
    lost: int  # came without pixels
    stopped: int  # waiting when `stop` was set
    seconds: float
    fps: float  # analysed frames per second
    latency: Spread  # from the arrival of a frame to its result
    step: Spread  # duration of one step


class _Waiting(NamedTuple):
    pixels: Any  # None if the frame has none
    time_ms: float
    problem: str
    arrived: float  # seconds

    def passed_over(self, reason: str) -> Result:
        """Return the result of a frame that is not analysed; the frame's own problem takes precedence over `reason`."""
        return Result(self.time_ms, (), (self.problem or MISSING) if self.pixels is None else reason)


class _Line:
    """A queue of waiting frames, oldest first; one thread puts, another takes."""

    def __init__(self, capacity: int):
        self.capacity = capacity
        self.taken = 0
        self.ended = False
        self.error: BaseException | None = None
        self._waiting: deque[_Waiting] = deque()
        self._late: list[_Waiting] = []  # pixels removed; None only if they never had any
        self._change = threading.Condition()

    def put(self, one: _Waiting) -> bool:
        """Append a frame, and drop the oldest if the queue is full. Return False if the queue has ended."""
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
        """Return the frames dropped since the last call, and the next frame, or None if none arrives in `seconds`."""
        with self._change:
            self._change.wait_for(lambda: self._waiting or self.ended, seconds)
            late, self._late = self._late, []
            return late, self._waiting.popleft() if self._waiting else None

    def end(self, error: BaseException | None = None) -> None:
        """Accept no more frames; `error` is the cause, if any."""
        with self._change:
            self.ended, self.error = True, self.error or error
            self._change.notify()

    def over(self) -> bool:
        """Return whether the queue has ended and is empty."""
        with self._change:
            return self.ended and not self._waiting


class _Durations:
    """A histogram of durations with geometric bins, so that memory does not grow with their number."""

    def __init__(self):
        self.classes: Counter[int] = Counter()
        self.longest = math.nan

    def add(self, seconds: float) -> None:
        """Count one duration."""
        ms = 1000 * seconds
        self.longest = ms if not self.classes else max(self.longest, ms)
        self.classes[math.ceil(math.log(min(max(ms, SHORTEST), LONGEST), FINE))] += 1

    def spread(self) -> Spread:
        """Return the percentiles, as the upper ends of their bins, and the maximum."""
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
    """Call `state, result = step(state, pixels, time_ms)` for the frames of a source that does not wait.

    `frames` yields pixels (RGB, uint8 y x 3), time in ms and optionally a problem: see source.Frame. A thread reads
    them at the pace at which they arrive; the caller's thread runs `step` and `on_result`. At most `capacity` frames
    wait. If one more arrives the oldest is dropped, so that a frame has its result at most
    (capacity + 1) x (duration of step and on_result) after its arrival, however slow these are.

    `on_result` gets a result for each item, in order: those of dropped frames have no faces, and `dropped` is "late"
    or, without pixels, the problem. When the source ends, waiting frames are still analysed; when `stop` is set, they
    are dropped as "stopped". An exception of the source is raised after that; one of `step` or `on_result`, and
    KeyboardInterrupt, at once. The thread has ended by then.

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
            late, frame = line.take(GLANCE)
            for late_frame in late:
                drop(late_frame, LATE)
            if frame is None:
                continue
            if frame.pixels is None:
                drop(frame, MISSING)
                continue
            step_start = clock()
            state, result = step(state, frame.pixels, frame.time_ms)
            step_end = clock()
            latency.add(step_end - frame.arrived)
            steps.add(step_end - step_start)
            on_result(result)
        line.end()
        while not line.over():
            late, frame = line.take(0.0)
            for late_frame in late:
                drop(late_frame, LATE)
            drop(frame, STOPPED)
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
    """Put all frames in the queue until it has ended; runs in its own thread. `run` raises its exceptions."""
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
    """Yield the items of a recording, none before its time (its second field, ms), as a camera would deliver them.

    The clock starts when the first item is requested. An item that is requested after its time is yielded at once.

    Args:
      frames: see `run`.
      speed: factor to real time.
      clock: returns seconds.
      sleep: waits for a number of seconds.

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
