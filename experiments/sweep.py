"""Runs the trials of a sweep and compares each with the first: python experiments/sweep.py --config=FILE --workdir=DIR.

    python experiments/sweep.py --config=configs/sweeps/ablation.py:synth_me --workdir=runs/ablation

Each trial is a run of its own in DIR/<trial>, on the same clips, folds and seeds; --config.settings.KEY=VALUE changes
all of them. Stopped or killed, the same command goes on; trials that are done are kept. DIR/trials.csv and the printed
table hold all of them.
"""

import jax
from ml_collections import ConfigDict

from stag_experiments import cli
from stag_jax.analysis import comparison
from stag_jax.config import Config
from stag_jax.protocol.splits import make_splits
from stag_jax.training import dataset, loop
from stag_jax.types import UserError

CONFIG = cli.config_flag()
WORKDIR = cli.workdir_flag()


def trials(sweep: ConfigDict) -> dict[str, Config]:
    """The settings of every trial by its name. Raises UserError where there are none, or a key does not exist."""
    if "settings" not in sweep or not sweep.get("trials"):
        raise UserError("a sweep has `settings` and one or more `trials`, as configs/sweeps/ablation.py does")
    found = {}
    for name, changes in sweep.trials:
        settings = sweep.settings.copy_and_resolve_references()
        settings.update(changes)
        found[name] = cli.from_config_dict(settings)
    return found


def main() -> None:
    """Runs what is not done yet, then compares."""
    plan = trials(cli.read_settings(CONFIG, "configs/sweeps/ablation.py:synth_me"))
    folder = cli.read_workdir(WORKDIR)
    ready = {name: cli.set_up(config, folder / name) for name, config in plan.items()}
    for number, (name, run) in enumerate(ready.items(), start=1):
        print(f"trial {number} of {len(ready)}: {name}", flush=True)
        loop.run(*run)
        jax.clear_caches()  # the next trial is another program
    config, _, prepared = next(iter(ready.values()))
    corpus = dataset.load(prepared, config)
    corpus = corpus.take(make_splits(config.protocol, corpus.clips).test_mask.any(axis=0))
    models = [comparison.of_run(run[1], corpus, config, name) for name, run in ready.items()]
    rows = comparison.compare_all(models, corpus, config)
    print(comparison.markdown(comparison.HEADER, map(comparison.cells, rows)))
    print(comparison.write(rows, folder / "trials.csv"))


if __name__ == "__main__":
    cli.run(main)
