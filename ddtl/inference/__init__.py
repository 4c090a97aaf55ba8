"""A trained network on new images."""
