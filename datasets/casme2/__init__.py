"""CASME II: 200 frames a second, 26 subjects, 255 clips."""
