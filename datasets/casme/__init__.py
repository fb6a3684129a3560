"""CASME (the first): 60 frames a second, 189 clips."""
