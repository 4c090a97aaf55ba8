"""From the command's words to a checked plan of a sweep."""
