"""Train members of a study, one and all at once, with their checkpoints, workdirs and sweeps."""
