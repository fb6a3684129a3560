"""The MEGC2019 composite, built from the three corpora: 442 clips of 68 subjects in three classes."""
