"""Learning rates by a range test: the test, the rules that read its curves, and the command."""
