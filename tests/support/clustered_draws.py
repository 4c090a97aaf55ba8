"""Test sets with a known truth: patients with several images each, and a network whose probabilities are calibrated."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import logit
from scipy.stats import norm


@dataclass(frozen=True)
class Draw:
    """Labels (N,), logits of the positive class (N,) and patients (N,) of one test set."""

    labels: np.ndarray
    logit: np.ndarray
    patient: np.ndarray


def draw(
    random: np.random.Generator,
    patients: int,
    images: int = 4,
    *,
    prevalence: float = 0.5,
    correlation: float = 0.5,
    auc: float = 0.9,
    slope: float = 1.0,
    fixed: bool = True,
) -> Draw:
    """Draw normal scores whose likelihood ratio gives each image its calibrated probability.

    Args:
        random: what draws.
        patients, images: of each.
        prevalence: share of positive patients; exact where ``fixed``, else each is drawn.
        correlation: of the images of one patient of a class.
        auc: of the images.
        slope: the recalibration slope that is the truth; 1 where the network is calibrated.
        fixed: whether the class counts are fixed.
    """
    chance = np.arange(patients) / patients if fixed else random.random(patients)
    label = (chance < prevalence).astype(int)
    patient = np.repeat(np.arange(patients), images)
    apart = norm.ppf(auc) * 2**0.5
    own, shared = random.normal(size=len(patient)), random.normal(size=patients)[patient]
    x = apart * (label[patient] - 0.5) + correlation**0.5 * shared + (1 - correlation) ** 0.5 * own
    return Draw(label[patient], (apart * x + logit(prevalence)) / slope, patient)


def rates(threshold: float, *, prevalence: float = 0.5, auc: float = 0.9) -> tuple[float, float]:
    """Return the true sensitivity and specificity of :func:`draw` at a threshold, with a slope of 1."""
    apart = norm.ppf(auc) * 2**0.5
    cut = (logit(threshold) - logit(prevalence)) / apart
    return float(norm.sf(cut - apart / 2)), float(norm.cdf(cut + apart / 2))
