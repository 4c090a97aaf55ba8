"""One run: from a ``Config`` to a trained model, its scores and its record."""
