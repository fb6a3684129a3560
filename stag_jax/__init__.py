"""STAG-JAX: spatio-temporal graphs of facial action units for micro-expression recognition.

What a script of your own needs; everything else may change without notice:

    from_config_dict, replace, Config  settings from a mapping such as those of `configs/`, checked, and changed
    train                              all folds and seeds of a config, into a workdir
    TrainedFolds                       the networks of a workdir: their config, folds, weights and answers
    load_corpus                        clips of built corpora as one batch, in the order of their ids
    read_clip, extract, batch_of       a film or folder of pictures as a clip, its features, and those as a batch
    from_run, load_export              a workdir, or an exported file, as a recogniser of clips and recordings
    Clip, ClipIdentity,
    ClipFeatures, ClipBatch            what passes between them
    UserError                          what the user can mend; its message is one line

Names are imported when they are first asked for, so that an exported network runs without the packages of training.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stag_jax.config import Config, from_config_dict, replace
    from stag_jax.corpora.dataset import load as load_corpus
    from stag_jax.deploy.artefact import load_export
    from stag_jax.deploy.recognition import from_run
    from stag_jax.media import read_clip
    from stag_jax.motion.extract import extract
    from stag_jax.motion.nodes import one as batch_of
    from stag_jax.training.loop import run as train
    from stag_jax.training.trained import TrainedFolds
    from stag_jax.types import Clip, ClipBatch, ClipFeatures, ClipIdentity, UserError

_PLACES = {
    "Clip": "types.Clip",
    "ClipBatch": "types.ClipBatch",
    "ClipFeatures": "types.ClipFeatures",
    "ClipIdentity": "types.ClipIdentity",
    "Config": "config.Config",
    "TrainedFolds": "training.trained.TrainedFolds",
    "UserError": "types.UserError",
    "batch_of": "motion.nodes.one",
    "extract": "motion.extract.extract",
    "from_config_dict": "config.from_config_dict",
    "from_run": "deploy.recognition.from_run",
    "load_corpus": "corpora.dataset.load",
    "load_export": "deploy.artefact.load_export",
    "read_clip": "media.read_clip",
    "replace": "config.replace",
    "train": "training.loop.run",
}

__all__ = [
    "Clip",
    "ClipBatch",
    "ClipFeatures",
    "ClipIdentity",
    "Config",
    "TrainedFolds",
    "UserError",
    "batch_of",
    "extract",
    "from_config_dict",
    "from_run",
    "load_corpus",
    "load_export",
    "read_clip",
    "replace",
    "train",
]


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, _, attribute = _PLACES[name].rpartition(".")
    return getattr(importlib.import_module(f"{__name__}.{module}"), attribute)


def __dir__() -> list[str]:
    return __all__
