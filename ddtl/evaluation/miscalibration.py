"""Whether probabilities are wrong by more than chance: intercept, slope, and the calibration error of a right network.

What the intervals cover and how often a calibrated network is predicted wrongly is measured: docs/calibration.md and
``benchmarks/calibration.py``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np

from ddtl.evaluation.intervals.clusters import MIN_CLUSTERS
from ddtl.evaluation.intervals.resampling import cluster_codes

DRAWS = 400  # of calibrated networks: the 95th percentile of their error is then known within about 4 %
_CELLS = 1 << 20  # of a block of drawn labels: 8 MB, whatever the number of images
_ITERATIONS = 50


class StandardError(NamedTuple):
    """Standard error of a parameter between clusters, and the degrees of freedom of Student's t."""

    error: float
    freedom: float

    def half_width(self, level: float) -> float:
        """Return half the width of the interval."""
        from scipy.special import stdtrit

        return float(stdtrit(self.freedom, (1 + level) / 2)) * self.error

    def p_value(self, distance: float) -> float:
        """Return how often chance alone leads to this distance or a larger one, to either side."""
        from scipy.special import stdtr

        return float(2 * stdtr(self.freedom, -abs(distance) / self.error))


@dataclass(frozen=True)
class Estimate:
    """A number with its confidence interval; the limits are None where too few patients give one."""

    value: float
    low: float | None = None
    high: float | None = None

    @classmethod
    def around(cls, value: float, spread: StandardError | None, level: float) -> Estimate:
        """Return the interval by Student's t."""
        if spread is None:
            return cls(value)
        half = spread.half_width(level)
        return cls(value, value - half, value + half)


@dataclass(frozen=True)
class Line:
    """How the logit must be moved and stretched to be right: by 0 and 1 where it is right as it is.

    Attributes:
        intercept: calibration in the large, the slope being held at 1; above 0 the probabilities are too low.
        slope: below 1 the probabilities are too extreme, above 1 not extreme enough.
        p_value: of intercept 0 and slope 1 together: twice the smaller of the two (Bonferroni).
        why_not: why one of them is missing.
    """

    intercept: Estimate | None
    slope: Estimate | None
    p_value: float | None = None
    why_not: str | None = None

    def record(self) -> dict[str, Any]:
        """Return what ``results.json`` holds."""
        return asdict(self)


def recalibration_line(labels: np.ndarray, logit: np.ndarray, clusters: np.ndarray, level: float = 0.95) -> Line:
    """Fit intercept and slope of a logistic recalibration, with intervals that keep the images of a patient together.

    Cox (1958, Biometrika 45:562); Van Calster et al. (2016, J Clin Epidemiol 74:167; 2019, BMC Medicine 17:230). The
    variance is that of the jackknife of whole clusters in one Newton step, which for a linear model is exact (CR3; Bell
    and McCaffrey 2002, Survey Methodology 28:169); Student's t has the effective number of clusters less one degrees of
    freedom (Carter, Schnepel and Steigerwald 2017, Rev Econ Stat 99:698), the images of one patient sharing a label.

    Args:
        labels: (N,) 0 or 1.
        logit: (N,) log odds of the probability of the positive class, finite.
        clusters: (N,) a code for each image; images of one patient share one.
        level: of the intervals.
    """
    positive = labels == 1
    if not 0 < positive.sum() < len(labels):
        return Line(None, None, why_not="intercept and slope need both classes")
    codes = cluster_codes(clusters)
    fewest = min(len(np.unique(codes[positive])), len(np.unique(codes[~positive])))
    scale = float(logit.std()) or 1.0
    moved = _fit(np.ones((len(labels), 1)), labels, logit)
    turned = None
    why_not = _why_no_slope(logit, positive)
    if why_not is None:
        turned = _fit(np.column_stack([np.ones(len(labels)), logit / scale]), labels, np.zeros(len(labels)))
    if moved is None or (turned is None and why_not is None):
        why_not = "the logits are too large for a finite intercept or slope to be found"
    spreads: list[StandardError | None] = [None, None]
    if fewest < MIN_CLUSTERS:
        why_not = why_not or f"intervals need {MIN_CLUSTERS} patients or groups of each class"
    else:
        spreads[0] = None if moved is None else _spread(moved, codes, labels, 0)
        if turned is not None and _rests_on_one(logit, positive, codes):
            why_not = "one patient or group alone keeps the classes from being divided: the slope has no interval"
        elif turned is not None:
            spreads[1] = _spread(turned, codes, labels, 1)
    intercept = None if moved is None else float(moved.parameters[0])
    slope = None if turned is None else float(turned.parameters[1]) / scale
    if spreads[1] is not None:
        spreads[1] = StandardError(spreads[1].error / scale, spreads[1].freedom)
    p_value = None
    if intercept is not None and slope is not None and spreads[0] is not None and spreads[1] is not None:
        p_value = min(1.0, 2 * min(spreads[0].p_value(intercept), spreads[1].p_value(slope - 1)))
    return Line(
        None if intercept is None else Estimate.around(intercept, spreads[0], level),
        None if slope is None else Estimate.around(slope, spreads[1], level),
        p_value,
        why_not,
    )


def noise_floors(
    p: np.ndarray, bins: Mapping[str, np.ndarray], clusters: np.ndarray, draws: int = DRAWS, seed: int = 0
) -> dict[str, dict[str, float]]:
    """Return the calibration error that a calibrated network of the same size and probabilities shows by chance.

    Labels are drawn from the probabilities, and the images of a patient share one draw: each is positive with its own
    probability, and images with equal probabilities are positive together, as a patient has one class. So many images
    of one patient count for little more than one (consistency resampling of Broecker and Smith 2007, Weather and
    Forecasting 22:651, by patient).

    Args:
        p: (N,) probability of the event.
        bins: by name, (N,) which bin each image is in, from 0.
        clusters: (N,) a code for each image.
        draws, seed: of the labels.

    Returns:
        ``mean`` and ``high``, the 95th percentile, by name.
    """
    codes = cluster_codes(clusters)
    patients = int(codes.max()) + 1
    members = {name: np.eye(int(of.max()) + 1, dtype=np.float32)[of] for name, of in bins.items()}
    random = np.random.default_rng(seed)
    p32 = p.astype(np.float32)
    size = max(1, _CELLS // len(p))
    errors: dict[str, list[np.ndarray]] = {name: [] for name in bins}
    for start in range(0, draws, size):
        shared = random.random((min(size, draws - start), patients), dtype=np.float32)
        residual = (shared[:, codes] < p32) - p32
        for name, member in members.items():
            errors[name].append(np.abs(residual @ member).sum(axis=1, dtype=float) / len(p))
    found = {name: np.concatenate(parts) for name, parts in errors.items()}
    return {
        name: {"mean": float(values.mean()), "high": float(np.quantile(values, 0.95))} for name, values in found.items()
    }


def debiased_error(event: np.ndarray, p: np.ndarray, bins: np.ndarray, clusters: np.ndarray) -> float:
    """Return the root-mean-square calibration error over bins without what chance adds to it.

    The square of a bin's error is estimated from the products of the errors of different patients, which chance alone
    leaves at 0 on average (for single images: Ferro and Fricker 2012, Q J R Meteorol Soc 138:1954; Kumar, Liang and Ma
    2019, NeurIPS). Where the estimate is negative it is 0. A bin with the images of one patient gives no information.

    Args:
        event: (N,) 0 or 1.
        p: (N,) its probability.
        bins: (N,) which bin each image is in, from 0.
        clusters: (N,) a code for each image.
    """
    codes = cluster_codes(clusters)
    patients, width = int(codes.max()) + 1, int(bins.max()) + 1
    cell = codes * width + bins
    error = np.bincount(cell, event - p, patients * width).reshape(patients, width)
    images = np.bincount(bins, minlength=width)
    here = (np.bincount(cell, minlength=patients * width).reshape(patients, width) > 0).sum(axis=0)
    known = here > 1
    apart = error.sum(axis=0) ** 2 - (error**2).sum(axis=0)
    square = (apart[known] * here[known] / (here[known] - 1) / images[known]).sum() / len(p)
    return float(np.sqrt(max(0.0, square)))


def patient_logits(difference: np.ndarray, patient: np.ndarray, aggregation: str) -> np.ndarray:
    """Return the (P,) logits of the patients' probabilities, by patient in ascending order; large ones stay finite.

    Args:
        difference: (N,) positive logit less negative logit.
        patient: (N,) of each image.
        aggregation: ``mean`` or ``max`` of the images' probabilities.
    """
    codes = cluster_codes(patient)
    n = int(codes.max()) + 1
    if aggregation == "max":
        highest = np.full(n, -np.inf)
        np.maximum.at(highest, codes, difference)
        return highest

    def log_sum(values: np.ndarray) -> np.ndarray:
        top = np.full(n, -np.inf)
        np.maximum.at(top, codes, values)
        total: np.ndarray = top + np.log(np.bincount(codes, np.exp(values - top[codes]), n))
        return total

    mean: np.ndarray = log_sum(-np.logaddexp(0, -difference)) - log_sum(-np.logaddexp(0, difference))
    return mean


@dataclass(frozen=True)
class _Fit:
    """A logistic regression: design (N, P), probabilities (N,) and parameters (P,)."""

    design: np.ndarray
    p: np.ndarray
    parameters: np.ndarray


def _fit(design: np.ndarray, labels: np.ndarray, offset: np.ndarray) -> _Fit | None:
    """Newton's method with halved steps; None where it does not end."""
    from scipy.special import expit

    theta = np.zeros(design.shape[1])

    def loss(theta: np.ndarray) -> float:
        z = design @ theta + offset
        return float(np.sum(np.logaddexp(0, z) - labels * z))

    now = loss(theta)
    for _ in range(_ITERATIONS):
        p = expit(design @ theta + offset)
        information = (design * (p * (1 - p))[:, None]).T @ design
        try:
            step = np.linalg.solve(information + 1e-12 * np.eye(len(theta)), design.T @ (labels - p))
        except np.linalg.LinAlgError:
            return None
        size = 1.0
        while size > 1e-6 and not loss(theta + size * step) <= now + 1e-12:
            size /= 2
        theta = theta + size * step
        now = loss(theta)
        if np.abs(size * step).max() < 1e-9:
            return _Fit(design, expit(design @ theta + offset), theta)
    return None


def _spread(fit: _Fit, codes: np.ndarray, labels: np.ndarray, at: int) -> StandardError | None:
    return jackknife_spread(fit.design, labels - fit.p, fit.p * (1 - fit.p), codes, at)


def jackknife_spread(
    design: np.ndarray, residual: np.ndarray, weight: np.ndarray, codes: np.ndarray, at: int = 0
) -> StandardError | None:
    """Return the standard error of a fitted parameter, by the jackknife of whole clusters in one Newton step.

    Args:
        design: (N, P).
        residual: (N,) so that design' residual is the score, 0 at the fitted parameters.
        weight: (N,) so that design' diag(weight) design is the information.
        codes: (N,) 0 to clusters - 1.
        at: which parameter.

    Returns:
        None where nothing varies, or one cluster carries all the information.
    """
    n, width = int(codes.max()) + 1, design.shape[1]
    score, inside = np.zeros((n, width)), np.zeros((n, width, width))
    np.add.at(score, codes, design * residual[:, None])
    np.add.at(inside, codes, design[:, :, None] * design[:, None, :] * weight[:, None, None])
    whole = inside.sum(axis=0)
    try:
        moved = np.linalg.solve(whole - inside, score[:, :, None])[:, at, 0]
        row = np.linalg.solve(whole, np.eye(width))[at]
    except np.linalg.LinAlgError:
        return None
    error = float(np.sqrt((n - 1) / n * (moved @ moved)))
    share = np.bincount(codes, np.sqrt(weight) * np.abs(design @ row), n) ** 2
    effective = float(share.sum() ** 2 / (share @ share))
    return StandardError(error, max(effective - 1, 1.0)) if np.isfinite(error) and error > 0 else None


def _why_no_slope(logit: np.ndarray, positive: np.ndarray) -> str | None:
    if np.ptp(logit) == 0:
        return "all probabilities are equal, so there is no slope"
    high, low = logit[positive], logit[~positive]
    if low.max() <= high.min() or high.max() <= low.min():
        return "one probability divides the classes without an error, so no slope is finite"
    return None


def _rests_on_one(logit: np.ndarray, positive: np.ndarray, codes: np.ndarray) -> bool:
    """Return whether one cluster alone keeps the classes from being divided without an error."""
    n = int(codes.max()) + 1

    def extremes(values: np.ndarray, of: np.ndarray) -> np.ndarray:
        """Return (N clusters,) the largest value without each cluster."""
        each = np.full(n, -np.inf)
        np.maximum.at(each, of, values)
        order = np.argsort(each)
        without = np.full(n, each[order[-1]])
        without[order[-1]] = each[order[-2]] if n > 1 else -np.inf
        return without

    def divided(sign: float) -> np.ndarray:
        above = extremes(-sign * logit[positive], codes[positive])
        below = extremes(sign * logit[~positive], codes[~positive])
        return below <= -above

    return bool((divided(1.0) | divided(-1.0)).any())
