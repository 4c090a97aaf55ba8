"""What calibration and chosen thresholds claim, against test sets with a known truth.

    python -m benchmarks.calibration            # the figures in docs/calibration.md: about 3 minutes
    python -m benchmarks.calibration --quick    # to see that it works: seconds

Patients have several images, whose scores are normal and correlated; each image's probability is calibrated. With a
true slope of 0.7 the logits are divided by 0.7, so that the probabilities are too extreme.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from scipy.special import expit, logit
from scipy.stats import norm

from benchmarks.measuring import finish
from ddtl.evaluation import calibration, decision, miscalibration, thresholds
from ddtl.evaluation.intervals.proportions import proportion, wilson


class Setting(NamedTuple):
    """Test sets of one kind; ``fixed``: their class counts are, else each patient's class is drawn."""

    patients: int
    images: int
    prevalence: float
    correlation: float
    auc: float
    fixed: bool

    def __str__(self) -> str:
        counts = "fixed" if self.fixed else "drawn"
        return (
            f"{self.patients} x {self.images}, {self.prevalence:.0%} positive ({counts}), "
            f"correlation {self.correlation}, AUC {self.auc}"
        )


KINDS = ((4, 0.5, 0.5, 0.9), (4, 0.2, 0.9, 0.9), (4, 0.5, 0.5, 0.97), (1, 0.5, 0.0, 0.9))
SETTINGS = [Setting(n, *kind, fixed) for n in (38, 95) for kind in KINDS for fixed in (True, False)]
RULES: tuple[tuple[thresholds.Rule, float | None], ...] = (
    ("sensitivity", 0.9),
    ("youden", None),
    ("sensitivity_guaranteed", 0.8),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=1000, help="test sets a row")
    parser.add_argument("--quick", action="store_true", help="20 test sets a row, and fewer rows")
    arguments = parser.parse_args()
    draws, settings = (20, SETTINGS[:2]) if arguments.quick else (arguments.draws, SETTINGS)
    started = time.perf_counter()
    rows: dict[str, Any] = {}
    for setting in settings:
        rows[str(setting)] = row = {**calibrated(setting, draws), **seen(setting, draws)}
        row |= predicted(setting, draws)
        print(setting, " ".join(f"{name} {value:.3f}" for name, value in row.items()), flush=True)
    promises = {}
    for rule, target in RULES:
        for setting in settings[::2]:
            promises[f"{rule} {setting}"] = row = promised(setting, rule, target, max(10, draws // 5))
            print(rule, target, setting, " ".join(f"{name} {value:.3f}" for name, value in row.items()), flush=True)
    finish(
        benchmark="calibration", draws=draws, calibration=rows, thresholds=promises,
        seconds=time.perf_counter() - started,
    )  # fmt: skip


def drawn(setting: Setting, draws: int, slope: float = 1.0) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Yield labels, logits and patients of each test set that has both classes."""
    random = np.random.default_rng([setting.patients, setting.images, round(100 * slope)])
    n, apart = setting.patients, norm.ppf(setting.auc) * 2**0.5
    for _ in range(draws):
        chance = np.arange(n) / n if setting.fixed else random.random(n)
        label = (chance < setting.prevalence).astype(int)
        patient = np.repeat(np.arange(n), setting.images)
        shared, own = random.normal(size=n)[patient], random.normal(size=len(patient))
        x = apart * (label[patient] - 0.5)
        x += setting.correlation**0.5 * shared + (1 - setting.correlation) ** 0.5 * own
        if 0 < label.sum() < n:
            yield label[patient], (apart * x + logit(setting.prevalence)) / slope, patient


def true_rates(setting: Setting, threshold: float) -> tuple[float, float]:
    """Return sensitivity and specificity of a calibrated network."""
    apart = norm.ppf(setting.auc) * 2**0.5
    cut = (logit(threshold) - logit(setting.prevalence)) / apart
    return float(norm.sf(cut - apart / 2)), float(norm.cdf(cut + apart / 2))


def calibrated(setting: Setting, draws: int) -> dict[str, float]:
    """Return a calibrated network: false claims, coverage, and its calibration error against the noise floor."""
    found = []
    for labels, x, patient in drawn(setting, draws):
        measured = calibration.summary(labels, np.column_stack([0 * x, x]), None, None, patient)
        assert measured is not None
        line, floor = measured["line"], measured["floor"]["ece"]
        found.append(
            (
                _below(line["p_value"]), _holds(line["intercept"], 0), _holds(line["slope"], 1),
                measured["ece"], floor["mean"], measured["ece"] > floor["high"], measured["debiased"],
            )
        )  # fmt: skip
    names = "false_claims", "intercept_covered", "slope_covered", "ece", "floor", "above_floor", "debiased"
    return dict(zip(names, np.nanmean(np.array(found, dtype=float), axis=0).tolist(), strict=True))


def seen(setting: Setting, draws: int) -> dict[str, float]:
    """Return how often a true slope of 0.7 is seen, and its interval covers it."""
    found = []
    for labels, x, patient in drawn(setting, draws, 0.7):
        line = miscalibration.recalibration_line(labels, x, patient)
        slope = None if line.slope is None else {"low": line.slope.low, "high": line.slope.high}
        found.append((_below(line.p_value), _holds(slope, 0.7)))
    power, covered = np.nanmean(np.array(found, dtype=float), axis=0).tolist()
    return {"slope_07_seen": power, "slope_07_covered": covered}


def predicted(setting: Setting, draws: int) -> dict[str, float]:
    """Coverage of the predictive values at a prevalence of 5 %, and of the net benefit, at the threshold 0.3."""
    true = true_rates(setting, 0.3)
    truth = decision.predictive_values(*true, 0.05)
    found = []
    for labels, x, patient in drawn(setting, draws):
        positive = (expit(x) >= 0.3).astype(int)
        shares = proportion(positive, labels, patient), proportion(1 - positive, 1 - labels, patient)
        rates = decision.Rates(*(wilson(share, 0.95) for share in shares))
        values = decision.predictive_value_limits(shares[0].value, shares[1].value, 0.05, rates)
        (at,) = decision.decision_curve(labels, expit(x), [0.3])
        prevalence = float(labels.mean())
        benefit = decision.net_benefit_limits(at, prevalence, rates, shares[1].value)
        true_benefit = prevalence * true[0] - (1 - prevalence) * (1 - true[1]) * 0.3 / 0.7
        pairs = zip((*values, benefit), (*truth, true_benefit), strict=True)
        found.append([limits is not None and limits[0] <= (value or 0.0) <= limits[1] for limits, value in pairs])
    names = "ppv_covered", "npv_covered", "net_benefit_covered"
    return dict(zip(names, np.mean(found, axis=0).tolist(), strict=True))


def promised(setting: Setting, rule: thresholds.Rule, target: float | None, draws: int) -> dict[str, float]:
    """Return what is expected of a threshold for other patients, and what they get; patients choose by one image
    each.
    """
    found = []
    for labels, x, patient in drawn(setting._replace(images=1), draws):
        p = expit(x)
        if rule.endswith("_guaranteed") and labels.sum() < thresholds.patients_needed(target or 0.5, 0.95):
            continue
        true = true_rates(setting, thresholds.choose(labels, p, rule, target).value)
        expected = thresholds.expected(labels, p, patient, rule, target, 0.95)
        if expected is not None:
            rate, kept = expected.sensitivity, np.nan if expected.kept is None else expected.kept
            reached = np.nan if target is None else float(true[0] >= target)
            found.append((rate.mean, true[0], rate.low <= true[0] <= rate.high, kept, reached))
    names = "expected_sensitivity", "true_sensitivity", "covered", "expected_kept", "kept"
    return {} if not found else dict(zip(names, np.mean(np.array(found, dtype=float), axis=0).tolist(), strict=True))


def _below(p: float | None) -> float:
    return float(p is not None and p < 0.05)


def _holds(limits: Any, value: float) -> float:
    """Return whether an interval covers; NaN where there is none."""
    if limits is None or limits["low"] is None:
        return float("nan")
    return float(limits["low"] <= value <= limits["high"])


if __name__ == "__main__":
    main()
