"""Predictions to scores: pure functions on arrays and tables; no torch, no training."""
