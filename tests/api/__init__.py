"""What ``import ddtl`` offers: charts, images, sweeps, datasets and notebooks."""
