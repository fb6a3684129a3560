"""The script of a clip: person, action units, times, strengths; drawn from (seed, subject, clip) alone."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from stag_datasets.synth_me import labels
from stag_datasets.synth_me.identity import Identity, sample_identity
from stag_datasets.synth_me.muscles import BLINK
from stag_datasets.synth_me.timing import Pulse

# Ids of the streams of random numbers; never renumber.
IDENTITY, SUBJECT, SCRIPT, LONG = 0, 1, 2, 3


@dataclass(frozen=True)
class Recipe:
    """All settings from which a corpus is rendered."""

    subjects: int = 16
    clips: int = 15  # per subject, on average
    frames: tuple[int, int] = (30, 60)  # fewest and most in a clip
    expressions: tuple[int, int] = (4, 7)  # fewest and most in a long recording; other clips have one
    fps: float = 100.0
    size: int = 256  # of a frame, pixels
    seed: int = 2
    task: str = "emotion"  # what the classes are: "emotion" (this module), "order" (order.py), "long" (long.py)


class ClipSpec(NamedTuple):
    """One clip before it is rendered. Frames are counted from 0."""

    subject: str
    clip: str
    who: Identity
    size: int  # of a frame, pixels
    fps: float
    frames: int
    emotion: str
    actions: tuple[labels.Action, ...]
    pulses: tuple[Pulse, ...]  # the expression
    blinks: tuple[Pulse, ...]
    onset: int  # last frame before any movement of the expression
    offset: int  # first frame after all of its movement
    peak: float  # largest displacement of a landmark by the expression, in pixels of a face 128 pixels wide
    seed: tuple[int, ...]  # of head motion, light and noise


def stream(*key: int) -> np.random.Generator:
    """Return a random generator that depends on the key alone."""
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(key)))


def identity(recipe: Recipe, subject: int) -> Identity:
    """Return the person that plays subject number `subject`."""
    return sample_identity(stream(recipe.seed, IDENTITY, subject))


def subject_clips(recipe: Recipe, subject: int) -> list[ClipSpec]:
    """Return the scripts of all clips of one subject."""
    rng = stream(recipe.seed, SUBJECT, subject)
    who = identity(recipe, subject)
    liveliness, shares = temperament(rng)
    count = recipe.clips + (int(rng.integers(-2, 3)) if recipe.clips > 6 else 0)
    return [_clip(recipe, subject, clip, who, liveliness, shares) for clip in range(count)]


def temperament(rng: np.random.Generator) -> tuple[float, Float[np.ndarray, " k"]]:
    """Draw how strongly a person shows emotions, about 1, and the frequency of each of `labels.EMOTIONS`."""
    liveliness = float(np.exp(rng.normal(0, 0.15)))
    return liveliness, rng.dirichlet(np.array(labels.SHARE) * 14)


def _clip(recipe: Recipe, subject: int, clip: int, who: Identity, liveliness: float, shares: np.ndarray) -> ClipSpec:
    rng = stream(recipe.seed, SCRIPT, subject, clip)
    emotion = str(rng.choice(labels.EMOTIONS, p=shares))
    actions = labels.sample_actions(rng, emotion)
    frames = int(rng.integers(recipe.frames[0], recipe.frames[1] + 1))
    length = sample_length(rng, recipe.fps, frames - 8)
    onset = int(rng.integers(3, frames - length - 3))
    return ClipSpec(
        subject=f"s{subject + 1:02d}",
        clip=f"c{clip + 1:02d}",
        who=who,
        size=recipe.size,
        fps=recipe.fps,
        frames=frames,
        emotion=emotion,
        actions=actions,
        pulses=sample_pulses(rng, actions, onset, onset + length),
        blinks=sample_blink(rng, frames, recipe.fps),
        onset=onset,
        offset=onset + length,
        peak=sample_peak(rng, liveliness),
        seed=(recipe.seed, subject, clip),
    )


def sample_length(rng: np.random.Generator, fps: float, most: int) -> int:
    """Draw the frames from onset to offset of an expression: 0.12 to 0.48 s, and no more than `most`."""
    longest = min(round(0.48 * fps), most)
    return int(np.clip(round(fps * rng.normal(0.32, 0.07)), round(0.12 * fps), longest))


def sample_pulses(
    rng: np.random.Generator, actions: tuple[labels.Action, ...], onset: int, offset: int
) -> tuple[Pulse, ...]:
    """Draw one pulse for each half of each unit, each with its own peak; together they fill onset to offset.

    The muscles of an expression do not contract together: each is active for part of the time, so that possibly no
    single frame shows all of them.
    """
    length = offset - onset
    fraction = rng.uniform(0.5, 0.75, len(actions)) if len(actions) > 1 else np.ones(1)
    delay = rng.permutation(np.linspace(0, 1, len(actions))) * (1 - fraction) * length
    margin = (1 - fraction) * length - delay
    pulses = []
    for action, begin, end in zip(actions, onset + delay, offset - margin, strict=True):
        rise, power, asymmetry = rng.uniform(0.35, 0.58), rng.uniform(0.8, 1.3), rng.normal(0, 0.10)
        strength = rng.uniform(0.6, 1.1)
        for side, sign in (("L", 1), ("R", -1)):
            if action.side in ("", side):
                lag = rng.uniform(-0.02, 0.02) * length
                apex = begin + rise * (end - begin) + lag
                height = strength * (1 + sign * asymmetry)
                pulses.append(Pulse(action.unit, side, float(height), begin, float(apex), end, float(power)))
    return tuple(pulses)


def sample_blink(rng: np.random.Generator, frames: int, fps: float) -> tuple[Pulse, ...]:
    """Draw, in about a third of the clips, a blink that starts after frame 0; it may run beyond the last frame."""
    if rng.random() >= 0.35:
        return ()
    length = min(rng.uniform(0.10, 0.30) * fps, 0.8 * frames)
    return blink(rng, float(rng.uniform(1, frames - 0.6 * length)), length)


def blink(rng: np.random.Generator, onset: float, length: float) -> tuple[Pulse, ...]:
    """Draw a blink: both lids shut and open again, `length` frames from onset to offset."""
    apex = onset + rng.uniform(0.3, 0.45) * length
    depth = float(rng.uniform(0.75, 1.0))
    return tuple(Pulse(BLINK, side, depth, onset, float(apex), onset + length) for side in "LR")


def sample_peak(rng: np.random.Generator, liveliness: float) -> float:
    """Draw the largest displacement of an expression, in pixels of a face 128 pixels wide, for this liveliness."""
    return float(np.clip(1.35 * liveliness * np.exp(rng.normal(0, 0.4)), 0.55, 2.9))
