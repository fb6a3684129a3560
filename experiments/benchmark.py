"""Measures a part of the project, from one run, and prints a table: python experiments/benchmark.py frontend.

    frontend    face, landmarks, flow, head motion, selection, speed: against the truth of rendered clips

Takes minutes and the whole machine; quote medians and ratios from one run.
"""

from pathlib import Path

from absl import flags

from stag_experiments import cli, frontend
from stag_jax.types import UserError

CLIPS = flags.DEFINE_integer("clips", 0, "Clips a subject of synth_me; 0 = all.", lower_bound=0)
MEDIA = flags.DEFINE_string("media", None, "Folder of videos to track as well, frame by frame.")
OUT = flags.DEFINE_string("out", None, "Folder for the contact sheets of --media.")


def main(part: str = "") -> None:
    """Runs the part that was asked for."""
    if part != "frontend":
        raise UserError(f"name a part to measure: frontend (got {part!r})")
    rows = frontend.measure(CLIPS.value)
    if MEDIA.value:
        rows += frontend.measure_media(Path(MEDIA.value), Path(OUT.value) if OUT.value else None)
    for row in [("what", "figure"), ("---", "---"), *rows]:
        print("| " + " | ".join(row) + " |")


if __name__ == "__main__":
    cli.run(main, arguments=1)
