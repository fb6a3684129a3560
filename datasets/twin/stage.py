"""Render the missing clips of an archive into its folders, on all cores."""

import functools
import os
import shutil
import uuid
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import cv2

from stag_datasets import processes
from stag_datasets.archive import Said, name
from stag_datasets.corpus import CorpusError
from stag_datasets.synth_me.render import render_clip
from stag_datasets.synth_me.script import Recipe
from stag_datasets.twin import acting, layouts

QUALITY = 95  # of JPEG

# Clip id -> the units that it shows, with their sides; None if the corpus annotates none.
Units = Mapping[str, Sequence[tuple[int, str]] | None]


class Order(NamedTuple):
    """One clip to be rendered."""

    said: Said
    units: Sequence[tuple[int, str]] | None
    subject: int
    clip: int


def orders(clips: Sequence[Said], units: Units) -> list[Order]:
    """Number the subjects in the order of their names, and the clips of each in the order of the sheet.

    Raises CorpusError for a corpus whose layout is not known.
    """
    for clip in clips:
        if clip.dataset not in layouts.LAYOUTS:
            raise CorpusError(f"no twin of {clip.dataset} can be made; there are {', '.join(layouts.LAYOUTS)}")
    subject_index = {subject: index for index, subject in enumerate(sorted({clip.subject for clip in clips}))}
    count = dict.fromkeys(subject_index, 0)
    numbered = []
    for clip in clips:
        numbered.append(Order(clip, units[name(clip)], subject_index[clip.subject], count[clip.subject]))
        count[clip.subject] += 1
    return numbered


def act(plan: Sequence[Order], root: Path, recipe: Recipe) -> Iterator[str]:
    """Render every order below `root`, and yield the id of each clip once it is complete."""
    work = functools.partial(_act, root, recipe)
    workers = min(processes.cores(), max(len(plan), 1))
    if workers == 1:
        yield from map(work, plan)
        return
    with processes.pool(workers) as pool:
        yield from pool.map(work, plan)


def _act(root: Path, recipe: Recipe, order: Order) -> str:
    cv2.setNumThreads(1)  # the processes are the parallelism
    sheet_clip = order.said
    spec = acting.clip_spec(sheet_clip, order.units, recipe, order.subject, order.clip)
    first = sheet_clip.onset or 0
    paths = [root / layouts.frame_path(sheet_clip.dataset, sheet_clip, first + index) for index in range(spec.frames)]
    folder = paths[0].parent
    # Written next to its folder and moved there as a whole; if a recording holds several clips, frame by frame.
    temporary = folder.with_name(f".{uuid.uuid4().hex}")
    temporary.mkdir(parents=True)
    try:
        for path, frame in zip(paths, render_clip(spec).frames, strict=True):
            quality = [cv2.IMWRITE_JPEG_QUALITY, QUALITY] if path.suffix == ".jpg" else []
            if not cv2.imwrite(str(temporary / path.name), frame[..., ::-1], quality):
                raise CorpusError(f"{path} cannot be written")
        try:
            os.replace(temporary, folder)
        except OSError:  # another clip of the recording is there already
            for path in sorted(temporary.iterdir()):
                os.replace(path, folder / path.name)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return name(sheet_clip)
