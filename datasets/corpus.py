"""What the builders share: the two record layouts, subject and clip names, and one call that builds by name.

Builders are faithful and do no vision: encoded frames and the annotators' own words go in as they are.
"""

import contextlib
import hashlib
import importlib.util
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import filelock
import numpy as np
import tensorflow_datasets as tfds

SPLIT = "clips"  # one split: folds are masks over it
LEASE_S = 30.0  # a builder on another machine that has shown no sign of life for so long is taken to be dead
SOURCE = "source.sha256"  # beside a built corpus: what its manual_dir held

_LABELS = {
    "id": tfds.features.Text(),
    "subject": tfds.features.Text(),
    "dataset": tfds.features.Text(),
    "emotion": tfds.features.Text(),
    "action_units": tfds.features.Text(),
    "au_annotated": np.bool_,  # False where the corpus has no AU labels for the clip
    "objective": tfds.features.Text(),  # objective class, I to VII; empty where the corpus has none
    "part": tfds.features.Text(),  # of the corpus, where its owners divide it (train, testA ...)
    "group": tfds.features.Text(),  # clips that no split may separate; the subject, if nothing larger
}


class CorpusError(Exception):
    """The corpus on disk is not what the builder needs; one line that names the file or clip at fault."""


def frame_features() -> tfds.features.FeaturesDict:
    """Layout of a corpus of frames.

    Encoded images with the numbers that they have in the recording, fps, and onset, apex, offset as indices into the
    images (-1: unknown). Beside them where the annotation stands, and what was repaired of it.
    """
    return tfds.features.FeaturesDict(
        {
            **_LABELS,
            "fps": np.float32,
            "onset": np.int32,
            "apex": np.int32,
            "offset": np.int32,
            "numbers": tfds.features.Sequence(np.int64),
            "source": tfds.features.Text(),
            "repairs": tfds.features.Text(),
            "frames": tfds.features.Sequence(tfds.features.Image(shape=(None, None, 3))),
        }
    )


def long_features() -> tfds.features.FeaturesDict:
    """Layout of a corpus of long recordings: frames as `frame_features` has them, and what happens in them.

    Each event has onset (the last frame before anything of it moves), apex and offset (the first frame at which all of
    it is over) as indices into the images, -1 where unknown, with its emotion and action units in the annotators' own
    words. The recording itself has no phases (-1) and no action units. Records hold `events` as a list of dicts; read
    back, it is one dict of arrays.
    """
    event = {
        **{phase: np.int32 for phase in ("onset", "apex", "offset")},
        **{words: tfds.features.Text() for words in ("emotion", "action_units")},
    }
    return tfds.features.FeaturesDict({**frame_features(), "events": tfds.features.Sequence(event)})


def flow_features() -> tfds.features.FeaturesDict:
    """Layout of a corpus that exists only as onset-to-apex flow images: u, v, strain in 8 bit."""
    return tfds.features.FeaturesDict({**_LABELS, "flow": tfds.features.Image(shape=(None, None, 3))})


def labels(
    *,
    dataset: str,
    subject: str,
    clip: str,
    emotion: str,
    action_units: str | None,
    objective: str = "",
    part: str = "",
    group: str = "",
) -> dict[str, Any]:
    """The part of a record that both layouts have.

    The subject is prefixed with its corpus, so that `sub01` of one corpus never meets `sub01` of another.
    """
    return {
        "id": f"{dataset}/{subject}/{clip}",
        "subject": f"{dataset}_{subject}",
        "dataset": dataset,
        "emotion": emotion,
        "action_units": action_units or "",
        "au_annotated": action_units is not None,
        "objective": objective,
        "part": part,
        "group": f"{dataset}_{group or subject}",
    }


def recording(
    frames: Sequence[bytes],
    *,
    fps: float,
    onset: int = -1,
    apex: int = -1,
    offset: int = -1,
    numbers: Sequence[int] | None = None,
    source: str = "",
    repairs: str = "",
) -> dict[str, Any]:
    """The part of a record that only corpora of frames have. Without `numbers` no frame is missing."""
    return {
        "fps": fps,
        "onset": onset,
        "apex": apex,
        "offset": offset,
        "numbers": list(range(len(frames)) if numbers is None else numbers),
        "source": source,
        "repairs": repairs,
        "frames": frames,
    }


def builder(name: str, *, data_dir: str | Path) -> tfds.core.DatasetBuilder:
    """The builder of a corpus in this folder, without building it.

    `name` may carry a variant of the corpus, as in `synth_me/tiny`. Raises CorpusError for a name or variant unknown.
    """
    name, _, variant = name.partition("/")
    here = Path(__file__).parent
    known = sorted(path.parent.name for path in here.glob("*/*_dataset_builder.py"))
    if name not in known:
        raise CorpusError(f"no corpus named {name!r}; there are: {', '.join(known)}")
    module = importlib.import_module(f"{__package__}.{name}.{name}_dataset_builder")
    variants = module.Builder.builder_configs
    if variant and variant not in variants:
        raise CorpusError(f"corpus {name} has no variant {variant!r}; there are: {', '.join(variants) or 'none'}")
    return module.Builder(data_dir=str(data_dir), file_format="array_record", config=variant or None)


def prepared(name: str, *, data_dir: str | Path) -> Path | None:
    """Return the folder of the corpus `name` below `data_dir`; None where it was not built there.

    Raises CorpusError for an unknown name.
    """
    made = builder(name, data_dir=data_dir)
    return Path(made.data_dir) if made.is_prepared() else None


def build(
    name: str,
    *,
    data_dir: str | Path,
    manual_dir: str | Path | None = None,
    skip_damaged: bool = False,
    beam_runner: str | None = None,
) -> Path:
    """Builds the corpus `name` below `data_dir`, unless it is there, and returns its folder.

    TFDS writes into a temporary folder and renames it at the end, so nothing half-written is left. Clips that cannot be
    used are an error, unless they are to be skipped. `beam_runner` names one of Apache Beam's, e.g. DirectRunner; then
    shards are built by it.

    Raises:
      CorpusError: the builder needs a manual_dir that is missing or empty, or finds the corpus unusable; or the corpus
        that is there was built from other files than manual_dir now holds.
    """
    made = builder(name, data_dir=data_dir)
    folder = Path(made.data_dir)
    note = folder / SOURCE
    by_hand = bool(made.MANUAL_DOWNLOAD_INSTRUCTIONS)
    if made.is_prepared():
        if by_hand and manual_dir and note.exists() and note.read_text() != _listing(_manual_dir(name, manual_dir)):
            raise CorpusError(
                f"{folder} was built from other files than {manual_dir} holds; remove it, or use another data_dir"
            )
        return folder
    source = _manual_dir(name, manual_dir) if by_hand else None
    listing = _listing(source) if source else ""
    if beam_runner and not importlib.util.find_spec("apache_beam"):
        raise CorpusError('a Beam runner needs Apache Beam, which the extra "beam" brings: pip install -e ".[beam]"')
    config = tfds.download.DownloadConfig(manual_dir=source and str(source), beam_runner=beam_runner)
    with _only_builder(folder):
        made = builder(name, data_dir=data_dir)
        if not made.is_prepared():  # by another process, while this one waited
            made.skip_damaged = skip_damaged
            for left in folder.parent.glob(f"incomplete.*_{folder.name}"):  # by a build that was killed
                shutil.rmtree(left, ignore_errors=True)
            made.download_and_prepare(download_config=config)
            if source:
                note.write_text(listing)
    return folder


@contextlib.contextmanager
def _only_builder(folder: Path) -> Iterator[None]:
    """Wait until no other process builds this corpus; one that has died is not waited for."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    lock = filelock.SoftFileLease(folder.with_name(f".{folder.name}.lock"), lease_duration=LEASE_S)
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        print(f"{folder} is being built by another process; waiting for it", flush=True)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def build_all(names: str, *, data_dir: str | Path, manual_dir: str | Path | None = None, **options: Any) -> list[Path]:
    """Builds one corpus, or several whose names are joined by `+`; then manual_dir holds a folder named as each.

    `options` are those of `build`. Raises CorpusError as `build` does.
    """
    each = names.split("+")

    def source(name: str) -> str | Path | None:
        alone = len(each) == 1 or not manual_dir or not builder(name, data_dir=data_dir).MANUAL_DOWNLOAD_INSTRUCTIONS
        return manual_dir if alone else Path(manual_dir) / name.partition("/")[0]

    return [build(n, data_dir=data_dir, manual_dir=source(n), **options) for n in each]


def scan(name: str, *, manual_dir: str | Path | None) -> Any:
    """What the builder of `name` finds in an archive (an `archive.Archive`), without building anything.

    Raises:
      CorpusError: manual_dir is missing or empty, there is no list of clips to be had, or the corpus is made and not
        found.
    """
    made = builder(name, data_dir="")
    if not hasattr(made, "scan"):
        raise CorpusError(f"corpus {name} has no archive to be checked")
    return made.scan(_manual_dir(name, manual_dir))


def _listing(folder: Path) -> str:
    """Hash of the names and sizes of all files below `folder`."""
    files = sorted(
        (path.relative_to(folder).as_posix(), path.stat().st_size) for path in folder.rglob("*") if path.is_file()
    )
    return hashlib.sha256(repr(files).encode()).hexdigest()


def _manual_dir(name: str, manual_dir: str | Path | None) -> Path:
    if not manual_dir:
        raise CorpusError(
            f"corpus {name} is not shipped: say where it lies with --manual_dir=DIR (or --config.data.manual_dir=DIR)"
        )
    folder = Path(manual_dir)
    if not folder.is_dir():
        raise CorpusError(f"manual_dir {folder} is not a folder")
    if not any(folder.iterdir()):
        raise CorpusError(f"manual_dir {folder} is empty")
    return folder
