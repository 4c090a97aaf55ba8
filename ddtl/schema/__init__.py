"""Dataclasses of what can be set, and names that everything shares: scores, classes. Imports only utils."""
