"""Measures an accelerator in minutes: python experiments/benchmark.py accelerator --out=DIR [--seconds=480].

For ten minutes on a borrowed machine without a network. It needs no corpus, and of packages only jax with the plugin
of its device, flax, optax, orbax-checkpoint, numpy, opencv-python-headless, jaxtyping and absl-py; torch is measured
beside them where it is installed. From a clone:

    pip install --no-deps --no-build-isolation -e .
    python experiments/benchmark.py accelerator --out=measured

A program may take a minute or two to compile, whatever the flags of XLA. So all of them are begun at once, in as many
threads as two thirds of the cores, most wanted first, and what needs none is measured meanwhile. What is most wanted of
what is compiled is measured next, until the time is over. Each figure is in `accelerator.json` and `accelerator.md` in
--out as soon as it is known. What fails or overruns says so there, and the rest goes on; what libraries print is in
`accelerator.log`. On a CPU the command is rehearsed with small networks, unless --size says otherwise. Compiled
programs are kept only until the measurement ends, so that compile times are real ones; where JAX_COMPILATION_CACHE_DIR
is set they are kept there, and some may be read instead.
"""

import signal

from absl import flags

from stag_experiments.benchmarks import output
from stag_experiments.benchmarks.accelerator import measured, schedule, session, sizes
from stag_jax.types import UserError


def define_flags() -> None:
    """Define the flags of `benchmark.py accelerator`."""
    output.define_out("Folder for accelerator.json, accelerator.md and accelerator.log.")
    flags.DEFINE_float("seconds", 480.0, "After which it has ended.", lower_bound=10.0)
    flags.DEFINE_enum("size", sizes.AUTO, [sizes.AUTO, *sizes.SIZES], "How large everything is.")
    flags.DEFINE_integer("threads", 0, "Programs compiled at a time; two thirds of the cores if 0.", lower_bound=0)
    flags.DEFINE_list("parts", [], "Names of parts, by commas; all if missing.")


def main() -> None:
    """Measure, saying each figure as it comes, and print the page."""
    given, out = flags.FLAGS, output.required_out("the figures are")
    known = {part.name: part for part in schedule.PARTS}
    for name in given.parts:
        if name not in known:
            raise UserError(f"--parts: {name!r} is none of {', '.join(known)}")
    parts = [part for part in schedule.PARTS if not given.parts or part.name in given.parts]
    out.mkdir(parents=True, exist_ok=True)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends the process that measures as well
    results = session.run(
        out, parts, given.seconds, given.size, lambda line: print(line, flush=True), threads=given.threads
    )
    print(f"\n{results.page()}\n{out / measured.PAGE}")
