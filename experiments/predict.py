"""Expressions in video: python experiments/predict.py --video=FILE|FOLDER|GLOB|camera:0 [--workdir=DIR] [--out=DIR].

--workdir is a finished run, --model=FILE.stag an exported network (experiments/export.py). Without either, the network
that comes with stag-jax is used; it was trained on rendered faces only and is for trying out (docs/MODEL_CARD.md).

Windows slide over a recording, and the movements in them are merged into intervals: onset, apex, offset, emotion,
action units. They are printed and, with --out, written for each recording as JSON and CSV (docs/predictions.md), an
annotated MP4 (--nofilm: none; a camera has none), and a PNG of the scores over time. A recording whose JSON exists is
skipped, so that a stopped run over a folder resumes. FOLDER holds videos, or pictures numbered at the end of their
names, which need --fps. camera:0 runs until Ctrl-C.

With --clip each file is one micro-expression clip that begins at its onset, and gets one prediction. --fold=NAME takes
one fold of the run instead of the mean of all.
"""

import stag_experiments.interrupts  # noqa: F401

import dataclasses
import sys
from pathlib import Path

from absl import flags

from stag_experiments import cli
from stag_jax import media
from stag_jax.config import NOT_NEGATIVE, POSITIVE
from stag_jax.deploy import TO_TRY, console, load_export, recognition, scan, source, stream
from stag_jax.deploy.results import Recogniser
from stag_jax.types import UserError

WORKDIR = flags.DEFINE_string("workdir", None, "Folder of a finished run.")
MODEL = flags.DEFINE_string("model", None, "File of an exported network, instead of --workdir.")
FOLD = flags.DEFINE_list("fold", [], "Folds of the run, by commas; all are averaged if missing.")
VIDEO = flags.DEFINE_string("video", None, "File, folder, pattern or camera:N.")
OUT = flags.DEFINE_string("out", None, "Folder for what is found.")
CLIP = flags.DEFINE_bool("clip", False, "Each file is one clip with one expression.")
FPS = cli.number_flag("fps", None, "Frames a second; of a video, instead of its time stamps.", POSITIVE)
FILM = flags.DEFINE_bool("film", True, "Write the annotated MP4.")
DEFAULT = stream.StreamSettings()
WARNING = (
    "warning: this is the model that comes with stag-jax, trained on rendered faces alone. It shows what the software "
    "does; what it says of a person means nothing. See docs/MODEL_CARD.md; name your own by --workdir or --model."
)
HOP = cli.number_flag("hop_ms", None, "Time between windows; as the network was trained if missing.", POSITIVE)
FACES = flags.DEFINE_integer("faces", 4, "Faces that are followed at most.", lower_bound=1)
THRESHOLD = cli.number_flag(
    "threshold",
    DEFAULT.threshold,
    "Of a network that was not trained to spot: movement of an expression, pixels of a 128-pixel face.",
    NOT_NEGATIVE,
)


def main() -> None:
    """Predict the expressions of each recording, print and write them."""
    if not VIDEO.value:
        raise UserError("--video=PATH is missing")
    if WORKDIR.value and MODEL.value:
        raise UserError("--workdir=DIR and --model=FILE are two networks; name one of them")
    if FOLD.value and not WORKDIR.value:
        raise UserError("--fold is for --workdir; an exported network has the folds that it was exported with")
    camera = source.camera_index(VIDEO.value)
    if CLIP.value and camera is not None:
        raise UserError(f"--clip needs files, not {VIDEO.value}")
    paths = [] if camera is not None else source.find(VIDEO.value)
    recogniser = _network()
    out = Path(OUT.value) if OUT.value else None
    if CLIP.value:
        for path in paths:
            prediction = recognition.predict(recogniser, media.read_clip(path, FPS.value))
            print(path, *console.of_clip(prediction), sep="\n")
        return
    settings = dataclasses.replace(DEFAULT, hop_ms=HOP.value, faces=FACES.value, threshold=THRESHOLD.value)
    if camera is not None:
        units, recording = recogniser.config.graph.units, source.open_camera(camera, FPS.value)
        outcome = scan.camera(
            recogniser, settings, recording, out, lambda one: print(console.line(units, one), flush=True)
        )
        print(*console.summary(outcome), sep="\n")
        return
    names = scan.names(paths)
    for path, name in zip(paths, names, strict=True):
        if out and scan.done(out, name):
            print(f"{name}: done already")
            continue
        outcome = scan.file(recogniser, settings, source.open_path(path, FPS.value), out, name, film=FILM.value)
        print(*console.summary(outcome), sep="\n")


def _network() -> Recogniser:
    if WORKDIR.value:
        return recognition.from_run(Path(WORKDIR.value), FOLD.value)
    if not MODEL.value:
        print(WARNING, file=sys.stderr)
    return load_export(MODEL.value or TO_TRY)


if __name__ == "__main__":
    cli.run(main)
