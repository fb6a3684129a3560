"""A procedural corpus: rendered micro-expressions with complete ground truth."""
