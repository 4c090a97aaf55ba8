"""The sentences of a comparison, from made-up differences."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from ddtl.evaluation.comparison.comparison import Comparison, Difference
from ddtl.evaluation.intervals.interval import Interval
from ddtl.reports.comparison.claims import _thresholds, claim, claimed, claims
from ddtl.reports.html.format import p_value

FOUND = Comparison(
    a="A",
    b="B",
    seeds=(1, 1),
    unit="patient",
    units=95,
    images=203,
    score="roc_auc",
    level=0.95,
    differences={"roc_auc": Difference(0.931, 0.9, 0.031, Interval(0.004, 0.058, "delong"))},
    delong_p=0.0203,
    mcnemar_p=0.1,
    no_tests=(),
    p=0.0203,
    test="DeLong",
    smallest=0.0386,
    holm_p=0.0203,
)


def differing(
    value: float | None, low: float | None = None, high: float | None = None, score: str = "roc_auc"
) -> Comparison:
    interval = None if low is None or high is None else Interval(low, high, "delong")
    return replace(FOUND, score=score, differences={score: Difference(0.9, 0.9, value, interval)})


def test_the_better_one() -> None:
    assert claim(FOUND) == (
        "On these 95 patients (203 images) this run of A is better than this run of B by 0.031 ROC AUC "
        "(95 % interval 0.004 to 0.058, paired by patient, p = 0.02 by DeLong's test)."
    )


def test_the_second_one_may_be_the_better_one() -> None:
    assert "this run of B is better than this run of A by 0.031 ROC AUC (95 % interval 0.004 to 0.058," in claim(
        differing(-0.031, -0.058, -0.004)
    )


def test_less_of_the_brier_score_is_better() -> None:
    there, back = (
        differing(sign * 0.031, *ends, "brier") for sign, ends in ((1, (0.004, 0.058)), (-1, (-0.058, -0.004)))
    )
    assert "run of B is better than this run of A by 0.031 Brier score less (95 % interval 0.004 to" in claim(there)
    assert "run of A is better than this run of B by 0.031 Brier score less" in claim(back)


def test_no_difference() -> None:
    assert claim(replace(differing(0.01, -0.02, 0.04), p=0.41, holm_p=0.41)) == (
        "On these 95 patients (203 images) no difference in ROC AUC between this run of A and this run of B may be "
        "claimed: it is 0.010 (95 % interval -0.020 to 0.040, paired by patient, p = 0.41 by DeLong's test), and the "
        "interval includes 0; these images could have shown a difference of 0.039 or more (power 80 %). That the two "
        "are equal is not shown either."
    )


@pytest.mark.parametrize(
    ("found", "why"),
    [
        (
            replace(FOUND, holm_p=0.06, pairs=3),
            "p = 0.06 by DeLong's test after Holm for 3 pairs), and p is not below 0.05;",
        ),
        (replace(FOUND, holm_p=0.02, level=0.99), "and p is not below 0.01;"),
        (differing(0.03, -0.001, 0.06), "and the interval includes 0;"),
        (differing(0.03, 0.0, 0.06), "and the interval includes 0;"),
        (replace(differing(0.03, -0.001, 0.06), smallest=None), "and the interval includes 0."),
        (replace(differing(None), p=None, holm_p=None), "may be claimed: it is not defined on them."),
        (replace(differing(0.03), p=None, holm_p=None), "may be claimed: they are too few for an interval."),
        (
            replace(differing(-1.0, -1.0, -0.081), p=None, holm_p=None),
            "may be claimed: it is -1.000 (95 % interval -1.000 to -0.081), and these images allow no test of it: a "
            "score is at an end of its scale.",
        ),
        (
            replace(differing(0.0), p=1.0, holm_p=1.0, smallest=None),
            "may be claimed: the two score alike, whichever patients are excluded",
        ),
    ],
)
def test_why_nothing_may_be_claimed(found: Comparison, why: str) -> None:
    assert not claimed(found)
    assert why in claim(found)


def test_what_it_rests_on() -> None:
    assert claim(replace(FOUND, unit="image", units=203)).startswith("On these 203 images this run of A is")
    assert "(95 % interval 0.004 to 0.058, paired by near-duplicate group," in claim(replace(FOUND, unit="group"))
    assert claim(replace(FOUND, seeds=(5, 5))).startswith("Over 5 seeds each, on these 95 patients (203 images) A is")
    assert claim(replace(FOUND, seeds=(5, 1))).startswith("Over 5 seeds of A and 1 of B, on these 95 patients")
    assert "A is better than this run of B by" in claim(replace(FOUND, seeds=(5, 1)))
    same = claim(replace(FOUND, seeds=(5, 5), paired_seeds=True, test="t"))
    assert same.startswith("Over the same 5 seeds each, on these 95 patients (203 images) A is better than B by")
    assert "paired by patient and by seed, p = 0.02 by Student's t)" in same
    assert claim(replace(FOUND, units=1203)).startswith("On these 1,203 patients")
    assert "99.5 % interval" in claim(replace(FOUND, level=0.995))
    assert "p < 0.001 by McNemar's test" in claim(replace(FOUND, holm_p=0.0002, test="McNemar"))


def test_few_pairs_have_a_sentence_each_and_many_do_not() -> None:
    equal = differing(0.01, -0.02, 0.04)
    assert claims([FOUND, equal, equal]) == [claim(FOUND), claim(equal), claim(equal)]
    assert claims([FOUND] * 4) == [claim(FOUND)] * 4
    assert claims([FOUND, *[equal] * 5]) == [
        claim(FOUND),
        "No difference in ROC AUC may be claimed between the other 5 of 6 pairs.",
    ]


@pytest.mark.parametrize(
    ("p", "text"),
    [
        (None, "–"),
        (0.0, "<0.001"),
        (0.00099, "<0.001"),
        (0.001, "0.001"),
        (0.0203, "0.02"),
        (0.413, "0.41"),
        (1, "1.00"),
    ],
)
def test_p_values(p: float | None, text: str) -> None:
    assert p_value(p) == text


# --- thresholds that were chosen in different ways --------------------------------------------------------------------


def told(*records: dict[str, Any], score: str = "accuracy", binary: bool = True) -> list[str]:
    runs = [SimpleNamespace(record={"threshold": 0.5, **record}, binary=binary) for record in records]
    return _thresholds(SimpleNamespace(runs=runs), score)  # type: ignore[arg-type]


YOUDEN = {"threshold_rule": "youden", "threshold_target": None}
AIMED = {"threshold_rule": "sensitivity", "threshold_target": 0.9, "threshold_unit": "patient"}


@pytest.mark.parametrize(
    ("one", "other", "shown"),
    [
        (
            {**YOUDEN, "threshold_unit": "image"},
            {**YOUDEN, "threshold_unit": "patient"},
            "(youden by image and youden by patient); `ddtl evaluate RUN evaluation.threshold_unit=image` scores",
        ),
        (YOUDEN, {**YOUDEN, "threshold_unit": "patient"}, "(youden by image and youden by patient)"),
        (AIMED, {**AIMED, "threshold_target": 0.95}, "(sensitivity of 0.9 by patient and sensitivity of 0.95 by"),
        ({}, {"threshold": 0.3, "threshold_rule": "fixed"}, "(fixed at 0.3 and fixed at 0.5); `ddtl evaluate RUN eva"),
        ({}, AIMED, "(fixed at 0.5 and sensitivity of 0.9 by patient); `ddtl evaluate RUN evaluation.threshold=…`"),
    ],
)
def test_thresholds_of_other_origin_are_named(one: dict[str, Any], other: dict[str, Any], shown: str) -> None:
    (caveat,) = told(one, other)
    assert shown in caveat
    assert told(one, other, score="roc_auc") == []
    assert told(one, other, binary=False) == []


def test_thresholds_of_one_origin_need_no_word() -> None:
    """Two values that the same rule chose are no different choice; nor is a record that does not name the unit yet."""
    assert told(AIMED, {**AIMED, "threshold": 0.31}) == []
    assert told(YOUDEN, {**YOUDEN, "threshold_unit": "image"}) == []
