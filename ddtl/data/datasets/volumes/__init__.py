"""Datasets whose files are CT volumes, in Hounsfield units. Loaded where one is used: their readers take a moment."""
