"""Action units as annotators write them: text in, typed units and training targets out."""

import re
import unicodedata
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from absl import logging
from jaxtyping import Bool, Float

from stag_jax.types import UserError


class ActionUnit(NamedTuple):
    """One action unit as annotated."""

    unit: int  # FACS number
    side: str  # "L" or "R", from the subject's view; "" = both sides, or not given
    intensity: str  # "A" (trace) to "E" (maximum); "" = not given
    certain: bool  # False for "4?", "12 or 14", "ref(7)"


_NOTHING = ("", "0", "0.0", "?", "/")  # what the sheets contain where no unit is named
_UNKNOWN = ("?", "-", "--", "NONE", "NAN", "NA", "N/A", "NULL", "UNKNOWN")  # and where it is not known which
_REMARKS = ("SOFT FOCUS",)  # words in the sheets that are not units; any other word is an error
_PARTS = re.compile(r"[+,;&\u3001](?![^()]*\))")  # separators of units, outside brackets
_BETWEEN = re.compile(r"[\s()+,;&\u3001]+|(?P<doubt>OR|/|REF(?=\())")  # separators inside one part
_TERM = re.compile(
    r"""(?:(?P<before>[LRATB](?:/[LRATB])?)\s*)?  # left, right, asymmetric, top, bottom; "A/L": not sure which
    (?:(?:AU|AD|[UDM])\s*(?:(?P<between>[LRATB])\s*)?)?
    (?P<unit>\d{1,2})(?:\.0+)?  # spreadsheets turn a lone 14 into 14.0
    (?P<after>[LRTU])?
    (?P<intensity>[A-E](?:/[A-E](?!\d))?)?  # "A/B": the lower one counts
    (?P<last>[LRTU])?
    (?P<static>\s*\(K\))?  # 4DME: there from the first frame on, so not part of the movement
    (?P<doubt>\s*\?)?
    (?!(?!OR)\w)""",
    re.VERBOSE,
)


def parse(text: str, *, clip: str) -> tuple[ActionUnit, ...]:
    """Parse the action units in `text`, in order, as the sheets of the corpora write them.

    | written | parsed as |
    |---|---|
    | `4+L7`, `4, l7`, `4 L7`, `AU4+AU L7`, full-width signs | units, joined |
    | `R12B`, `12RB`, `AUR12B` | side and intensity |
    | `A2`, `A12B` | asymmetric: both sides, but unequal, so no side is given |
    | `A/L12`; `10A/B` | the unit is certain, without a side; the lower intensity |
    | `T23`, `B18`; `AD38`, `M57`, `U1`, `14.0` | upper, lower lip; other prefixes, spreadsheets: the number is used |
    | `12 or 14`, `(R6 or R12)+R15`, `4/7`, `12 or`, `4?`, `ref(7B)` | not certain: the alternatives, and marked units |
    | `4(k)` | static (4DME): left out |
    | empty, `0`, `?`, `/`, `soft focus`, `-`, `none`, `nan`, `N/A` | no unit |

    A letter after the number is an intensity where possible: `23B` is 23 with intensity B, not 23 of the lower lip.

    Raises:
      UserError: any other text; the message names `clip`.
    """
    plain = _plain(text)
    if plain in _NOTHING or plain in _UNKNOWN:
        return ()
    units: list[ActionUnit] = []
    parts = [part for part in _PARTS.split(plain) if part.strip()]
    for part in parts or [plain]:
        matches, certain, position = [], True, 0
        if part.count("(") != part.count(")"):
            raise _unreadable(part, text, clip)
        while position < len(part):
            match = _TERM.match(part, position) or _BETWEEN.match(part, position)
            if match is None:
                raise _unreadable(part[position:], text, clip)
            if match.re is _BETWEEN:
                certain = certain and not match["doubt"]
            else:
                matches.append(match)
            position = match.end()
        if not matches:
            raise _unreadable(part, text, clip)
        units += [_unit(match, certain, text, clip) for match in matches if not match["static"]]
    return tuple(units)


def _plain(text: str) -> str:
    """Return `text` in upper case, with full-width signs as ASCII and without the known remarks."""
    plain = unicodedata.normalize("NFKC", text).upper()
    for remark in _REMARKS:
        plain = plain.replace(remark, "")
    return plain.strip()


def _unit(match: re.Match[str], certain: bool, text: str, clip: str) -> ActionUnit:
    marks = [match[name] or "" for name in ("before", "between", "after", "last")]
    sides = {mark for mark in marks if mark in ("L", "R")}
    if int(match["unit"]) == 0 or len(sides) > 1:
        raise _unreadable(match[0], text, clip)
    return ActionUnit(
        unit=int(match["unit"]),
        side=sides.pop() if sides else "",
        intensity=(match["intensity"] or "")[:1],
        certain=certain and not match["doubt"],
    )


def _unreadable(part: str, text: str, clip: str) -> UserError:
    return UserError(f"{clip}: cannot read {part.strip()!r} in the action units {text!r}")


def targets(
    action_units: Sequence[ActionUnit] | None, units: tuple[int, ...]
) -> tuple[Float[np.ndarray, " u"], Bool[np.ndarray, " u"]]:
    """Return training targets for `units`: 1 where the unit is annotated, and a mask that is False where unknown.

    `None` means that the clip has no action unit labels: masked everywhere. A unit that is annotated only as uncertain
    is masked. Sides and intensities are ignored.
    """
    if action_units is None:
        return np.zeros(len(units), np.float32), np.zeros(len(units), bool)
    sure = {unit.unit for unit in action_units if unit.certain}
    doubtful = {unit.unit for unit in action_units} - sure
    present = np.array([unit in sure for unit in units], np.float32)
    mask = np.array([unit not in doubtful for unit in units], bool)
    return present, mask


def labels(
    text: str | None, units: tuple[int, ...], *, clip: str
) -> tuple[Float[np.ndarray, " u"], Bool[np.ndarray, " u"]]:
    """Return `targets` for the annotators' text: no label where it says that they could not tell (`?`, `none`, `-`).

    Text that cannot be parsed counts as no label, with a warning that names `clip`.
    """
    if text is None or _plain(text) in _UNKNOWN:
        return targets(None, units)
    try:
        return targets(parse(text, clip=clip), units)
    except UserError as error:
        logging.warning("%s: the clip counts as not annotated", error)
        return targets(None, units)
