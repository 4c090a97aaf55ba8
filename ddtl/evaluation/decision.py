"""What calling an image positive is worth: net benefit, and predictive values at a stated prevalence."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class NetBenefit:
    """True positives per sample, less the false positives at what they are worth; None at a threshold of 1.

    Attributes:
        threshold: the probability from which a sample is called positive, and from which its reader would act.
        model: of acting on the model.
        treat_all, treat_none: of acting on everyone, and on nobody.
    """

    threshold: float
    model: float | None
    treat_all: float | None
    treat_none: float | None


def decision_curve(labels: np.ndarray, p: np.ndarray, thresholds: Iterable[float]) -> list[NetBenefit]:
    """Net benefit TP / N - FP / N * t / (1 - t) at each threshold t (Vickers & Elkin 2006, Med Decis Making 26:565).

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
    """Positive and negative predictive value where this share of people has the disease, by Bayes' theorem.

    Returns:
        Each from 0 to 1; None where nobody would be called that, or sensitivity or specificity is not known.
    """
    if sensitivity is None or specificity is None:
        return None, None
    tp, fn = sensitivity * prevalence, (1 - sensitivity) * prevalence
    tn, fp = specificity * (1 - prevalence), (1 - specificity) * (1 - prevalence)
    return _share(tp, fp), _share(tn, fn)


def _net_benefit(positive: np.ndarray, p: np.ndarray, threshold: float) -> NetBenefit:
    assert len(positive) == len(p) > 0
    assert 0 <= threshold <= 1, threshold
    if threshold == 1:
        return NetBenefit(threshold, None, None, None)
    odds = threshold / (1 - threshold)
    called = p >= threshold
    model = float(np.mean(called & positive) - np.mean(called & ~positive) * odds)
    treat_all = float(positive.mean() - (1 - positive.mean()) * odds)
    return NetBenefit(threshold, model, treat_all, 0.0)


def _share(right: float, wrong: float) -> float | None:
    return right / (right + wrong) if right + wrong > 0 else None
