"""Studies: many runs and their scores on many test sets, from one command."""
