"""4DME: micro-expressions in 4D, grey, colour and depth; the grey videos (60 frames a second), 267 clips."""
