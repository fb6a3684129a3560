"""From an aligned face to muscle motion: optical flow, removal of head motion, frame selection, node features."""
