"""Who is held out and how the predictions are scored."""
