"""From frames to an aligned face: landmarks, one transform per clip, action units, regions of interest."""
