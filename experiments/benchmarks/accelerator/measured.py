"""What was measured so far: `accelerator.json` and `accelerator.md`, written anew after every figure."""

import bisect
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from stag_experiments.benchmarks.accelerator.schedule import Part
from stag_jax.files import write_text

JSON, PAGE = "accelerator.json", "accelerator.md"
WAITING, RUNNING, DONE, PARTLY, FAILED, LEFT_OUT = "waiting", "running", "measured", "partly", "failed", "left out"

Row = dict[str, Any]


class Measured:
    """All figures of one measurement; every change is on disk before the call returns."""

    def __init__(self, folder: Path, parts: Sequence[Part], **settings: Any) -> None:
        self.folder = folder
        self.facts: dict[str, Any] = {}
        self._settings = settings
        self._parts = {part.name: part for part in parts}
        self._state: dict[str, dict[str, Any]] = {
            part.name: {"title": part.title, "state": WAITING, "reason": "", "took_s": None, "rows": []}
            for part in parts
        }
        self._places: dict[str, list[int]] = {part.name: [] for part in parts}
        self._write()

    def learn(self, facts: dict[str, Any]) -> None:
        """Add what is known of the device and the software. Names that begin with _ are not on the page."""
        self.facts.update(facts)
        self._write()

    def add(self, name: str, row: Row, place: int = 0) -> None:
        """Add a row to a part, behind those of the same or a lower place."""
        index = bisect.bisect(self._places[name], place)
        self._places[name].insert(index, place)
        self._state[name]["rows"].insert(index, row)
        self._write()

    def mark(self, name: str, state: str, reason: str = "", took_s: float | None = None) -> None:
        """Set the state of a part, and why it is so."""
        self._state[name].update(state=state, reason=reason, took_s=None if took_s is None else round(took_s, 1))
        self._write()

    def rows(self, name: str) -> list[Row]:
        """Return the rows of a part."""
        return self._state[name]["rows"]

    def state(self, name: str) -> str:
        """Return the state of a part."""
        return self._state[name]["state"]

    def tree(self) -> dict[str, Any]:
        """Return everything as it is in the JSON file."""
        parts = [{"name": name, **state} for name, state in self._state.items()]
        return {**self._settings, "facts": self.facts, "parts": parts}

    def page(self) -> str:
        """Return everything as Markdown."""
        lines = [f"# Measured on {self.facts.get('device', 'a device that did not answer')}", ""]
        known = {**self._settings, **self.facts}.items()
        known = [(name, value) for name, value in known if name != "device" and not name.startswith("_")]
        lines += [*table(("what", "value"), known), ""]
        overview = [
            (part["title"], part["state"] + (f": {part['reason']}" if part["reason"] else ""), part["took_s"])
            for part in self._state.values()
        ]
        lines += [*table(("part", "state", "took s"), overview), ""]
        for name, part in self._state.items():
            if part["rows"]:
                lines += [f"## {part['title']}", "", self._parts[name].about, "", *table_of(part["rows"]), ""]
        return "\n".join(lines)

    def _write(self) -> None:
        write_text(self.folder / JSON, json.dumps(self.tree(), indent=1) + "\n")
        write_text(self.folder / PAGE, self.page())


def table_of(rows: Sequence[Row]) -> list[str]:
    """Return the lines of a Markdown table whose columns are the keys of all rows."""
    header = list(dict.fromkeys(key for row in rows for key in row))
    return table(header, ([row.get(key) for key in header] for row in rows))


def table(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> list[str]:
    """Return the lines of a Markdown table."""
    body = [[cell(value) for value in row] for row in rows]
    return ["| " + " | ".join(line) + " |" for line in (header, ["---"] * len(header), *body)]


def cell(value: Any) -> str:
    """Return a value as it is printed: three digits, thousands apart, nothing for None."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "NO"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
    return str(value).replace("|", "/").replace("\n", " ")
