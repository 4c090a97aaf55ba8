"""Intervals of one model's scores: rates, ROC AUC, average precision, Brier score, resampling."""
