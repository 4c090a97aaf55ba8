"""Many runs of one command, compared on validation."""
