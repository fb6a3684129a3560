"""Your own corpus, from one CSV."""
