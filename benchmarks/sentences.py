"""How often the sentences that pages state as claims are false, where the truth is known.

    python -m benchmarks.sentences            # the table in docs/sentences.md: minutes
    python -m benchmarks.sentences --quick    # to see that it works: seconds

Each row draws test sets with a known truth under which its sentence is false, makes the sentence with the function that
the page uses, and counts how often it is shown. ``tests/reports/test_sentences.py`` checks every row against its bound.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any
from unittest import mock

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from scipy.special import expit, logit
from scipy.stats import norm

from benchmarks.measuring import finish
from ddtl.audits import findings, power
from ddtl.audits.differences import Difference, cliffs_delta, judge
from ddtl.evaluation import calibration, miscalibration, record, thresholds
from ddtl.evaluation.comparison.comparison import compare
from ddtl.evaluation.comparison.paired_predictions import Method, RunPredictions
from ddtl.evaluation.intervals import delong
from ddtl.evaluation.intervals.clusters import Clusters
from ddtl.evaluation.intervals.influence import spread
from ddtl.evaluation.intervals.robust import auc_limits
from ddtl.records.predictions import Predictions
from ddtl.reports.comparison import claims
from ddtl.reports.run import sentences

LEVEL = 0.95


@dataclass(frozen=True)
class Row:
    """A sentence and a truth under which it is false.

    Attributes:
        sentence: as the page has it, shortened.
        where: on which page.
        truth: of the test sets that are drawn.
        nominal: how often it may be shown nevertheless.
        says: draws a test set and returns whether the sentence is shown.
        weight: test sets of this row to those of others; slow rows have fewer.
    """

    sentence: str
    where: str
    truth: str
    nominal: float
    says: Callable[[np.random.Generator], bool]
    weight: float = 1.0


def share_false(row: Row, draws: int, seed: int = 0) -> tuple[float, int]:
    """Return how often the sentence is shown, and in how many test sets."""
    random, n = np.random.default_rng(seed), max(1, round(draws * row.weight))
    return sum(row.says(random) for _ in range(n)) / n, n


def allowed(row: Row, n: int) -> float:
    """Return the nominal share and 2.6 standard errors of ``n`` test sets."""
    return float(row.nominal + 2.6 * np.sqrt(max(row.nominal, 0.005) * (1 - row.nominal) / n))


# ---- test sets


def patients(each: int, images: int) -> tuple[np.ndarray, np.ndarray]:
    """Return labels and codes of so many patients of each class."""
    return np.repeat(np.arange(2 * each) % 2, images), np.repeat(np.arange(2 * each), images)


def scores(random: np.random.Generator, labels: np.ndarray, codes: np.ndarray, auc: float) -> np.ndarray:
    """Return (N,) normal scores with this ROC AUC by image, alike within a patient by a correlation of one half."""
    shared = random.normal(size=codes.max() + 1)[codes]
    own = random.normal(size=len(codes))
    return np.asarray(np.sqrt(2) * norm.ppf(auc) * labels + np.sqrt(0.5) * (shared + own))


def auc_interval(labels: np.ndarray, score: np.ndarray, codes: np.ndarray) -> tuple[float, dict[str, float]]:
    """Return the ROC AUC and its default interval, without the other scores' (``intervals.intervals`` makes all
    ten).
    """
    parts, of = delong.components(labels, score), Clusters(labels, codes)
    moved = np.empty(len(labels))
    moved[labels == 1] = (parts.of_positives - parts.auc) / (labels == 1).sum()
    moved[labels == 0] = (parts.of_negatives - parts.auc) / (labels == 0).sum()
    low, high = auc_limits(parts, spread(moved, of), of, LEVEL)
    return parts.auc, {"low": low, "high": high}


def calibrated(random: np.random.Generator, each: int, images: int, slope: float) -> tuple[np.ndarray, ...]:
    """Return labels, logits with this recalibration slope, and patients; without patient effects for the
    probabilities.
    """
    labels, codes = patients(each, images)
    apart = np.sqrt(2) * norm.ppf(0.9)
    shared, own = random.normal(size=codes.max() + 1)[codes], random.normal(size=len(codes))
    x = apart * (labels - 0.5) + np.sqrt(0.5) * (shared + own)
    return labels, apart * x / slope, codes


# ---- chance and file metadata


def _worse_than_chance(random: np.random.Generator) -> bool:
    labels, codes = patients(20, 2)
    score = scores(random, labels, codes, 0.5)
    auc, interval = auc_interval(labels, score, codes)
    of_patients = np.bincount(codes, score) / np.bincount(codes)
    own, own_interval = auc_interval(labels[::2], of_patients, np.arange(len(of_patients)))
    by_patient = {"roc_auc": own, "intervals": {"roc_auc": own_interval}}
    results = {"test": {"roc_auc": auc, "intervals": {"roc_auc": interval}, "patients": by_patient}}
    return bool(record.worse_than_chance(results, ["test"]))


def _metadata(model: float, metadata: float, each: int, *shown: str) -> Callable[[np.random.Generator], bool]:
    """Return whether the sentence about file metadata contains one of these parts."""

    def says(random: np.random.Generator) -> bool:
        labels, codes = patients(each, 2)
        own, theirs = (scores(random, labels, codes, auc) for auc in (model, metadata))
        paired = delong.compare_paired(labels, own, theirs, codes)
        (auc, limits), (baseline, baseline_limits) = (
            auc_interval(labels, own, codes),
            auc_interval(labels, theirs, codes),
        )
        stored: Any = SimpleNamespace(
            scores={"roc_auc": auc, "intervals": {"roc_auc": limits}},
            record={
                "baselines": {
                    "file_facts": {
                        "roc_auc": baseline,
                        "intervals": {"roc_auc": baseline_limits},
                        "difference": {"interval": {"low": paired.low, "high": paired.high}},
                    }
                }
            },
        )
        text = sentences.shortcut_text(stored)
        return any(part in text for part in shown)

    return says


# ---- calibration


def _calibration_says(slope: float, each: int, images: int, shown: str) -> Callable[[np.random.Generator], bool]:
    def says(random: np.random.Generator) -> bool:
        labels, logits, codes = calibrated(random, each, images, slope)
        line = miscalibration.recalibration_line(labels, logits, codes, LEVEL).record()
        size = {"ece": 0.0, "floor": {"ece": {"mean": 0.0, "high": 0.0}}}  # of no effect on the claim
        return shown in sentences.calibrated_sentence("image", {"line": line, **size})

    return says


def _above_the_floor(random: np.random.Generator) -> bool:
    labels, logits, codes = calibrated(random, 19, 4, 1.0)
    p = expit(logits)
    bins = {"ece": np.minimum((p * calibration.BINS).astype(int), calibration.BINS - 1)}
    found = calibration.ece(labels, p)
    assert found is not None
    return found > miscalibration.noise_floors(p, bins, codes, seed=int(random.integers(2**32)))["ece"]["high"]


def _recalibration(slope: float, *, says_help: bool) -> Callable[[np.random.Generator], bool]:
    """Return whether a note says that temperature scaling did not help; or, for ``says_help``, none takes its help
    back.
    """

    def says(random: np.random.Generator) -> bool:
        labels, logits, codes = calibrated(random, 30, 1, slope)
        both = np.column_stack([np.zeros(len(logits)), logits])
        notes = " ".join(calibration.fit(labels, both, codes, LEVEL).notes)
        if says_help:
            return "temperature scaling is not shown" not in notes and "temperature scaling did not" not in notes
        return "temperature scaling did not help" in notes

    return says


# ---- thresholds


def _true_sensitivity(threshold: float) -> float:
    apart = np.sqrt(2) * norm.ppf(0.9)
    return float(norm.sf(logit(threshold) / apart - apart / 2))


def _guaranteed(random: np.random.Generator) -> bool:
    labels, logits, _ = calibrated(random, 60, 1, 1.0)
    value = thresholds.choose(labels, expit(logits), "sensitivity_guaranteed", 0.9, level=LEVEL).value
    return _true_sensitivity(value) < 0.9


def _expected(random: np.random.Generator) -> bool:
    """Return whether the true sensitivity is outside of what is expected for other patients."""
    labels, logits, codes = calibrated(random, 30, 1, 1.0)
    p = expit(logits)
    value = thresholds.choose(labels, p, "sensitivity", 0.9, level=LEVEL).value
    with mock.patch.object(thresholds, "DRAWS", 20):  # those of single images need none for the rate that is aimed at
        found = thresholds.expected(labels, p, codes, "sensitivity", 0.9, LEVEL)
    assert found is not None
    return not found.sensitivity.low <= _true_sensitivity(value) <= found.sensitivity.high


def promises(draws: int, seed: int = 0) -> tuple[float, float]:
    """Return the mean of the stated probabilities that a sensitivity of 0.9 is kept, and how often it is."""
    random, found = np.random.default_rng(seed), []
    for _ in range(draws):
        labels, logits, codes = calibrated(random, 30, 1, 1.0)
        p = expit(logits)
        value = thresholds.choose(labels, p, "sensitivity", 0.9, level=LEVEL).value
        with mock.patch.object(thresholds, "DRAWS", 20):
            kept = getattr(thresholds.expected(labels, p, codes, "sensitivity", 0.9, LEVEL), "kept", None)
        assert kept is not None
        found.append((kept, float(_true_sensitivity(value) >= 0.9)))
    stated, kept = np.mean(found, axis=0).tolist()
    return stated, kept


# ---- comparisons


def _answers(labels: np.ndarray, codes: np.ndarray, score: np.ndarray, name: str) -> RunPredictions:
    rows, site = np.arange(len(labels)).astype(str), np.full(len(labels), "")
    table = Predictions(
        ("0", "1"), np.full(len(labels), "test"), rows, codes.astype(str), codes.astype(str), site, labels,
        np.column_stack([np.zeros(len(labels)), score]),
    )  # fmt: skip
    return RunPredictions(name, "simulated", table, 0.0)


def _comparison(seeds: int, better: float, shown: str) -> Callable[[np.random.Generator], bool]:
    """Two networks that share a part of each patient's difficulty; the first errs by patient, the second by image."""

    def says(random: np.random.Generator) -> bool:
        labels, codes = patients(20, 2)
        common = random.normal(size=codes.max() + 1)[codes]
        methods = []
        for name, auc, by_patient in (("A", 0.8 + better, True), ("B", 0.8, False)):
            runs = []
            for seed in range(seeds):
                size = codes.max() + 1
                own = random.normal(size=size)[codes] if by_patient else random.normal(size=len(codes))
                apart = np.sqrt(2) * norm.ppf(auc) + (0.2 * random.normal() if seeds > 1 else 0.0)
                score = apart * (labels - 0.5) + np.sqrt(0.5) * (common + own)
                runs.append(_answers(labels, codes, score, f"{name}{seed}"))
            methods.append(Method(name, tuple(runs)))
        return shown in claims.claim(compare(methods).pairs[0])

    return says


# ---- the audit


def _audit_shortcut(auc: float, *, is_found: bool) -> Callable[[np.random.Generator], bool]:
    """Return whether the probes find, or miss, a shortcut in a simulated test set."""

    def says(random: np.random.Generator) -> bool:
        labels, codes = patients(19, 2)
        with mock.patch.object(power, "_DRAWS", 1):
            simulated = power.Simulated(labels, codes, int(random.integers(2**32)))
            return (simulated.share(auc) == 1) == is_found

    return says


def _differences(random: np.random.Generator) -> bool:
    """Twelve quantities in which the classes do not differ, half of them much alike."""
    labels, codes = patients(12, 2)
    shared = random.normal(size=codes.max() + 1)[codes]
    found = []
    for i in range(12):
        own = random.normal(size=codes.max() + 1)[codes]
        values = (shared + 0.5 * own if i % 2 else own) + 0.3 * random.normal(size=len(codes))
        delta, tested = cliffs_delta(values, labels, codes)
        low, high, p = tested or (None, None, None)
        found.append(
            Difference(f"q{i}", "shortcut", "", "1", "0", 0.0, 0.0, 0.0, 0.0, delta, low, high, p, None, "none")
        )
    return bool([*findings.class_differences("simulated", judge(found))])


SHORTCUT = "The dataset has a shortcut"
ROWS = (
    Row("ROC AUC … is worse than chance: the classes may be inverted", "run", "AUC 0.5, 20 + 20 patients",
        0.05, _worse_than_chance),
    Row("file metadata … better than chance, though below the model; or: the dataset has a shortcut", "run",
        "metadata 0.5, model 0.8, 20 + 20 patients", 0.025,
        _metadata(0.8, 0.5, 20, ": better than chance, though below", SHORTCUT)),
    Row("file metadata … below the model, or better than it", "run", "both 0.7, 20 + 20 patients", 0.05,
        _metadata(0.7, 0.7, 20, ", and below", ", though below", ": better than the", "yet better than")),
    Row("the dataset has a shortcut", "run", "metadata 0.5, model 0.2 (inverted)", 0.025,
        _metadata(0.2, 0.5, 20, SHORTCUT)),
    Row("the probabilities are miscalibrated", "run", "calibrated, 19 + 19 patients × 4", 0.05,
        _calibration_says(1.0, 19, 4, "are miscalibrated")),
    Row("the probabilities are … not extreme enough", "run", "slope 0.7, 48 + 48 patients", 0.025,
        _calibration_says(0.7, 48, 1, "not extreme enough")),
    Row("a calibrated network shows an ECE up to … in 95 % of test sets", "run", "calibrated, 19 + 19 patients × 4",
        0.05, _above_the_floor),
    Row("(no note: temperature scaling helped)", "run", "calibrated, 30 + 30 patients", 0.025,
        _recalibration(1.0, says_help=True), weight=0.25),
    Row("temperature scaling did not help", "run", "slope 0.5, 30 + 30 patients", 0.05,
        _recalibration(0.5, says_help=False), weight=0.25),
    Row("the sensitivity is 0.9 or more for other patients (guaranteed rule)", "run", "60 positive patients", 0.05,
        _guaranteed),
    Row("for other patients, expect sensitivity … (…–…)", "run", "30 + 30 patients", 0.05, _expected),
    Row("A is better than B, or B than A", "comparison", "both 0.8, 20 + 20 patients × 2, one run each", 0.05,
        _comparison(1, 0.0, "is better than"), weight=0.4),
    Row("A is better than B, or B than A", "comparison", "both 0.8 on average, three seeds each", 0.05,
        _comparison(3, 0.0, "is better than"), weight=0.15),
    Row("B is better than A", "comparison", "A 0.9, B 0.8, one run each", 0.025,
        _comparison(1, 0.1, "run of B is better than"), weight=0.25),
    Row("shortcut: … tells the classes apart", "audit", "probe of AUC 0.5, 19 + 19 patients", 0.05,
        _audit_shortcut(0.5, is_found=True)),
    Row("a shortcut of 0.81 or more is found in 80 %", "audit", "probe of AUC 0.81, 19 + 19 patients; missed", 0.2,
        _audit_shortcut(0.81, is_found=False)),
    Row("the classes differ, beyond what chance would do", "audit", "12 quantities, no difference, 12 + 12 patients",
        0.05, _differences, weight=0.25),
)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=2000, help="test sets a row")
    parser.add_argument("--quick", action="store_true", help="20 test sets a row")
    arguments = parser.parse_args()
    draws, started = 20 if arguments.quick else arguments.draws, time.time()
    print("| sentence | page | truth, under which it is false | shown in % | nominal % | test sets |")
    print("|---|---|---|---|---|---|")
    found = []
    for row in ROWS:
        # The table has equally many of all rows; the test has fewer of slow ones.
        share, n = share_false(Row(row.sentence, row.where, row.truth, row.nominal, row.says), draws)
        print(f"| {row.sentence} | {row.where} | {row.truth} | {100 * share:.1f} | {100 * row.nominal:g} | {n:,} |")
        found.append({"sentence": row.sentence, "truth": row.truth, "shown": share, "test_sets": n})
    stated, kept = promises(draws)
    print(
        f'\n"The probability that their sensitivity is 0.9 or more is about …" says {100 * stated:.1f} % on average; '
        f"it is kept in {100 * kept:.1f} % of {draws:,} draws."
    )
    finish(rows=found, stated=stated, kept=kept, seconds=time.time() - started)


if __name__ == "__main__":
    main()
