"""One member of a study, all members at once, their checkpoints, and the run around them."""
