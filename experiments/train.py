"""Trains and scores every fold of a study: python experiments/train.py --config=configs/synth_me.py --workdir=DIR.

Builds the corpus if it does not exist, resumes a run in the workdir, and writes config.json, metrics.json,
predictions.csv, predictions_by_seed.csv, log.jsonl and folds/<name>/ into it, and au_predictions.csv if the corpus
has action units. On SIGTERM it saves and exits with code 75.
"""

import stag_experiments.interrupts  # noqa: F401

from absl import flags

from stag_experiments import cli
from stag_jax.training import hosts, loop, outcome

CONFIG = cli.config_flag()
WORKDIR = cli.workdir_flag()
PROFILE = flags.DEFINE_bool("profile", False, "Write a trace of two dispatches to WORKDIR/profile.")
cli.host_flags()


def main() -> None:
    """Read the config, build the corpus if needed, train all folds and print the table."""
    config, folder = cli.read_config(CONFIG), cli.read_workdir(WORKDIR)
    cli.connect(config)
    result = loop.run(*cli.set_up(config, folder), profile=PROFILE.value)
    if hosts.first():
        print(outcome.summary(result))


if __name__ == "__main__":
    cli.run(main)
