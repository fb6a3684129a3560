"""Builds a corpus and the features of its clips: python experiments/prepare.py --dataset=NAME [--manual_dir=DIR].

With --check it builds nothing: it reads the archive, prints what it holds with remarks, and lists all faults (exit code
1 if there are any).

Features are those of configs/NAME.py, or of --config=FILE; experiments/train.py then finds both ready. A report on
the clips is written below DATA_DIR/reports: clips.csv, one row per clip, and contact sheets of the aligned faces and
their largest movement. All clips without a usable face are listed, and are an error unless --skip_faceless.
"""

import stag_experiments.interrupts  # noqa: F401

import sys
from pathlib import Path

from absl import flags

from stag_datasets import corpus
from stag_datasets.archive import TOO_LONG_S
from stag_experiments import cli
from stag_experiments.parts import archive_check
from stag_jax.types import UserError

CONFIG = cli.config_flag()
DATASET = flags.DEFINE_string("dataset", None, "Name of a corpus in datasets/.")
DATA_DIR = flags.DEFINE_string("data_dir", None, "Where prepared corpora are kept; the config's own by default.")
MANUAL_DIR = flags.DEFINE_string("manual_dir", None, "Where the corpus lies as its owners ship it.")
CHECK = flags.DEFINE_bool("check", False, "Only look at the archive, and list what is wrong with it.")
SKIP_DAMAGED = flags.DEFINE_bool("skip_damaged", False, "Leave out clips that the archive does not have whole.")
FRAMES = flags.DEFINE_string("frames", "", "Folder of the frames to take, where an archive holds several releases.")
LONGEST_S = flags.DEFINE_float("longest_s", TOO_LONG_S, "Longer clips are refused, seconds.", lower_bound=0.0)
BEAM_RUNNER = flags.DEFINE_string("beam_runner", None, "Build by this runner of Apache Beam, e.g. DirectRunner.")
SKIP_FACELESS = flags.DEFINE_bool("skip_faceless", False, "Leave out clips without a usable face.")


def main() -> None:
    """Build the corpus, extract its features and print a summary."""
    chosen = CONFIG.value is not None
    if not chosen and not DATASET.value:
        raise UserError("--dataset=NAME or --config=FILE is missing")
    settings = cli.read_settings(CONFIG, "configs/synth_me.py") if chosen else cli.named_config(DATASET.value)
    if DATASET.value:
        settings.data.dataset = DATASET.value
    if DATA_DIR.value:
        settings.data.data_dir = DATA_DIR.value
    if MANUAL_DIR.value:
        settings.data.manual_dir = MANUAL_DIR.value
    settings.data.skip_faceless |= SKIP_FACELESS.value
    config = cli.from_config_dict(settings)
    data = config.data
    choice = {"frames": FRAMES.value, "longest_s": LONGEST_S.value}
    if CHECK.value:
        sys.exit(archive_check.run(data.dataset, data.manual_dir, **choice))
    cli.checked(config)
    folders = corpus.build_all(
        data.dataset,
        data_dir=data.data_dir,
        manual_dir=data.manual_dir,
        skip_damaged=SKIP_DAMAGED.value,
        **choice,
        beam_runner=BEAM_RUNNER.value,
    )
    # Checks need nothing of what follows, and it takes seconds to import.
    from stag_experiments.parts import clip_summary
    from stag_jax.corpora import dataset, features

    per_corpus = []
    for folder in folders:
        features_of_corpus = features.prepare(folder, config)
        per_corpus.append(features_of_corpus)
        path = features.cache_path(folder, config)
        if features_of_corpus.reports:
            clip_summary.write(features_of_corpus, Path(data.data_dir) / "reports" / path.stem)
        print(f"features {path}")
    clips = dataset.all_clips(per_corpus, skip_faceless=data.skip_faceless)
    if not clips:
        raise UserError(f"{data.dataset}: no clip is left, since none has a usable face")
    subjects = {clip.identity.subject for clip in clips}
    print(f"{', '.join(map(str, folders))}: {len(clips)} clips, {len(subjects)} subjects")
    for scheme, counted in dataset.counts(clips).items():
        row = ", ".join(f"{name} {count}" for name, count in sorted(counted.items()))
        print(f"{scheme or 'emotions':10} {row}")
    print(f"{clips[0].nodes.shape} (t n d) a clip")
    if chosen:
        assembled = dataset.assemble(folders, per_corpus, config)
        row = ", ".join(f"{name} {(assembled.batch.label == index).sum()}" for index, name in enumerate(data.classes))
        print(f"this config: {len(assembled.ids)} clips, {len(set(assembled.subjects))} subjects: {row}")


if __name__ == "__main__":
    cli.run(main)
