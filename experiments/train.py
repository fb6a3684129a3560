"""Trains and scores every fold of a study: python experiments/train.py --config=configs/synth_me.py --workdir=DIR.

Builds the corpus if it is not there, resumes what the workdir holds, and leaves config.json, metrics.json,
predictions.csv, log.jsonl and folds/<subject>/ in it.
"""

import dataclasses
import os
from pathlib import Path

import jax
from absl import flags

from stag_datasets import corpus
from stag_experiments import cli
from stag_jax.training import loop, workdir
from stag_jax.types import UserError

CONFIG = cli.config_flag()
WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run; created, or gone on with.")
PLACES = ("data_dir", "manual_dir")


def main() -> None:
    """Parses, builds what is missing, runs, prints the table."""
    config = cli.read_config(CONFIG)
    if not WORKDIR.value:
        raise UserError("--workdir=DIR is missing")
    folder = Path(WORKDIR.value)
    # Noted whole, so that the run can be analysed from any folder.
    places = {key: str(Path(value).absolute()) for key in PLACES if (value := getattr(config.data, key))}
    config = dataclasses.replace(config, data=dataclasses.replace(config.data, **places))
    workdir.check(folder, config)
    # XLA on one CPU device leaves cores idle between small operations; members share nothing, so each core gets some.
    jax.config.update("jax_num_cpu_devices", config.parallel.cpu_devices or os.cpu_count() or 1)
    prepared = corpus.build(config.data.dataset, data_dir=config.data.data_dir, manual_dir=config.data.manual_dir)
    print(loop.summary(loop.run(config, folder, prepared)))


if __name__ == "__main__":
    cli.run(main)
