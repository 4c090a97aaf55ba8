"""All that can be typed: each module parses one command's words, calls the package that does the work, and prints."""
