"""Shared parts of the builders: the record layouts, subject and clip names, and building a corpus by its name.

Builders do no image processing: encoded frames and the annotators' own words are stored unchanged.
"""

import contextlib
import importlib.util
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import filelock
import numpy as np
import tensorflow_datasets as tfds

from stag_datasets import levels, source
from stag_datasets.errors import CorpusError

SPLIT = "clips"  # one split: folds are masks over it
LEASE_S = 30.0  # seconds without a sign of life after which a builder on another machine counts as dead

_LABELS = {
    "id": tfds.features.Text(),
    "subject": tfds.features.Text(),
    "dataset": tfds.features.Text(),
    "emotion": tfds.features.Text(),
    "action_units": tfds.features.Text(),
    "au_annotated": np.bool_,  # False if the corpus has no AU labels for the clip
    "objective": tfds.features.Text(),  # objective class, I to VII; empty if the corpus has none
    "part": tfds.features.Text(),  # of the corpus, if its owners divide it (train, testA ...)
    "group": tfds.features.Text(),  # clips that no split may separate; the subject, if nothing larger
}


def frame_features() -> tfds.features.FeaturesDict:
    """Return the layout of a corpus of frames.

    Encoded images with their numbers in the recording, fps, and onset, apex, offset as indices into the images (-1:
    unknown); also the place of the annotation, and the corrections made to it.
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
    """Return the layout of a corpus of long recordings: frames as in `frame_features`, and the events in them.

    Each event has onset (the last frame before any of its movement), apex and offset (the first frame after all of its
    movement) as indices into the images, -1 if unknown, with its emotion and action units in the annotators' own
    words. The recording itself has no phases (-1) and no action units. Records hold `events` as a list of dicts; read
    back, it is one dict of arrays.
    """
    event = {
        **{phase: np.int32 for phase in ("onset", "apex", "offset")},
        **{words: tfds.features.Text() for words in ("emotion", "action_units")},
    }
    return tfds.features.FeaturesDict({**frame_features(), "events": tfds.features.Sequence(event)})


def flow_features() -> tfds.features.FeaturesDict:
    """Return the layout of a corpus that exists only as onset-to-apex flow images: u, v, strain in 8 bit."""
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
    """Return the part of a record that all layouts have.

    The subject is prefixed with its corpus, so that `sub01` of two corpora are different subjects.
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
    """Return the part of a record that only corpora of frames have. Without `numbers` no frame is missing."""
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
    """Return the builder of a corpus in this folder, without building it.

    `name` may include a variant of the corpus, as in `synth_me/tiny`. Raises CorpusError for an unknown one.
    """
    name, _, variant = name.partition("/")
    folder = Path(__file__).parent
    names = sorted(path.parent.name for path in folder.glob("*/*_dataset_builder.py"))
    if name not in names:
        raise CorpusError(f"no corpus named {name!r}; there are: {', '.join(names)}")
    module = importlib.import_module(f"{__package__}.{name}.{name}_dataset_builder")
    variants = module.Builder.builder_configs
    if variant and variant not in variants:
        raise CorpusError(f"corpus {name} has no variant {variant!r}; there are: {', '.join(variants) or 'none'}")
    return module.Builder(data_dir=str(data_dir), file_format="array_record", config=variant or None)


def prepared(name: str, *, data_dir: str | Path) -> Path | None:
    """Return the folder of the corpus `name` below `data_dir`; None if it was not built there.

    Raises CorpusError for an unknown name.
    """
    corpus_builder = builder(name, data_dir=data_dir)
    return Path(corpus_builder.data_dir) if corpus_builder.is_prepared() else None


def build(
    name: str,
    *,
    data_dir: str | Path,
    manual_dir: str | Path | None = None,
    skip_damaged: bool = False,
    frames: str = "",
    longest_s: float | None = None,
    beam_runner: str | None = None,
) -> Path:
    """Build the corpus `name` below `data_dir`, unless it exists, and return its folder.

    TFDS writes into a temporary folder and renames it at the end, so no partial corpus is left. Clips that cannot be
    used are an error, unless `skip_damaged`. `frames` and `longest_s` are as in `building.Variant`. `beam_runner` names
    a runner of Apache Beam, e.g. DirectRunner, which then builds the shards.

    Raises:
      CorpusError: the builder needs a manual_dir that is missing or empty, or finds the corpus unusable; or the corpus
        exists and was built from other files than manual_dir now holds.
    """
    corpus_builder = builder(name, data_dir=data_dir)
    folder = Path(corpus_builder.data_dir)
    needs_manual_dir = bool(corpus_builder.MANUAL_DOWNLOAD_INSTRUCTIONS)
    if corpus_builder.is_prepared():
        if needs_manual_dir and manual_dir:
            _require_same(folder, _manual_dir(name, manual_dir), corpus_builder.info.metadata or {}, frames)
        return folder
    root = _manual_dir(name, manual_dir) if needs_manual_dir else None
    if beam_runner and not importlib.util.find_spec("apache_beam"):
        raise CorpusError('a Beam runner needs Apache Beam, which the extra "beam" brings: pip install -e ".[beam]"')
    config = tfds.download.DownloadConfig(manual_dir=root and str(root), beam_runner=beam_runner)
    with _only_builder(folder):
        corpus_builder = builder(name, data_dir=data_dir)
        if not corpus_builder.is_prepared():  # another process may have built it while this one waited
            _set_options(corpus_builder, skip_damaged=skip_damaged, frames=frames, longest_s=longest_s)
            for leftover in folder.parent.glob(f"incomplete.*_{folder.name}"):  # of a killed build
                shutil.rmtree(leftover, ignore_errors=True)
            corpus_builder.download_and_prepare(download_config=config)
            if root:
                source.write(folder, root, corpus_builder.scanned)
    return folder


def _require_same(folder: Path, root: Path, about: Mapping[str, Any], frames: str) -> None:
    """Raise CorpusError unless a corpus was built from what `root` holds now, and from the frames asked for."""
    if other := source.changed(folder, root):
        raise CorpusError(
            f"{folder} was built from other files than {root} holds: {other} is not as it was; remove {folder}, or use "
            "another data_dir"
        )
    if frames and frames.casefold() not in about.get("frames", frames).casefold():
        raise CorpusError(f"{folder} was built from the frames {about['frames']}; remove it to build from {frames}")


def _set_options(corpus_builder: Any, *, skip_damaged: bool, frames: str, longest_s: float | None) -> None:
    corpus_builder.skip_damaged, corpus_builder.frames = skip_damaged, frames
    if longest_s is not None:
        corpus_builder.longest_s = longest_s


@contextlib.contextmanager
def _only_builder(folder: Path) -> Iterator[None]:
    """Wait until no other process builds this corpus, and keep others out; a dead process is not waited for."""
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
    """Build one corpus, or several with names joined by `+`; then manual_dir holds one folder of each name.

    `options` are those of `build`. Raises CorpusError as `build` does.
    """
    return [build(name, data_dir=data_dir, manual_dir=root, **options) for name, root in _roots(names, manual_dir)]


def scan_all(
    names: str, *, manual_dir: str | Path | None, frames: str = "", longest_s: float | None = None
) -> list[Any]:
    """Scan the archives of one corpus or several as `build_all` would, each into an `archive.Archive`.

    Nothing is built.

    Raises:
      CorpusError: manual_dir is missing or empty, an archive gives no list of clips, or a corpus is rendered and has no
        archive.
    """
    scanned = []
    for name, root in _roots(names, manual_dir):
        corpus_builder = builder(name, data_dir="")
        if not hasattr(corpus_builder, "scan"):
            raise CorpusError(f"corpus {name} has no archive to be checked")
        _set_options(corpus_builder, skip_damaged=False, frames=frames, longest_s=longest_s)
        scanned.append(corpus_builder.scan(_manual_dir(name, root)))
    return scanned


def scan(name: str, *, manual_dir: str | Path | None) -> Any:
    """Scan the archive of one corpus. Raises CorpusError as `scan_all` does."""
    return scan_all(name, manual_dir=manual_dir)[0]


def folder_of(root: Path, name: str) -> Path:
    """Return the folder of the corpus `name` in `root`, ignoring case. Raises CorpusError if there is none."""
    if folder := levels.named(root, name):
        return folder
    hint = levels.nearby(root, lambda folder: levels.named(folder, name) is not None)
    raise CorpusError(f"{root} has no folder {name}: there is {levels.listing(root)}{hint}")


def _roots(names: str, manual_dir: str | Path | None) -> list[tuple[str, str | Path | None]]:
    """Return each corpus of `names` with its manual_dir."""
    each = names.split("+")
    if len(each) == 1 or not manual_dir:
        return [(name, manual_dir) for name in each]
    return [
        (name, folder_of(_manual_dir(name, manual_dir), name.partition("/")[0]) if shipped else None)
        for name in each
        for shipped in [bool(builder(name, data_dir="").MANUAL_DOWNLOAD_INSTRUCTIONS)]
    ]


def _manual_dir(name: str, manual_dir: str | Path | None) -> Path:
    if not manual_dir:
        raise CorpusError(
            f"corpus {name} is not shipped: say where it lies with --manual_dir=DIR (or --config.data.manual_dir=DIR)"
        )
    folder = Path(manual_dir).expanduser()
    if folder.is_file():
        raise CorpusError(f"manual_dir {folder} is a file, not a folder: unpack it, and give the folder that holds it")
    if not folder.is_dir():
        raise CorpusError(f"manual_dir {folder} is not a folder")
    if not any(folder.iterdir()):
        raise CorpusError(f"manual_dir {folder} is empty")
    return folder
