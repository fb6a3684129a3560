"""From frames to an aligned face: landmarks, one transform a clip, action units, regions of interest."""
