"""What the parts share within one process: sizes, facts, a clock, settings, and programs that are compiled already."""

import os
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, TypeVar

import jax
import numpy as np

from stag_configs import base, composite_flow
from stag_experiments.benchmarks import random_study
from stag_experiments.benchmarks.accelerator.sizes import Size
from stag_jax.config import Config, ParallelConfig, from_config_dict
from stag_jax.training import fold, members

T = TypeVar("T")
Row = dict[str, Any]
Rows = Iterator[Row]

COMPOSITE, CLIPS = "composite", "clips"
KINDS = {  # clips and subjects of a study, and the changes to configs/base.py that its config makes
    COMPOSITE: (442, 68, composite_flow.CHANGES),
    CLIPS: (192, 12, {}),
}


class Clock:
    """Counts the seconds that are left to a part."""

    def __init__(self, seconds: float) -> None:
        self._end = time.monotonic() + seconds

    def left(self) -> float:
        """Return the seconds that are left, negative once they are over."""
        return self._end - time.monotonic()


class Stopwatch:
    """Counts the seconds since it was made."""

    def __init__(self) -> None:
        self._start = time.perf_counter()

    def seconds(self) -> float:
        """Return the seconds so far."""
        return time.perf_counter() - self._start


class Compiled(NamedTuple):
    """A compiled program of (batch, member, state, number of steps), and the seconds that it took."""

    run: Callable[..., tuple[fold.MemberState, dict[str, Any]]]
    compile_s: float


class Bench:
    """One process that measures. `facts` are what later parts need of earlier ones, and what the page says on top."""

    def __init__(self, size: Size, facts: dict[str, Any]) -> None:
        self.size = size
        self.facts = facts
        self._states: dict[str, fold.MemberState] = {}
        self._studies: dict[tuple, members.Study] = {}
        self._steps: dict[str, Compiled] = {}

    def config(self, kind: str, **changes: Any) -> Config:
        """Return the settings of a kind of study, at this size; `changes` by key with __ for a dot."""
        dotted = {key.replace("__", "."): value for key, value in changes.items()}
        return from_config_dict(base.settings({**KINDS[kind][2], **self.size.network, **dotted}))

    def setting(self, kind: str, count: int) -> random_study.RandomStudy:
        """Return a study of `count` members on random clips."""
        clips, subjects, _ = KINDS[kind]
        return random_study.random_setting(self.config(kind), clips, count, subjects)

    def states(self, kind: str, count: int) -> fold.MemberState:
        """Return `count` copies of one first state, stacked, on the host, where they share their memory."""
        if kind not in self._states:
            self._states[kind] = jax.tree.map(lambda x: x[0], random_study.stacked_states(self.setting(kind, 1)))
        return jax.tree.map(lambda x: np.broadcast_to(x, (count, *x.shape)), self._states[kind])

    def study(
        self,
        kind: str,
        count: int,
        mode: str = "sharded",
        devices: int = 1,
        per_device: int = 0,
        precision: str | None = None,
    ) -> members.Study:
        """Compile the training of `count` members over the first devices; the second time it is known.

        `per_device` is how many a device has at once; 0 = all that fall to it. `precision` is that of matrix products
        where the caller has set another than jax's default.
        """
        per_device = per_device or -(-count // devices)
        key = kind, count, mode, devices, per_device, precision
        if key not in self._studies:
            setting, chosen = self.setting(kind, count), jax.devices()[:devices]
            parallel = self.parallel(mode)
            built = members.build(setting.task, setting.batch, setting.roster, parallel, per_device, chosen)
            self._studies[key] = built
        return self._studies[key]

    def everywhere(self, kind: str, mode: str = "sharded") -> tuple[int, members.Study]:
        """Return a number of members that is spread over all devices, and their study."""
        devices = len(jax.devices())
        count = self.size.shared * devices
        return count, self.study(kind, count, mode, devices)

    def steps(self, kind: str) -> "Compiled":
        """Compile the training of one member, `fold.train_steps`, for the first device; the second time it is known."""
        if kind not in self._steps:
            setting, device = self.setting(kind, 1), jax.devices()[0]
            first = jax.tree.map(lambda x: x[0], (setting.roster.members, self.states(kind, 1)))
            args = jax.device_put((setting.batch, *first), device)
            train = jax.jit(lambda *args: fold.train_steps(setting.task, *args), donate_argnums=2)
            watch = Stopwatch()
            self._steps[kind] = Compiled(train.lower(*args, np.int32(1)).compile(), watch.seconds())
        return self._steps[kind]

    def parallel(self, mode: str = "sharded") -> ParallelConfig:
        """Return how members lie on devices."""
        return ParallelConfig(mode=mode, cpu_devices=0, members_per_chunk=0, steps_per_dispatch=self.size.steps)

    def threads(self) -> int:
        """Return how many programs are compiled at the same time."""
        return self.size.threads or max(1, min(8, (os.cpu_count() or 1) // 2))


def repeated(work: Callable[[], Any], seconds: float, most: int = 200) -> float:
    """Return the median seconds of `work`, repeated for about so long; the first call is not counted.

    Where that call alone takes longer, one more is all.
    """
    watch = Stopwatch()
    work()
    least = 1 if watch.seconds() > seconds else 2
    taken: list[float] = []
    while len(taken) < least or (sum(taken) < seconds and len(taken) < most):
        watch = Stopwatch()
        work()
        taken.append(watch.seconds())
    return float(np.median(taken))


def reason(error: BaseException) -> str:
    """Return what went wrong in one short line."""
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[0]}"[:200]


def largest_that_fits(run: Callable[[int], T], count: int) -> tuple[int, T]:
    """Call `run` with `count`, halved as long as the device is out of memory; return the count that fitted as well.

    Raises JaxRuntimeError where even 1 does not fit, and for any other error of the runtime.
    """
    while True:
        try:
            return count, run(count)
        except jax.errors.JaxRuntimeError as error:
            if "RESOURCE_EXHAUSTED" not in str(error) or count == 1:
                raise
        count //= 2


def flops(setting: random_study.RandomStudy) -> float | None:
    """Return the FLOP of a member-step, or None where XLA does not tell."""
    try:
        with jax.default_device(jax.devices("cpu")[0]):
            return random_study.step_flops(setting)
    except (RuntimeError, KeyError, TypeError):
        return None
