"""From what a sheet says of a clip to the script of one that can be rendered."""

from collections.abc import Sequence

import numpy as np

from stag_datasets.archive import Said
from stag_datasets.synth_me import labels, muscles, script, timing
from stag_datasets.synth_me.labels import Action
from stag_datasets.synth_me.script import ClipSpec, Recipe

SHORTEST = 5  # frames; clips that a sheet gives fewer are acted out over so many
STILL_PX = 1e-3  # how far a face moves that shows nothing
# What is acted where a corpus annotates no action units.
_BY_EMOTION = {
    "positive": "positive",
    "happiness": "positive",
    "happy": "positive",
    "surprise": "surprise",
}


def actions(said: Said, units: Sequence[tuple[int, str]] | None, rng: np.random.Generator) -> tuple[Action, ...]:
    """What of `units` (number, side) the renderer can show; drawn by the emotion where there are no labels."""
    if units is None:
        return labels.sample_actions(rng, _BY_EMOTION.get(said.emotion.casefold(), "negative"))
    sides: dict[int, set[str]] = {}
    for unit, side in units:
        if unit in muscles.UNITS:
            sides.setdefault(unit, set()).add(side)
    # Left and right, one by one, are both; so is a unit whose side is not said.
    return tuple(Action(unit, own.pop() if len(own) == 1 else "") for unit, own in sorted(sides.items()))


def clip_spec(said: Said, units: Sequence[tuple[int, str]] | None, recipe: Recipe, subject: int, clip: int) -> ClipSpec:
    """The script of one clip, from its onset to its offset; drawn from (recipe.seed, subject, clip) alone.

    `subject` and `clip` number the corpus' people and each one's clips. The muscles peak about the annotated apex.
    """
    rng = script.stream(recipe.seed, script.SCRIPT, subject, clip)
    first, last = said.onset or 0, said.offset
    length = max(SHORTEST, (last if last is not None else first + round(0.34 * said.fps)) - first + 1)
    apex = said.apex - first if said.apex is not None else rng.uniform(0.4, 0.6) * (length - 1)
    apex = float(np.clip(apex, 1.5, length - 2.5))
    doing = actions(said, units, rng)
    pulses = []
    for action in doing or (Action(4),):
        strength, lean, power = rng.uniform(0.6, 1.1), rng.normal(0, 0.1), rng.uniform(0.8, 1.3)
        peak = float(np.clip(apex + rng.normal(0, 0.08) * length, 1, length - 2))
        for side, sign in (("L", 1), ("R", -1)):
            if action.side in ("", side):
                height = float(strength * (1 + sign * lean))
                pulses.append(timing.Pulse(action.unit, side, height, 0.0, peak, length - 1.0, float(power)))
    return ClipSpec(
        subject=said.subject,
        clip=said.clip,
        who=script.identity(recipe, subject),
        size=recipe.size,
        fps=said.fps,
        frames=length,
        emotion=said.emotion,
        actions=doing,
        pulses=tuple(pulses),
        blinks=script.sample_blink(rng, length, said.fps),
        onset=0,
        offset=length - 1,
        peak=script.sample_peak(rng, 1.0) if doing else STILL_PX,
        seed=(recipe.seed, subject, clip),
    )
