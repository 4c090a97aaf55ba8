"""The page and the methods text of one run."""
