"""Stored records to pages, figures and texts; no torch, no training, nothing computed that is not on disk."""
