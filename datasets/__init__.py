"""TFDS builders of the micro-expression corpora; installed as `stag_datasets`. Nothing here imports stag_jax."""
