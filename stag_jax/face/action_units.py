"""Action units as annotators write them: text in, typed units and training targets out."""

import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from stag_jax.types import UserError


class ActionUnit(NamedTuple):
    """One action unit as annotated."""

    unit: int  # FACS number
    side: str  # "L" or "R", the subject's own; "" = both sides or not said
    intensity: str  # "A" (trace) to "E" (maximum); "" = not said
    certain: bool  # False for a `?` and for alternatives ("12 or 14")


_NOTHING = ("", "0", "?", "/")  # what the sheets hold where no unit is named
_TERM = re.compile(
    r"(?P<before>[LRATB](?=\d|AU|U|AD|M))?"  # left, right, asymmetric, top, bottom
    r"(?:AU|AD|U|M)?"
    r"(?P<between>[LRATB])?"
    r"(?P<unit>\d{1,2})(?:\.0+)?"  # spreadsheets turn a lone 14 into 14.0
    r"(?P<after>[LRA-E]*?)(?:/[A-E])?(?P<last>[LR])?"
    r"(?P<static>\(K\))?"  # 4DME: there from the first frame on, so not part of the movement
    r"(?P<doubt>\?)?"
)
_ALTERNATIVE = re.compile(r"(?<=[\dA-ELR])/(?=[LRATB]?\d)|\bOR\b")


def parse(text: str, *, clip: str) -> tuple[ActionUnit, ...]:
    """The action units named in `text`, in its order.

    Understands `4+L7`, `R12B`, `12L`, `AU4, U1`, `14.0`, `4?`, `12 or 14` (both uncertain), `4(k)` (static: left out)
    and brackets; case does not matter. Empty text, `0` and `?` name no unit.

    Raises:
      UserError: a part that is none of these; the line names `clip`.
    """
    units: list[ActionUnit] = []
    if text.strip() in _NOTHING:
        return ()
    # Brackets only group, except the (k) of a static unit.
    plain = re.sub(r"\((?!K\))([^()]*)\)", r" \1 ", text.upper())
    for part in re.split(r"[+,\uff0c;]", plain):
        alternatives = [option.split() for option in _ALTERNATIVE.split(part)]
        certain = len(alternatives) == 1
        for term in (term for option in alternatives for term in option):
            match = _TERM.fullmatch(term)
            sides = set() if match is None else set(_letters(match)) & {"L", "R"}
            if match is None or int(match["unit"]) == 0 or len(sides) > 1:
                raise UserError(f"{clip}: cannot read {term!r} in the action units {text!r}")
            if match["static"]:
                continue
            intensity = [letter for letter in match["after"] if letter in "ABCDE"]
            units.append(
                ActionUnit(
                    unit=int(match["unit"]),
                    side=sides.pop() if sides else "",
                    intensity=intensity[-1] if intensity else "",
                    certain=certain and not match["doubt"],
                )
            )
    return tuple(units)


def _letters(match: re.Match[str]) -> str:
    return "".join(match[name] or "" for name in ("before", "between", "after", "last"))


def targets(
    action_units: Sequence[ActionUnit] | None, units: tuple[int, ...]
) -> tuple[Float[np.ndarray, " u"], Bool[np.ndarray, " u"]]:
    """Training targets for `units`: 1 where the unit was seen, and a mask that is False where nothing is known.

    `None` means that the clip has no action unit labels: masked everywhere. A unit that was seen only with a question
    mark is masked. Sides and intensities are ignored here.
    """
    if action_units is None:
        return np.zeros(len(units), np.float32), np.zeros(len(units), bool)
    seen = {unit.unit for unit in action_units if unit.certain}
    doubtful = {unit.unit for unit in action_units} - seen
    present = np.array([unit in seen for unit in units], np.float32)
    known = np.array([unit not in doubtful for unit in units], bool)
    return present, known


def labels(
    text: str | None, units: tuple[int, ...], *, clip: str
) -> tuple[Float[np.ndarray, " u"], Bool[np.ndarray, " u"]]:
    """`targets` of the annotators' own text. A lone `?` says that they could not tell, so it counts as no label.

    Raises UserError, naming `clip`, for text that cannot be read.
    """
    if text is None or text.strip() == "?":
        return targets(None, units)
    return targets(parse(text, clip=clip), units)
