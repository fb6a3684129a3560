"""Frames at a pace, a step of known duration: what is analysed, what is dropped, how late results are, how all ends."""

import threading
import time
import weakref

import numpy as np
import pytest

from stag_jax.deploy import realtime
from stag_jax.deploy.results import Result
from stag_jax.types import UserError


class Clock:
    """Stands still unless it is slept."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now

    def sleep(self, seconds):
        assert seconds > 0
        self.now += seconds


def recording(count, fps=1000.0):
    return [(np.zeros((5, 7, 3), np.uint8), 1000 * f / fps) for f in range(count)]


def analyse(state, pixels, time_ms):
    assert pixels.shape == (5, 7, 3)
    return state + 1, Result(time_ms, (), "")


def readers():
    return [thread for thread in threading.enumerate() if thread.name == "frames"]


def gated(items, burst, started, resume):
    """The first item; the others when its step has started, all at once; then the step may go on."""
    for k, item in enumerate(items):
        if k == 1:
            assert started.wait(5)
        if k == burst:
            resume.set()
        yield item
    resume.set()


def run_gated(items, capacity, **more):
    """What comes of items of which all but the first arrive while the first is analysed."""
    started, resume, seen = threading.Event(), threading.Event(), []

    def step(state, pixels, time_ms):
        started.set()
        assert resume.wait(5)
        return state + 1, Result(time_ms, (), "")

    frames = gated(items, len(items), started, resume)
    report = realtime.run(step, 0, frames, capacity=capacity, on_result=seen.append, **more)
    return report, seen


def simulate(fps, step_ms, capacity, count):
    """The line without threads: arrivals and steps at exact times. Returns delays of results, and counts."""
    line, now, f, delays, dropped, waiting = realtime._Line(capacity), 0.0, 0, [], [], []
    while f < count or not line.over():
        while f < count and 1000 * f / fps <= now + 1e-9:
            line.put(realtime._Waiting(b"pixels", 1000 * f / fps, "", f / fps))
            f += 1
        if f == count:
            line.end()
        waiting.append(len(line._waiting))
        late, one = line.take(0.0)
        dropped += [each.time_ms for each in late]
        if one is None:
            now = 1000 * f / fps if f < count else now
            continue
        now += step_ms
        delays.append(now - one.time_ms)
    return delays, dropped, max(waiting)


@pytest.mark.parametrize("fps", [30, 100, 200])
@pytest.mark.parametrize("step_ms", [3.0, 7.0, 29.0])
def test_latency_is_bounded_whatever_the_pace(fps, step_ms):
    capacity, count = 3, 10 * fps + 1
    delays, dropped, longest = simulate(fps, step_ms, capacity, count)
    assert len(delays) + len(dropped) == count
    assert longest <= capacity
    assert max(delays) <= (capacity + 1) * step_ms + 1e-6
    if step_ms <= 1000 / fps:
        assert not dropped and max(delays) == pytest.approx(step_ms)
    else:  # busy all the time
        assert len(delays) == pytest.approx(10_000 / step_ms, abs=capacity + 2)
        assert dropped == sorted(set(dropped))


@pytest.mark.parametrize("fps", [30, 100, 200])
def test_a_second_in_real_time(fps):
    """A step of 13 ms keeps up with 30 frames a second only; bounds leave room for a busy machine."""
    seen, in_step = [], []

    def step(state, pixels, time_ms):
        begun = time.monotonic()
        time.sleep(0.013)
        in_step.append(time.monotonic() - begun)
        return state + 1, Result(time_ms, (), "")

    films = recording(fps, fps)
    report = realtime.run(step, 0, realtime.paced(films), capacity=5, on_result=seen.append)
    assert report.taken == fps == report.analysed + report.dropped and report.lost == report.stopped == 0
    assert [result.time_ms for result in seen] == [time_ms for _, time_ms in films]
    assert [result.dropped for result in seen].count("late") == report.dropped
    assert report.state == report.analysed == len(in_step)
    if fps == 200:
        assert report.analysed <= 1.1 / 0.013 + 7 and report.dropped >= 100
    assert report.seconds >= (fps - 1) / fps
    assert report.fps == pytest.approx(report.analysed / report.seconds)
    assert 13 <= report.step.p50 <= report.step.p99 <= report.step.max
    assert report.step.max >= 1000 * max(in_step)
    # Not so many steps as stated but so much time: single steps are longer on a busy machine.
    slowest = sorted(in_step)[-6:]
    assert report.step.p50 <= report.latency.max <= 1000 * sum(slowest) + 300
    assert not readers()


def test_the_oldest_are_dropped_and_all_are_in_order():
    report, seen = run_gated(recording(11), capacity=3)
    assert [(result.time_ms, result.dropped) for result in seen] == [
        (float(f), "late" if 1 <= f <= 7 else "") for f in range(11)
    ]
    assert (report.taken, report.analysed, report.dropped, report.state) == (11, 4, 7, 4)
    assert all(result.faces == () for result in seen)


def test_items_without_pixels_are_handed_on_with_their_problem():
    items = [(*item, "") for item in recording(6)]
    items[2] = (None, 2.0, "late")  # a problem of that name is no lateness
    items[4] = (None, 4.0, "damaged")
    items[5] = (None, 5.0)
    report, seen = run_gated(items, capacity=7)
    assert [result.dropped for result in seen] == ["", "", "late", "", "damaged", realtime.MISSING]
    assert (report.taken, report.analysed, report.dropped, report.lost) == (6, 3, 0, 3)
    report, seen = run_gated(items, capacity=1)
    assert [result.dropped for result in seen] == ["", "late", "late", "late", "damaged", realtime.MISSING]
    assert (report.taken, report.analysed, report.dropped, report.lost) == (6, 1, 2, 3)


def test_no_more_frames_are_held_than_stated():
    """Of a hundred frames that come during one step, those that wait, and the two in hand."""
    started, resume, alive, most = threading.Event(), threading.Event(), weakref.WeakSet(), []

    class Pixels:
        pass

    def frames():
        for f in range(100):
            if f == 1:
                assert started.wait(5)
            pixels = Pixels()
            alive.add(pixels)
            yield pixels, float(f)
            del pixels
            most.append(len(alive))
        resume.set()

    def step(state, pixels, time_ms):
        started.set()
        assert resume.wait(5)
        return state, Result(time_ms, (), "")

    report = realtime.run(step, None, frames(), capacity=5, on_result=lambda result: None)
    assert report.dropped == 94 and max(most) <= 5 + 2


def test_durations_take_the_same_room_however_many():
    rng = np.random.default_rng(5)
    durations, many = realtime._Durations(), rng.lognormal(-4, 1, 20_000)
    for seconds in many[:10_000]:
        durations.add(float(seconds))
    classes = len(durations.classes)
    for seconds in many[10_000:]:
        durations.add(float(seconds))
    assert len(durations.classes) < 1.1 * classes < 600
    spread = durations.spread()
    for name, share in (("p50", 50), ("p99", 99)):
        assert 0.999 < getattr(spread, name) / np.percentile(1000 * many, share) < realtime.FINE * 1.001
    assert spread.max == 1000 * many.max()
    for extreme in (0.0, 1e12):  # has its class, too
        durations.add(extreme)
    assert durations.spread().max == 1e15
    assert np.isnan(realtime._Durations().spread()).all()


def test_the_clock_that_is_given_is_used():
    clock = Clock()

    def step(state, pixels, time_ms):
        clock.sleep(0.007)
        return analyse(state, pixels, time_ms)

    report = realtime.run(step, 0, recording(1), capacity=1, on_result=lambda result: clock.sleep(0.5), clock=clock)
    assert report.seconds == pytest.approx(0.507) and report.fps == pytest.approx(1 / 0.507)
    assert report.step.max == report.latency.max == pytest.approx(7.0)


def test_a_source_without_frames_gives_a_report():
    report = realtime.run(analyse, 0, iter(()), capacity=1, on_result=pytest.fail)
    assert report[:6] == (0, 0, 0, 0, 0, 0) and np.isnan([*report.latency, *report.step]).all()


class Closing:
    """A source that notes that it was closed."""

    def __init__(self, items, error=None):
        self.items, self.error, self.closed = iter(items), error, False

    def __iter__(self):
        return self

    def __next__(self):
        for item in self.items:
            return item
        raise self.error or StopIteration

    def close(self):
        self.closed = True


def test_an_error_of_the_source_comes_after_what_waits():
    seen, source = [], Closing(recording(3), OSError("unplugged"))
    with pytest.raises(OSError, match="unplugged"):
        realtime.run(analyse, 0, source, capacity=5, on_result=seen.append)
    assert [result.time_ms for result in seen] == [0.0, 1.0, 2.0]
    assert source.closed and not readers()


@pytest.mark.parametrize("error", [RuntimeError("step"), KeyboardInterrupt()])
@pytest.mark.parametrize("where", ["step", "on_result"])
def test_an_error_of_the_analysis_ends_the_thread(error, where):
    def fail(*_):
        raise error

    def endless():
        f = 0
        while True:
            yield np.zeros((5, 7, 3), np.uint8), float(f)
            f += 1
            time.sleep(0.001)

    source = Closing(endless())
    call = {"step": analyse, "on_result": lambda result: None, where: fail}
    with pytest.raises(type(error)):
        realtime.run(call["step"], 0, source, capacity=2, on_result=call["on_result"])
    assert source.closed and not readers()


def test_stop_ends_it_and_says_what_was_waiting():
    stop, seen = threading.Event(), []

    def on_result(result):
        seen.append(result)
        if not result.dropped:
            stop.set()

    started, resume = threading.Event(), threading.Event()

    def step(state, pixels, time_ms):
        started.set()
        assert resume.wait(5)
        return state + 1, Result(time_ms, (), "")

    frames = gated(recording(7), 7, started, resume)
    report = realtime.run(step, 0, frames, capacity=4, on_result=on_result, stop=stop)
    assert [result.dropped for result in seen] == ["", "late", "late", *["stopped"] * 4]
    assert report.taken == report.analysed + report.dropped + report.stopped == 7
    assert not readers()


def test_stop_is_heard_while_no_frame_comes():
    stop, leave = threading.Event(), threading.Event()

    def silent():
        stop.set()
        assert leave.wait(5)
        yield from recording(1)

    threading.Timer(0.3, leave.set).start()
    report = realtime.run(analyse, 0, silent(), capacity=1, on_result=pytest.fail, stop=stop)
    assert report.taken == 0 and not readers()


def test_a_source_that_hangs_is_left_behind(caplog, monkeypatch):
    monkeypatch.setattr(realtime, "PATIENCE", 0.1)
    leave, stop = threading.Event(), threading.Event()

    def hanging():
        stop.set()
        leave.wait(5)
        yield from recording(1)

    with caplog.at_level("WARNING", logger="absl"):
        realtime.run(analyse, 0, hanging(), capacity=1, on_result=pytest.fail, stop=stop)
    leave.set()
    assert ["left behind" in record.getMessage() for record in caplog.records] == [True]
    for thread in readers():
        thread.join(5)


def test_a_line_without_places_is_refused():
    with pytest.raises(UserError, match="capacity: 0"):
        realtime.run(analyse, 0, [], capacity=0, on_result=pytest.fail)


@pytest.mark.parametrize("speed", [1.0, 2.5, 0.5])
def test_a_recording_is_played_in_its_own_time(speed):
    clock = Clock()
    times = [500.0, 533.0, 541.0, 900.0]  # not from 0, not evenly
    items = [(None, time_ms, "x") for time_ms in times]
    came = []
    for item in realtime.paced(iter(items), speed, clock, clock.sleep):
        came.append(clock())
        if item[1] == 533.0:
            clock.now += 0.02 / speed  # the reader is busy: the next is due already
    expected = np.array([0.0, 33.0, 53.0, 400.0]) / 1000 / speed
    np.testing.assert_allclose(came, expected, atol=1e-9)


def test_a_player_closes_its_source():
    source = Closing(recording(5))
    player = realtime.paced(source)
    assert next(player)[1] == 0.0
    player.close()
    assert source.closed


@pytest.mark.parametrize("speed", [0.0, -1.0, float("nan"), float("inf")])
def test_a_speed_that_is_none_is_refused_at_once(speed):
    with pytest.raises(UserError, match="speed"):
        realtime.paced([], speed)
