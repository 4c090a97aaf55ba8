"""Where in an image a trained network saw what it answered by: Grad-CAM, and how reliable it is."""
