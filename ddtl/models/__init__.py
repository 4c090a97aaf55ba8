"""Backbones as ordered stages, heads, initial weights, and the LightningModule around them."""
