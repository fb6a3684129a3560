"""The procedural corpus as a TFDS builder. Needs no data; the default renders in about half a minute on two cores."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, ClassVar

import tensorflow_datasets as tfds
from tqdm.auto import tqdm

from stag_datasets import corpus
from stag_datasets.synth_me import long_script
from stag_datasets.synth_me.encode import encode_corpus
from stag_datasets.synth_me.script import Recipe

NAME = "synth_me"


@dataclass
class SynthConfig(tfds.core.BuilderConfig):
    """A variant of the corpus, with the recipe that it is rendered from."""

    recipe: Recipe = field(default_factory=Recipe)


class Builder(tfds.core.ShardBasedBuilder):
    """Clips of rendered micro-expressions with their action units and phases."""

    VERSION = tfds.core.Version("1.1.0")
    RELEASE_NOTES: ClassVar[dict[str, str]] = {"1.0.0": "First release.", "1.1.0": "More columns of annotation."}
    BUILDER_CONFIGS: ClassVar[list[SynthConfig]] = [
        SynthConfig(name="default", description="16 subjects, about 240 clips of 30 to 60 frames."),
        SynthConfig(
            name="tiny",
            description="5 subjects with 4 short clips each, for tests.",
            recipe=Recipe(subjects=5, clips=4, frames=(20, 24)),
        ),
        SynthConfig(
            name="many",
            description="60 subjects with about 9 short clips each, to measure what depends on their number.",
            recipe=Recipe(subjects=60, clips=9, frames=(20, 24)),
        ),
        SynthConfig(
            name="order",
            description="12 subjects with 16 clips each; the classes differ in which part of the face moves first.",
            recipe=Recipe(subjects=12, clips=16, task="order"),
        ),
        SynthConfig(
            name="long",
            description="16 subjects with one recording of 12 to 20 s each, with 4 to 7 expressions among distractors.",
            recipe=Recipe(clips=1, frames=(1200, 2000), task=long_script.TASK),
        ),
        SynthConfig(
            name="spotting",
            description="The same with three recordings each, the first of which is that of long: to learn from.",
            recipe=Recipe(clips=3, frames=(1200, 2000), task=long_script.TASK),
        ),
        SynthConfig(
            name="long_tiny",
            description="3 subjects with one recording of 4 s and 2 expressions each, for tests.",
            recipe=Recipe(subjects=3, clips=1, frames=(400, 400), expressions=(2, 2), task=long_script.TASK),
        ),
    ]

    def _info(self) -> tfds.core.DatasetInfo:
        long = self.builder_config.recipe.task == long_script.TASK
        return self.dataset_info_from_configs(features=corpus.long_features() if long else corpus.frame_features())

    def _shard_iterators_per_split(self, dl_manager: tfds.download.DownloadManager) -> dict[str, list[Any]]:
        del dl_manager  # nothing to download
        return {corpus.SPLIT: [self._generate_examples]}

    def _generate_examples(self) -> Iterator[tuple[str, dict[str, Any]]]:
        recipe = self.builder_config.recipe
        for clips in tqdm(encode_corpus(recipe), total=recipe.subjects, desc="rendering", unit="subject"):
            for clip in clips:
                record = corpus.labels(
                    dataset=NAME,
                    subject=clip.subject,
                    clip=clip.clip,
                    emotion=clip.emotion,
                    action_units=clip.action_units,
                )
                phases = {"onset": clip.onset, "apex": clip.apex, "offset": clip.offset}
                record |= corpus.recording(clip.frames, fps=clip.fps, **phases)
                if recipe.task == long_script.TASK:
                    record["events"] = [event._asdict() for event in clip.events]
                yield record["id"], record
