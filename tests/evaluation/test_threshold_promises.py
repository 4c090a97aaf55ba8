"""Thresholds chosen by patient, what they give for others, and guarantees: against test sets with a known truth."""

from __future__ import annotations

import json

import numpy as np
import pytest
from scipy.special import expit
from scipy.stats import beta, binom
from statsmodels.stats.proportion import proportion_confint

from ddtl.config.load import load
from ddtl.evaluation import record, thresholds
from ddtl.evaluation.patients import PatientTable, by_patient, threshold_table
from ddtl.evaluation.predictions import Predictions
from ddtl.evaluation.thresholds import choose, expected, lower_limit, patients_needed
from ddtl.utils.errors import UserError
from tests.support.clustered_draws import Draw, draw, rates

# ---- guarantees


@pytest.mark.parametrize(("hits", "n"), [(19, 20), (20, 20), (55, 60), (1, 3)])
@pytest.mark.parametrize("level", [0.9, 0.95])
def test_the_lower_limit_is_that_of_statsmodels(hits: int, n: int, level: float) -> None:
    low, _ = proportion_confint(hits, n, alpha=2 * (1 - level), method="beta")
    assert lower_limit(hits, n, level) == pytest.approx(low)
    assert lower_limit(0, n, level) == 0


@pytest.mark.parametrize(("target", "needed"), [(0.95, 59), (0.9, 29), (0.99, 299), (0.8, 14)])
def test_the_patients_that_a_guarantee_takes(target: float, needed: int) -> None:
    """The rule of three's exact form: target^n is at most 5 %."""
    assert patients_needed(target, 0.95) == needed
    assert target**needed <= 0.05 < target ** (needed - 1)


def test_a_guarantee_is_kept_in_all_but_five_percent_of_draws() -> None:
    random = np.random.default_rng(0)
    broken = 0
    for _ in range(600):
        d = draw(random, 120, 1)
        value = choose(d.labels, expit(d.logit), "sensitivity_guaranteed", 0.9).value
        broken += rates(value)[0] < 0.9
    # 60 positive patients and 57 called right are kept by all but 100 * P(Beta(k, n - k + 1) < .9) % of draws.
    hits = next(k for k in range(61) if lower_limit(k, 60, 0.95) >= 0.9)
    share = float(beta.cdf(0.9, hits, 60 - hits + 1))
    assert share <= 0.05
    assert broken <= binom.ppf(0.999, 600, share)


def test_the_guaranteed_threshold_is_the_highest_with_the_limit() -> None:
    d = draw(np.random.default_rng(1), 140, 1)
    p = expit(d.logit)
    found = choose(d.labels, p, "sensitivity_guaranteed", 0.9)
    hits = round(70 * found.reached["sensitivity"])
    assert lower_limit(hits, 70, 0.95) >= 0.9 > lower_limit(hits - 1, 70, 0.95)
    assert found.value <= choose(d.labels, p, "sensitivity", 0.9).value
    mirrored = choose(1 - d.labels, 1 - p, "specificity_guaranteed", 0.9)
    assert mirrored.value == pytest.approx(1 - found.value)


def test_too_few_patients_are_refused_with_the_number_that_it_takes() -> None:
    d = draw(np.random.default_rng(1), 40, 1)
    with pytest.raises(UserError) as found:
        choose(d.labels, expit(d.logit), "sensitivity_guaranteed", 0.95, unit="patient")
    assert str(found.value) == (
        "evaluation.threshold=sensitivity_guaranteed: a sensitivity of 0.95 with a lower 95 % limit takes 59 positive "
        "validation patients or more, and there are 20. Set evaluation.target=0.86 or lower, or "
        "evaluation.threshold=sensitivity, which promises nothing for other patients."
    )
    choose(d.labels, expit(d.logit), "sensitivity_guaranteed", 0.86)


def test_probabilities_of_exactly_zero_are_refused() -> None:
    labels, p = np.repeat([1, 0], 40), np.concatenate([np.zeros(20), np.linspace(0.1, 0.9, 60)])
    with pytest.raises(UserError, match="a probability of exactly 0"):
        choose(labels, p, "sensitivity_guaranteed", 0.9)


# ---- what is expected of other patients


@pytest.mark.parametrize(
    ("rule", "target", "patients", "images"),
    [("sensitivity", 0.9, 95, 4), ("youden", None, 95, 1), ("specificity", 0.9, 60, 4), ("sensitivity", 0.95, 95, 1)],
)
def test_what_is_expected_is_what_other_patients_get(
    rule: thresholds.Rule, target: float | None, patients: int, images: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(thresholds, "DRAWS", 100)
    random = np.random.default_rng(2)
    truth, mean, inside, chance, kept = [], [], [], [], []
    for _ in range(60):
        d = draw(random, patients, images)
        p = expit(d.logit)
        true = np.array(rates(choose(d.labels, p, rule, target).value))
        found = expected(d.labels, p, d.patient, rule, target, 0.95)
        assert found is not None
        both = found.sensitivity, found.specificity
        truth.append(true)
        mean.append([rate.mean for rate in both])
        inside.append([rate.low <= t <= rate.high for rate, t in zip(both, true, strict=True)])
        if target is not None:
            chance.append(found.kept)
            kept.append(true[0 if rule == "sensitivity" else 1] >= target)
    assert np.mean(mean, axis=0) == pytest.approx(np.mean(truth, axis=0), abs=0.03)
    assert (np.mean(inside, axis=0) >= 0.83).all()
    if target is not None:
        assert np.mean(chance) == pytest.approx(np.mean(kept), abs=0.2)


def test_the_rate_of_independent_patients_is_a_beta_distribution() -> None:
    d = draw(np.random.default_rng(0), 80, 1)
    p = expit(d.logit)
    hits = round(40 * choose(d.labels, p, "sensitivity", 0.95).reached["sensitivity"])
    found = expected(d.labels, p, d.patient, "sensitivity", 0.95, 0.95)
    assert found is not None
    own = beta(hits, 40 - hits + 1)
    rate = found.sensitivity
    assert (rate.mean, rate.low, rate.high) == pytest.approx((own.mean(), *own.interval(0.95)))
    assert found.kept == pytest.approx(own.sf(0.95))


def test_nothing_is_expected_from_two_patients_of_a_class() -> None:
    labels, p = np.array([0, 0, 0, 1, 1]), np.array([0.1, 0.2, 0.3, 0.4, 0.5])
    assert expected(labels, p, np.arange(5), "youden", None, 0.95) is None


# ---- by patient


def table(d: Draw, patient: np.ndarray | None = None) -> Predictions:
    names = d.patient.astype(str) if patient is None else patient
    rows = np.arange(len(d.labels)).astype(str)
    return Predictions(
        ("0", "1"), np.full(len(rows), "val"), rows, d.patient.astype(str), names, rows, d.labels,
        np.column_stack([np.zeros(len(rows)), d.logit]),
    )  # fmt: skip


def settings(*words: str) -> object:
    return load([f"evaluation.{word}" for word in words]).evaluation


@pytest.mark.parametrize("aggregation", ["mean", "max", "vote"])
@pytest.mark.parametrize("rule", ["youden", "sensitivity"])
def test_patients_choose_where_they_are_known(aggregation: str, rule: str) -> None:
    val = table(draw(np.random.default_rng(3), 40, 5))
    words = ["target=0.9"] if rule == "sensitivity" else []
    found = record.choose_on_validation(val, settings(f"threshold={rule}", f"patient={aggregation}", *words))
    assert found.unit == "patient"
    own = by_patient(val, aggregation, found.threshold)
    assert isinstance(own, PatientTable)
    called = own.p >= own.threshold
    assert found.reached == {
        "sensitivity": pytest.approx(called[own.label == 1].mean()),
        "specificity": pytest.approx((~called)[own.label == 0].mean()),
    }
    if rule == "sensitivity":
        assert found.reached["sensitivity"] >= 0.9
    assert found.expected is not None


@pytest.mark.parametrize("images", [1, 2, 5, 6])
def test_a_vote_is_positive_up_to_the_threshold_in_the_table(images: int) -> None:
    val = table(draw(np.random.default_rng(4), 20, images))
    own = threshold_table(val, "vote")
    assert isinstance(own, PatientTable)
    for t in np.linspace(0.05, 0.95, 19):
        votes = by_patient(val, "vote", float(t))
        assert isinstance(votes, PatientTable)
        assert ((own.p >= t) == (votes.p >= votes.threshold)).all()


def test_images_choose_where_it_is_set_or_patients_are_not_known() -> None:
    d = draw(np.random.default_rng(5), 40, 3)
    chosen = choose(d.labels, expit(d.logit), "youden")
    by_hand = record.choose_on_validation(table(d), settings("threshold=youden", "threshold_unit=image"))
    unknown = record.choose_on_validation(table(d, np.full(len(d.labels), "")), settings("threshold=youden"))
    for found in (by_hand, unknown):
        assert (found.threshold, found.reached, found.unit) == (pytest.approx(chosen.value), chosen.reached, "image")
    fixed = record.choose_on_validation(table(d), settings("threshold=0.5"))
    assert (fixed.threshold, fixed.unit, fixed.expected) == (0.5, None, None)


@pytest.mark.parametrize(
    ("words", "named", "says"),
    [
        (["threshold=youden", "threshold_unit=patient"], False, "images have no patient id. Set evaluation.threshold_"),
        (["threshold=sensitivity_guaranteed", "target=0.8"], False, "Give patient ids, or set evaluation.threshold=se"),
        (["threshold=sensitivity_guaranteed", "target=0.8", "threshold_unit=image"], True, "threshold_unit=auto"),
        (["threshold=specificity_guaranteed", "target=0.95"], True, "takes 59 negative validation patients"),
    ],
)
def test_what_cannot_be_kept_is_refused_before_training(words: list[str], named: bool, says: str) -> None:
    d = draw(np.random.default_rng(6), 40, 3)
    val = table(d, None if named else np.full(len(d.labels), ""))
    with pytest.raises(UserError, match=says):
        record.choose_on_validation(val, settings(*words))
    with pytest.raises(UserError, match=says):
        record.check_threshold(settings(*words), 2, val.label, val.patient_id, val.group)


def test_the_check_before_training_accepts_what_can_be_kept() -> None:
    d = draw(np.random.default_rng(6), 40, 3)
    val = table(d)
    for words in (["threshold=0.5"], ["threshold=youden"], ["threshold=sensitivity_guaranteed", "target=0.8"]):
        record.check_threshold(settings(*words), 2, val.label, val.patient_id, val.group)
    with pytest.raises(UserError, match="with 3 classes"):
        record.check_threshold(settings("threshold=youden"), 3, val.label, val.patient_id, val.group)
    with pytest.raises(UserError, match="0 are positive"):
        record.check_threshold(settings("threshold=youden"), 2, 0 * val.label, val.patient_id, val.group)


def test_patients_with_images_of_both_classes_leave_the_choice_to_images() -> None:
    d = draw(np.random.default_rng(6), 6, 4)
    mixed = np.tile([0, 0, 1, 1], 6)
    found = record.choose_on_validation(table(Draw(mixed, d.logit, d.patient)), settings("threshold=youden"))
    assert found.unit == "image"


def test_the_record_holds_what_is_expected() -> None:
    d = draw(np.random.default_rng(7), 60, 3)
    config = settings("threshold=sensitivity", "target=0.9")
    learnt = record.choose_on_validation(table(d), config)
    found = record.setting(learnt, config, "patient")
    assert found["threshold_unit"] == "patient"
    assert set(found["threshold_expected"]) == {"sensitivity", "specificity", "kept"}
    split = record.of_split(table(d), learnt, config)
    by_patient_ = split["patients"]
    assert by_patient_["calibration"]["line"]["slope"]["low"] is not None
    assert [row["prevalence"] for row in by_patient_["predictive_values"]] == [0.05, 0.2, 0.5]
    for holder in (split, by_patient_):
        row = holder["predictive_values"][2]
        assert row["ppv_interval"]["low"] <= row["ppv"] <= row["ppv_interval"]["high"]
        limits = holder["net_benefit"]["interval"]
        assert limits["low"] <= holder["net_benefit"]["model"] <= limits["high"]
    assert json.loads(json.dumps([found, split])) == [found, split]
    vote = settings("threshold=0.5", "patient=vote")
    shares = record.of_split(table(d), record.choose_on_validation(table(d), vote), vote)["patients"]
    assert shares["calibration"] is shares["net_benefit"] is None
