"""From a manifest to batches: datasets, samplers, transforms and the LightningDataModules."""
