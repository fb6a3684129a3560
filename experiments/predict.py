"""The emotion of one clip: python experiments/predict.py --workdir=DIR --video=PATH [--fps=RATE].

PATH is a video file, or a folder of pictures numbered at the end of their names, which needs --fps. It is taken to be
one micro-expression clip, from its onset on; the folds of the run are averaged.
"""

from pathlib import Path

from absl import flags

from stag_experiments import cli
from stag_jax import media
from stag_jax.deploy import predict
from stag_jax.types import UserError

WORKDIR = flags.DEFINE_string("workdir", None, "Folder of a finished run.")
VIDEO = flags.DEFINE_string("video", None, "Video file, or folder of pictures.")
FPS = flags.DEFINE_float("fps", None, "Frames a second; of a video, instead of what the file says.")


def main() -> None:
    """Predicts and prints."""
    if not WORKDIR.value or not VIDEO.value:
        raise UserError("--workdir=DIR and --video=PATH are both needed")
    result = predict.predict(Path(WORKDIR.value), media.read_clip(Path(VIDEO.value), FPS.value))
    for name, value in zip(result.classes, result.probability, strict=True):
        print(f"{name:12}{value:8.3f}")
    print("action units " + " ".join(f"{u}:{p:.2f}" for u, p in zip(result.units, result.au_probability, strict=True)))


if __name__ == "__main__":
    cli.run(main)
