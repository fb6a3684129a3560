"""Expressions in video: python experiments/predict.py --video=FILE|FOLDER|GLOB|camera:0 [--workdir=DIR] [--out=DIR].

--workdir is a finished run, --model=FILE.stag an exported network (experiments/export.py). Without either the one that
comes with stag-jax is taken, which has only seen rendered faces: it is there to be tried (docs/MODEL_CARD.md).

A recording is looked at through windows that slide over it, and what moves in them is merged into intervals: onset,
apex, offset, emotion, action units. Printed, and with --out written for each recording as JSON and CSV
(docs/predictions.md), an MP4 with what was seen drawn into it (--nofilm: none; a camera has none), and a PNG of the
scores over time. A recording whose JSON is there is passed over, so that a stopped run over a folder goes on. FOLDER
holds videos, or pictures numbered at the end of their names, which need --fps. camera:0 goes on until Ctrl-C.

With --clip each file is one micro-expression clip, from its onset on, and gets one answer. --fold=NAME takes one fold
of the run instead of the mean of all.
"""

import stag_experiments.interrupts  # noqa: F401

import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path

from absl import flags

from stag_experiments import cli
from stag_jax import media
from stag_jax.allowed import Between
from stag_jax.deploy import TO_TRY, load_export, recognition, record, scan, source, stream
from stag_jax.deploy.results import Gap, Interval, Recogniser
from stag_jax.types import UserError

WORKDIR = flags.DEFINE_string("workdir", None, "Folder of a finished run.")
MODEL = flags.DEFINE_string("model", None, "File of an exported network, instead of --workdir.")
FOLD = flags.DEFINE_list("fold", [], "Folds of the run, by commas; all are averaged if missing.")
VIDEO = flags.DEFINE_string("video", None, "File, folder, pattern or camera:N.")
OUT = flags.DEFINE_string("out", None, "Folder for what is found.")
CLIP = flags.DEFINE_bool("clip", False, "Each file is one clip with one expression.")
POSITIVE = Between(0, open_low=True)
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
    Between(0),
)


def main() -> None:
    """Predicts, prints and writes."""
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
            _clip(recogniser, path)
        return
    settings = dataclasses.replace(DEFAULT, hop_ms=HOP.value, faces=FACES.value, threshold=THRESHOLD.value)
    if camera is not None:
        units = recogniser.config.graph.units
        recording = source.open_camera(camera, FPS.value)
        _show(scan.camera(recogniser, settings, recording, out, lambda one: print(_line(units, one), flush=True)))
        return
    names = scan.names(paths)
    for path, name in zip(paths, names, strict=True):
        if out and scan.done(out, name):
            print(f"{name}: done already")
            continue
        _show(scan.file(recogniser, settings, source.open_path(path, FPS.value), out, name, film=FILM.value))


def _network() -> Recogniser:
    if WORKDIR.value:
        return recognition.from_run(Path(WORKDIR.value), FOLD.value)
    if not MODEL.value:
        print(WARNING, file=sys.stderr)
    return load_export(MODEL.value or TO_TRY)


def _clip(recogniser: Recogniser, path: Path) -> None:
    result = recognition.predict(recogniser, media.read_clip(path, FPS.value))
    print(path)
    for name, value in zip(result.classes, result.probability, strict=True):
        print(f"{name:12}{value:8.3f}")
    print("action units " + " ".join(f"{u}:{p:.2f}" for u, p in zip(result.units, result.au_probability, strict=True)))


def _line(units: Sequence[int], one: Interval) -> str:
    moved = " ".join(f"AU{u}" for u, p in zip(units, one.au_probability, strict=True) if p > 0.5)
    times = f"{one.onset_ms / 1000:9.2f} {one.apex_ms / 1000:9.2f} {one.offset_ms / 1000:9.2f} s"
    return f"  face {one.track} {times}  {one.emotion:10} {one.confidence:.2f}  {moved}"


def _show(outcome: record.Outcome) -> None:
    dropped = ", ".join(f"{count} {reason}" for reason, count in outcome.dropped.items())
    rate = "" if outcome.fps is None else f", {outcome.fps:.1f} frames/s"
    print(f"{outcome.source}: {outcome.frames} frames{rate}" + (f", dropped {dropped}" if dropped else ""))
    for one in outcome.intervals:
        print(_line(outcome.units, one))
    for (track, reason), gaps in _sorted(outcome.gaps).items():
        who = "" if track is None else f"face {track}: "
        seconds = sum(gap.end_ms - gap.start_ms for gap in gaps) / 1000
        first, last = gaps[0].start_ms / 1000, max(gap.end_ms for gap in gaps) / 1000
        print(f"  nothing said for {seconds:.2f} s between {first:.2f} and {last:.2f} s: {who}{reason}")


def _sorted(gaps: Sequence[Gap]) -> dict[tuple[int | None, str], list[Gap]]:
    """By face and reason: one that is half hidden comes and goes."""
    found: dict[tuple[int | None, str], list[Gap]] = {}
    for gap in gaps:
        found.setdefault((gap.track, gap.reason), []).append(gap)
    return found


if __name__ == "__main__":
    cli.run(main)
