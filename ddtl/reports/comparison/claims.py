"""What a comparison allows to be claimed, in sentences."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ddtl.evaluation import test_use
from ddtl.evaluation.comparison.comparison import Comparison
from ddtl.reports.comparison.runs import Compared
from ddtl.reports.html import format
from ddtl.reports.prose import Words
from ddtl.schema.scores import FROM_PROBABILITIES, LOWER_IS_BETTER, TITLES
from ddtl.schema.units import UNITS
from ddtl.utils import wording

TESTS = {
    "sign-flip": "sign flips",
    "DeLong": "DeLong's test",
    "McNemar": "McNemar's test",
    "t": "Student's t",
    "bootstrap": "bootstrap",
}
_WORDS = Words("claims.txt.jinja")
_FEW_SEEDS = 3
_SETTINGS_SHOWN = 6
_EACH = 3  # pairs that have a sentence each


def claimed(found: Comparison) -> bool:
    """Return whether a difference may be claimed: the interval excludes 0, and p after Holm is low enough."""
    return _excludes_zero(found) and found.holm_p is not None and found.holm_p < 1 - found.level


def claim(found: Comparison) -> str:
    """Return one sentence: which method is better and by how much, or that no difference may be claimed, and why.

    With one run a method it is of these runs, as nothing shows what another seed would have given.
    """
    return _WORDS.claim(_facts(found))


def _facts(found: Comparison) -> dict[str, Any]:
    judged, interval = found.judged, found.judged.interval
    a, b = (name if runs > 1 else f"this run of {name}" for name, runs in zip(_names(found), found.seeds, strict=True))
    facts = {
        "verdict": "claimed" if claimed(found) else "not claimed",
        "a": a,
        "b": b,
        "names": _names(found),
        "seeds": tuple(found.seeds),
        "paired_seeds": found.paired_seeds,
        "images": images(found),
        "title": _title(found),
        "value": judged.value,
        "level": found.level,
        "percent": format.level(found.level),
        "excludes_zero": _excludes_zero(found),
        "smallest": found.smallest,
        "unit": UNITS[found.unit][0],
        "p": found.holm_p,
        "test": TESTS[found.test],
        "pairs": found.pairs,
    }
    if judged.value is None or interval is None:
        are_alike = judged.value == 0 and found.smallest is None and found.p is not None
        return {**facts, "verdict": "no interval", "are_alike": are_alike}
    low, high = interval.low, interval.high
    if found.holm_p is None:
        return {**facts, "verdict": "no test", "low": low, "high": high}
    if not claimed(found):
        return {**facts, "low": low, "high": high}
    is_less = found.score in LOWER_IS_BETTER
    better, worse = (a, b) if (judged.value > 0) != is_less else (b, a)
    low, high = (low, high) if judged.value > 0 else (-high, -low)
    claim = {"better": better, "worse": worse, "is_less": is_less, "value": abs(judged.value)}
    return {**facts, **claim, "low": low, "high": high}


def claims(pairs: list[Comparison]) -> list[str]:
    """Return a sentence for each pair; of many pairs one for each that differs, and one for the others together."""
    if len(pairs) <= _EACH:
        return [claim(pair) for pair in pairs]
    found = [claim(pair) for pair in pairs if claimed(pair)]
    others = len(pairs) - len(found)
    return [*found, _WORDS.the_others(others, len(pairs), _title(pairs[0]))] if others else found


def caveats(compared: Compared, pairs: list[Comparison]) -> list[str]:
    """Return what a reader must know with the claims, the gravest first."""
    unit = pairs[0].unit
    return [
        *leak(compared),
        *([_WORDS.validation()] if compared.split != "test" else []),
        *_uses(compared),
        *([_WORDS.unit(unit)] if unit != "patient" else []),
        *_thresholds(compared, pairs[0].score),
        *_seeds(compared),
        *_settings(compared),
    ]


def images(found: Comparison) -> str:
    """Return ``95 patients (203 images)``."""
    units = wording.count(found.units, *UNITS[found.unit])
    return units if found.unit == "image" else f"{units} ({wording.count(found.images, 'image')})"


def _names(found: Comparison) -> tuple[str, str]:
    return found.a, found.b


def _title(found: Comparison) -> str:
    return TITLES[found.score].partition(" (")[0]


def _excludes_zero(found: Comparison) -> bool:
    interval = found.judged.interval
    return interval is not None and (interval.low > 0 or interval.high < 0)


def leak(compared: Compared) -> list[str]:
    """Return the mark that a leaky split puts on every number; nothing where the split is sound."""
    leaky = [run.record for run in compared.runs if run.leaky]
    if not leaky:
        return []
    worst = max(leaky, key=lambda record: record.get("leaked_share") or 0)
    return [_WORDS.leak(worst.get("leaked_share"), worst["grouping"])]


def _uses(compared: Compared) -> list[str]:
    if compared.split != "test" or all(test_use.is_first(run.record) for run in compared.runs):
        return []
    latest = max((run.record for run in compared.runs), key=lambda record: test_use.number(record) or 1)
    return [_WORDS.uses(test_use.label(latest))]


def _thresholds(compared: Compared, score: str) -> list[str]:
    if score in FROM_PROBABILITIES or not compared.runs[0].binary:
        return []
    origins = {_origin(run.record) for run in compared.runs}
    if len(origins) == 1:
        return []
    only_units = len({rule for rule, _ in origins}) == 1
    key = "evaluation.threshold_unit=image" if only_units else "evaluation.threshold=…"
    return [_WORDS.thresholds(sorted(f"{rule}{f' by {unit}' if unit else ''}" for rule, unit in origins), key)]


def _origin(record: Mapping[str, Any]) -> tuple[str, str | None]:
    """Return where a run's threshold came from: its rule with its target, and whether images or patients chose it."""
    rule, target = record.get("threshold_rule", "fixed"), record.get("threshold_target")
    if rule == "fixed":
        return f"fixed at {record['threshold']:g}", None
    # Before there was a unit in the record, images chose every threshold.
    return rule if target is None else f"{rule} of {target:g}", record.get("threshold_unit") or "image"


def _seeds(compared: Compared) -> list[str]:
    counts = [len(method.runs) for method in compared.methods]
    if compared.only_seeds:
        return [_WORDS.only_seeds()]
    if min(counts) == 1:
        return [_WORDS.one_run(max(counts) == 1)]
    return [_WORDS.few_seeds()] if min(counts) < _FEW_SEEDS else []


def _settings(compared: Compared) -> list[str]:
    if compared.only_seeds or not compared.also:
        return []
    shown = compared.also[:_SETTINGS_SHOWN]
    more = [f"{len(compared.also) - len(shown)} more"] if len(compared.also) > len(shown) else []
    return [_WORDS.settings([*shown, *more])]
