"""A twin of a corpus: rendered faces that do what its annotation says, laid out as its owners ship it."""
