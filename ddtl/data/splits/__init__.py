"""Which patients train, validate and test: protocols, assignment, subsets, exclusion."""
