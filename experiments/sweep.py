"""Runs the trials of a sweep and says which is best: python experiments/sweep.py --config=FILE --workdir=DIR.

    python experiments/sweep.py --config=configs/sweeps/recipe.py:composite_flow --workdir=runs/recipe
    python experiments/sweep.py --config=configs/sweeps/ablation.py:synth_me --workdir=runs/ablation

Trials that differ only in numbers such as the learning rate are members of one program; others have one each. With
`inner_folds` the trial of each fold is chosen only on inner subjects of its training set, and the result of that
choice is in DIR/nested/. DIR/trials.csv holds all trials, DIR/trials/<name>/ each as a run of its own, and
DIR/inner_scores.png each setting against the inner score. --config.settings.KEY=VALUE changes all trials. After a stop
or kill, the same command resumes; on SIGTERM it saves and exits with code 75. With --slurm each program is a job of an
array.
"""

import stag_experiments.interrupts  # noqa: F401

from collections.abc import Mapping, Sequence
from pathlib import Path

from absl import flags

from stag_experiments import cli
from stag_experiments.parts import launch, sweep_plan
from stag_jax.analysis import sweep_report
from stag_jax.config import DataConfig
from stag_jax.corpora import dataset
from stag_jax.training import hosts, trial_groups, workdir
from stag_jax.types import UserError

CONFIG = cli.config_flag()
WORKDIR = cli.workdir_flag()
ONLY = flags.DEFINE_string("only", None, "Train this one group of trials and leave; for the jobs of --slurm.")
PROFILE = flags.DEFINE_bool("profile", False, "Write a trace of two dispatches to each group's folder.")
cli.host_flags()
launch.slurm_flags()


def main() -> None:
    """Run the trials that are not done yet, then print and write the results."""
    plan = sweep_plan.read(cli.read_settings(CONFIG, "configs/sweeps/recipe.py:composite_flow"))
    folder = cli.read_workdir(WORKDIR)
    plan = plan._replace(
        settings=cli.absolute(plan.settings),
        trials={name: cli.absolute(config) for name, config in plan.trials.items()},
    )
    groups = trial_groups.make_groups(plan)
    cli.connect(plan.settings)
    hosts.in_turn(lambda: trial_groups.check(folder, plan))
    corpora = {}
    for config in (plan.settings, *(group.config for group in groups)):
        if config.data not in corpora:
            corpora[config.data] = cli.build(config)
    with trial_groups.claimed(folder, plan):
        _run(plan, groups, folder, corpora)


def _run(
    plan: trial_groups.Plan,
    groups: list[trial_groups.Group],
    folder: Path,
    corpora: Mapping[DataConfig, Sequence[Path]],
) -> None:
    workdir.keep_programs(folder)
    if launch.wanted():
        # Before the jobs start, so that those which need the same features do not extract them at the same time.
        for group in groups:
            dataset.load(corpora[group.config.data], group.config)
        launch.submit([group.name for group in groups], folder)
    if ONLY.value and ONLY.value not in (group.name for group in groups):
        raise UserError(f"--only={ONLY.value}: no such group; there are {', '.join(group.name for group in groups)}")
    selected = [group for group in groups if ONLY.value in (None, group.name)]

    def work(group: trial_groups.Group) -> trial_groups.GroupResult:
        return trial_groups.run_group(group, plan, folder, corpora[group.config.data], profile=PROFILE.value)

    results = trial_groups.each_group(selected, work)
    if ONLY.value:
        return
    collected = sweep_report.collect(plan, groups, results, folder, corpora[plan.settings.data])
    if hosts.first():
        paths = sweep_report.write(plan, collected, folder)
        print(sweep_report.ranked(plan, collected))
        print(sweep_report.verdict(plan, collected))
        print("\n".join(map(str, paths)))


if __name__ == "__main__":
    cli.run(main)
