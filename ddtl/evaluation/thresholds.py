"""The probability from which an image is called positive, chosen on the validation images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from ddtl.errors import UserError

Rule = Literal["youden", "sensitivity", "specificity"]

_EQUAL = 1e-12  # a target of 0.9 is reached by 9 of 10


@dataclass(frozen=True)
class Threshold:
    """An operating point.

    Attributes:
        value: a sample is called positive where its probability is at least this; above 0 and below 1.
        reached: ``sensitivity`` and ``specificity`` on the validation images.
        note: one sentence that a reader must know; None where all is well.
    """

    value: float
    reached: dict[str, float]
    note: str | None = None


@dataclass(frozen=True)
class _Cuts:
    """Every way to call some samples positive by their probability, from everyone to nobody.

    Attributes:
        value: (C,) ascending; half-way between two neighbouring probabilities, so that rounding changes no call.
        gap: (C,) how far apart the two are.
        tp, tn: (C,) true positives and true negatives.
        positives, negatives: how many samples there are.
    """

    value: np.ndarray
    gap: np.ndarray
    tp: np.ndarray
    tn: np.ndarray
    positives: int
    negatives: int


def choose(labels: np.ndarray, p: np.ndarray, rule: Rule, target: float | None = None) -> Threshold:
    """The threshold that fits the rule on these samples.

    Args:
        labels: (N,) 0 or 1, 1 being the positive class, of the validation images.
        p: (N,) probability of the positive class.
        rule: ``youden``: sensitivity + specificity - 1 is highest (Youden 1950, Cancer 3:32); of several, the one in
            the widest gap between probabilities, then the one nearest to 0.5, then the lower. ``sensitivity``: the
            highest threshold at which the sensitivity is at least ``target``. ``specificity``: the lowest at which the
            specificity is.
        target: above 0, at most 1; not for ``youden``.

    Raises:
        UserError: the samples are of one class, or a probability is not a number.
    """
    _check(labels, p, rule)
    cuts = _cuts(labels, p)
    if rule == "youden":
        at = _youden(cuts)
    else:
        assert target is not None, "checked with the configuration"
        at = _reaching(cuts, rule, target)
    reached = {"sensitivity": float(cuts.tp[at] / cuts.positives), "specificity": float(cuts.tn[at] / cuts.negatives)}
    return Threshold(float(cuts.value[at]), reached, _note(reached, rule, target))


def _cuts(labels: np.ndarray, p: np.ndarray) -> _Cuts:
    distinct, of_sample = np.unique(p, return_inverse=True)
    positives = np.bincount(of_sample, labels == 1).astype(int)
    negatives = np.bincount(of_sample, labels != 1).astype(int)
    low, high = np.append(0.0, distinct), np.append(distinct, 1.0)
    middle = (low + high) / 2
    value = np.where(middle > low, middle, high)  # where no number lies between two
    inside = (value > low) & (value < 1)  # not so beside a probability of exactly 0 or 1
    tp = positives.sum() - np.append(0, positives.cumsum())
    tn = np.append(0, negatives.cumsum())
    total = int(positives.sum()), int(negatives.sum())
    return _Cuts(value[inside], (high - low)[inside], tp[inside], tn[inside], *total)


def _youden(cuts: _Cuts) -> int:
    index = cuts.tp * cuts.negatives + cuts.tn * cuts.positives  # whole numbers: ties are exact
    best = np.flatnonzero(index == index.max())
    return int(min(best, key=lambda i: (-cuts.gap[i], abs(cuts.value[i] - 0.5))))


def _reaching(cuts: _Cuts, rule: Rule, target: float) -> int:
    """Of the cuts that reach the target the one that costs least; the nearest to it where none does."""
    if rule == "sensitivity":
        enough = np.flatnonzero(cuts.tp / cuts.positives >= target - _EQUAL)
        return int(enough[-1]) if len(enough) else 0
    enough = np.flatnonzero(cuts.tn / cuts.negatives >= target - _EQUAL)
    return int(enough[0]) if len(enough) else len(cuts.value) - 1


def _note(reached: dict[str, float], rule: Rule, target: float | None) -> str | None:
    if target is not None and reached[rule] < target - _EQUAL:
        which = "positive ones a probability of 0" if rule == "sensitivity" else "negative ones a probability of 1"
        return (
            f"a {rule} of {target:g} is out of reach on the validation images, {reached[rule]:.3g} is not: "
            f"the model gives {which}"
        )
    if rule == "sensitivity" and reached["specificity"] == 0:
        return f"a sensitivity of {target:g} is reached only by calling every validation image positive"
    if rule == "specificity" and reached["sensitivity"] == 0:
        return f"a specificity of {target:g} is reached only by calling every validation image negative"
    if rule == "youden" and reached["sensitivity"] + reached["specificity"] <= 1:
        return "no threshold does better than chance on the validation images"
    return None


def _check(labels: np.ndarray, p: np.ndarray, rule: Rule) -> None:
    n = len(labels)
    positives = int((labels == 1).sum())
    if not 0 < positives < n:
        raise UserError(
            f"No threshold can be chosen for {rule}: of {n} validation images {positives} are positive, and it takes "
            "both classes. Set evaluation.threshold=0.5, or choose a split with both classes in validation."
        )
    wrong = int((~np.isfinite(p)).sum())
    if wrong:
        raise UserError(
            f"No threshold can be chosen for {rule}: the probabilities of {wrong} of {n} validation images are not "
            "numbers, so training has diverged. Lower optimizer.lr; evaluation.threshold=0.5 needs no choice."
        )
