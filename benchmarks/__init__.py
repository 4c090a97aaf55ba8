"""Measurements of ddtl against what a user would take instead; each prints one JSON object as its last line."""
