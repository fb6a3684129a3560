"""Prepared corpora as the network sees them: records read, features extracted and kept, clips labelled."""
