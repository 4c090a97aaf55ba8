"""One module for each kind of dataset, and the registry that finds them by name."""
