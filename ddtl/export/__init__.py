"""A trained network for use outside of ddtl."""
