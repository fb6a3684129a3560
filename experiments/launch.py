"""Jobs of a sweep on a cluster, through submitit: one job of an array for each program. The only import of submitit."""

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from absl import flags

from stag_experiments import interrupts
from stag_jax.types import UserError


def slurm_flags() -> None:
    """Defines --slurm and how its jobs are."""
    flags.DEFINE_bool("slurm", False, "Submit each program as a job of a Slurm array, wait, then report.")
    flags.DEFINE_enum("slurm_cluster", "slurm", ["slurm", "local"], "local: processes of this machine, to try it out.")
    flags.DEFINE_string("slurm_partition", None, "Partition of the jobs.")
    flags.DEFINE_integer("slurm_minutes", 240, "Time limit of a job; one that is cut short is queued again.")
    flags.DEFINE_integer("slurm_gpus", 1, "GPUs of a job.", lower_bound=0)
    flags.DEFINE_integer("slurm_cpus", 8, "CPU cores of a job.", lower_bound=1)
    flags.DEFINE_integer("slurm_at_once", 16, "Jobs of the array that may run at once.", lower_bound=1)


def wanted() -> bool:
    """Whether jobs are to be submitted."""
    return flags.FLAGS.slurm


class SweepJob:
    """One program of a sweep: the command line of the sweep, with --only. Queued again where it was cut short."""

    def __init__(self, command: Sequence[str], name: str) -> None:
        self.command, self.name = list(command), name

    def __call__(self) -> str:
        code = interrupts.TRY_AGAIN
        while code == interrupts.TRY_AGAIN:
            # It saves its state and leaves when somebody asks; where that was not the scheduler, it goes on here.
            code = subprocess.run([*self.command, f"--only={self.name}"], check=False).returncode
        if code:
            raise RuntimeError(f"{self.name} ended with code {code}; its log tells why")
        return self.name

    def checkpoint(self) -> Any:
        """What submitit asks for when the scheduler is about to stop the job: the same again, which goes on."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)


def submit(names: Sequence[str], folder: Path) -> None:
    """Submits one job for each name, and waits until all are done.

    Raises:
      UserError: submitit is missing, Slurm is, or a job failed; the first that did is named with its log.
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
    own = {f"--{name}" for name in values if name.startswith("slurm")} | {"--slurm"}
    # The same command without what concerns submitting.
    command = [sys.executable, *(arg for arg in sys.argv if arg.split("=")[0] not in own)]
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
