"""Five scripts given SIGINT and SIGTERM at random moments: part of `benchmark.py kills`.

Each is started over and over on a small study of its own, from nothing; a signal comes at a moment drawn from the first
import to the end of an undisturbed session. What counts is the exit code, what is printed, and what the same command
ends in when it is left alone afterwards.
"""

import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from stag_experiments import interrupts
from stag_experiments.benchmarks import stream_speed
from stag_jax.types import UserError

HEADER = ("script", "signals", "ended before", "exit 130", "exit 75", "other", "traceback", "crash", "seconds to leave",
          "then completes, same files")  # fmt: skip
CODES = {signal.SIGINT: interrupts.INTERRUPTED, signal.SIGTERM: interrupts.TRY_AGAIN}
TIMEOUT_S = 120  # of a session after its signal
SMALL = (
    *("model.width=8", "model.score_dim=2", "model.gat_layers=1", "model.readout_dim=3", "motion.frames=4"),
    *("train.steps=40", "protocol.bootstrap=50", "parallel.steps_per_dispatch=5", "checkpoint.every_s=0"),
)


class SignalJob(NamedTuple):
    """One script on its own small study."""

    name: str
    command: Sequence[str]
    made: Path  # folder that it makes; removed after a session that was not disturbed
    kept: Sequence[str]  # files of it that must come out the same, as patterns


class SignalRun(NamedTuple):
    """What became of one session."""

    signal: int | None  # None where it had ended before
    code: int
    text: str  # what it printed to its standard error
    moment_s: float  # from its start to the signal
    leaving_s: float  # from the signal to its end


def jobs(folder: Path) -> list[SignalJob]:
    """List the jobs, with what they need made in `folder`."""
    scripts = Path(__file__).parents[1]
    configs = scripts.parent / "configs"

    def command(script: str, *flags: str) -> list[str]:
        return [sys.executable, str(scripts / f"{script}.py"), *flags]

    def study(name: str, prefix: str = "--config.") -> list[str]:
        return [f"{prefix}{each}" for each in (*SMALL, "data.dataset=synth_me/tiny", f"data.data_dir={folder / name}")]

    config = f"--config={configs / 'synth_me.py'}"
    space = folder / "space.py"
    space.parent.mkdir(parents=True, exist_ok=True)
    space.write_text(
        "from ml_collections import ConfigDict\n\nfrom stag_configs import synth_me\n\n"
        'SPACE = (("train.learning_rate", "choice", 1e-3, 4e-3),)\n\n\ndef get_config():\n'
        '    """Two trials."""\n    settings = synth_me.get_config()\n'
        '    return ConfigDict({"settings": settings, "space": SPACE, "search": "grid", "inner_folds": 2})\n'
    )
    whole = command("train", config, *study("data"), f"--workdir={folder / 'whole'}")
    if not (folder / "whole" / "metrics.json").exists() and subprocess.run(whole, stdout=subprocess.DEVNULL).returncode:
        raise UserError(f"train.py fails when left alone: {' '.join(whole)}")
    film = folder / "film.mp4"
    if not film.exists():
        stream_speed.film(film, 30, 500)
    train = command("train", config, *study("data"), f"--workdir={folder / 'train'}")
    sweep = command("sweep", f"--config={space}", *study("data", "--config.settings."), f"--workdir={folder / 'sweep'}")
    report = folder / "whole" / "report"
    return [
        SignalJob("train", train, folder / "train", ("*.csv",)),
        SignalJob(
            "prepare",
            command("prepare", "--dataset=synth_me/tiny", f"--data_dir={folder / 'prepared'}"),
            folder / "prepared",
            ("reports/*/clips.csv",),
        ),
        SignalJob(
            "predict",
            command("predict", f"--video={film}", f"--out={folder / 'predicted'}"),
            folder / "predicted",
            ("*.csv", "*.json"),
        ),
        SignalJob("analyze", command("analyze", f"--workdir={folder / 'whole'}"), report, ("tables/*.csv",)),
        SignalJob("sweep", sweep, folder / "sweep", ("trials.csv",)),
    ]


def measure(folder: Path, count: int, seed: int = 0, only: Iterable[str] = ()) -> list[tuple[str, ...]]:
    """Send `count` signals, dealt over the scripts in turn; rows under `HEADER`.

    Raises UserError where a script fails that nobody disturbs.
    """
    moments = random.Random(seed)
    chosen = [job for job in jobs(folder) if not only or job.name in only]
    sessions: dict[str, list[SignalRun]] = {job.name: [] for job in chosen}
    lengths, files = {}, {}
    for job in chosen:
        for _ in range(2):  # what is found ready the second time is also found by all that follow
            shutil.rmtree(job.made, ignore_errors=True)
            lengths[job.name], files[job.name] = _undisturbed(job)
        shutil.rmtree(job.made)
    with tqdm(total=count, desc="signals", unit="signal") as bar:
        while bar.n < count:
            job = chosen[bar.n % len(chosen)]
            session = _session(job, moments.choice(list(CODES)), moments.uniform(0, lengths[job.name]))
            sessions[job.name].append(session)
            if session.code == 0:
                shutil.rmtree(job.made)
            bar.update()
    return [_row(job, sessions[job.name], files[job.name]) for job in chosen]


def _undisturbed(job: SignalJob) -> tuple[float, dict[str, bytes]]:
    start = time.perf_counter()
    done = subprocess.run(job.command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    if done.returncode:
        raise UserError(f"{job.name} fails when left alone: {done.stderr.strip().splitlines()[-1:]}")
    return time.perf_counter() - start, _files(job)


def _files(job: SignalJob) -> dict[str, bytes]:
    paths = [path for pattern in job.kept for path in sorted(job.made.glob(pattern))]
    return {path.name: path.read_bytes() for path in paths}  # names of folders carry hashes of corpora


def _session(job: SignalJob, number: int, moment: float) -> SignalRun:
    process = subprocess.Popen(job.command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    try:
        _, text = process.communicate(timeout=moment)
        return SignalRun(None, process.returncode, text, moment, 0.0)
    except subprocess.TimeoutExpired:
        process.send_signal(number)
    start = time.perf_counter()
    try:
        _, text = process.communicate(timeout=TIMEOUT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        _, text = process.communicate()
    return SignalRun(number, process.returncode, text, moment, time.perf_counter() - start)


def _row(job: SignalJob, sessions: Sequence[SignalRun], files: dict[str, bytes]) -> tuple[str, ...]:
    hit = [session for session in sessions if session.signal is not None]
    # A session may end of itself between the moment drawn and the signal.
    codes = Counter(session.code for session in hit)
    odd = [session for session in hit if session.code not in (CODES[session.signal], 0)]

    def having(what: Callable[[SignalRun], bool]) -> str:
        return str(sum(map(what, sessions)))

    try:
        same = "yes" if _undisturbed(job)[1] == files else "NO"
    except UserError as error:
        same = f"NO: {error}"
    leaving = [session.leaving_s for session in hit] or [0.0]
    return (
        job.name,
        str(len(hit)),
        str(len(sessions) - len(hit)),
        str(codes[interrupts.INTERRUPTED]),
        str(codes[interrupts.TRY_AGAIN]),
        f"{len(odd)} {', '.join(f'({s.code} after {s.moment_s:.2f} s)' for s in odd)}".strip(),
        having(lambda session: "Traceback" in session.text),
        having(lambda session: session.code < 0),
        f"{np.median(leaving):.1f}, at most {max(leaving):.1f}",
        same,
    )
