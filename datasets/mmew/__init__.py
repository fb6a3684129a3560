"""MMEW: 90 frames a second, 30 subjects, 300 micro-expressions."""
