"""Splits into training and test clips, and scores of predictions."""
