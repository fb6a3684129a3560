"""Renders the clips that an archive lacks, each into its place, on all cores."""

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

# Of each clip (by its id) the units that it shows, with their sides; None where the corpus annotates none.
Units = Mapping[str, Sequence[tuple[int, str]] | None]


class Order(NamedTuple):
    """One clip to be rendered."""

    said: Said
    units: Sequence[tuple[int, str]] | None
    subject: int
    clip: int


def orders(clips: Sequence[Said], units: Units) -> list[Order]:
    """Who is drawn as whom: subjects in the order of their names, each one's clips in that of the sheet.

    Raises CorpusError for a corpus whose layout is not known.
    """
    for said in clips:
        if said.dataset not in layouts.LAYOUTS:
            raise CorpusError(f"no twin of {said.dataset} can be made; there are {', '.join(layouts.LAYOUTS)}")
    people = {who: index for index, who in enumerate(sorted({said.subject for said in clips}))}
    count = dict.fromkeys(people, 0)
    made = []
    for said in clips:
        made.append(Order(said, units[name(said)], people[said.subject], count[said.subject]))
        count[said.subject] += 1
    return made


def act(plan: Sequence[Order], root: Path, recipe: Recipe) -> Iterator[str]:
    """Renders every order below `root`, and gives the id of each clip once it is there whole."""
    work = functools.partial(_act, root, recipe)
    workers = min(processes.cores(), max(len(plan), 1))
    if workers == 1:
        yield from map(work, plan)
        return
    with processes.pool(workers) as pool:
        yield from pool.map(work, plan)


def _act(root: Path, recipe: Recipe, order: Order) -> str:
    cv2.setNumThreads(1)  # the processes are the parallelism
    said = order.said
    spec = acting.clip_spec(said, order.units, recipe, order.subject, order.clip)
    first = said.onset or 0
    paths = [root / layouts.frame_path(said.dataset, said, first + index) for index in range(spec.frames)]
    folder = paths[0].parent
    # Written beside its place and moved there whole; where a recording holds several clips, frame by frame.
    waiting = folder.with_name(f".{uuid.uuid4().hex}")
    waiting.mkdir(parents=True)
    try:
        for path, frame in zip(paths, render_clip(spec).frames, strict=True):
            quality = [cv2.IMWRITE_JPEG_QUALITY, QUALITY] if path.suffix == ".jpg" else []
            if not cv2.imwrite(str(waiting / path.name), frame[..., ::-1], quality):
                raise CorpusError(f"{path} cannot be written")
        try:
            os.replace(waiting, folder)
        except OSError:  # another clip of the recording is there already
            for path in sorted(waiting.iterdir()):
                os.replace(path, folder / path.name)
    finally:
        shutil.rmtree(waiting, ignore_errors=True)
    return name(said)
