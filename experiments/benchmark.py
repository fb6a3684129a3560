"""Measures a part of the project, from one run, and prints a table: python experiments/benchmark.py PART.

    frontend    face, landmarks, flow, head motion, selection, speed: against the truth of rendered clips
    accuracy    the run of --config in --workdir (trained if it is not finished) against plain classifiers of the key
                frame, and against the runs in --against: the same clips, folds and resamples
    twin        a study rehearsed on a rendered twin of CASME II, 26 folds, five classes, in the folder --out
    builder     memory and speed of building a corpus of --clips clips, and of a half and a quarter of it
    members     ways of training all members of --config: one after the other, vmapped, over all devices, in eager
                PyTorch; with --curves the cost of 1 to 1024 members and of 300 to 10000 random clips instead
    kills       a sweep killed --kills times at random moments, against one that was left alone, in the folder --out
    spotting    expressions found in long rendered recordings by the folds of the synth_me run in --workdir
    forward     the networks of the run in --workdir, exported in every format and precision: time of a window on one
                core, size, memory, and UF1 beside that of the checkpoints
    runtime     size of what must be installed to run an exported network, in a fresh environment in --out
    report      time and size of the report of a run of 60 folds over more than 500 clips, kept in the folder --out

Takes minutes and the whole machine; quote medians and ratios from one run.
"""

import sys
import tempfile
from pathlib import Path

import jax
from absl import flags

from stag_experiments import (
    accuracy,
    building_speed,
    cli,
    forward_speed,
    frontend,
    kills,
    members_speed,
    rehearsal,
    report_speed,
    runtime_size,
    spotting,
)
from stag_jax.analysis import comparison
from stag_jax.training import dataset, files, workdir
from stag_jax.types import UserError

CLIPS = flags.DEFINE_integer(
    "clips",
    0,
    "frontend: clips a subject of synth_me, 0 = all; builder: clips, 0 = 10000; spotting: people.",
    lower_bound=0,
)
MEDIA = flags.DEFINE_string("media", None, "frontend: folder of videos to track as well, frame by frame.")
AGAINST = flags.DEFINE_list("against", [], "accuracy: workdirs of finished runs to compare with, by commas.")
OUT = flags.DEFINE_string("out", None, "Folder for the contact sheets of --media; for accuracy.csv; for members_*.csv.")
STEPS = flags.DEFINE_integer("steps", 8, "members: steps a dispatch.", lower_bound=1)
CHUNKS = flags.DEFINE_list(
    "chunks", None, "members: sizes of chunks on one device, e.g. 1,4,all; all sizes if missing."
)
PMAP = flags.DEFINE_bool("pmap", False, "members: by pmap as well.")
CURVES = flags.DEFINE_bool("curves", False, "members: the cost against the number of members and of clips instead.")
CURVE_STEPS = flags.DEFINE_integer("curve_steps", 2, "members: steps a dispatch of --curves.", lower_bound=1)
KILLS = flags.DEFINE_integer("kills", 20, "kills: how many.", lower_bound=0)
CONFIG = cli.config_flag()
WORKDIR = cli.workdir_flag()
PARTS = ("frontend", "accuracy", "builder", "twin", "members", "kills", "spotting", "forward", "runtime", "report")


def main(part: str = "") -> None:
    """Runs the part that was asked for."""
    if part not in PARTS:
        raise UserError(f"name a part to measure: {' or '.join(PARTS)} (got {part!r})")
    out = Path(OUT.value) if OUT.value else None
    if part == "accuracy":
        accuracy.check_installed()
        config = cli.read_config(CONFIG)
        cli.connect(config)
        run = cli.set_up(config, cli.read_workdir(WORKDIR))
        table = accuracy.measure(*run, [Path(folder) for folder in AGAINST.value])
        print(comparison.markdown(comparison.HEADER, map(comparison.cells, table.rows)))
        print(table.clock)
        if out:
            print(comparison.write(table.rows, out / "accuracy.csv"))
        return
    if part == "twin":
        accuracy.check_installed()
        if out is None:
            raise UserError("--out=DIR is missing: where the twin is rendered and the run kept")
        table, clock = rehearsal.measure(out)
        print(comparison.markdown(comparison.HEADER, map(comparison.cells, table.rows)))
        print(f"{table.clock}\n{clock}")
        return
    if part == "report":
        if out is None:
            raise UserError("--out=DIR is missing: where the corpus, the run and its report are kept")
        print(comparison.markdown(("what", "figure"), report_speed.measure(out)))
        return
    if part == "spotting":
        print(comparison.markdown(spotting.HEADER, spotting.measure(cli.read_workdir(WORKDIR), CLIPS.value)))
        return
    if part == "forward":
        _forward(cli.read_workdir(WORKDIR), out)
        return
    if part == "runtime":
        if out is None:
            raise UserError("--out=DIR is missing: where the environment is made")
        print(comparison.markdown(("what", "figure"), runtime_size.measure(cli.read_workdir(WORKDIR), out.absolute())))
        return
    if part == "builder":
        print(comparison.markdown(("what", "figure"), building_speed.measure(CLIPS.value or 10_000)))
        return
    if part == "kills":
        cli.read_settings(CONFIG, "configs/sweeps/recipe.py:synth_me")
        if out is None:
            raise UserError("--out=DIR is missing: where the two sweeps are kept")
        given = [arg for arg in sys.argv[1:] if arg.startswith("--config")]
        print(comparison.markdown(("what", "figure"), kills.measure(given, out, KILLS.value, seed=0)))
        return
    if part == "members":
        _members(out)
        return
    rows = frontend.measure(CLIPS.value)
    if MEDIA.value:
        rows += frontend.measure_media(Path(MEDIA.value), out)
    print(comparison.markdown(("what", "figure"), rows))


def _forward(folder: Path, out: Path | None) -> None:
    """Prints the table; the exported networks and forward.csv stay in `out` where there is one."""
    config = workdir.read_config(folder)
    corpora = cli.build(config)
    with tempfile.TemporaryDirectory() as temporary:
        table = forward_speed.measure(folder, corpora, config, out or Path(temporary))
    print(comparison.markdown(forward_speed.HEADER, table.rows))
    for line in table.left_out:
        print(line)
    if out:
        print(files.write_table(out / "forward.csv", forward_speed.HEADER, table.rows))


def _members(out: Path | None) -> None:
    """Prints each table, and writes it into `out` where there is one, as soon as it is measured."""
    config, chunks = cli.read_config(CONFIG), members_speed.read_chunks(CHUNKS.value)
    cli.connect(config)
    jax.config.update("jax_enable_compilation_cache", False)  # compiling is timed
    with tempfile.TemporaryDirectory() as folder:
        config, _, corpora = cli.set_up(config, Path(folder))

    def show(table: members_speed.Table) -> None:
        print(comparison.markdown(table.header, members_speed.text(table)) + "\n", flush=True)
        if out:
            print(files.write_table(out / f"{table.name}.csv", table.header, table.rows))

    if CURVES.value:
        show(members_speed.curves(config, steps=CURVE_STEPS.value))
        return
    what = members_speed.setting(config, dataset.load(corpora, config))
    for table in members_speed.measure(what, steps=STEPS.value, chunks=chunks, pmap=PMAP.value):
        show(table)


if __name__ == "__main__":
    cli.run(main, arguments=1)
