"""The page of a comparison of runs, and what it allows to be claimed."""
