"""The pictures of the README, drawn anew: python experiments/figures.py --out=docs."""

from pathlib import Path

from absl import flags

from stag_experiments import cli
from stag_jax.analysis import face_plot
from stag_jax.types import UserError

OUT = flags.DEFINE_string("out", "docs", "Folder for the pictures.")


def main() -> None:
    """Draws and names what was drawn."""
    try:
        print(face_plot.draw_regions(Path(OUT.value) / "regions.png"))
    except OSError as error:
        raise UserError(f"--out={OUT.value} cannot be written to: {error.strerror}") from error


if __name__ == "__main__":
    cli.run(main)
