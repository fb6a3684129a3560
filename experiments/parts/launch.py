"""Submit the jobs of a sweep to a cluster with submitit: one array job per program. The only import of submitit."""

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from absl import flags

from stag_experiments import interrupts
from stag_jax.types import UserError


def slurm_flags() -> None:
    """Define --slurm and the settings of its jobs."""
    flags.DEFINE_bool("slurm", False, "Submit each program as a job of a Slurm array, wait, then report.")
    flags.DEFINE_enum("slurm_cluster", "slurm", ["slurm", "local"], "local: processes of this machine, to try it out.")
    flags.DEFINE_string("slurm_partition", None, "Partition of the jobs.")
    flags.DEFINE_integer("slurm_minutes", 240, "Time limit of a job; one that is cut short is queued again.")
    flags.DEFINE_integer("slurm_gpus", 1, "GPUs of a job.", lower_bound=0)
    flags.DEFINE_integer("slurm_cpus", 8, "CPU cores of a job.", lower_bound=1)
    flags.DEFINE_integer("slurm_at_once", 16, "Jobs of the array that may run at once.", lower_bound=1)


def wanted() -> bool:
    """Return whether jobs are to be submitted."""
    return flags.FLAGS.slurm


class SweepJob:
    """One program of a sweep: the command line of the sweep with --only. Queued again if it was cut short."""

    def __init__(self, command: Sequence[str], name: str) -> None:
        self.command, self.name = list(command), name

    def __call__(self) -> str:
        code = interrupts.TRY_AGAIN
        while code == interrupts.TRY_AGAIN:
            # On a signal it saves its state and exits; if the scheduler did not send the signal, it continues here.
            code = subprocess.run([*self.command, f"--only={self.name}"], check=False).returncode
        if code:
            raise RuntimeError(f"{self.name} ended with code {code}; its log tells why")
        return self.name

    def checkpoint(self) -> Any:
        """Return the job to queue again when the scheduler is about to stop this one: the same, which resumes."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)


def submit(names: Sequence[str], folder: Path) -> None:
    """Submit one job for each name, and wait until all are done.

    Raises:
      UserError: submitit or Slurm is missing, or a job failed; the first failed job is named with its log.
    """
    try:
        import submitit
    except ImportError as error:
        raise UserError('--slurm needs submitit, which the extra "slurm" brings: pip install -e ".[slurm]"') from error
    values = flags.FLAGS
    try:
        executor = submitit.AutoExecutor(folder=folder / "jobs", cluster=values.slurm_cluster)
    except RuntimeError as error:
        raise UserError(f"--slurm: {error}") from error
    slurm_options = {f"--{name}" for name in values if name.startswith("slurm")} | {"--slurm"}
    # The same command without the flags for submitting.
    command = [sys.executable, *(arg for arg in sys.argv if arg.split("=")[0] not in slurm_options)]
    executor.update_parameters(timeout_min=values.slurm_minutes, name="stag-sweep", cpus_per_task=values.slurm_cpus)
    if values.slurm_cluster == "slurm":
        executor.update_parameters(
            slurm_partition=values.slurm_partition,
            slurm_array_parallelism=values.slurm_at_once,
            slurm_gpus_per_node=values.slurm_gpus or None,
        )
    with executor.batch():
        jobs = [executor.submit(SweepJob(command, name)) for name in names]
    print(f"submitted {len(jobs)} jobs: {', '.join(job.job_id for job in jobs)}; logs in {folder / 'jobs'}", flush=True)
    for name, job in zip(names, jobs, strict=True):
        try:
            job.result()
        except (submitit.core.utils.FailedJobError, submitit.core.utils.UncompletedJobError) as error:
            raise UserError(
                f"job {job.job_id}, {name}, failed; see {job.paths.stderr}. The same command goes on with the others"
            ) from error
