"""Measures a part of the project, from one run, and prints a table: python experiments/benchmark.py PART.

    frontend    face, landmarks, flow, head motion, selection, speed: against the truth of rendered clips
    accuracy    the run of --config in --workdir (trained if it is not finished) against plain classifiers of the key
                frame, and against the runs in --against: the same clips, folds and resamples
    twin        a study rehearsed on a rendered twin of CASME II, 26 folds, five classes, in the folder --out
    builder     memory and speed of building a corpus of --clips clips, and of a half and a quarter of it
    members     ways of training all members of --config: one after the other, vmapped, over all devices, in eager
                PyTorch; with --curves the cost of 1 to 1024 members and of 300 to 10000 random clips instead
    kills       a sweep killed --kills times at random moments, against one that was left alone, in the folder --out
    smaller     students of the finished run in --workdir, as --config, a sweep such as configs/sweeps/smaller.py, has
                them: trained into the folder --out, compared with their teacher, counted and timed on one core
    spotting    expressions found in long rendered recordings by the folds of the synth_me run in --workdir, by size of
                movement, and by those of runs that were trained to spot, in --against
    forward     the networks of the run in --workdir, exported in every format and precision: time of a window on one
                core, size, memory, and UF1 beside that of the checkpoints
    stream      640 x 480 video through everything, by --workdir or --model: frames a second, delay of a frame in real
                time, and their parts; films are kept in --out
    soak        the same for --minutes of video; and predict.py killed --kills times over a folder, in --out
    runtime     size of what must be installed to run an exported network, in a fresh environment in --out
    report      time and size of the report of a run of 60 folds over more than 500 clips, kept in the folder --out

Takes minutes and the whole machine; quote medians and ratios from one run.
"""

import sys
import tempfile
from collections.abc import Callable
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
    smaller,
    spotting,
    stream_speed,
)
from stag_jax.analysis import comparison
from stag_jax.deploy import load_export, predict
from stag_jax.deploy.results import Recogniser
from stag_jax.training import dataset, files, workdir
from stag_jax.types import UserError

CLIPS = flags.DEFINE_integer(
    "clips",
    0,
    "frontend: clips a subject of synth_me, 0 = all; builder: clips, 0 = 10000; spotting: people.",
    lower_bound=0,
)
MEDIA = flags.DEFINE_string("media", None, "frontend: folder of videos to track as well, frame by frame.")
AGAINST = flags.DEFINE_list("against", [], "accuracy, spotting: finished runs to compare with, by commas.")
OUT = flags.DEFINE_string("out", None, "Folder of what a part leaves: contact sheets of --media, tables, runs, films.")
STEPS = flags.DEFINE_integer("steps", 8, "members: steps a dispatch.", lower_bound=1)
CHUNKS = flags.DEFINE_list(
    "chunks", None, "members: sizes of chunks on one device, e.g. 1,4,all; all sizes if missing."
)
PMAP = flags.DEFINE_bool("pmap", False, "members: by pmap as well.")
CURVES = flags.DEFINE_bool("curves", False, "members: the cost against the number of members and of clips instead.")
CURVE_STEPS = flags.DEFINE_integer("curve_steps", 2, "members: steps a dispatch of --curves.", lower_bound=1)
KILLS = flags.DEFINE_integer("kills", 20, "kills, soak: how many.", lower_bound=0)
MODEL = flags.DEFINE_string("model", None, "stream, soak: file of an exported network, instead of --workdir.")
FOLD = flags.DEFINE_list("fold", [], "stream, soak: folds of the run, by commas; all are averaged if missing.")
MINUTES = flags.DEFINE_float("minutes", 60.0, "soak: minutes of video; 0 = none.", lower_bound=0.0)
CONFIG = cli.config_flag()
WORKDIR = cli.workdir_flag()
FIGURES = ("what", "figure")


def main(part: str = "") -> None:
    """Runs the part that was asked for."""
    if part not in PARTS:
        raise UserError(f"name a part to measure: {' or '.join(PARTS)} (got {part!r})")
    PARTS[part]()


def _out() -> Path | None:
    return Path(OUT.value) if OUT.value else None


def _needed_out(what: str) -> Path:
    if not OUT.value:
        raise UserError(f"--out=DIR is missing: where {what} kept")
    return Path(OUT.value)


def _given() -> list[str]:
    """The config and its overrides, to be handed on to another script."""
    return [arg for arg in sys.argv[1:] if arg.startswith("--config")]


def _frontend() -> None:
    rows = frontend.measure(CLIPS.value)
    if MEDIA.value:
        rows += frontend.measure_media(Path(MEDIA.value), _out())
    print(comparison.markdown(FIGURES, rows))


def _accuracy() -> None:
    accuracy.check_installed()
    config = cli.read_config(CONFIG)
    cli.connect(config)
    run = cli.set_up(config, cli.read_workdir(WORKDIR))
    table = accuracy.measure(*run, [Path(folder) for folder in AGAINST.value])
    print(comparison.markdown(comparison.HEADER, map(comparison.cells, table.rows)))
    print(table.clock)
    if OUT.value:
        print(comparison.write(table.rows, Path(OUT.value) / "accuracy.csv"))


def _twin() -> None:
    accuracy.check_installed()
    table, clock = rehearsal.measure(_needed_out("the twin and the run are"))
    print(comparison.markdown(comparison.HEADER, map(comparison.cells, table.rows)))
    print(f"{table.clock}\n{clock}")


def _builder() -> None:
    print(comparison.markdown(FIGURES, building_speed.measure(CLIPS.value or 10_000)))


def _members() -> None:
    """Prints each table, and writes it into --out where there is one, as soon as it is measured."""
    config, chunks = cli.read_config(CONFIG), members_speed.read_chunks(CHUNKS.value)
    cli.connect(config)
    jax.config.update("jax_enable_compilation_cache", False)  # compiling is timed
    with tempfile.TemporaryDirectory() as folder:
        config, _, corpora = cli.set_up(config, Path(folder))

    def show(table: members_speed.Table) -> None:
        print(comparison.markdown(table.header, members_speed.text(table)) + "\n", flush=True)
        if OUT.value:
            print(files.write_table(Path(OUT.value) / f"{table.name}.csv", table.header, table.rows))

    if CURVES.value:
        show(members_speed.curves(config, steps=CURVE_STEPS.value))
        return
    what = members_speed.setting(config, dataset.load(corpora, config))
    for table in members_speed.measure(what, steps=STEPS.value, chunks=chunks, pmap=PMAP.value):
        show(table)


def _kills() -> None:
    cli.read_settings(CONFIG, "configs/sweeps/recipe.py:synth_me")
    out = _needed_out("the two sweeps are")
    print(comparison.markdown(FIGURES, kills.measure(_given(), out, KILLS.value, seed=0)))


def _smaller() -> None:
    cli.read_settings(CONFIG, "configs/sweeps/smaller.py")
    out, teacher = _needed_out("the students are"), cli.read_workdir(WORKDIR)
    smaller.train(_given(), teacher, out)
    rows = smaller.measure(teacher, out)
    print(comparison.markdown(smaller.HEADER, map(smaller.cells, rows)))
    print(smaller.write(rows, out))


def _spotting() -> None:
    learned = [Path(folder) for folder in AGAINST.value]
    print(comparison.markdown(spotting.HEADER, spotting.measure(cli.read_workdir(WORKDIR), learned, CLIPS.value)))


def _forward() -> None:
    """Prints the table; the exported networks and forward.csv stay in --out where there is one."""
    folder = cli.read_workdir(WORKDIR)
    config = workdir.read_config(folder)
    corpora = cli.build(config)
    with tempfile.TemporaryDirectory() as temporary:
        table = forward_speed.measure(folder, corpora, config, _out() or Path(temporary))
    print(comparison.markdown(forward_speed.HEADER, table.rows))
    for line in table.left_out:
        print(line)
    if OUT.value:
        print(files.write_table(Path(OUT.value) / "forward.csv", forward_speed.HEADER, table.rows))


def _recogniser() -> Recogniser:
    if bool(MODEL.value) == bool(WORKDIR.value):
        raise UserError("one of --workdir=DIR and --model=FILE is needed, not both")
    return load_export(MODEL.value) if MODEL.value else predict.from_run(Path(WORKDIR.value), FOLD.value)


def _stream() -> None:
    out = _needed_out("the films are")
    print(comparison.markdown(FIGURES, stream_speed.measure(_recogniser(), out)))


def _soak() -> None:
    out, recogniser = _needed_out("the films are"), _recogniser()
    rows = stream_speed.soak(recogniser, out, MINUTES.value) if MINUTES.value else []
    if KILLS.value:
        by = f"--model={MODEL.value}" if MODEL.value else f"--workdir={WORKDIR.value}"
        rows += stream_speed.kills([by, *(f"--fold={name}" for name in FOLD.value)], out, KILLS.value, files=12)
    print(comparison.markdown(FIGURES, rows))


def _runtime() -> None:
    out = _needed_out("the environment is")
    print(comparison.markdown(FIGURES, runtime_size.measure(cli.read_workdir(WORKDIR), out.absolute())))


def _report() -> None:
    print(comparison.markdown(FIGURES, report_speed.measure(_needed_out("the corpus, the run and its report are"))))


PARTS: dict[str, Callable[[], None]] = {
    "frontend": _frontend,
    "accuracy": _accuracy,
    "twin": _twin,
    "builder": _builder,
    "members": _members,
    "kills": _kills,
    "smaller": _smaller,
    "spotting": _spotting,
    "forward": _forward,
    "stream": _stream,
    "soak": _soak,
    "runtime": _runtime,
    "report": _report,
}


if __name__ == "__main__":
    cli.run(main, arguments=1)
