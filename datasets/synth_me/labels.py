"""Emotions, the action units that express them, and how strongly the two are related.

Prototypes after EMFACS and the counts of the recorded corpora (single units and 4+7, 1+2, 6+12 are the most frequent).
The classes overlap as in those corpora: 14, 7 and 4 belong to several, and some clips have one unit more or less than
their prototype.
"""

from typing import NamedTuple

import numpy as np

from stag_datasets.synth_me.muscles import UNITS

EMOTIONS = ("negative", "positive", "surprise")
SHARE = (0.55, 0.25, 0.20)


class Action(NamedTuple):
    """An action unit, on both sides ("") or on the subject's left (L) or right (R)."""

    unit: int
    side: str = ""


# Emotion -> action units in FACS notation, and their frequency. A side "?" is drawn. The meaning of a unit depends on
# the others: 12 is a smile, but not if 15 or 17 suppress it (the repression of CASME II); 1+2 is surprise, with 4 it is
# fear.
_PROTOTYPES: dict[str, tuple[tuple[str, float], ...]] = {
    "negative": (
        ("4", 0.15), ("4+7", 0.15), ("7", 0.04), ("4+9", 0.06), ("9+10", 0.05), ("10", 0.04), ("4+10", 0.04),
        ("15+17", 0.05), ("17", 0.04), ("?14", 0.05), ("1+4", 0.05), ("1+15", 0.04),
        ("1+2+4", 0.10), ("12+15", 0.08), ("12+17", 0.06),
    ),
    "positive": (("12", 0.32), ("6+12", 0.36), ("?12", 0.14), ("12+14", 0.08), ("6+7+12", 0.10)),
    "surprise": (("1+2", 0.36), ("1+2+5", 0.30), ("5", 0.08), ("1+5", 0.10), ("2", 0.05), ("?2", 0.05), ("1", 0.06)),
}  # fmt: skip
# Ambiguous clips: the visible units do not determine the emotion.
_HARD = (("4+12", 0.30), ("?14", 0.25), ("7", 0.15), ("1+4", 0.15), ("7+12", 0.10), ("4+5", 0.05))
_HARD_SHARE = 0.12
_DROP, _EXTRA = 0.12, 0.10  # probability of dropping one unit of several, of adding one


def sample_actions(rng: np.random.Generator, emotion: str) -> tuple[Action, ...]:
    """Draw the action units of one clip that shows `emotion`."""
    table = _HARD if rng.random() < _HARD_SHARE else _PROTOTYPES[emotion]
    weights = np.array([weight for _, weight in table])
    actions = parse(table[rng.choice(len(table), p=weights / weights.sum())][0], rng)
    if len(actions) > 1 and rng.random() < _DROP:
        del actions[rng.integers(len(actions))]
    if rng.random() < _EXTRA:
        extra = Action(int(rng.choice(UNITS)))
        if extra.unit not in [action.unit for action in actions]:
            actions.append(extra)
    return tuple(sorted(actions))


def parse(text: str, rng: np.random.Generator | None = None) -> list[Action]:
    """Parse action units in FACS notation, `"4+R14"`; a side `?` is drawn from `rng`. Raises ValueError without one."""
    actions = []
    for part in text.split("+"):
        side, unit = (part[0], part[1:]) if part[0] in "LR?" else ("", part)
        if side == "?":
            if rng is None:
                raise ValueError(f"{text!r} leaves a side open, so it needs a generator to draw it")
            side = str(rng.choice(("L", "R")))
        actions.append(Action(int(unit), side))
    return actions


def notation(actions: tuple[Action, ...]) -> str:
    """Return the FACS notation of action units, `"4+R14"`."""
    return "+".join(f"{action.side}{action.unit}" for action in actions)
