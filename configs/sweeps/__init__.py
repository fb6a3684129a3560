"""Studies of several settings at once, for experiments/sweep.py."""
