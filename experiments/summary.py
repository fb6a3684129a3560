"""What a network costs, by block: python experiments/summary.py --config=configs/base.py.

Parameters and operations for one clip, and the time of one clip through the whole network. For the time on one core of
a CPU:
taskset -c 0 python experiments/summary.py --config=...
"""

import stag_experiments.interrupts  # noqa: F401

from stag_experiments import cli
from stag_jax.analysis import cost

CONFIG = cli.config_flag()


def main() -> None:
    """Count parameters and operations, time a forward pass and print the table."""
    config = cli.read_config(CONFIG)
    rows = cost.blocks(config)
    print(f"| {'block':12} | parameters | MFLOP a clip |\n| --- | ---: | ---: |")
    for row in rows:
        print(f"| {row.name:12} | {row.parameters:10,} | {row.flops / 1e6:12.3f} |")
    print(f"\none clip: {cost.forward(config).ms:.2f} ms (median of {cost.REPEATS})", end="")
    print(", both its sides" if config.model.symmetric else "")


if __name__ == "__main__":
    cli.run(main)
