"""What a comparison allows to be claimed, in sentences."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ddtl.evaluation import test_use
from ddtl.evaluation.comparison.comparison import Comparison
from ddtl.reports.comparison.runs import Compared
from ddtl.reports.html import format
from ddtl.schema.scores import TITLES
from ddtl.schema.units import UNITS
from ddtl.utils import wording

TESTS = {
    "sign-flip": "sign flips",
    "DeLong": "DeLong's test",
    "McNemar": "McNemar's test",
    "t": "Student's t",
    "bootstrap": "bootstrap",
}
_LOWER_IS_BETTER = ("brier",)
_FEW_SEEDS = 3
_WITHOUT_THRESHOLD = ("roc_auc", "average_precision", "brier")
_SETTINGS_SHOWN = 6
_EACH = 3  # pairs that have a sentence each


def claimed(found: Comparison) -> bool:
    """Whether a difference may be claimed: the interval excludes 0, and p after Holm is low enough."""
    return _beyond(found) and found.holm_p is not None and found.holm_p < 1 - found.level


def claim(found: Comparison) -> str:
    """One sentence: which method is better and by how much, or that no difference may be claimed, and why.

    With one run a method it is of these runs, for nothing tells what another seed would have given.
    """
    judged, where, title = found.judged, _where(found), _title(found)
    a, b = (_named(name, runs) for name, runs in zip((found.a, found.b), found.seeds, strict=True))
    if judged.value is None or judged.interval is None or found.holm_p is None:
        why = "it is not defined on them" if judged.value is None else _no_interval(found)
        return f"{where} no difference in {title} between {a} and {b} may be claimed: {why}."
    low, high = judged.interval.low, judged.interval.high
    if claimed(found):
        less = found.score in _LOWER_IS_BETTER
        better, worse = (a, b) if (judged.value > 0) != less else (b, a)
        low, high = (low, high) if judged.value > 0 else (-high, -low)
        by = f"{format.score(abs(judged.value))} {title}{' less' if less else ''}"
        return f"{where} {better} is better than {worse} by {by} ({_evidence(found, low, high)})."
    why = f"p is not below {1 - found.level:.2g}" if _beyond(found) else "the interval includes 0"
    shown = (
        f"; these images could have shown a difference of {format.score(found.smallest)} or more (power 80 %)"
        if found.smallest is not None
        else ""
    )
    return (
        f"{where} no difference in {title} between {a} and {b} may be claimed: it is {format.score(judged.value)} "
        f"({_evidence(found, low, high)}), and {why}{shown}. That the two are equal is not shown either."
    )


def claims(pairs: list[Comparison]) -> list[str]:
    """A sentence for each pair; of many pairs one for each that differs, and one for the others together."""
    if len(pairs) <= _EACH:
        return [claim(pair) for pair in pairs]
    found = [claim(pair) for pair in pairs if claimed(pair)]
    others = len(pairs) - len(found)
    if not others:
        return found
    which = f"the other {others} of {len(pairs)}" if found else f"any of the {len(pairs)}"
    return [*found, f"No difference in {_title(pairs[0])} may be claimed between {which} pairs."]


def percent(level: float) -> str:
    """``95 %``, ``99.5 %``."""
    return f"{100 * level:g} %"


def caveats(compared: Compared, pairs: list[Comparison]) -> list[str]:
    """What a reader must know beside the claims, the gravest first."""
    return [
        *_leak(compared),
        *_split(compared),
        *_uses(compared),
        *_unit(pairs[0]),
        *_thresholds(compared, pairs[0].score),
        *_seeds(compared),
        *_settings(compared),
    ]


def images(found: Comparison) -> str:
    """``95 patients (203 images)``."""
    units = wording.count(found.units, *UNITS[found.unit])
    return units if found.unit == "image" else f"{units} ({wording.count(found.images, 'image')})"


def _title(found: Comparison) -> str:
    return TITLES[found.score].partition(" (")[0]


def _beyond(found: Comparison) -> bool:
    interval = found.judged.interval
    return interval is not None and (interval.low > 0 or interval.high < 0)


def _no_interval(found: Comparison) -> str:
    """Why a defined difference has none."""
    if found.judged.value == 0 and found.smallest is None and found.p is not None:
        return "the two score alike, whichever patients are left out"
    return "they are too few for an interval"


def _named(name: str, runs: int) -> str:
    return name if runs > 1 else f"this run of {name}"


def _where(found: Comparison) -> str:
    a, b = found.seeds
    if a == b == 1:
        return f"On these {images(found)}"
    each = f"the same {a} seeds each" if found.paired_seeds else f"{a} seeds each"
    over = each if a == b else f"{wording.count(a, 'seed')} of {found.a} and {b} of {found.b}"
    return f"Over {over}, on these {images(found)}"


def _evidence(found: Comparison, low: float, high: float) -> str:
    p = f"p {'' if found.holm_p is not None and found.holm_p < 0.001 else '= '}{format.p_value(found.holm_p)}".replace(
        "<", "< "
    )
    after = f" after Holm for {found.pairs} pairs" if found.pairs > 1 else ""
    return (
        f"{percent(found.level)} interval {format.score(low)} to {format.score(high)}, paired by "
        f"{UNITS[found.unit][0]}{' and by seed' if found.paired_seeds else ''}, {p} by {TESTS[found.test]}{after}"
    )


def _leak(compared: Compared) -> list[str]:
    leaky = [run for run in compared.runs if run.leaky]
    if not leaky:
        return []
    record = max((run.record for run in leaky), key=lambda record: record.get("leaked_share") or 0)
    share = record.get("leaked_share")
    what = {"patient": "a patient", "near_duplicate": "a near-duplicate"}.get(record["grouping"], "a group")
    known = f": {wording.percent(share)} of the test images have {what} in training or validation" if share else ""
    return [f"The split is leaky{known}. The scores are optimistic, and so may be their difference."]


def _split(compared: Compared) -> list[str]:
    if compared.split == "test":
        return []
    return [
        "The epoch and the threshold of each run were chosen on these validation images: a difference on them is a "
        "reason to test, and no result. split=test compares the test set."
    ]


def _uses(compared: Compared) -> list[str]:
    latest = max((run.record for run in compared.runs), key=lambda record: test_use.number(record) or 1)
    if compared.split != "test" or all(test_use.is_first(run.record) for run in compared.runs):
        return []
    return [
        f"The latest of these runs was {test_use.label(latest)}: the p-values do not count what was decided after the "
        "uses before."
    ]


def _unit(found: Comparison) -> list[str]:
    narrow = "Where several of them are of one patient the intervals are too narrow, and p is too small."
    if found.unit == "group":
        return [f"Not every image has a patient's name: near-duplicate groups are taken for patients. {narrow}"]
    if found.unit == "image":
        return [f"Nothing says which images belong together: each counts as independent. {narrow}"]
    return []


def _thresholds(compared: Compared, score: str) -> list[str]:
    if score in _WITHOUT_THRESHOLD or not compared.runs[0].binary:
        return []
    origins = {_origin(run.record) for run in compared.runs}
    if len(origins) == 1:
        return []
    only_units = len({rule for rule, _ in origins}) == 1
    key = "evaluation.threshold_unit=image" if only_units else "evaluation.threshold=…"
    shown = wording.listed(sorted(f"{rule}{f' by {unit}' if unit else ''}" for rule, unit in origins))
    return [f"The thresholds were not chosen alike ({shown}); `ddtl evaluate RUN {key}` scores a run with another one."]


def _origin(record: Mapping[str, Any]) -> tuple[str, str | None]:
    """Where a run's threshold came from: its rule with what it aims at, and whether images or patients chose it."""
    rule, target = record.get("threshold_rule", "fixed"), record.get("threshold_target")
    if rule == "fixed":
        return f"fixed at {record['threshold']:g}", None
    # Before there was a unit in the record, images chose every threshold.
    return rule if target is None else f"{rule} of {target:g}", record.get("threshold_unit") or "image"


def _seeds(compared: Compared) -> list[str]:
    if compared.only_seeds:
        return ["These runs differ in nothing but the seed: what lies between them is the chance of training."]
    counts = [len(method.runs) for method in compared.methods]
    if min(counts) == 1:
        alone = "one run each" if max(counts) == 1 else "some with one run"
        return [
            f"Methods are compared by {alone}: this is about these runs, for what another seed would change is not in "
            "the interval. Train more seeds (seed=0,1,2,3,4), and name all their runs."
        ]
    if min(counts) < _FEW_SEEDS:
        return [
            "Two seeds tell little about how much a seed changes: where it changes much, the interval is wide. Train "
            "more seeds (seed=0,1,2,3,4), and name all their runs."
        ]
    return []


def _settings(compared: Compared) -> list[str]:
    if compared.only_seeds or not compared.also:
        return []
    shown = compared.also[:_SETTINGS_SHOWN]
    more = [f"{len(compared.also) - len(shown)} more"] if len(compared.also) > len(shown) else []
    return [f"The methods differ in {wording.listed([*shown, *more])} too; the difference may come from there."]
