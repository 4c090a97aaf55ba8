"""A local page over everything below the runs folder, and the commands that list, show and clean it."""
