"""From prepared corpora to network inputs: read records, extract and cache features, label clips."""
