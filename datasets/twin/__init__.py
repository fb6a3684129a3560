"""A twin of a corpus: rendered faces that follow its annotation, in the folder layout of its owners."""
