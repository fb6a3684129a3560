"""Rules for the values of settings: each accepts or rejects a value, and its text describes what it accepts."""

import math
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any, cast


@dataclass(frozen=True)
class Between:
    """A finite number in an interval; an `open` end is excluded."""

    low: int | float = -math.inf
    high: int | float = math.inf
    open_low: bool = False
    open_high: bool = False

    def accepts(self, value: int | float) -> bool:
        """Return whether the number lies in the interval."""
        above = value > self.low if self.open_low else value >= self.low
        below = value < self.high if self.open_high else value <= self.high
        return math.isfinite(value) and above and below

    def __str__(self) -> str:
        # Write integers with all digits.
        least, most = (f"{end:g}" if isinstance(end, float) else str(end) for end in (self.low, self.high))
        low = f"above {least}" if self.open_low else f"{least} or more"
        high = f"below {most}" if self.open_high else f"{most} or less"
        if math.isinf(self.high):
            return "a finite number" if math.isinf(self.low) else low
        if self.open_low or self.open_high:
            return f"{low} and {high}"
        return f"from {least} to {most}"


@dataclass(frozen=True)
class OddFrom:
    """Zero, or an odd number of at least `least`."""

    least: int

    def accepts(self, value: int) -> bool:
        """Return whether the number is zero, or odd and large enough."""
        return value == 0 or (value >= self.least and value % 2 == 1)

    def __str__(self) -> str:
        return f"0, or an odd number of {self.least} or more"


@dataclass(frozen=True)
class OneOf:
    """One word of a fixed list."""

    words: tuple[str, ...]

    def accepts(self, value: str) -> bool:
        """Return whether the word is in the list."""
        return value in self.words

    def __str__(self) -> str:
        return f"one of {', '.join(word or repr(word) for word in self.words)}"


@dataclass(frozen=True)
class Anything:
    """Any value of the setting's type."""

    def accepts(self, value: Any) -> bool:
        """Return True."""
        return True

    def __str__(self) -> str:
        return "anything"


@dataclass(frozen=True)
class NotEmpty:
    """Any text that is not only white space."""

    def accepts(self, value: str) -> bool:
        """Return whether the text has a character other than white space."""
        return bool(value.strip())

    def __str__(self) -> str:
        return "a name"


@dataclass(frozen=True)
class Distinct:
    """A tuple of at least `least` different values, each allowed by the rule `each`."""

    each: Between | NotEmpty | Anything = Anything()
    least: int = 0

    def accepts(self, value: tuple[Hashable, ...]) -> bool:
        """Return whether all values are allowed, no two are the same, and there are enough."""
        accepts = cast(Callable[[Any], bool], self.each.accepts)
        return len(value) >= self.least and len(set(value)) == len(value) and all(map(accepts, value))

    def __str__(self) -> str:
        count = f"{self.least} or more different values" if self.least else "different values"
        return count if isinstance(self.each, Anything) else f"{count}, each {self.each}"


Rule = Between | OddFrom | OneOf | Anything | NotEmpty | Distinct
