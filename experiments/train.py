"""Trains and scores every fold of a study: python experiments/train.py --config=configs/synth_me.py --workdir=DIR.

Builds the corpus if it is not there, resumes what the workdir holds, and leaves config.json, metrics.json,
predictions.csv, predictions_by_seed.csv, log.jsonl and folds/<name>/ in it, and au_predictions.csv where the corpus
has action units.
"""

from stag_experiments import cli
from stag_jax.training import loop

CONFIG = cli.config_flag()
WORKDIR = cli.workdir_flag()


def main() -> None:
    """Parses, builds what is missing, runs, prints the table."""
    print(loop.summary(loop.run(*cli.set_up(cli.read_config(CONFIG), cli.read_workdir(WORKDIR)))))


if __name__ == "__main__":
    cli.run(main)
