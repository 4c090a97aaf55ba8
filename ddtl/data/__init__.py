"""Images and their tables: manifests, splits, the decoded cache, augmentation and the data modules."""
