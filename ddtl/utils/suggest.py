"""Did you mean …?"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def closest(word: str, candidates: Iterable[str]) -> str | None:
    """Return the candidate most like ``word``, compared whole and by its last part; None where none is alike.

    ``lr`` finds ``optimizer.lr``, ``val/auc`` finds ``val/roc_auc``, and ``bf16`` finds ``bf16-mixed``.
    """

    def likeness(candidate: str) -> float:
        whole = difflib.SequenceMatcher(None, word.lower(), candidate.lower()).ratio()
        tail = difflib.SequenceMatcher(None, _last_part(word), _last_part(candidate)).ratio()
        begins = len(word) > 2 and candidate.lower().startswith(word.lower())
        return max(whole, 0.9 * tail, 0.9 * begins)

    best = max(candidates, key=likeness, default=None)
    return best if best is not None and likeness(best) >= 0.6 else None


def _last_part(name: str) -> str:
    return name.replace("/", ".").rsplit(".", 1)[-1].lower()


def did_you_mean(word: str, candidates: Iterable[str]) -> str:
    """Return a sentence to put behind an error, or nothing."""
    best = closest(word, candidates)
    return f" Did you mean {best}?" if best else ""
