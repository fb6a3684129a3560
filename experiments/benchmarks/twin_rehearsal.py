"""A whole study rehearsed on a twin of CASME II whose sheet is made up: `benchmark.py twin`.

The sheet has the subjects, the clips of each, and the classes of the real one (version of 2019). Action units are drawn
for each emotion with about the frequencies of the real sheet, and times near its means.
"""

import time
from pathlib import Path

import numpy as np

from stag_configs import casme2_5class
from stag_datasets.synth_me.script import Recipe
from stag_experiments import cli
from stag_experiments.benchmarks import accuracy, output
from stag_experiments.parts import twin_corpus
from stag_jax.files import write_table

CLIPS = {
    **{1: 9, 2: 13, 3: 7, 4: 5, 5: 19, 6: 5, 7: 9, 8: 3, 9: 14, 10: 14, 11: 10, 12: 12, 13: 8, 14: 4, 15: 3, 16: 4},
    **{17: 36, 18: 3, 19: 16, 20: 11, 21: 2, 22: 2, 23: 12, 24: 10, 25: 7, 26: 17},
}
EMOTIONS = {
    "others": 99, "disgust": 63, "happiness": 32, "surprise": 28, "repression": 27, "sadness": 4, "fear": 2,
}  # fmt: skip
UNITS = {
    "disgust": {"4+7": 0.33, "4": 0.30, "4+10": 0.15, "4+9": 0.11, "10": 0.06, "9": 0.05},
    "happiness": {"12": 0.48, "6+12": 0.24, "12+14": 0.12, "14": 0.08, "L12": 0.08},
    "surprise": {"1+2": 0.60, "2": 0.15, "1+2+5": 0.15, "5": 0.10},
    "repression": {"17": 0.40, "15+17": 0.22, "15": 0.15, "12": 0.13, "14": 0.10},
    "others": {"4": 0.45, "4+7": 0.15, "14": 0.12, "R14": 0.05, "7": 0.08, "17": 0.06, "1": 0.05, "15": 0.04},
    "sadness": {"1+4": 0.5, "15": 0.5},
    "fear": {"1+2+4": 1.0},
}
FPS, ONSET_TO_APEX_MS, DURATION_MS = 200, 167, 336


def define_flags() -> None:
    """Define the flags of `benchmark.py twin`."""
    output.define_out("Folder for the twin and the run.")


def main() -> None:
    """Rehearse the study and print its table."""
    accuracy.check_installed()
    table, clock = measure(output.required_out("the twin and the run are"))
    accuracy.show(table)
    print(clock)


def sheet(path: Path, seed: int = 0) -> None:
    """Write the invented coding sheet, as CSV."""
    rng = np.random.default_rng(seed)
    emotions = rng.permutation([name for name, count in EMOTIONS.items() for _ in range(count)])
    rows = []
    for number, count in CLIPS.items():
        for clip in range(count):
            emotion = str(emotions[len(rows)])
            onset = int(rng.integers(20, 200))
            rise = max(8, round(rng.normal(ONSET_TO_APEX_MS, 40) * FPS / 1000))
            fall = max(8, round(rng.normal(DURATION_MS - ONSET_TO_APEX_MS, 45) * FPS / 1000))
            units = str(rng.choice(list(UNITS[emotion]), p=list(UNITS[emotion].values())))
            marks = (onset, onset + rise, onset + rise + fall)
            rows.append((f"{number:02d}", f"EP{clip + 1:02d}_01", *marks, units, emotion))
    header = ("Subject", "Filename", "OnsetFrame", "ApexFrame", "OffsetFrame", "Action Units", "Estimated Emotion")
    write_table(path, header, rows)


def measure(out: Path) -> tuple[accuracy.AccuracyTable, str]:
    """Render the twin into `out`, train and score it, or resume; return the table and a text with the times taken."""
    start = time.perf_counter()
    archive = out / "archive"
    if not (archive / "CASME2-coding.csv").exists():
        sheet(archive / "CASME2-coding.csv")
    twin_corpus.render("casme2", archive, Recipe())
    rendered = time.perf_counter()
    settings = casme2_5class.get_config()
    settings.data.manual_dir, settings.data.data_dir = str(archive), str(out / "data")
    config = cli.checked(cli.from_config_dict(settings))
    cli.connect(config)
    run = cli.set_up(config, out / "run")
    table = accuracy.measure(*run)
    finished = time.perf_counter()
    return (
        table,
        f"rendered in {rendered - start:.0f} s; built, looked at, trained and scored in {finished - rendered:.0f} s",
    )
