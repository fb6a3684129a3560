"""SAMM: 200 frames a second, grey, 29 subjects with 159 micro-expressions."""
