"""Builds a corpus and the features of its clips: python experiments/prepare.py --dataset=NAME [--manual_dir=DIR].

Features are those of configs/NAME.py, or of --config=FILE; experiments/train.py then finds both ready. What was found
in each clip is written below DATA_DIR/reports: clips.csv, one row a clip, and contact sheets of the aligned faces and
their largest movement. Clips without a usable face are listed, all of them, and are an error unless --skip_faceless.
"""

from pathlib import Path

import numpy as np
from absl import flags

from stag_datasets import corpus
from stag_experiments import cli
from stag_jax.analysis import clip_reports
from stag_jax.motion import quality
from stag_jax.training import dataset, features
from stag_jax.types import UserError

CONFIG = cli.config_flag()
DATASET = flags.DEFINE_string("dataset", None, "Name of a corpus in datasets/.")
DATA_DIR = flags.DEFINE_string("data_dir", None, "Where prepared corpora are kept; the config's own by default.")
MANUAL_DIR = flags.DEFINE_string("manual_dir", None, "Where the corpus lies as its owners ship it.")
SKIP_FACELESS = flags.DEFINE_bool("skip_faceless", False, "Leave out clips without a usable face.")


def main() -> None:
    """Builds, extracts, says what there is."""
    settings = CONFIG.value if CONFIG.value is not None else _own_config(DATASET.value)
    if DATASET.value:
        settings.data.dataset = DATASET.value
    if DATA_DIR.value:
        settings.data.data_dir = DATA_DIR.value
    if MANUAL_DIR.value:
        settings.data.manual_dir = MANUAL_DIR.value
    settings.data.skip_faceless |= SKIP_FACELESS.value
    config = cli.from_config_dict(settings)
    data = config.data
    prepared = corpus.build(data.dataset, data_dir=data.data_dir, manual_dir=data.manual_dir)
    found = features.prepare(prepared, config)
    path = features.cache_path(prepared, config)
    if found.reports:
        _report(found, Path(data.data_dir) / "reports" / path.stem)
    made = dataset.assemble(found, config)
    print(f"{prepared}: {len(made.ids)} clips, {len(set(made.subjects))} subjects")
    for index, name in enumerate(data.classes):
        print(f"{name:12}{int((made.batch.label == index).sum()):6d}")
    print(f"features {path}: {made.batch.nodes.shape[1:]} (t n d) a clip")


def _report(found: features.Prepared, folder: Path) -> None:
    """Writes the table and the sheets, and prints what stands out. Before any error, for that is when it is needed."""
    clip_reports.write_table(found.reports, folder / "clips.csv")
    sheets = clip_reports.write_sheets(found.reports, found.tiles, folder)
    doubtful = [row for row in found.reports if quality.doubts(row)]
    print(f"{folder}: clips.csv and {len(sheets)} contact sheets; {len(doubtful)} clips are worth a look")
    errors = np.abs(clip_reports.apex_errors(found.reports))
    if len(errors):
        print(f"largest movement to annotated apex: median {np.median(errors):.1f} frames ({len(errors)} clips)")


def _own_config(name: str | None):
    """The settings of configs/NAME.py."""
    if not name:
        raise UserError("--dataset=NAME or --config=FILE is missing")
    return cli.named_config(name)


if __name__ == "__main__":
    cli.run(main)
