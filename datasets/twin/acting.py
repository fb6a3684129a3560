"""Turn the annotation of a clip into the script of a rendered clip."""

from collections.abc import Sequence

import numpy as np

from stag_datasets.archive import Said
from stag_datasets.synth_me import labels, muscles, script, timing
from stag_datasets.synth_me.labels import Action
from stag_datasets.synth_me.script import ClipSpec, Recipe

SHORTEST = 5  # frames; clips with fewer frames in the sheet are rendered with this many
STILL_PX = 1e-3  # movement of a face that shows nothing, pixels
# Emotion that is acted if a corpus annotates no action units.
_BY_EMOTION = {
    "positive": "positive",
    "happiness": "positive",
    "happy": "positive",
    "surprise": "surprise",
}


def actions(said: Said, units: Sequence[tuple[int, str]] | None, rng: np.random.Generator) -> tuple[Action, ...]:
    """Return those of `units` (number, side) that can be rendered; without labels, draw them from the emotion."""
    if units is None:
        return labels.sample_actions(rng, _BY_EMOTION.get(said.emotion.casefold(), "negative"))
    sides: dict[int, set[str]] = {}
    for unit, side in units:
        if unit in muscles.UNITS:
            sides.setdefault(unit, set()).add(side)
    # Left and right annotated separately mean both sides; so does a unit without a side.
    return tuple(Action(unit, used.pop() if len(used) == 1 else "") for unit, used in sorted(sides.items()))


def clip_spec(said: Said, units: Sequence[tuple[int, str]] | None, recipe: Recipe, subject: int, clip: int) -> ClipSpec:
    """Return the script of one clip from onset to offset, drawn from (recipe.seed, subject, clip) alone.

    `subject` numbers the subjects of the corpus, `clip` the clips of each. The muscles peak near the annotated apex.
    """
    rng = script.stream(recipe.seed, script.SCRIPT, subject, clip)
    first, last = said.onset or 0, said.offset
    length = max(SHORTEST, (last if last is not None else first + round(0.34 * said.fps)) - first + 1)
    apex = said.apex - first if said.apex is not None else rng.uniform(0.4, 0.6) * (length - 1)
    apex = float(np.clip(apex, 1.5, length - 2.5))
    acted = actions(said, units, rng)
    pulses = []
    for action in acted or (Action(4),):
        strength, asymmetry, power = rng.uniform(0.6, 1.1), rng.normal(0, 0.1), rng.uniform(0.8, 1.3)
        peak = float(np.clip(apex + rng.normal(0, 0.08) * length, 1, length - 2))
        for side, sign in (("L", 1), ("R", -1)):
            if action.side in ("", side):
                height = float(strength * (1 + sign * asymmetry))
                pulses.append(timing.Pulse(action.unit, side, height, 0.0, peak, length - 1.0, float(power)))
    return ClipSpec(
        subject=said.subject,
        clip=said.clip,
        who=script.identity(recipe, subject),
        size=recipe.size,
        fps=said.fps,
        frames=length,
        emotion=said.emotion,
        actions=acted,
        pulses=tuple(pulses),
        blinks=script.sample_blink(rng, length, said.fps),
        onset=0,
        offset=length - 1,
        peak=script.sample_peak(rng, 1.0) if acted else STILL_PX,
        seed=(recipe.seed, subject, clip),
    )
