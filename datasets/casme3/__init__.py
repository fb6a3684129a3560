"""CAS(ME)³: 30 frames a second with depth; part A (94 subjects, 860 clips), part C (mock crime, 30 subjects, 165)."""
