"""How work that takes a while reports how far it is."""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[int, int], None]
"""Called with (done, total) from time to time, and at the end with done == total."""
