"""Folders that an earlier version of ddtl wrote: they must open, resume and score again for good."""
