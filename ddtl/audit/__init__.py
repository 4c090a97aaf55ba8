"""What a dataset gives away besides the disease; reads manifests and image files, trains no network."""
