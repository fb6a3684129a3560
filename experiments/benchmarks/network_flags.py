"""Flags that name a trained network: --workdir and --fold, or --model."""

from pathlib import Path

from absl import flags

from stag_experiments import cli
from stag_jax.deploy import load_export, recognition
from stag_jax.deploy.results import Recogniser
from stag_jax.types import UserError

flags.disclaim_key_flags()  # --help lists them among the flags of the part that defines them


def define() -> None:
    """Define --workdir, --fold and --model, which name a network."""
    cli.workdir_flag()
    flags.DEFINE_string("model", None, "File of an exported network, instead of --workdir.")
    flags.DEFINE_list("fold", [], "Folds of the run, by commas; all are averaged if missing.")


def read() -> Recogniser:
    """Open the network that the flags name. Raises UserError for none, or for two."""
    given = flags.FLAGS
    if bool(given.model) == bool(given.workdir):
        raise UserError("one of --workdir=DIR and --model=FILE is needed, not both")
    return load_export(given.model) if given.model else recognition.from_run(Path(given.workdir), given.fold)
