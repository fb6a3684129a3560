"""The order experiment: brows and lips move in both classes, which differ only in which of them moves first.

A clip of one class is a clip of the other played backwards: one pulse of the brows and one of the lips, each symmetric
in time, of equal width and on average equal size, with peaks equally long before and after the middle of the movement.
What moves, where to, how much and when is drawn independently of the class. So the frame of largest movement and the
motion of each point summed over time are the same in both classes, by construction; the motion of the face summed over
space is the same as far as brows and lips can be made alike: both move up or down at random, and eyes and nose move
with either.
"""

import numpy as np
from jaxtyping import Float

from stag_datasets.synth_me import labels, script
from stag_datasets.synth_me.identity import Identity
from stag_datasets.synth_me.muscles import unit_field
from stag_datasets.synth_me.script import ClipSpec, Recipe
from stag_datasets.synth_me.timing import Pulse

CLASSES = ("brows_first", "lips_first")

Part = tuple[tuple[int, float], ...]  # units and their weights

# Each part moves up or down, independently of the other. The weights are chosen so that, both upwards and downwards,
# the two parts are alike in the motion summed over the face: vertical share, strain and unevenness for equal movement.
BROWS: tuple[Part, ...] = (((1, 1.0), (2, 1.0)), ((4, 1.0),))
LIPS: tuple[Part, ...] = (((17, 1.0),), ((14, 0.55), (15, 1.0)))
# Bystanders: eyes and nose move with either part at random in most clips, with this fraction of a part's amplitude.
# They hide the remaining differences of the parts in the sum over space.
BYSTANDERS: Part = ((6, 0.8), (7, 0.3), (9, 0.6))
_TAKES_PART = 0.9  # probability of each
_UNITS = sorted({unit for part in (*BROWS, *LIPS, BYSTANDERS) for unit, _ in part})
_STEP = 0.02  # of the grid on which motion is summed over the face, face units
_WIDTH = (0.26, 0.30)  # seconds from the onset of a pulse to its offset
_APART = (0.30, 0.38)  # distance of the peaks in widths; below one half, so that the sum of both peaks in the middle
_LEAD = (-0.08, 0.25)  # mean and deviation of log(brows / lips) in amplitude: balanced as measured by the regions


def subject_clips(recipe: Recipe, subject: int) -> list[ClipSpec]:
    """Return the scripts of all clips of one subject, with equal numbers of both classes.

    An odd number of clips has one more of the second class.
    """
    rng = script.stream(recipe.seed, script.SUBJECT, subject)
    who = script.identity(recipe, subject)
    liveliness = float(np.exp(rng.normal(0, 0.15)))
    together = _energy(who)
    classes = rng.permutation(np.arange(recipe.clips) * len(CLASSES) // recipe.clips)
    return [_clip(recipe, subject, clip, who, liveliness, together, CLASSES[k]) for clip, k in enumerate(classes)]


def _energy(who: Identity) -> Float[np.ndarray, "u u2"]:
    """Return inner products of the units' motions over the face; units as in `_UNITS`, both halves at full strength.

    A mixture with strengths w has the energy w^T E w.
    """
    left, top = who.points.min(axis=0) - 0.3
    right, bottom = who.points.max(axis=0) + 0.1
    x, y = np.meshgrid(np.arange(left, right, _STEP), np.arange(top, bottom, _STEP))
    fields = np.stack([unit_field(who, unit, "L", x, y) + unit_field(who, unit, "R", x, y) for unit in _UNITS])
    flat = fields.reshape(len(_UNITS), -1)
    return flat @ flat.T


def _clip(
    recipe: Recipe, subject: int, clip: int, who: Identity, liveliness: float, together: np.ndarray, emotion: str
) -> ClipSpec:
    """Draw one clip. The class is applied last, as the direction of time, so that nothing else depends on it."""
    rng = script.stream(recipe.seed, script.SCRIPT, subject, clip)
    width = rng.uniform(*_WIDTH) * recipe.fps
    peak_distance = rng.uniform(*_APART) * width
    length = 2 * int(np.ceil((width + peak_distance) / 2))
    fewest, most = (max(count, length + 8) for count in recipe.frames)  # the whole movement is in the clip
    frames = int(rng.integers(fewest, most + 1))
    onset = int(rng.integers(3, frames - length - 3))
    middle = onset + length // 2
    power, lead = rng.uniform(0.8, 1.0), rng.normal(*_LEAD) / 2
    brows, lips = BROWS[rng.integers(len(BROWS))], LIPS[rng.integers(len(LIPS))]
    played = [  # unit, strength, and time: with the brows (1) or with the lips (-1)
        *((unit, strength * np.exp(lead), 1) for unit, strength in _balanced(rng, brows, together)),
        *((unit, strength * np.exp(-lead), -1) for unit, strength in _balanced(rng, lips, together)),
        *_bystanders(rng, together),
    ]
    pulses = []
    for unit, strength, sign in played:
        apex, asymmetry = middle - sign * peak_distance / 2, rng.normal(0, 0.10)
        for side, height in (("L", strength * (1 + asymmetry)), ("R", strength * (1 - asymmetry))):
            pulses.append(Pulse(unit, side, float(height), apex - width / 2, apex, apex + width / 2, power))
    spec = ClipSpec(
        subject=f"s{subject + 1:02d}",
        clip=f"c{clip + 1:02d}",
        who=who,
        size=recipe.size,
        fps=recipe.fps,
        frames=frames,
        emotion=CLASSES[0],
        actions=tuple(sorted(labels.Action(unit) for unit, _, _ in played)),
        pulses=tuple(pulses),
        blinks=script.sample_blink(rng, frames, recipe.fps),
        onset=onset,
        offset=onset + length,
        peak=script.sample_peak(rng, liveliness),
        seed=(recipe.seed, subject, clip),
    )
    return spec if emotion == CLASSES[0] else backwards(spec)


def _balanced(rng: np.random.Generator, part: Part, together: np.ndarray) -> list[tuple[int, float]]:
    """Draw the strengths of a part's units, in a slightly random mixture scaled to unit energy."""
    mixture = [(unit, weight * float(np.exp(rng.normal(0, 0.3)))) for unit, weight in part]
    vector = np.zeros(len(_UNITS))
    for unit, weight in mixture:
        vector[_UNITS.index(unit)] = weight
    scale = float(np.sqrt(vector @ together @ vector))
    return [(unit, weight / scale) for unit, weight in mixture]


def _bystanders(rng: np.random.Generator, together: np.ndarray) -> list[tuple[int, float, int]]:
    """Draw unit, strength and sign of the bystanders that move; the count of random numbers is always the same."""
    drawn = []
    for unit, level in BYSTANDERS:
        takes_part, sign = rng.random() < _TAKES_PART, int(rng.choice((-1, 1)))
        (alone,) = _balanced(rng, ((unit, 1.0),), together)
        strength = alone[1] * level * float(np.exp(rng.normal(0, 0.4)))
        if takes_part:
            drawn.append((unit, strength, sign))
    return drawn


def backwards(spec: ClipSpec) -> ClipSpec:
    """Return the clip of the other class: the expression played backwards about its middle, all else unchanged."""
    total = spec.onset + spec.offset
    pulses = tuple(
        pulse._replace(onset=total - pulse.offset, apex=total - pulse.apex, offset=total - pulse.onset)
        for pulse in spec.pulses
    )
    return spec._replace(pulses=pulses, emotion=CLASSES[1 - CLASSES.index(spec.emotion)])
