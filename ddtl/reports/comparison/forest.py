"""The differences between methods, and the scores of each, with their intervals on one axis."""

from __future__ import annotations

from ddtl.evaluation.comparison.comparison import Comparison, Result, ScoredMethod
from ddtl.evaluation.intervals.interval import Interval
from ddtl.reports.comparison import claims
from ddtl.reports.html import format
from ddtl.reports.html.page import Estimate, Forest, Tone, ticks_around
from ddtl.schema.scores import LOWER_IS_BETTER, TITLES

_CHANCE = {"roc_auc": 0.5, "balanced_accuracy": 0.5}


def of_differences(result: Result) -> Forest:
    """Return a row for each pair: the first method minus the second, coloured where a difference may be claimed."""
    first = result.pairs[0]
    rows = [_pair(pair) for pair in result.pairs]
    better = "second" if first.score in LOWER_IS_BETTER else "first"
    return Forest(
        f"Differences in {_title(first.score)}",
        f"first minus second, {_title(first.score)}",
        rows,
        ticks_around(rows, 0.0),
        0.0,
        f"With paired {format.level(first.level)} intervals. Right of the dashed line the {better} of a pair is "
        "better. Green: a difference may be claimed, also after Holm.",
    )


def of_methods(result: Result) -> Forest:
    """Return a row for each method."""
    first = result.pairs[0]
    rows = [_method(one, first.score) for one in result.methods]
    chance = _CHANCE.get(first.score)
    dashed = "" if chance is None else " Dashed: chance."
    return Forest(
        f"{format.capitalised(_title(first.score))} of each method",
        _title(first.score),
        rows,
        ticks_around(rows, chance),
        chance,
        f"With {format.level(first.level)} intervals of each by itself: two that overlap may differ all the "
        f"same.{dashed}",
    )


def _pair(pair: Comparison) -> Estimate:
    tone: Tone = "good" if claims.claimed(pair) else "other"
    return _estimate(f"{pair.a} – {pair.b}", pair.judged.value, pair.judged.interval, tone)


def _method(one: ScoredMethod, score: str) -> Estimate:
    return _estimate(one.name, one.scores[score], one.intervals[score], "main")


def _estimate(name: str, value: float | None, found: Interval | None, tone: Tone) -> Estimate:
    low, high = (None, None) if found is None else (found.low, found.high)
    text = f"{format.score(value)} {format.limits(low, high)}".rstrip()
    return Estimate(name, value, low, high, text, tone)


def _title(score: str) -> str:
    return TITLES[score].partition(" (")[0]
