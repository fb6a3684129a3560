"""The training loop: take all steps of all members, save, resume, and stop on a signal."""

import contextlib
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from absl import logging

from stag_jax.model.network import Outputs
from stag_jax.training import checkpoint, fold, hosts, loggers, members, preemption, workdir
from stag_jax.training.members import Members
from stag_jax.training.roster import Roster
from stag_jax.types import ClipBatch, Diverged, Preempted, UserError

PROFILE = "profile"
PROFILED = range(1, 3)  # dispatches that are profiled; dispatch 0 warms up

# Called after each dispatch with the step, the members' predictions of their test rows, and their metrics.
Record = Callable[[int, Outputs, dict[str, Any]], None]


class Trained(NamedTuple):
    """The members after their last step, with timings."""

    program: Members
    states: list[fold.MemberState]
    wall_s: float  # total over all sessions of the run
    save_s: float  # this session: time that the devices waited for states to be copied


def train(
    task: fold.Task,
    batch: ClipBatch,
    roster: Roster,
    folder: Path,
    *,
    check: Callable[[], None],
    profile: bool = False,
    record: Record | None = None,
) -> Trained:
    """Take all steps of all members, starting from the newest state in `folder`.

    If a chunk of members does not fit in memory, it is halved and the run continues. `check` is called before anything
    is written, and may raise (`lock.held`).

    Raises:
      UserError: a loss is not finite, no saved state can be read, or not even one member fits.
      Preempted: the scheduler has asked the run to stop; the state is saved.
    """
    parallel = task.config.parallel
    # These may differ from the workdir's config, but must agree here: a process with other steps would wait for ever.
    hosts.agree("config.parallel or config.checkpoint", f"{parallel} {task.config.checkpoint}")
    planned = members.plan(task, batch, roster, parallel)
    per_device = planned.members
    hosts.say(
        f"{hosts.describe()}; a member needs {planned.need.total / 1e6:.1f} MB there; "
        f"{per_device} at once: {planned.reason}"
    )
    while True:
        try:
            program = Members(task, batch, roster, parallel, per_device)
            return _run(task, program, roster, folder, check=check, profile=profile, record=record)
        except jax.errors.JaxRuntimeError as error:
            if "RESOURCE_EXHAUSTED" not in str(error):
                raise
            if per_device == 1:
                raise UserError(
                    f"one member, about {planned.need.total / 1e6:.0f} MB, is too large for a device: make "
                    "config.train.batch_size or config.model.width smaller, or use several devices with "
                    "config.parallel.mode=data"
                ) from error
            if jax.process_count() > 1:
                # The other processes do not notice, and would continue with chunks of another size.
                raise UserError(f"out of memory: set config.parallel.members_per_chunk below {per_device}") from error
        per_device //= 2
        logging.warning("out of memory; going on with %d members a device at once", per_device)


def _run(
    task: fold.Task,
    program: Members,
    roster: Roster,
    folder: Path,
    *,
    check: Callable[[], None],
    profile: bool,
    record: Record | None,
) -> Trained:
    hosts.say(f"{program.layout}; compiled in {program.compile_s:.0f} s")
    config = task.config
    total, per_dispatch = config.train.steps, config.parallel.steps_per_dispatch
    with checkpoint.StateStore(folder, config.checkpoint.keep) as store, preemption.notice() as must_stop:
        # Start from the newest state of this workdir if there is one, else from scratch.
        saved = store.load(program.member, len(roster.names))
        step, elapsed_before = 0, 0.0
        if saved is None:
            states = program.init()
        else:
            step, stacked, elapsed_before = saved
            states = program.place(stacked)
            logging.warning("resuming at step %d of %d", step, total)
        start = last_save = time.perf_counter()
        save_s = 0.0
        log = loggers.RunLog(folder / workdir.LOG if hosts.first() else None, step)
        with (
            contextlib.closing(log),
            loggers.progress(total, step, hidden=not hosts.first()) as bar,
            contextlib.ExitStack() as profiler,
        ):
            dispatch = 0
            while step < total:
                if profile and hosts.first() and dispatch == PROFILED.start:
                    profiler.enter_context(jax.profiler.trace(str(folder / PROFILE), create_perfetto_trace=True))
                # Dispatches end at multiples of `per_dispatch`, so a resumed run has the same dispatches.
                count = min(per_dispatch - step % per_dispatch, total - step)
                states, metrics = program.train(states, count)
                step, dispatch = step + count, dispatch + 1
                if dispatch == PROFILED.stop:
                    profiler.close()
                now = time.perf_counter()
                _check_finite(states, program, roster)
                check()
                log.write(step, elapsed_before + now - start, metrics)
                if record:
                    record(step, program.predict(states), metrics)
                bar.update(count)
                bar.set_postfix(loss=f"{np.mean(metrics['loss']):.4f}", acc=f"{np.mean(metrics['train_accuracy']):.2f}")
                stop = must_stop() and step < total
                # By the clock of the first process, so that all processes save the same steps.
                due = hosts.same(np.asarray(now - last_save > config.checkpoint.every_s))
                if step == total or stop or due:
                    begin = time.perf_counter()
                    store.save(step, program.copy(states), elapsed_before + now - start)
                    last_save = time.perf_counter()
                    save_s += last_save - begin
                if stop:
                    store.wait()
                    raise Preempted(f"{folder}: stopped at step {step} of {total}; the same command goes on")
        return Trained(program, states, elapsed_before + time.perf_counter() - start, save_s)


def _check_finite(states: list[fold.MemberState], program: Members, roster: Roster) -> None:
    bad_steps = program.gather([state.bad_step for state in states])
    for index in np.flatnonzero(bad_steps >= 0):
        raise Diverged(
            f"loss is not finite at step {bad_steps[index]} of fold {roster.names[index]}; a smaller "
            "config.train.learning_rate may help"
        )


def parameters(trained: Trained) -> Any:
    """Return parameters and statistics of all members, [m, ...], on the host."""
    return trained.program.gather(
        [{"params": state.params, "statistics": state.statistics} for state in trained.states]
    )
