"""Pictures and diagrams of the docs, and the table of settings, made anew: python experiments/figures.py --out=docs."""

import stag_experiments.interrupts  # noqa: F401

from pathlib import Path

import cv2
from absl import flags

from stag_configs import base
from stag_datasets.synth_me import render, script
from stag_experiments import cli
from stag_experiments.parts import diagrams
from stag_jax.analysis import clip_reports, face_plot
from stag_jax.analysis.comparison import markdown
from stag_jax.config import from_config_dict
from stag_jax.files import write_atomically, write_text
from stag_jax.motion import observe, quality
from stag_jax.training import validation
from stag_jax.types import Clip, ClipIdentity, UserError

OUT = flags.DEFINE_string("out", "docs", "Folder for the pictures.")
CLIP = 1  # of each subject
SUBJECTS = 12


def main() -> None:
    """Draw the pictures, write the table and print their paths."""
    folder = Path(OUT.value)
    try:
        print(face_plot.draw_regions(folder / "regions.png"))
        print(_draw_sheet(folder / "contact_sheet.jpg"))
        pages = {"settings.md": settings_page(), "rooms.svg": diagrams.rooms()}
        pages["model.svg"] = diagrams.model(from_config_dict(base.get_config()))
        for name, text in pages.items():
            write_text(folder / name, text)
            print(folder / name)
    except OSError as error:
        raise UserError(f"--out={OUT.value} cannot be written to: {error.strerror}") from error


def settings_page() -> str:
    """Return the text of docs/settings.md: every setting with its default, allowed values and meaning."""
    table = markdown(validation.HEADER, validation.rows(base.settings()))
    return (
        "# Settings\n\nEvery setting of `configs/base.py`. `--config.KEY=VALUE` changes one; `train.py --help` prints "
        "this table. Those that are *tunable* may differ between the trials of one program (see sweeps). A wrong one "
        f"is told before any file is read.\n\n{table}\n"
    )


def _draw_sheet(path: Path) -> Path:
    """Draw the contact sheet that prepare.py makes, with one clip of each of `SUBJECTS` rendered subjects."""
    config = from_config_dict(base.get_config())
    reports, tiles = [], []
    for subject in range(SUBJECTS):
        spec = script.subject_clips(script.Recipe(), subject)[CLIP]
        marks = (spec.onset, None, spec.offset)
        frames = render.render_clip(spec).frames
        name = f"synth_me/{spec.subject}/{spec.clip}"
        clip = Clip(ClipIdentity(name, spec.subject, "synth_me", spec.emotion), None, spec.fps, frames, *marks)
        observation = observe.observe(clip, config)
        reports.append(quality.report(clip, observation, config.motion))
        tiles.append(cv2.imencode(".png", quality.tile(clip, observation)[..., ::-1])[1].tobytes())
    with write_atomically(path) as temporary:
        clip_reports.sheet(reports, tiles).save(temporary, quality=90)
    return path


if __name__ == "__main__":
    cli.run(main)
