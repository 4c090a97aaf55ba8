"""Differences between models: paired on one test set, over seeds, and between test sets."""
