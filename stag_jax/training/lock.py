"""A lock that allows one run at a time in a workdir, on any disk."""

import contextlib
import datetime
import getpass
import json
import os
import platform
from collections.abc import Callable, Iterator
from pathlib import Path

import filelock

from stag_jax import files
from stag_jax.training import hosts
from stag_jax.types import UserError, WorkdirGone

LOCK, HOLDER = "run.lock", "run.holder.json"
LEASE_S = 30.0  # a holder on another machine that has not renewed its lease for so long is taken to be dead


@contextlib.contextmanager
def held(folder: Path) -> Iterator[Callable[[], None]]:
    """Lock a workdir for one run; the first process holds the lock for all processes of the run.

    The lock is a lease that its holder renews. That of a dead process on this machine is taken over at once, that of
    one on another machine after `LEASE_S`. Yields a function that raises WorkdirGone if the workdir was removed or
    taken over; call it from time to time. An error in the block is replaced by WorkdirGone in that case too.

    Raises:
      UserError: another run holds the workdir; the message says who, where and since when.
    """
    lease = hosts.in_turn(lambda: _acquire(folder) if hosts.first() else None)
    if lease is None:
        yield lambda: None
        return
    try:
        yield lambda: _check(lease, folder)
    except Exception:
        _check(lease, folder)  # a missing workdir is the cause of any other error
        raise
    finally:
        _release(lease, folder)


def require_free(folder: Path) -> None:
    """Raise UserError, as `held` does, if another run holds the workdir."""
    if (folder / LOCK).exists():
        _release(_acquire(folder), folder)


def _acquire(folder: Path) -> filelock.SoftFileLease:
    folder.mkdir(parents=True, exist_ok=True)
    lease = filelock.SoftFileLease(folder / LOCK, lease_duration=LEASE_S)
    try:
        lease.acquire(timeout=0)
    except filelock.Timeout:
        owner = lease.owner
        patience = 0.0
        if owner is not None and owner.hostname != platform.node():
            patience = 1.5 * LEASE_S
            hosts.say(f"{folder} is in use by {_holder(folder)}; waiting {patience:.0f} s for a sign of life")
        try:
            lease.acquire(timeout=patience)
        except filelock.Timeout as error:
            raise UserError(
                f"{folder} is in use by {_holder(folder)}; wait for that run, or use another --workdir"
            ) from error
    files.write_text(folder / HOLDER, json.dumps(_about_this_process()) + "\n")
    return lease


def _release(lease: filelock.SoftFileLease, folder: Path) -> None:
    with contextlib.suppress(OSError):
        (folder / HOLDER).unlink(missing_ok=True)
    with contextlib.suppress(OSError, RuntimeError):
        lease.release()
    with contextlib.suppress(OSError):
        folder.rmdir()  # removes it only if it is empty


def _check(lease: filelock.SoftFileLease, folder: Path) -> None:
    if lease.compromise is not None or not (folder / LOCK).exists():
        raise WorkdirGone(f"{folder} was removed, or taken over, while the run went on: nothing more is written there")


def _about_this_process() -> dict[str, str | int]:
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # in a container whose user has no name
        user = str(os.getuid())
    since = datetime.datetime.now().astimezone().isoformat(timespec="seconds")
    return {"user": user, "host": platform.node(), "pid": os.getpid(), "since": since}


def _holder(folder: Path) -> str:
    try:
        holder = json.loads((folder / HOLDER).read_text(encoding="utf-8"))
        return f"process {holder['pid']} of {holder['user']} on {holder['host']} since {holder['since']}"
    except (OSError, ValueError, KeyError, TypeError):
        return "another process"
