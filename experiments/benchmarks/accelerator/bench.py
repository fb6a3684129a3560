"""What the parts share within one process: sizes, facts, a clock, settings, and programs that are compiled ahead."""

import os
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, TypeVar

import jax
import numpy as np

from stag_configs import base, composite_flow
from stag_experiments.benchmarks import random_study
from stag_experiments.benchmarks.accelerator.programs import Compile, Program, Programs
from stag_experiments.benchmarks.accelerator.sizes import Size
from stag_jax.config import Config, ParallelConfig, from_config_dict
from stag_jax.training import fold, members, memory

T = TypeVar("T")
Row = dict[str, Any]
Rows = Iterator[Row]

COMPOSITE, CLIPS = "composite", "clips"
KINDS = {  # clips and subjects of a study, and the changes to configs/base.py that its config makes
    COMPOSITE: (442, 68, composite_flow.CHANGES),
    CLIPS: (192, 12, {}),
}
SEEDS = 5  # of the whole study of the composite


class Job(NamedTuple):
    """One measurement of a part."""

    name: str
    wanted: str  # one of schedule.WANTED: what it is wanted for
    seconds: float  # that it takes on an accelerator once its programs are compiled
    measure: Callable[..., Rows]  # given a Clock and what the programs' builds returned
    programs: tuple[Program, ...] = ()
    most_s: float = 0.0  # that it may take, if more than `seconds`
    smaller: Callable[..., "Job | None"] = lambda *built: None  # what to do instead where memory is too small


class Clock:
    """Counts the seconds that are left to a job."""

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


class Bench:
    """One process that measures. `facts` are what later jobs need of earlier ones, and what the page says on top.

    `programs` are all that the jobs need.
    """

    programs: Programs

    def __init__(self, size: Size, facts: dict[str, Any]) -> None:
        self.size = size
        self.facts = facts
        self._states: dict[str, fold.MemberState] = {}
        self._fits: dict[str, int] = {}

    def config(self, kind: str, **changes: Any) -> Config:
        """Return the settings of a kind of study, at this size; `changes` by key with __ for a dot."""
        dotted = {key.replace("__", "."): value for key, value in changes.items()}
        return from_config_dict(base.settings({**KINDS[kind][2], **self.size.network, **dotted}))

    def setting(self, kind: str, count: int) -> random_study.RandomStudy:
        """Return a study of `count` members on random clips."""
        clips, subjects, _ = KINDS[kind]
        return random_study.random_setting(self.config(kind), clips, count, subjects)

    def states(self, kind: str, count: int) -> fold.MemberState:
        """Return `count` copies of a made-up state, stacked, on the host, where they share their memory."""
        if kind not in self._states:
            made_up = random_study.stacked_states(self.setting(kind, 1))
            self._states[kind] = jax.tree.map(lambda x: x[0], made_up)
        return jax.tree.map(lambda x: np.broadcast_to(x, (count, *x.shape)), self._states[kind])

    def training(
        self,
        kind: str,
        count: int,
        *,
        mode: str = "sharded",
        devices: int = 1,
        at_once: int = 0,
        precision: str | None = None,
    ) -> Program:
        """Return the training of `count` members over the first devices; its build returns a `members.Members`.

        `at_once` is how many a device has at once; 0 = as many as the memory plan allows. `precision` is that of matrix
        products; None = jax's default.
        """

        def build(later: Compile) -> members.Members:
            setting = self.setting(kind, count)
            per_device = at_once or min(self.fits(kind), -(-count // devices))
            with jax.default_matmul_precision(precision):
                return members.Members(
                    setting.task,
                    setting.batch,
                    setting.roster,
                    self.parallel(mode),
                    per_device,
                    jax.devices()[:devices],
                    lambda lowered: later(lowered.compile),
                )

        details = ["pmap"] * (mode == "pmap") + [f"over {devices}"] * (devices > 1)
        details += [f"{at_once} at once"] * (at_once > 0) + [f"at {precision}"] * (precision is not None)
        return Program(" ".join([f"{kind} {count}", *details]), build)

    def shared(self, kind: str, mode: str = "sharded") -> Program:
        """Return the training of a number of members that is spread over all devices."""
        return self.training(kind, self.shared_count(), mode=mode, devices=len(jax.devices()))

    def shared_count(self) -> int:
        """Return the number of members of `shared`."""
        return self.size.shared * len(jax.devices())

    def whole(self, at_once: int = 0) -> Program:
        """Return the training of the members of the composite's whole study, or of as many as this size has."""
        return self.training(COMPOSITE, self.whole_count(), devices=len(jax.devices()), at_once=at_once)

    def whole_count(self) -> int:
        """Return the number of members of `whole`."""
        return self.size.loso_members or KINDS[COMPOSITE][1] * SEEDS

    def loop(self, kind: str, platform: str | None = None) -> Program:
        """Return the training of one member by `fold.train_steps`; its build returns the compiled program, later."""

        def build(later: Compile) -> Any:
            setting, device = self.setting(kind, 1), jax.devices(platform)[0]
            first = jax.tree.map(lambda x: x[0], (setting.roster.members, self.states(kind, 1)))
            args = jax.device_put((setting.batch, *first), device)
            train = jax.jit(lambda *args: fold.train_steps(setting.task, *args), donate_argnums=2)
            return later(train.lower(*args, np.int32(1)).compile)

        return Program(f"{kind} 1" + (f" on the {platform.upper()}" if platform else ""), build)

    def flops(self, kind: str) -> Program:
        """Return what counts the FLOP of a member-step; its build returns them, or None where XLA does not tell."""

        def build(later: Compile) -> float | None:
            try:
                with jax.default_device(jax.devices("cpu")[0]):
                    return random_study.step_flops(self.setting(kind, 1))
            except (RuntimeError, KeyError, TypeError):
                return None

        return Program(f"FLOP of {kind}", build)

    def fits(self, kind: str) -> int:
        """Return how many members the memory plan of training puts on the first device."""
        if kind not in self._fits:
            setting, device = self.setting(kind, 1), jax.devices()[0]
            required = memory.need(setting.task, setting.batch, random_study.abstract_member(setting))
            fixed = sum(np.asarray(x).nbytes for x in setting.batch)
            most = 4 * max(self.size.members)
            if device.platform == "cpu":  # the plan of a CPU is about its caches, and here all counts are wanted
                count = int(memory.SHARE * memory.available() / len(jax.devices()) // required.total)
            else:
                count = memory.plan(required, fixed, device, most, jax.local_device_count()).members
            self._fits[kind] = max(1, min(most, count))
        return self._fits[kind]

    def parallel(self, mode: str = "sharded") -> ParallelConfig:
        """Return how members lie on devices."""
        return ParallelConfig(mode=mode, cpu_devices=0, members_per_chunk=0, steps_per_dispatch=self.size.steps)


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


def cores() -> int:
    """Return how many cores this process may use; without joblib, which a borrowed machine may lack."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def reason(error: BaseException) -> str:
    """Return what went wrong in one short line."""
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[0]}"[:300]


def out_of_memory(error: BaseException) -> bool:
    """Return whether a device has said that its memory is too small."""
    return isinstance(error, jax.errors.JaxRuntimeError) and "RESOURCE_EXHAUSTED" in str(error)
