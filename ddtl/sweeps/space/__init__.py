"""Search spaces: syntax, checks, suggestions."""
