"""From an aligned face to muscle motion: flow, head-motion removal, frame selection, node features."""
