"""What "nothing found" is worth: the stated power is that of the rule of the probes itself."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.special import expit
from scipy.stats import norm

from ddtl.audits import probes
from ddtl.audits.audit import Audit
from ddtl.audits.power import EXAMPLE, POWER, Power, Simulated, power
from ddtl.audits.probes import probe, scored_images
from ddtl.audits.record import newest
from ddtl.audits.views import table
from ddtl.evaluation.intervals.intervals import intervals
from ddtl.reports.audit import report
from ddtl.reports.run import audit_section
from ddtl.utils.files import write_json
from tests.audits.test_probes import arrays, looks_of
from tests.reports.test_audit_record import DIGEST, filed, told
from tests.support import audits
from tests.support.audits import manifest


def clustered(positives: int, negatives: int, images: int) -> tuple[np.ndarray, np.ndarray]:
    """Labels and patients of a test set."""
    return np.repeat([1] * positives + [0] * negatives, images), np.repeat(np.arange(positives + negatives), images)


def found_by_probes(labels: np.ndarray, groups: np.ndarray, auc: float, draws: int, seed: int) -> float:
    """How often :func:`probes.probe` finds a planted shortcut; its classifier is replaced by the planted score."""
    random, found = np.random.default_rng(seed), 0
    splits = np.repeat(["train", "test"], len(labels))
    shift = np.sqrt(2) * norm.ppf(auc)
    twice = np.tile(labels, 2)
    for draw in range(draws):
        score = random.normal(size=groups.max() + 1)[groups] + shift * labels
        features = np.tile(score, 2)[:, None]
        patients = np.concatenate([groups, groups + groups.max() + 1])
        found += probe("marks", ("mark",), features, twice, patients, splits, seed=draw).verdict == "shortcut"
    return found / draws


def planted_score(view: str, features: np.ndarray, labels: np.ndarray, plan: probes._Plan, trees: int) -> np.ndarray:
    p = expit(features[plan.score, 0])
    return np.column_stack([1 - p, p])


@pytest.mark.slow
@pytest.mark.parametrize(("positives", "negatives", "images"), [(19, 19, 4), (12, 60, 2)])
def test_the_stated_power_is_that_of_the_probes(
    positives: int, negatives: int, images: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probes, "_predict", planted_score)
    labels, groups = clustered(positives, negatives, images)
    stated = power("test", labels, groups)
    assert stated.groups == (negatives, positives)
    assert stated.least_auc is not None
    # The least AUC is a step of 0.01 at which 80 % are reached: its power is above, that of two steps less is below.
    draws = 300
    error = 3 * np.sqrt(POWER * (1 - POWER) * (1 / draws + 1 / 500))
    assert found_by_probes(labels, groups, stated.least_auc, draws, 1) > POWER - error
    assert found_by_probes(labels, groups, stated.least_auc - 0.02, draws, 2) < POWER + error


@pytest.mark.slow
def test_the_stated_power_is_that_of_a_classifier_that_is_trained() -> None:
    """A regression on one number, trained on many patients; the shuffles train it again."""
    test_labels, test_groups = clustered(19, 19, 2)
    train_labels, train_groups = clustered(60, 60, 2)
    labels, groups = np.concatenate([train_labels, test_labels]), np.concatenate([train_groups, 120 + test_groups])
    splits = np.repeat(["train", "test"], [len(train_labels), len(test_labels)])
    stated = power("test", test_labels, test_groups)
    assert stated.least_auc is not None
    random, found, draws = np.random.default_rng(3), 0, 150
    for draw in range(draws):
        score = random.normal(size=158)[groups] + np.sqrt(2) * norm.ppf(stated.least_auc) * labels
        one = probe("tiny pixels", ("pixel",), score[:, None], labels, groups, splits, seed=draw)
        found += one.verdict == "may carry disease"
    assert found / draws == pytest.approx(POWER + 0.03, abs=3 * np.sqrt(POWER * (1 - POWER) / draws))


def test_the_interval_of_the_simulation_is_the_interval_of_the_probes() -> None:
    labels, groups = clustered(9, 14, 3)
    simulated = Simulated(labels, groups, 0)
    for noise in simulated._noise[:20]:
        score = noise[groups, 0] + labels
        area = intervals(labels, expit(score), groups, 0.5)["roc_auc"]
        assert area is not None
        auc = float(np.mean([np.mean(s > score[labels == 0]) for s in score[labels == 1]]))
        for highest in (0.4, auc - 1e-9, auc + 1e-9):
            assert simulated._found(noise, 1.0, highest) == probes.is_found(auc, area.low, highest)


def test_with_shuffled_labels_nothing_is_left_to_find() -> None:
    """The mean of the highest of 19 is that of 19 independent draws, half of which are below one half."""
    labels, groups = clustered(30, 30, 2)
    highest = Simulated(labels, groups, 0)._shuffled
    error = np.sqrt((30 + 30 + 1) / (12 * 30 * 30))  # of a ROC AUC without a difference (Mann and Whitney, 1947)
    expected = np.random.default_rng(0).normal(0.5, error, (20_000, probes.SHUFFLES)).max(axis=1)
    assert np.mean(highest) == pytest.approx(np.mean(expected), abs=0.01)
    assert np.std(highest) == pytest.approx(np.std(expected), rel=0.15)


@pytest.mark.slow
def test_more_patients_find_weaker_shortcuts() -> None:
    found = [power("test", *clustered(n, n, 2)).least_auc for n in (10, 30, 150)]
    assert None not in found
    assert found == sorted(found, reverse=True)
    assert found[-1] < 0.68


def test_more_images_of_the_same_patients_find_nothing_more() -> None:
    once, often = (power("test", *clustered(20, 20, images)) for images in (1, 6))
    assert once.least_auc == pytest.approx(often.least_auc, abs=0.011)


def test_four_patients_a_class_cannot_rule_a_shortcut_out() -> None:
    stated = power("test", *clustered(4, 4, 4))
    assert stated.least_auc is None
    assert stated.example_found < 0.5


@pytest.mark.slow
def test_three_classes() -> None:
    labels = np.arange(60) % 3
    stated = power("held-out half", labels, np.arange(60))
    assert stated.groups == (20, 20, 20)
    assert stated.least_auc is not None
    assert 0.6 < stated.least_auc < power("held-out half", labels[labels < 2], np.arange(40)).least_auc  # type: ignore[operator]


def test_the_images_are_those_that_the_probes_score(tmp_path: Path) -> None:
    dataset = manifest(tmp_path, 48)
    looks = looks_of(dataset)
    known = scored_images(dataset, looks)
    assert known is not None
    one = probe("marks", *table("marks", [look for look in looks if look]), *arrays(dataset))
    assert (known[0], len(known[1]), len(np.unique(known[2]))) == (one.protocol, one.images, one.groups)
    assert scored_images(manifest(tmp_path, 4), looks[:4]) is None


# --- what is said ----------------------------------------------------------------------------------------------------

STATED = Power("test", (47, 48), POWER, 0.72, EXAMPLE, 1.0)
SENTENCE = (
    "With 47 and 48 scored patients of the classes a shortcut with a ROC AUC of 0.72 or more is found in 80 % of such "
    "test sets; a weaker one is often missed."
)


def with_power(folder: Path, stated: Power = STATED) -> Audit:
    return replace(audits.audit(folder, clean=True), powers={"chest": stated})


def test_record_page_and_run_say_what_could_have_been_found(tmp_path: Path) -> None:
    record = audits.record(with_power(tmp_path / "images"))
    assert record["datasets"][0]["power"] == {
        "protocol": "test", "groups": (47, 48), "power": 0.8, "least_auc": 0.72,
        "example_auc": 0.9, "example_found": 1.0, "sentence": SENTENCE,
    }  # fmt: skip
    assert SENTENCE in report.page(record, [])
    filed(tmp_path, record)
    summary = newest(tmp_path, "chest", DIGEST)
    assert summary is not None
    assert summary["power"] == SENTENCE
    run = told(tmp_path, audit=summary)
    assert any(SENTENCE in str(block) for block in audit_section.section(run).blocks)
    assert audit_section.text(run).endswith(f"nothing was found. {SENTENCE}")


def test_too_few_patients_are_called_so(tmp_path: Path) -> None:
    found = with_power(tmp_path, replace(STATED, groups=(5, 5), least_auc=None, example_found=0.25))
    assert found.power_sentence("chest") == (
        "Too few to rule a shortcut out: with 5 and 5 scored patients of the classes not even a perfect one is found "
        "in 80 % of such test sets, and one with a ROC AUC of 0.90 in 25 %."
    )


def test_nothing_is_said_where_every_probe_found_a_shortcut(tmp_path: Path) -> None:
    found = with_power(tmp_path)
    shortcut = replace(found, probes={"chest": [audits.probe("file metadata")]})
    assert shortcut.power_sentence("chest") is None
    assert replace(found, powers={}).power_sentence("chest") is None


def test_a_record_of_before_has_no_power(tmp_path: Path) -> None:
    record = audits.record(audits.audit(tmp_path / "images", clean=True))
    del record["datasets"][0]["power"]
    folder = tmp_path / "audits" / "chest"
    folder.mkdir(parents=True)
    write_json(folder / "audit.json", record)
    summary = newest(tmp_path, "chest", DIGEST)
    assert summary is not None
    assert summary["power"] is None
    assert report.page(record, [])
    assert audit_section.section(told(tmp_path, audit={k: v for k, v in summary.items() if k != "power"})).blocks
