"""Measures a part of the project, from one run, and prints a table: python experiments/benchmark.py PART.

    frontend    face, landmarks, flow, head motion, selection, speed: against the truth of rendered clips
    accuracy    the run of --config in --workdir (trained if it is not finished) against plain classifiers of the key
                frame, and against the runs in --against: the same clips, folds and resamples
    twin        a study rehearsed on a rendered twin of CASME II, 26 folds, five classes, in the folder --out
    builder     memory and speed of building a corpus of --clips clips, and of a half and a quarter of it

Takes minutes and the whole machine; quote medians and ratios from one run.
"""

from pathlib import Path

from absl import flags

from stag_experiments import accuracy, building_speed, cli, frontend, rehearsal
from stag_jax.analysis import comparison
from stag_jax.types import UserError

CLIPS = flags.DEFINE_integer(
    "clips", 0, "frontend: clips a subject of synth_me, 0 = all; builder: clips, 0 = 10000.", lower_bound=0
)
MEDIA = flags.DEFINE_string("media", None, "frontend: folder of videos to track as well, frame by frame.")
AGAINST = flags.DEFINE_list("against", [], "accuracy: workdirs of finished runs to compare with, by commas.")
OUT = flags.DEFINE_string("out", None, "Folder for the contact sheets of --media; for accuracy.csv.")
CONFIG = cli.config_flag()
WORKDIR = cli.workdir_flag()
PARTS = ("frontend", "accuracy", "builder", "twin")


def main(part: str = "") -> None:
    """Runs the part that was asked for."""
    if part not in PARTS:
        raise UserError(f"name a part to measure: {' or '.join(PARTS)} (got {part!r})")
    out = Path(OUT.value) if OUT.value else None
    if part == "accuracy":
        accuracy.check_installed()
        run = cli.set_up(cli.read_config(CONFIG), cli.read_workdir(WORKDIR))
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
    if part == "builder":
        print(comparison.markdown(("what", "figure"), building_speed.measure(CLIPS.value or 10_000)))
        return
    rows = frontend.measure(CLIPS.value)
    if MEDIA.value:
        rows += frontend.measure_media(Path(MEDIA.value), out)
    print(comparison.markdown(("what", "figure"), rows))


if __name__ == "__main__":
    cli.run(main, arguments=1)
