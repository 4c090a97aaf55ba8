"""What a classifier can read from a dataset besides the disease; reads manifests and image files, trains no network."""
