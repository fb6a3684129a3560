"""What `experiments/benchmark.py` measures: one module a part, each with `define_flags` and `main`."""
