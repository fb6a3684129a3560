"""The pictures of the README, drawn anew: python experiments/figures.py --out=docs."""

import stag_experiments.interrupts  # noqa: F401

from pathlib import Path

import cv2
from absl import flags

from stag_configs import base
from stag_datasets.synth_me import render, script
from stag_experiments import cli
from stag_jax.analysis import clip_reports, face_plot
from stag_jax.config import from_config_dict
from stag_jax.motion import observe, quality
from stag_jax.training.files import write_atomically
from stag_jax.types import Clip, UserError

OUT = flags.DEFINE_string("out", "docs", "Folder for the pictures.")
CLIP = 1  # of each subject
SUBJECTS = 12


def main() -> None:
    """Draws and names what was drawn."""
    folder = Path(OUT.value)
    try:
        print(face_plot.draw_regions(folder / "regions.png"))
        print(_draw_sheet(folder / "contact_sheet.jpg"))
    except OSError as error:
        raise UserError(f"--out={OUT.value} cannot be written to: {error.strerror}") from error


def _draw_sheet(path: Path) -> Path:
    """What prepare.py shows of a corpus: a clip of each of some rendered people."""
    config = from_config_dict(base.get_config())
    reports, tiles = [], []
    for subject in range(SUBJECTS):
        spec = script.subject_clips(script.Recipe(), subject)[CLIP]
        marks = (spec.onset, None, spec.offset)
        frames = render.render_clip(spec).frames
        name = f"synth_me/{spec.subject}/{spec.clip}"
        clip = Clip(name, spec.subject, "synth_me", spec.emotion, None, spec.fps, frames, *marks)
        seen = observe.observe(clip, config)
        reports.append(quality.report(clip, seen, config.motion))
        tiles.append(cv2.imencode(".png", quality.tile(clip, seen)[..., ::-1])[1].tobytes())
    with write_atomically(path) as temporary:
        clip_reports.sheet(reports, tiles).save(temporary, quality=90)
    return path


if __name__ == "__main__":
    cli.run(main)
