"""Fetching public datasets: sources, archives, verification against published hashes."""
