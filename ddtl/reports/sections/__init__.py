"""Parts that pages of several kinds share: curves, findings, and how a result is reproduced."""
