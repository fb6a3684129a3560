"""Measures one part of the project and prints a table: python experiments/benchmark.py PART [--flags].

`benchmark.py PART --help` shows the flags of that part. A part takes minutes and the whole machine; quote medians and
ratios from one run.
"""

import stag_experiments.interrupts  # noqa: F401

import importlib
import sys
from collections.abc import Sequence

from stag_experiments import cli

PACKAGE = "stag_experiments.benchmarks"
# Part -> (its module in experiments/benchmarks/, imported only when the part is run; what it measures).
PARTS: dict[str, tuple[str, str]] = {
    "accelerator": ("accelerator", "training, flow, prediction and their checks on any device, in minutes, no corpus"),
    "frontend": ("frontend", "face, landmarks, flow, head motion, frame selection against rendered truth; speed"),
    "accuracy": ("accuracy", "a run against plain classifiers of the key frame, and against other runs"),
    "twin": ("twin_rehearsal", "a study rehearsed on a rendered twin of CASME II, 26 folds, five classes"),
    "builder": ("building_speed", "memory and speed of building a corpus"),
    "members": ("members_speed", "ways of training all members of a study; cost against members and clips"),
    "kills": ("kill_resume", "a sweep killed at random moments against one left alone"),
    "smaller": ("students", "students of a finished run against their teacher: score, size, time"),
    "spotting": ("spotting_scores", "expressions found in long rendered recordings"),
    "forward": ("forward_speed", "exported networks in every format: time of a window, size, memory, UF1"),
    "stream": ("stream_speed", "640 x 480 video through everything: frames a second, delay, their parts"),
    "soak": ("stream_soak", "the same for an hour; predict.py killed over a folder of films"),
    "runtime": ("runtime_size", "size of what must be installed to run an exported network"),
    "report": ("report_speed", "time and size of the report of a run of 60 folds"),
}


def listing() -> str:
    """Return one line of description per part."""
    width = max(map(len, PARTS))
    return "\n".join(f"  {name:{width}}  {text}" for name, (_, text) in PARTS.items())


def main(argv: Sequence[str]) -> None:
    """Run the part that the first argument names."""
    part = argv[0] if argv and not argv[0].startswith("-") else ""
    if part not in PARTS:
        print(f"{__doc__}\n{listing()}")
        if cli.wants_help(argv):
            return
        cli.fail(f"name a part to measure: {' or '.join(PARTS)} (got {part!r})")
    module = importlib.import_module(f"{PACKAGE}.{PARTS[part][0]}")
    module.define_flags()
    cli.run(lambda _: module.main(), arguments=1, about=module)


if __name__ == "__main__":
    main(sys.argv[1:])
