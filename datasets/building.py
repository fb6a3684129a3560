"""The base builder of all corpora of frames: write scanned clips as records, with the frames unchanged."""

import dataclasses
import hashlib
import os
import shutil
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import tensorflow_datasets as tfds
from tqdm.auto import tqdm

from stag_datasets import archive, corpus, processes, summary
from stag_datasets.archive import TOO_LONG_S, Archive, Entry
from stag_datasets.errors import printable

SHARD_BYTES = 128 << 20
KEPT = "finished"  # folder for the finished shards of an unfinished build


@dataclasses.dataclass
class Variant(tfds.core.BuilderConfig):
    """A way of reading a corpus."""

    errata: bool = True  # correct known errors of its sheet
    cropped: bool = False  # use the owners' crops of the faces, if they ship some
    part: str = ""  # which of several sub-corpora
    frames: str = ""  # name of the release of frames to take; empty: the one of the kind asked for
    longest_s: float = TOO_LONG_S  # longer clips are refused


DEFAULT = Variant(name="default", description="As recorded, known errors of the sheet put right.")
AS_ANNOTATED = Variant(name="as_annotated", description="Known errors of the sheet left as they are.", errata=False)
CROPPED = Variant(name="cropped", description="The owners' own crops of the faces.", cropped=True)


class ArchiveBuilder(tfds.core.ShardBasedBuilder, skip_registration=True):
    """Base of the builders; a subclass implements `scan`.

    Records are written in the order of the archive, shard by shard: nothing is shuffled, so that a corpus of any size
    needs memory for a few clips only. Finished shards of a stopped build are kept next to the corpus and reused by the
    next build. With a Beam runner in the download config Beam builds all shards.
    """

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES: ClassVar[dict[str, str]] = {"1.0.0": "First release."}
    BUILDER_CONFIGS: ClassVar[list[Variant]] = [DEFAULT]
    skip_damaged = False  # leave out clips that cannot be used, instead of stopping
    frames = ""  # as in Variant
    longest_s = TOO_LONG_S
    scanned: Archive | None = None  # what the last build was made from, for its fingerprint

    @property
    def variant(self) -> Variant:
        """The variant of the corpus with the options of this builder."""
        return dataclasses.replace(self.builder_config, frames=self.frames, longest_s=self.longest_s)

    def scan(self, root: Path) -> Archive:
        """Scan the archive below `root`. Raises CorpusError if it gives no list of clips."""
        raise NotImplementedError

    def _download_and_prepare(
        self, dl_manager: tfds.download.DownloadManager, download_config: tfds.download.DownloadConfig | None = None
    ) -> None:
        if download_config is not None and download_config.beam_runner:
            super()._download_and_prepare(dl_manager, download_config)
            _require_clips(self.info.splits[corpus.SPLIT].num_examples)
            return
        shards = self._shard_iterators_per_split(dl_manager)[corpus.SPLIT]
        template = self._get_filename_template(split_name=corpus.SPLIT)
        # TFDS has set data_dir to a temporary folder, which it removes if the build fails.
        finished_folder = Path(self.data_dir).parent / KEPT
        finished = [self._finished(shard, finished_folder) for shard in shards]
        lengths = [int(part.name.split("-")[1]) for part in finished]
        finished = [part for part, length in zip(finished, lengths, strict=True) if length]
        _require_clips(len(finished))
        lengths = [length for length in lengths if length]
        size = sum(part.stat().st_size for part in finished)
        for index, part in enumerate(finished):
            os.replace(part, template.sharded_filepath(shard_index=index, num_shards=len(finished)))
        shutil.rmtree(finished_folder, ignore_errors=True)
        info = tfds.core.SplitInfo(name=corpus.SPLIT, shard_lengths=lengths, num_bytes=size, filename_template=template)
        self.info.set_splits(tfds.core.SplitDict([info]))

    def _finished(self, shard: "Shard", kept: Path) -> Path:
        """Return the shard as a file `<hash of its sources>-<number of records>-`, written unless it exists."""
        sources = [
            (entry, [path.stat().st_mtime_ns for path in entry.files if path.exists()]) for entry in shard.found.entries
        ]
        digest = hashlib.sha256(repr((self.VERSION, sources, shard.skip_damaged)).encode()).hexdigest()[:32]
        for path in kept.glob(f"{digest}-*"):
            return path
        kept.mkdir(parents=True, exist_ok=True)
        count = 0

        def serialized() -> Iterator[tuple[str, bytes]]:
            nonlocal count
            for key, record in shard():
                count += 1
                yield key, self.info.features.serialize_example(record)

        temporary = kept / f".{uuid.uuid4().hex}"
        try:
            self._example_writer().write(temporary, serialized())
            os.replace(temporary, kept / f"{digest}-{count}-")
        finally:
            temporary.unlink(missing_ok=True)
        return kept / f"{digest}-{count}-"

    @staticmethod
    def record(entry: Entry, frames: list[bytes]) -> dict[str, Any]:
        """Return the record of a clip, given its encoded frames."""
        return to_record(entry, frames)

    def _info(self) -> tfds.core.DatasetInfo:
        return self.dataset_info_from_configs(features=corpus.frame_features(), metadata=tfds.core.MetadataDict())

    def _shard_iterators_per_split(self, dl_manager: tfds.download.DownloadManager) -> dict[str, list["Shard"]]:
        scanned = self.scan(Path(dl_manager.manual_dir))
        self.scanned = scanned
        for line in summary.lines(scanned):
            print(line)
        if not scanned.entries:
            _object(scanned.problems, False, advice="")
        _object(scanned.problems, self.skip_damaged)
        about = {key: printable(value) for key, value in scanned.about.items()}
        repairs, remarks = (list(map(printable, lines)) for lines in (scanned.repairs, scanned.remarks))
        self.info.metadata.update({**about, "repairs": repairs, "remarks": remarks})
        if scanned.problems:
            self.info.metadata["left out"] = summary.grouped(scanned.problems)
        chunks = list(_chunks(scanned.entries))
        return {
            corpus.SPLIT: [
                Shard(scanned._replace(entries=chunk), self.record, self.skip_damaged, f"building {n}/{len(chunks)}")
                for n, chunk in enumerate(chunks, start=1)
            ]
        }


class Shard(NamedTuple):
    """The records of some of the clips. It may be sent to another process, so it holds all that it needs."""

    found: Archive
    record: Callable[[Entry, list[bytes]], dict[str, Any]]
    skip_damaged: bool
    title: str

    def __call__(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield (id, record) of each clip. Raises CorpusError for unusable frames, unless they are to be skipped."""
        clips = archive.read_all(self.found, processes.cores())
        for entry, frames in tqdm(clips, total=len(self.found.entries), desc=self.title, unit="clip"):
            if isinstance(frames, corpus.CorpusError):
                _object([f"{archive.name(entry.said)}: {frames}"], self.skip_damaged)
                continue
            record = self.record(entry, frames)
            yield record["id"], record


def _chunks(entries: list[Entry]) -> Iterator[list[Entry]]:
    """Split the entries, in order, into chunks of at least `SHARD_BYTES`, the last one smaller."""
    chunk: list[Entry] = []
    size = 0
    for entry in entries:
        chunk.append(entry)
        size += sum(path.stat().st_size for path in entry.files if path.exists())
        if size >= SHARD_BYTES:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk


def _object(problems: list[str], skip: bool, advice: str = ", --skip_damaged goes on without") -> None:
    """Raise CorpusError if there are problems, unless they are to be skipped."""
    if not problems:
        return
    lines = summary.grouped(problems)
    if skip:
        for line in lines:
            tqdm.write(f"left out: {line}")
        return
    more = f", and {len(lines) - 1} of other kinds" if len(lines) > 1 else ""
    raise corpus.CorpusError(f"{lines[0]}{more}; prepare.py --check lists all{advice}")


def _require_clips(count: int) -> None:
    """Raise CorpusError if no clip is left to be built."""
    if not count:
        raise corpus.CorpusError("no clip is left, since none can be used; prepare.py --check says why")


def to_record(entry: Entry, frames: list[bytes]) -> dict[str, Any]:
    """Return the record of a clip."""
    annotated = entry.said
    labels = corpus.labels(
        dataset=annotated.dataset,
        subject=annotated.subject,
        clip=annotated.clip,
        emotion=annotated.emotion,
        action_units=annotated.action_units,
        objective=annotated.objective,
        part=annotated.part,
        group=annotated.group,
    )
    recording = corpus.recording(
        frames,
        fps=annotated.fps,
        onset=entry.onset,
        apex=entry.apex,
        offset=entry.offset,
        numbers=entry.numbers,
        source=printable(annotated.where),
        repairs="; ".join(annotated.repairs),
    )
    return {**labels, **recording}
