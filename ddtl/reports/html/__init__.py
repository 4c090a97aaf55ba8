"""What every page is made of: blocks, figures, number formats, masking of names."""
