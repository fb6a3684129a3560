"""DFME: 7526 clips of 656 subjects at 500, 300 and 200 frames a second; its CCAC2024 release has three parts."""
