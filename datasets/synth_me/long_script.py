"""Scripts of long recordings for spotting: several expressions among blinks, speech and turns of the head.

Blinks, speech and turns of the head are distractors: each is drawn from its own random numbers, independent of the
expressions. The exception: nobody speaks during a micro-expression; if both would overlap, both are drawn again.
"""

import itertools
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from stag_datasets.synth_me import labels, script
from stag_datasets.synth_me.identity import Identity
from stag_datasets.synth_me.script import Recipe
from stag_datasets.synth_me.timing import Pulse

TASK = "long"
APART = 0.8  # seconds from the offset of an expression to the onset of the next, at least
FREE = 0.1  # seconds between an expression and speech, at least
EDGE = 0.3  # seconds before the first expression and after the last, at least
STRETCH, SILENCE = (1.0, 2.5), (2.0, 5.0)  # seconds of speech, and from the end of one stretch to the next
SYLLABLES = (3.0, 6.0)  # per second
SPEECH = {17: 0.30, 10: 0.20, 15: 0.20, 12: 0.15, 14: 0.15}  # units of lips and chin in speech, and their frequency
BLINKS = (2.0, 5.0)  # seconds from one blink to the next
TURNING, RESTING = (0.5, 1.5), (0.7, 3.5)  # seconds of a turn of the head, and from one to the next
YAW, ROLL = (4.0, 8.0), 2.5  # degrees: smallest and largest yaw of a turned head; largest roll to either side
_BACK = 0.5  # probability that a turned head turns back next
_ATTEMPTS = 1000

# Ids of the streams of random numbers, in addition to those of render.py; never renumber.
_TIMES, _EXPRESSIONS, _SPEECH, _BLINKS, _TURNS = 1, 2, 3, 4, 5


class Expression(NamedTuple):
    """One micro-expression. Frames as in ClipSpec."""

    emotion: str
    actions: tuple[labels.Action, ...]
    pulses: tuple[Pulse, ...]
    onset: int  # last frame before any movement
    offset: int  # first frame after all movement
    peak: float  # largest displacement of a landmark, in pixels of a face 128 pixels wide


class Speech(NamedTuple):
    """One stretch of speech; its pulses lie within onset and offset."""

    pulses: tuple[Pulse, ...]
    onset: int
    offset: int
    peak: float  # as that of an expression


class Turn(NamedTuple):
    """A movement of the head from its current to a new posture. Times in frames, angles in radians."""

    onset: float
    offset: float
    yaw: float  # positive towards image right
    roll: float  # positive clockwise in the picture


class LongSpec(NamedTuple):
    """One recording before it is rendered. Frames are counted from 0; all parts are in order of time."""

    subject: str
    clip: str
    who: Identity
    size: int  # of a frame, pixels
    fps: float
    frames: int
    expressions: tuple[Expression, ...]
    speech: tuple[Speech, ...]
    blinks: tuple[Pulse, ...]
    turns: tuple[Turn, ...]
    seed: tuple[int, ...]  # of head motion, light and noise


def subject_recordings(recipe: Recipe, subject: int) -> list[LongSpec]:
    """Return the scripts of all `recipe.clips` recordings of one subject.

    Raises ValueError for a recipe whose expressions do not fit into the recording.
    """
    return [recording(recipe, subject, clip) for clip in range(recipe.clips)]


def without_distractors(spec: LongSpec) -> LongSpec:
    """Return the same expressions without speech, blinks and turns of the head."""
    return spec._replace(speech=(), blinks=(), turns=())


def recording(recipe: Recipe, subject: int, clip: int = 0) -> LongSpec:
    """Return the script of one recording of a subject, both counted from 0; raises as `subject_recordings` does."""
    seed = (recipe.seed, script.LONG, subject, clip)
    # The same person as in the other corpora, with the same temperament.
    who = script.identity(recipe, subject)
    liveliness, shares = script.temperament(script.stream(recipe.seed, script.SUBJECT, subject))
    frames, lengths, onsets, stretches = _times(recipe, script.stream(*seed, _TIMES))
    rng, voice = script.stream(*seed, _EXPRESSIONS), script.stream(*seed, _SPEECH)
    return LongSpec(
        subject=f"s{subject + 1:02d}",
        clip=f"l{clip + 1:02d}",
        who=who,
        size=recipe.size,
        fps=recipe.fps,
        frames=frames,
        expressions=tuple(
            _expression(rng, liveliness, shares, onset, onset + length)
            for onset, length in zip(onsets, lengths, strict=True)
        ),
        speech=tuple(_speech(voice, liveliness, onset, offset, recipe.fps) for onset, offset in stretches),
        blinks=_blinks(script.stream(*seed, _BLINKS), frames, recipe.fps),
        turns=_turns(script.stream(*seed, _TURNS), frames, recipe.fps),
        seed=seed,
    )


def _times(recipe: Recipe, rng: np.random.Generator) -> tuple[int, list[int], list[int], list[tuple[int, int]]]:
    """Draw the length of the recording, lengths and onsets of the expressions, and the stretches of speech."""
    for _ in range(_ATTEMPTS):
        frames = int(rng.integers(recipe.frames[0], recipe.frames[1] + 1))
        stretches = _stretches(rng, frames, recipe.fps)
        count = int(rng.integers(recipe.expressions[0], recipe.expressions[1] + 1))
        lengths = [script.sample_length(rng, recipe.fps, frames) for _ in range(count)]
        onsets = _onsets(rng, lengths, stretches, frames, recipe.fps)
        if onsets is not None:
            return frames, lengths, onsets, stretches
    raise ValueError(f"{recipe.expressions[1]} expressions find no room in {recipe.frames[0]} frames; see {recipe}")


def _stretches(rng: np.random.Generator, frames: int, fps: float) -> list[tuple[int, int]]:
    """Draw onset and offset of each stretch of speech; the first silence starts before the recording."""
    stretches, time = [], fps * rng.uniform(0, SILENCE[1])
    while True:
        onset, time = round(time), time + fps * rng.uniform(*STRETCH)
        if time > frames - 1:
            return stretches
        stretches.append((onset, round(time)))
        time += fps * rng.uniform(*SILENCE)


def _onsets(
    rng: np.random.Generator, lengths: list[int], stretches: list[tuple[int, int]], frames: int, fps: float
) -> list[int] | None:
    """Draw the onset of each expression from the places that are still free; None if one has no place."""
    edge, margin, distance = (int(np.ceil(seconds * fps)) for seconds in (EDGE, FREE, APART))
    onsets: list[int] = []
    for length in lengths:
        possible: Bool[np.ndarray, " f"] = np.zeros(frames, bool)
        possible[edge : max(frames - edge - length, 0)] = True
        for onset, offset in stretches:
            possible[max(onset - margin - length, 0) : offset + margin] = False
        for onset, other in zip(onsets, lengths, strict=False):
            possible[max(onset - distance - length + 1, 0) : onset + other + distance] = False
        if not possible.any():
            return None
        onsets.append(int(rng.choice(np.flatnonzero(possible))))
    order = np.argsort(onsets)
    lengths[:] = [lengths[k] for k in order]
    return [onsets[k] for k in order]


def _expression(
    rng: np.random.Generator, liveliness: float, shares: Float[np.ndarray, " k"], onset: int, offset: int
) -> Expression:
    emotion = str(rng.choice(labels.EMOTIONS, p=shares))
    actions = labels.sample_actions(rng, emotion)
    pulses = script.sample_pulses(rng, actions, onset, offset)
    return Expression(emotion, actions, pulses, onset, offset, script.sample_peak(rng, liveliness))


def _speech(rng: np.random.Generator, liveliness: float, onset: int, offset: int, fps: float) -> Speech:
    """Draw consecutive syllables of one or two units each, long enough to overlap."""
    units, frequency = list(SPEECH), list(SPEECH.values())
    period = fps / rng.uniform(*SYLLABLES)
    pulses = []
    for index in itertools.count():
        begin = onset + (index + rng.uniform(-0.1, 0.1) * (index > 0)) * period
        end = begin + rng.uniform(1.0, 1.3) * period
        if end > offset:
            break
        apex = begin + rng.uniform(0.4, 0.6) * (end - begin)
        for unit in rng.choice(units, size=rng.integers(1, 3), replace=False, p=frequency):
            strength, asymmetry = rng.uniform(0.5, 1.0), rng.normal(0, 0.05)
            for side, sign in (("L", 1), ("R", -1)):
                height = float(strength * (1 + sign * asymmetry))
                pulses.append(Pulse(int(unit), side, height, float(begin), float(apex), float(end)))
    return Speech(tuple(pulses), onset, offset, script.sample_peak(rng, liveliness))


def _blinks(rng: np.random.Generator, frames: int, fps: float) -> tuple[Pulse, ...]:
    """Draw the blinks of a recording; the last one may run beyond the last frame."""
    pulses, onset = [], fps * rng.uniform(0.1, BLINKS[1])
    while onset < frames:
        pulses += script.blink(rng, float(onset), fps * rng.uniform(0.10, 0.30))
        onset += fps * rng.uniform(*BLINKS)
    return tuple(pulses)


def _turns(rng: np.random.Generator, frames: int, fps: float) -> tuple[Turn, ...]:
    """Draw the turns of the head to a side and later back or elsewhere; the last may run beyond the last frame."""
    turns, time, turned = [], fps * rng.uniform(0.2, RESTING[1]), False
    while time < frames:
        length = fps * rng.uniform(*TURNING)
        yaw, roll = rng.choice((-1, 1)) * rng.uniform(*YAW), np.clip(rng.normal(0, ROLL / 2), -ROLL, ROLL)
        turned = not (turned and rng.random() < _BACK)
        turns.append(
            Turn(float(time), float(time + length), *(turned * float(np.radians(angle)) for angle in (yaw, roll)))
        )
        time += length + fps * rng.uniform(*RESTING)
    return tuple(turns)
