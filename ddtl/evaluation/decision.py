"""What calling an image positive is worth: net benefit, and predictive values at a stated prevalence."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from ddtl.evaluation.intervals.clusters import MIN_CLUSTERS, Clusters
from ddtl.evaluation.intervals.rates import rate

Limits = tuple[float, float]


class Rates(NamedTuple):
    """Confidence limits of sensitivity and specificity; None where there are none."""

    sensitivity: Limits | None
    specificity: Limits | None


@dataclass(frozen=True)
class NetBenefit:
    """True positives per sample, less the false positives at what they are worth; None at a threshold of 1.

    Attributes:
        threshold: the probability from which a sample is predicted positive, and from which its reader would act.
        model: of acting on the model.
        treat_all, treat_none: of acting on everyone, and on nobody.
    """

    threshold: float
    model: float | None
    treat_all: float | None
    treat_none: float | None


def decision_curve(labels: np.ndarray, p: np.ndarray, thresholds: Iterable[float]) -> list[NetBenefit]:
    """Return net benefit TP / N - FP / N * t / (1 - t) at each threshold t (Vickers & Elkin 2006, Med Decis Making
    26:565).

    It holds where the disease is as common as among these samples.

    Args:
        labels: (N,) 0 or 1, 1 being the positive class; at least one sample.
        p: (N,) probability of the positive class.
        thresholds: from 0 to 1.
    """
    positive = labels == 1
    return [_net_benefit(positive, p, float(threshold)) for threshold in thresholds]


def predictive_values(
    sensitivity: float | None, specificity: float | None, prevalence: float
) -> tuple[float | None, float | None]:
    """Return positive and negative predictive value where this share of people has the disease, by Bayes' theorem.

    Returns:
        Each from 0 to 1; None where nobody would be called that, or sensitivity or specificity is not known.
    """
    if sensitivity is None or specificity is None:
        return None, None
    tp, fn = sensitivity * prevalence, (1 - sensitivity) * prevalence
    tn, fp = specificity * (1 - prevalence), (1 - specificity) * (1 - prevalence)
    return _share(tp, fp), _share(tn, fn)


def predictive_value_limits(
    sensitivity: float | None, specificity: float | None, prevalence: float, rates: Rates
) -> tuple[Limits | None, Limits | None]:
    """Return the confidence limits of the positive and of the negative predictive value at a stated prevalence.

    From the intervals of sensitivity and specificity, which rest on different patients: the limits of the ratio
    (1 - specificity) / sensitivity by the method of variance estimates recovery (Donner and Zou 2012, Stat Methods Med
    Res 21:347), put into Bayes' theorem. The prevalence is taken for known.

    Args:
        sensitivity, specificity: 0 to 1; None where not known.
        prevalence: share of people with the disease, above 0 and below 1.
        rates: the limits of both.
    """
    if sensitivity is None or specificity is None or rates.sensitivity is None or rates.specificity is None:
        return None, None
    false_alarm = 1 - rates.specificity[1], 1 - rates.specificity[0]
    missed = 1 - rates.sensitivity[1], 1 - rates.sensitivity[0]
    healthy = (1 - prevalence) / prevalence
    ppv = _ratio_limits(1 - specificity, false_alarm, sensitivity, rates.sensitivity)
    npv = _ratio_limits(1 - sensitivity, missed, specificity, rates.specificity)
    return (
        None if ppv is None else (1 / (1 + healthy * ppv[1]), 1 / (1 + healthy * ppv[0])),
        None if npv is None else (1 / (1 + npv[1] / healthy), 1 / (1 + npv[0] / healthy)),
    )


def net_benefit_limits(benefit: NetBenefit, prevalence: float, rates: Rates, specificity: float) -> Limits | None:
    """Return the confidence limits of the model's net benefit where the prevalence is that of these samples.

    Net benefit is a weighted difference of sensitivity and 1 - specificity, whose limits are put together by the method
    of variance estimates recovery (Zou and Donner 2008, Stat Med 27:1693).

    Args:
        benefit: at one threshold.
        prevalence: share of positives among these samples.
        rates: the limits of sensitivity and specificity at that threshold.
        specificity: there.
    """
    if benefit.model is None or rates.sensitivity is None or rates.specificity is None:
        return None
    odds = benefit.threshold / (1 - benefit.threshold)
    weight = (1 - prevalence) * odds
    sensitivity = (benefit.model + weight * (1 - specificity)) / prevalence
    below = prevalence * (sensitivity - rates.sensitivity[0]), weight * (specificity - rates.specificity[0])
    above = prevalence * (rates.sensitivity[1] - sensitivity), weight * (rates.specificity[1] - specificity)
    return benefit.model - float(np.hypot(*below)), benefit.model + float(np.hypot(*above))


def decision_band(
    labels: np.ndarray, p: np.ndarray, clusters: np.ndarray, thresholds: Sequence[float] | np.ndarray, level: float
) -> tuple[np.ndarray, np.ndarray] | None:
    """Return (T,) lower and (T,) upper limits of the model's net benefit, at each threshold by itself.

    Those of :func:`net_benefit_limits`, from the default intervals of sensitivity and specificity.

    Args:
        labels, p: as for :func:`decision_curve`.
        clusters: (N,) codes; images of one patient share one.
        thresholds: (T,) from 0 to 1; at 1 there are no limits, and NaN.
        level: of the limits.

    Returns:
        None where a class has fewer than three clusters.
    """
    known = Clusters((labels == 1).astype(int), clusters)
    if min(sizes.clusters for sizes in known.of_class) < MIN_CLUSTERS:
        return None
    positive = known.labels == 1
    found = []
    for benefit in decision_curve(labels, p, thresholds):
        predicted = (p >= benefit.threshold).astype(int)
        sensitivity = rate(predicted[positive], known.codes[positive], level)
        specificity = rate(1 - predicted[~positive], known.codes[~positive], level)
        limits = Rates(sensitivity.limits(level), specificity.limits(level))
        found.append(net_benefit_limits(benefit, float(positive.mean()), limits, specificity.value) or (np.nan, np.nan))
    low, high = np.array(found).T
    return low, high


def _ratio_limits(a: float, of_a: Limits, b: float, of_b: Limits) -> Limits | None:
    """Return the limits of a / b, both from 0 to 1; the upper one may be infinite. None where both are 0."""
    if a == b == 0:
        return None
    if b == 0:
        inverse = _ratio_limits(b, of_b, a, of_a)
        assert inverse is not None
        low, high = inverse
        return (1 / high if high > 0 else np.inf), (1 / low if low > 0 else np.inf)
    product = a * b
    # l (2 a - l), and so on: none of them is above the square of the estimate.
    low_a, high_a = of_a[0] * (2 * a - of_a[0]), of_a[1] * (2 * a - of_a[1])
    low_b, high_b = of_b[0] * (2 * b - of_b[0]), of_b[1] * (2 * b - of_b[1])
    low = low_a / (product + np.sqrt(max(0.0, product**2 - low_a * high_b))) if low_a > 0 else 0.0
    high = (product + np.sqrt(max(0.0, product**2 - high_a * low_b))) / low_b if low_b > 0 else np.inf
    return float(low), float(high)


def _net_benefit(positive: np.ndarray, p: np.ndarray, threshold: float) -> NetBenefit:
    assert len(positive) == len(p) > 0
    assert 0 <= threshold <= 1, threshold
    if threshold == 1:
        return NetBenefit(threshold, None, None, None)
    odds = threshold / (1 - threshold)
    predicted = p >= threshold
    model = float(np.mean(predicted & positive) - np.mean(predicted & ~positive) * odds)
    treat_all = float(positive.mean() - (1 - positive.mean()) * odds)
    return NetBenefit(threshold, model, treat_all, 0.0)


def _share(right: float, wrong: float) -> float | None:
    return right / (right + wrong) if right + wrong > 0 else None
