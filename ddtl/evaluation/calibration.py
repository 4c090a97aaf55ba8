"""Are the probabilities right? Reliability, calibration error, and the corrections that validation images can teach."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np

from ddtl.evaluation.metrics import binary_scores, multiclass_scores

By = Literal["width", "mass"]

# Beyond these a temperature says that validation knows no best one, not that one was found.
LOWEST_TEMPERATURE, HIGHEST_TEMPERATURE = 0.05, 20.0


@dataclass(frozen=True)
class Bin:
    """The samples whose probability lies in ``(low, high]``, or on the lowest edge of all.

    Attributes:
        mean_p: their mean probability.
        share_positive: how many of them are positive (0 to 1).
        count: how many they are; never 0.
    """

    low: float
    high: float
    mean_p: float
    share_positive: float
    count: int


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
    """

    temperature: float | None
    platt: Platt | None
    notes: tuple[str, ...] = ()

    def record(self) -> dict[str, Any]:
        """As it stands in ``results.json``."""
        platt = None if self.platt is None else self.platt._asdict()
        return {"temperature": self.temperature, "platt": platt, "notes": list(self.notes)}


def reliability(labels: np.ndarray, p: np.ndarray, bins: int = 10, by: By = "width") -> list[Bin]:
    """The reliability diagram: mean probability against the share of positives.

    Args:
        labels: (N,) 0 or 1, 1 being the positive class.
        p: (N,) probability of the positive class.
        bins: into how many parts the probabilities are cut.
        by: ``width``: parts of equal width from 0 to 1; ``mass``: between quantiles, so that each part holds about as
            many samples as any other (equal probabilities are never torn apart).

    Returns:
        The bins that hold a sample, from low to high; none where there is no sample or a probability is not a number.
    """
    if not len(p) or not np.isfinite(p).all():
        return []
    shares = np.linspace(0, 1, bins + 1)
    edges = shares if by == "width" else np.percentile(p, 100 * shares)
    where = np.searchsorted(edges[1:-1], p)
    n, p_of, positives_of = (np.bincount(where, weights, bins) for weights in (None, p, labels))
    return [
        Bin(float(edges[i]), float(edges[i + 1]), float(p_of[i] / n[i]), float(positives_of[i] / n[i]), int(n[i]))
        for i in np.flatnonzero(n)
    ]


def ece(labels: np.ndarray, p: np.ndarray, bins: int = 15, by: By = "width") -> float | None:
    """Expected calibration error: how far, on average over the samples, a bin's probability is from what happened.

    Naeini, Cooper & Hauskrecht 2015 (AAAI). The probability of the positive class is held against the share of
    positives, over the whole range from 0 to 1. Libraries that hold the confidence in the called class against the
    accuracy give another number; for that, and for more than two classes, pass what :func:`top_label` returns.

    Returns:
        0 to 1; None where there is no sample or a probability is not a number.
    """
    parts = reliability(labels, p, bins, by)
    return sum(part.count * abs(part.mean_p - part.share_positive) for part in parts) / len(p) if parts else None


def top_label(labels: np.ndarray, probabilities: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Whether the likeliest class is the true one, and how probable it was said to be (Guo et al. 2017, ICML).

    Args:
        labels: (N,) class of each sample, 0 to K - 1.
        probabilities: (N, K).

    Returns:
        (N,) 0 or 1, and (N,) probabilities: to be passed to :func:`reliability` or :func:`ece`.
    """
    return (probabilities.argmax(axis=1) == labels).astype(int), probabilities.max(axis=1)


def fit(labels: np.ndarray, logits: np.ndarray) -> Calibration:
    """The corrections that the validation images teach, as far as they can, and why not where they cannot.

    Args:
        labels: (N,) class of each validation image, 0 to K - 1.
        logits: (N, K).
    """
    missing = _why_not(labels, logits)
    if missing is not None:
        return Calibration(None, None, (missing,))
    temperature = fit_temperature(labels, logits)
    platt = fit_platt(labels, logits[:, 1] - logits[:, 0]) if logits.shape[1] == 2 else None
    known = None if temperature == LOWEST_TEMPERATURE else temperature
    return Calibration(known, platt, _notes(temperature, platt))


def fit_temperature(labels: np.ndarray, logits: np.ndarray) -> float:
    """The temperature at which the likelihood of the labels is highest (Guo et al. 2017, ICML).

    Args:
        labels: (N,) 0 to K - 1; at least two classes are there.
        logits: (N, K), finite.

    Returns:
        From ``LOWEST_TEMPERATURE`` to ``HIGHEST_TEMPERATURE``. Where every sample is called right, ever lower
        temperatures are ever likelier and the lowest is returned; where the logits say nothing, the highest.
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
    """(N, K) probabilities: the softmax of the logits divided by the temperature. No sample changes its class."""
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


def apply_platt(difference: np.ndarray, platt: Platt) -> np.ndarray:
    """(N,) probabilities of the positive class from the positive logit less the negative one."""
    from scipy import special

    p: np.ndarray = special.expit(platt.slope * difference + platt.intercept)
    return p


def summary(
    labels: np.ndarray, logits: np.ndarray, temperature: float | None, platt: Platt | None
) -> dict[str, Any] | None:
    """How well calibrated the probabilities are: as the network gives them, and corrected.

    Args:
        labels: (N,) 0 to K - 1.
        logits: (N, K).
        temperature, platt: fitted on validation; None where that was not possible.

    Returns:
        ``{"ece", "ece_mass", "brier", "temperature": {the same three} | None, "platt": … | None}``. With more than two
        classes the calibration error is that of the called class (:func:`top_label`). None where there is no sample
        or a logit is not a finite number.
    """
    if not len(labels) or not np.isfinite(logits).all():
        return None
    corrected: dict[str, Any] = {"temperature": None, "platt": None}
    if temperature is not None:
        corrected["temperature"] = _errors(labels, apply_temperature(logits, temperature))
    if platt is not None:
        p = apply_platt(logits[:, 1] - logits[:, 0], platt)
        corrected["platt"] = _errors(labels, np.column_stack([1 - p, p]))
    return {**_errors(labels, apply_temperature(logits, 1.0)), **corrected}


def _errors(labels: np.ndarray, probabilities: np.ndarray) -> dict[str, float | None]:
    if probabilities.shape[1] == 2:
        event, p = labels, probabilities[:, 1]
        brier = binary_scores(labels, p, 0.5)["brier"]
    else:
        event, p = top_label(labels, probabilities)
        brier = multiclass_scores(labels, probabilities)[0]["brier"]
    return {"ece": ece(event, p), "ece_mass": ece(event, p, by="mass"), "brier": brier}


def _why_not(labels: np.ndarray, logits: np.ndarray) -> str | None:
    """Why nothing can be fitted."""
    if not np.isfinite(logits).all():
        wrong = int((~np.isfinite(logits).all(axis=1)).sum())
        return f"no calibration is fitted: {wrong} of {len(logits)} validation images have logits that are no numbers"
    if len(np.unique(labels)) < 2:
        return f"no calibration is fitted: the {len(labels)} validation image(s) are not of two classes"
    return None


def _notes(temperature: float, platt: Platt | None) -> tuple[str, ...]:
    notes = []
    if temperature == LOWEST_TEMPERATURE:
        notes.append(
            f"no temperature is fitted: the lowest allowed, {temperature:g}, is the likeliest on validation, as where "
            "every image is called right or the logits are tiny, which says nothing about new images"
        )
    if temperature == HIGHEST_TEMPERATURE:
        notes.append(
            f"the logits are far too sure of the validation images or say nothing about them: the temperature is "
            f"{temperature:g}, the highest allowed"
        )
    if platt is not None and platt.slope <= 0:
        notes.append("on the validation images a higher logit is no more often positive: Platt scaling is of no use")
    return tuple(notes)
