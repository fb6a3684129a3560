"""The parts of `experiments/benchmark.py`: one module per part, each with `define_flags` and `main`."""
