"""How numbers and names are written in all reports."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ddtl.reports.html.page import Cell

NONE = "–"


# What must be there for a score to be defined.
_NEEDS = {
    "roc_auc": "needs images of every class",
    "average_precision": "needs images of every class",
    "balanced_accuracy": "needs images of every class",
    "sensitivity": "no positive",
    "specificity": "no negative",
    "precision": "no positive predictions",
    "f1": "no positives, none predicted",
    "mcc": "one class, or all predictions alike",
}


def sentence(text: str, capital: bool = True) -> str:
    """Return a text with a full stop, and with a capital."""
    text = text.strip()
    text = text if text.endswith((".", "!", "?")) else text + "."
    return capitalised(text) if capital else text


def capitalised(text: str) -> str:
    """Return a text whose first letter is a capital."""
    return text[:1].upper() + text[1:]


def score(value: float | None) -> str:
    """Return a score with three decimals."""
    return NONE if value is None else f"{round(value, 3) + 0.0:.3f}"  # + 0.0: no minus before a zero


def interval(found: Mapping[str, Any] | None) -> str:
    """Return ``(0.874–0.945)``, or nothing where there is no interval."""
    if found is None or found["low"] is None or found["high"] is None:
        return ""
    dash = "–" if found["low"] >= 0 else " to "
    return f"({score(found['low'])}{dash}{score(found['high'])})"


def level(share: float) -> str:
    """Return the level of an interval, never rounded: ``95 %``, ``97.5 %``."""
    return f"{100 * share:g} %"


def limits(low: float | None, high: float | None) -> str:
    """Return ``(0.874–0.945)`` from two numbers, or nothing where one is missing."""
    return interval({"low": low, "high": high})


def with_interval(scores: Mapping[str, Any], name: str) -> str:
    """Return ``0.912 (0.874–0.945)``."""
    return f"{score(scores.get(name))} {interval(interval_of(scores, name))}".rstrip()


def interval_of(scores: Mapping[str, Any], name: str) -> Mapping[str, Any] | None:
    """Return the interval of a score, where the record has one."""
    found: Mapping[str, Any] | None = (scores.get("intervals") or {}).get(name)
    return found


def p_value(p: float | None) -> str:
    """Return ``0.02``; ``–`` where there is none."""
    if p is None:
        return NONE
    return "<0.001" if p < 0.001 else f"{p:.2g}" if p < 0.1 else f"{p:.2f}"


def cell(scores: Mapping[str, Any], name: str) -> Cell:
    """Return a score for a table: with its interval, or with the reason why there is none."""
    value = scores.get(name)
    if value is None:
        known = (scores.get("undefined") or {}).get(name)
        return Cell(NONE, known or (_NEEDS.get(name, "not defined for these images") if name in scores else ""))
    return Cell(score(value), interval(interval_of(scores, name)))
