"""Code that the parts of the benchmark share: the flag --out and the table of figures."""

from collections.abc import Iterable
from pathlib import Path

from absl import flags

from stag_jax.types import UserError

FIGURES = ("what", "figure")

flags.disclaim_key_flags()  # --help lists --out among the flags of the part that defines it


def define_out(text: str) -> None:
    """Define --out=DIR."""
    flags.DEFINE_string("out", None, text)


def out_folder() -> Path | None:
    """Return the folder of --out, or None without the flag."""
    return Path(flags.FLAGS.out) if flags.FLAGS.out else None


def required_out(content: str) -> Path:
    """Return the folder of --out. Raises UserError without the flag; `content` is its content with a verb."""
    if not flags.FLAGS.out:
        raise UserError(f"--out=DIR is missing: where {content} kept")
    return Path(flags.FLAGS.out)


def show_figures(rows: Iterable[tuple[str, str]]) -> None:
    """Print rows of (what, figure) as a Markdown table."""
    from stag_jax.analysis import comparison  # imported here because not every part needs it

    print(comparison.markdown(FIGURES, rows))
