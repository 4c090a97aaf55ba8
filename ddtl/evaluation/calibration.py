"""Are the probabilities right? Reliability, calibration error, and the corrections that validation images can teach."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, NamedTuple

import numpy as np

from ddtl.evaluation import miscalibration
from ddtl.evaluation.intervals.clusters import MIN_CLUSTERS, fewest_clusters
from ddtl.evaluation.intervals.proportions import proportion, wilson
from ddtl.evaluation.intervals.resampling import cluster_codes
from ddtl.evaluation.metrics import binary_scores, multiclass_scores
from ddtl.evaluation.miscalibration import Estimate, jackknife_spread

By = Literal["width", "mass"]

# Beyond these a temperature says that validation knows no best one, not that one was found.
LOWEST_TEMPERATURE, HIGHEST_TEMPERATURE = 0.05, 20.0

BINS = 15  # of the calibration error
FOLDS = 5  # of the patients, in which a correction is tried on others than it was fitted on


@dataclass(frozen=True)
class Bin:
    """The samples whose probability is in ``(low, high]``, or on the lowest edge of all.

    Attributes:
        mean_p: their mean probability.
        share_positive: how many of them are positive (0 to 1).
        count: how many they are; never 0.
        limits: Wilson interval of ``share_positive``; None where no clusters were given, or all samples are of one.
    """

    low: float
    high: float
    mean_p: float
    share_positive: float
    count: int
    limits: tuple[float, float] | None = None


class Platt(NamedTuple):
    """P(positive) = 1 / (1 + exp(-(slope * f + intercept))), f being the positive logit less the negative one."""

    slope: float
    intercept: float


@dataclass(frozen=True)
class Calibration:
    """What the validation images teach about the probabilities.

    Attributes:
        temperature: what the logits are divided by; None where it cannot be fitted.
        platt: None where it cannot be fitted, and with more than two classes.
        notes: why something is missing, or to be read with care: one sentence each.
        temperature_limits: confidence interval of the temperature over patients; None where there is none.
        cross_fitted: what each correction changes where it is fitted on some patients and tried on others; see
            :func:`cross_fit`. None where that is not possible.
    """

    temperature: float | None
    platt: Platt | None
    notes: tuple[str, ...] = ()
    temperature_limits: tuple[float, float] | None = None
    cross_fitted: Mapping[str, Any] | None = None

    def record(self) -> dict[str, Any]:
        """Return what ``results.json`` holds."""
        limits = self.temperature_limits
        return {
            "temperature": self.temperature,
            "temperature_interval": None if limits is None else {"low": limits[0], "high": limits[1]},
            "platt": None if self.platt is None else self.platt._asdict(),
            "cross_fitted": None if self.cross_fitted is None else dict(self.cross_fitted),
            "notes": list(self.notes),
        }


def reliability(
    labels: np.ndarray,
    p: np.ndarray,
    bins: int = 10,
    by: By = "width",
    *,
    clusters: np.ndarray | None = None,
    level: float = 0.95,
) -> list[Bin]:
    """Return the reliability diagram: mean probability against the share of positives.

    Args:
        labels: (N,) 0 or 1, 1 being the positive class.
        p: (N,) probability of the positive class.
        bins: into how many parts the probabilities are cut.
        by: ``width``: parts of equal width from 0 to 1; ``mass``: between quantiles, so that each part contains about
            as many samples as any other (equal probabilities are never torn apart).
        clusters: (N,) the patient or group of each sample, which the intervals of the shares need.
        level: of those intervals.

    Returns:
        The bins that contain a sample, from low to high; none where there is no sample or a probability is not a
        number.
    """
    if not len(p) or not np.isfinite(p).all():
        return []
    edges, where = _bin(p, bins, by)
    n, p_of, positives_of = (np.bincount(where, weights, bins) for weights in (None, p, labels))
    return [
        Bin(
            float(edges[i]),
            float(edges[i + 1]),
            float(p_of[i] / n[i]),
            float(positives_of[i] / n[i]),
            int(n[i]),
            None if clusters is None else _limits(labels, where == i, clusters, level),
        )
        for i in np.flatnonzero(n)
    ]


def _limits(labels: np.ndarray, members: np.ndarray, clusters: np.ndarray, level: float) -> tuple[float, float] | None:
    found = proportion(labels, members, clusters)
    return wilson(found, level) if found.clusters > 1 else None


def _bin(p: np.ndarray, bins: int, by: By) -> tuple[np.ndarray, np.ndarray]:
    """(bins + 1,) edges, and (N,) the bin of each sample."""
    shares = np.linspace(0, 1, bins + 1)
    edges = shares if by == "width" else np.percentile(p, 100 * shares)
    return edges, np.searchsorted(edges[1:-1], p)


def ece(labels: np.ndarray, p: np.ndarray, bins: int = BINS, by: By = "width") -> float | None:
    """Return expected calibration error: how far, on average over the samples, a bin's probability is from what
    happened.

    Naeini, Cooper & Hauskrecht 2015 (AAAI). The probability of the positive class is compared with the share of
    positives, over the whole range from 0 to 1. Libraries that compare the confidence in the predicted class with the
    accuracy give another number; for that, and for more than two classes, pass what :func:`top_label` returns.

    Returns:
        0 to 1; None where there is no sample or a probability is not a number.
    """
    parts = reliability(labels, p, bins, by)
    return sum(part.count * abs(part.mean_p - part.share_positive) for part in parts) / len(p) if parts else None


def top_label(labels: np.ndarray, probabilities: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return whether the likeliest class is the true one, and how probable it was predicted to be (Guo et al. 2017,
    ICML).

    Args:
        labels: (N,) class of each sample, 0 to K - 1.
        probabilities: (N, K).

    Returns:
        (N,) 0 or 1, and (N,) probabilities: to be passed to :func:`reliability` or :func:`ece`.
    """
    return (probabilities.argmax(axis=1) == labels).astype(int), probabilities.max(axis=1)


def fit(labels: np.ndarray, logits: np.ndarray, clusters: np.ndarray | None = None, level: float = 0.95) -> Calibration:
    """Fit the corrections on the validation images as far as they allow it, and say why not where they do not.

    Args:
        labels: (N,) class of each validation image, 0 to K - 1.
        logits: (N, K).
        clusters: (N,) a code for each image; images of one patient share one. Without them the corrections alone are
            fitted, with neither interval nor cross-fitting.
        level: of the intervals.
    """
    missing = _why_not(labels, logits)
    if missing is not None:
        return Calibration(None, None, (missing,))
    temperature = fit_temperature(labels, logits)
    platt = fit_platt(labels, logits[:, 1] - logits[:, 0]) if logits.shape[1] == 2 else None
    known = None if temperature == LOWEST_TEMPERATURE else temperature
    notes = _notes(temperature, platt)
    if clusters is None:
        return Calibration(known, platt, notes)
    codes = cluster_codes(clusters)
    limits = temperature_limits(labels, logits, temperature, codes, level)
    tried = cross_fit(labels, logits, codes, level)
    return Calibration(known, platt, (*notes, *_unhelpful(tried, known, platt)), limits, tried)


def temperature_limits(
    labels: np.ndarray, logits: np.ndarray, temperature: float, clusters: np.ndarray, level: float
) -> tuple[float, float] | None:
    """Return the confidence interval of a fitted temperature, by the jackknife of whole clusters on the log scale.

    None where the temperature is at the end of what is allowed, fewer than three clusters of a class are there, or the
    interval is wider than what is allowed.
    """
    codes = cluster_codes(clusters)
    few = fewest_clusters(codes, labels) < MIN_CLUSTERS
    if few or not LOWEST_TEMPERATURE < temperature < HIGHEST_TEMPERATURE:
        return None
    p = apply_temperature(logits, temperature)
    mean = (p * logits).sum(axis=1)
    weight = (p * (logits - mean[:, None]) ** 2).sum(axis=1)
    residual = logits[np.arange(len(labels)), labels] - mean
    # Of 1 / T, in which the likelihood is concave; its relative error is that of T.
    spread = jackknife_spread(np.ones((len(labels), 1)), residual, weight, codes)
    if spread is None:
        return None
    half = spread.half_width(level) * temperature
    if half > np.log(HIGHEST_TEMPERATURE / LOWEST_TEMPERATURE):
        return None  # wider than all that is allowed
    return float(temperature * np.exp(-half)), float(temperature * np.exp(half))


def cross_fit(
    labels: np.ndarray, logits: np.ndarray, clusters: np.ndarray, level: float = 0.95
) -> dict[str, Any] | None:
    """Measure what each correction changes on patients that it was not fitted on.

    The patients are assigned to ``FOLDS`` parts, class by class, at random with a fixed seed; each part is corrected as
    the others say. The gain is the mean log-loss as predicted minus that after the correction: above 0 it helps.

    Args:
        labels: (N,) 0 to K - 1.
        logits: (N, K), finite.
        clusters: (N,) a code for each image.
        level: of the interval of the gain, which rests on the differences between clusters.

    Returns:
        ``{"folds", "clusters", "log_loss", "temperature": {"value", "low", "high"}, "platt": the same or None}``, the
        gain of each; None where a class has fewer than two clusters.
    """
    codes = cluster_codes(clusters)
    first = np.unique(codes, return_index=True)[1]
    of_cluster = labels[first]
    folds = min(FOLDS, *np.bincount(of_cluster, minlength=logits.shape[1])[np.unique(labels)].tolist())
    if folds < 2:
        return None
    random = np.random.default_rng(0)
    fold = np.empty(len(first), dtype=int)
    for label in np.unique(of_cluster):
        own = np.flatnonzero(of_cluster == label)
        fold[random.permutation(own)] = np.arange(len(own)) % folds
    before = _log_loss(labels, logits)
    binary = logits.shape[1] == 2
    after = {"temperature": before.copy()} | ({"platt": before.copy()} if binary else {})
    for part in range(folds):
        out = fold[codes] == part
        if len(np.unique(labels[~out])) < 2:
            return None
        t = fit_temperature(labels[~out], logits[~out])
        after["temperature"][out] = _log_loss(labels[out], logits[out] / t)
        if binary:
            difference = logits[:, 1] - logits[:, 0]
            corrected = _apply_line(difference[out], fit_platt(labels[~out], difference[~out]))
            after["platt"][out] = _log_loss(labels[out], corrected)
    gains = {name: _mean(before - loss, codes, level) for name, loss in after.items()}
    loss = float(before.mean())
    return {"folds": folds, "clusters": len(first), "log_loss": loss, "platt": None, **gains}


def _log_loss(labels: np.ndarray, logits: np.ndarray) -> np.ndarray:
    """Return (N,) minus the logarithm of the probability of the true class."""
    from scipy import special

    loss: np.ndarray = -special.log_softmax(logits, axis=1)[np.arange(len(labels)), labels]
    return loss


def _mean(values: np.ndarray, codes: np.ndarray, level: float) -> dict[str, float | None]:
    mean = float(values.mean())
    ones = np.ones(len(values))
    return asdict(Estimate.around(mean, jackknife_spread(ones[:, None], values - mean, ones, codes), level))


def fit_temperature(labels: np.ndarray, logits: np.ndarray) -> float:
    """Return the temperature at which the likelihood of the labels is highest (Guo et al. 2017, ICML).

    Args:
        labels: (N,) 0 to K - 1; at least two classes are there.
        logits: (N, K), finite.

    Returns:
        From ``LOWEST_TEMPERATURE`` to ``HIGHEST_TEMPERATURE``. Where every sample is predicted correctly, ever lower
        temperatures are ever likelier and the lowest is returned; where the logits give no information, the highest.
    """
    from scipy import optimize, special

    rows = np.arange(len(labels))
    others = logits.astype(float)
    others[rows, labels] = -np.inf
    # Searched for, this end could be missed: the likelihood of large logits is exactly 1 long before.
    if (logits[rows, labels] > others.max(axis=1)).all():
        return LOWEST_TEMPERATURE

    def loss(temperature: float) -> float:
        return float(-special.log_softmax(logits / temperature, axis=1)[rows, labels].mean())

    # As a function of 1 / T the loss is convex, so that there is one minimum between the bounds.
    found = optimize.minimize_scalar(
        lambda x: loss(np.exp(x)),
        bounds=(np.log(LOWEST_TEMPERATURE), np.log(HIGHEST_TEMPERATURE)),
        method="bounded",
        options={"xatol": 1e-6},
    )
    # No change where none is better; and the search comes near its bounds without reaching them.
    return min((1.0, float(np.exp(found.x)), LOWEST_TEMPERATURE, HIGHEST_TEMPERATURE), key=loss)


def apply_temperature(logits: np.ndarray, temperature: float) -> np.ndarray:
    """Return (N, K) probabilities: the softmax of the logits divided by the temperature. No sample changes its
    class.
    """
    from scipy import special

    probabilities: np.ndarray = special.softmax(logits / temperature, axis=1)
    return probabilities


def fit_platt(labels: np.ndarray, difference: np.ndarray) -> Platt:
    """Platt scaling: a logistic regression of the label on the logit.

    With Platt's own targets, (N+ + 1) / (N+ + 2) and 1 / (N- + 2) instead of 1 and 0 (Platt 1999, Advances in Large
    Margin Classifiers; Lin, Lin & Weng 2007, Machine Learning 68:267), so that it stays finite where the logit tells
    the classes apart without an error.

    Args:
        labels: (N,) 0 or 1; both are there.
        difference: (N,) positive logit less negative logit, finite.
    """
    from scipy import optimize, special

    positives = int(labels.sum())
    targets = np.where(labels == 1, (positives + 1) / (positives + 2), 1 / (len(labels) - positives + 2))
    centre, scale = difference.mean(), difference.std() or 1.0
    x = (difference - centre) / scale

    def loss(line: np.ndarray) -> tuple[float, np.ndarray]:
        z = line[0] * x + line[1]
        residual = special.expit(z) - targets
        return float(np.mean(np.logaddexp(0, z) - targets * z)), np.array([np.mean(residual * x), residual.mean()])

    slope, intercept = optimize.minimize(loss, np.zeros(2), jac=True, method="BFGS", options={"gtol": 1e-8}).x
    return Platt(float(slope / scale), float(intercept - slope * centre / scale))


def _apply_line(difference: np.ndarray, platt: Platt) -> np.ndarray:
    """Return (N, 2) logits of the probabilities after Platt scaling."""
    return np.column_stack([np.zeros(len(difference)), platt.slope * difference + platt.intercept])


def summary(
    labels: np.ndarray,
    logits: np.ndarray,
    temperature: float | None,
    platt: Platt | None,
    clusters: np.ndarray | None = None,
    level: float = 0.95,
) -> dict[str, Any] | None:
    """Measure how well calibrated the probabilities are: as the network gives them, and corrected.

    Args:
        labels: (N,) 0 to K - 1.
        logits: (N, K).
        temperature, platt: fitted on validation; None where that was not possible.
        clusters: (N,) a code for each image; images of one patient share one. Without them the errors alone are given.
        level: of the intervals.

    Returns:
        ``{"ece", "ece_mass", "brier", "temperature": {the same three} | None, "platt": … | None}``, each with
        ``floor``, ``debiased`` and ``line`` where there are clusters. With more than two classes the calibration error
        is that of the predicted class (:func:`top_label`). None where there is no sample or a logit is not a finite
        number.
    """
    if not len(labels) or not np.isfinite(logits).all():
        return None
    corrected: dict[str, Any] = {"temperature": None, "platt": None}
    if temperature is not None:
        corrected["temperature"] = _measure(labels, logits / temperature, clusters, level)
    if platt is not None:
        corrected["platt"] = _measure(labels, _apply_line(logits[:, 1] - logits[:, 0], platt), clusters, level)
    return {**_measure(labels, logits, clusters, level), **corrected}


def _measure(labels: np.ndarray, logits: np.ndarray, clusters: np.ndarray | None, level: float) -> dict[str, Any]:
    probabilities = apply_temperature(logits, 1.0)
    if probabilities.shape[1] == 2:
        event, p = labels, probabilities[:, 1]
        brier = binary_scores(labels, p, 0.5)["brier"]
        logit = logits[:, 1] - logits[:, 0]
    else:
        event, p = top_label(labels, probabilities)
        brier = multiclass_scores(labels, probabilities)[0]["brier"]
        logit = None
    errors = {"ece": ece(event, p), "ece_mass": ece(event, p, by="mass"), "brier": brier}
    if clusters is None:
        return errors
    width, mass = _bin(p, BINS, "width")[1], _bin(p, BINS, "mass")[1]
    floors = miscalibration.noise_floors(p, {"ece": width, "ece_mass": mass}, clusters)
    if logit is None:
        line = miscalibration.Line(None, None, why_not="intercept and slope are for two classes")
    else:
        line = miscalibration.recalibration_line(event, logit, clusters, level)
    return {
        **errors,
        "floor": floors,
        "debiased": miscalibration.debiased_error(event, p, width, clusters),
        "line": line.record(),
    }


def _why_not(labels: np.ndarray, logits: np.ndarray) -> str | None:
    """Return why nothing can be fitted."""
    if not np.isfinite(logits).all():
        wrong = int((~np.isfinite(logits).all(axis=1)).sum())
        return f"no calibration is fitted: {wrong} of {len(logits)} validation images have logits that are not numbers"
    if len(np.unique(labels)) < 2:
        return f"no calibration is fitted: the {len(labels)} validation image(s) are not of two classes"
    return None


def _notes(temperature: float, platt: Platt | None) -> tuple[str, ...]:
    notes = []
    if temperature == LOWEST_TEMPERATURE:
        notes.append(
            f"no temperature is fitted: the lowest allowed, {temperature:g}, is the likeliest on validation, as where "
            "every image is predicted correctly or the logits are tiny, which gives no information about new images"
        )
    if temperature == HIGHEST_TEMPERATURE:
        notes.append(
            "the logits are far too sure of the validation images or give no information about them: "
            f"the temperature is {temperature:g}, the highest allowed"
        )
    if platt is not None and platt.slope <= 0:
        notes.append("on the validation images a higher logit is no more often positive: Platt scaling is of no use")
    return tuple(notes)


def _unhelpful(tried: Mapping[str, Any] | None, temperature: float | None, platt: Platt | None) -> tuple[str, ...]:
    """Return a sentence for each fitted correction that does not help on validation, or is not shown to."""
    notes = []
    for key, name, fitted in (("temperature", "temperature scaling", temperature), ("platt", "Platt scaling", platt)):
        gain = None if tried is None or fitted is None else tried[key]
        if tried is None or gain is None or (gain["low"] is not None and gain["low"] > 0):
            continue
        # A gain below 0 alone gives little information: where the truth is a slope of 0.5, it is seen in 23 % of 60
        # patients.
        harms = gain["high"] is not None and gain["high"] < 0
        says = "did not help on validation" if harms else "is not shown to help on validation"
        limits = "" if gain["low"] is None else f", interval {gain['low']:.4f} to {gain['high']:.4f}"
        notes.append(
            f"{name} {says}: fitted on other patients or groups it changes the log-loss from {tried['log_loss']:.4f} "
            f"to {tried['log_loss'] - gain['value']:.4f} (gain {gain['value'] + 0.0:.4f}{limits})"
        )
    return tuple(notes)
