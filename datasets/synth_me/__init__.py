"""A procedural corpus: micro-expressions that are rendered, with everything about them known."""
