"""The probability from which a sample is predicted positive, chosen on validation; what it gives for other patients."""

from __future__ import annotations

import math
from bisect import bisect_left
from dataclasses import asdict, dataclass
from functools import cache
from typing import Any, Literal

import numpy as np

from ddtl.evaluation.intervals.clusters import MIN_CLUSTERS, fewest_clusters
from ddtl.evaluation.intervals.proportions import proportion, wilson
from ddtl.evaluation.intervals.resampling import cluster_codes, cluster_weights
from ddtl.schema.scores import GUARANTEED
from ddtl.utils.errors import UserError

Rule = Literal["youden", "sensitivity", "specificity", "sensitivity_guaranteed", "specificity_guaranteed"]

DRAWS = 400  # of the patients, to see what the rule gives for others
_EQUAL = 1e-12  # a target of 0.9 is reached by 9 of 10


@dataclass(frozen=True)
class Threshold:
    """An operating point.

    Attributes:
        value: a sample is predicted positive where its probability is at least this; above 0 and below 1.
        reached: ``sensitivity`` and ``specificity`` on the validation images or patients.
        note: one sentence that a reader must know; None where all is well.
    """

    value: float
    reached: dict[str, float]
    note: str | None = None


@dataclass(frozen=True)
class ExpectedRate:
    """What is expected of a rate, and the limits that it is within at the level of the intervals."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class Expected:
    """What a chosen threshold gives for other patients.

    Attributes:
        sensitivity, specificity: less optimistic than on the patients that chose it.
        kept: how probable it is that the target is reached for other patients; None without a target.
    """

    sensitivity: ExpectedRate
    specificity: ExpectedRate
    kept: float | None

    def record(self) -> dict[str, Any]:
        """Return what ``results.json`` holds."""
        return asdict(self)


@dataclass(frozen=True)
class _Cuts:
    """Every rule that predicts some samples positive by their probability, from everyone to nobody.

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


def choose(
    labels: np.ndarray,
    p: np.ndarray,
    rule: Rule,
    target: float | None = None,
    *,
    level: float = 0.95,
    unit: Literal["image", "patient"] = "image",
) -> Threshold:
    """Return the threshold that fits the rule on these samples.

    Args:
        labels: (N,) 0 or 1, 1 being the positive class, of the validation images or patients.
        p: (N,) probability of the positive class.
        rule: ``youden``: sensitivity + specificity - 1 is highest (Youden 1950, Cancer 3:32); of several, the one in
            the widest gap between probabilities, then the one nearest to 0.5, then the lower. ``sensitivity``: the
            highest threshold at which the sensitivity is at least ``target``. ``specificity``: the lowest at which the
            specificity is. ``sensitivity_guaranteed``: the highest at which the lower limit of the sensitivity is;
            ``specificity_guaranteed`` likewise; see :func:`lower_limit`.
        target: above 0, at most 1; not for ``youden``.
        level: of the limit of the guaranteed rules.
        unit: what the samples are, for messages.

    Raises:
        UserError: the samples are of one class, or a probability is not a number, or too few for a guarantee.
    """
    check_classes(labels, rule, unit)
    wrong = int((~np.isfinite(p)).sum())
    if wrong:
        raise UserError(
            f"No threshold can be chosen for {rule}: the probabilities of {wrong} of {len(p)} validation {unit}s are "
            "not numbers, so training has diverged. Lower optimizer.lr; evaluation.threshold=0.5 needs no choice."
        )
    cuts = _cuts(labels, p)
    at = _pick(cuts, rule, target, level)
    if at is None:
        assert target is not None
        raise UserError(_no_guarantee(cuts, rule, target, level, unit))
    reached = {"sensitivity": float(cuts.tp[at] / cuts.positives), "specificity": float(cuts.tn[at] / cuts.negatives)}
    return Threshold(float(cuts.value[at]), reached, _note(reached, rule, target, unit))


def expected(
    labels: np.ndarray, p: np.ndarray, clusters: np.ndarray, rule: Rule, target: float | None, level: float
) -> Expected | None:
    """Return what the rule's threshold gives for other patients than those that chose it.

    The whole choice is repeated on bootstrap samples of the patients, drawn class by class. How much better a sample's
    threshold does on the sample than on all the patients is its optimism, and is taken from what the real threshold
    reaches (Efron 1983, JASA 78:316; Harrell, Lee and Mark 1996, Stat Med 15:361). Where every sample is a patient of
    its own, the rate that the rule aims at needs no simulation: it has a beta distribution (Wilks 1941, Ann Math Stat
    12:91), of which the lower limit of the guaranteed rules is a quantile.

    Args:
        labels, p, rule, target: as in :func:`choose`, which accepts them.
        clusters: (N,) a code for each sample; images of one patient share one.
        level: of the limits.

    Returns:
        None where a class has fewer than three clusters.
    """
    codes = cluster_codes(clusters)
    if fewest_clusters(codes, labels) < MIN_CLUSTERS:
        return None
    order = np.argsort(p, kind="stable")
    labels, p, codes = labels[order], p[order], codes[order]
    positive, negative = p[labels == 1], p[labels == 0]

    def rates(value: float) -> np.ndarray:
        """Return sensitivity and specificity on all samples."""
        missed, right = np.searchsorted(positive, value), np.searchsorted(negative, value)
        return np.array([1 - missed / len(positive), right / len(negative)])

    optimism = []
    for weights in cluster_weights(codes, DRAWS, 0, labels):
        rows = np.repeat(np.arange(len(p)), weights)
        drawn = _cuts(labels[rows], p[rows])
        if not drawn.positives or not drawn.negatives:
            continue  # so only where clusters have images of both classes
        at = _pick(drawn, rule, target, level)
        if at is not None:
            own = np.array([drawn.tp[at] / drawn.positives, drawn.tn[at] / drawn.negatives])
            optimism.append(own - rates(float(drawn.value[at])))
    whole = _cuts(labels, p)
    at = _pick(whole, rule, target, level)
    if at is None or not optimism:
        return None
    value = float(whole.value[at])
    likely = rates(value) - np.array(optimism)  # (draws, 2)
    low, high = np.quantile(likely, [(1 - level) / 2, (1 + level) / 2], axis=0)
    # The draws of few patients vary too little: no less than the rates at a threshold that was given.
    predicted = (p >= value).astype(int)
    shares = proportion(predicted, labels, codes), proportion(1 - predicted, 1 - labels, codes)
    given = np.array([wilson(share, level) for share in shares]).T - np.mean(optimism, axis=0)
    mean = np.clip(likely.mean(axis=0), 0, 1)
    low, high = np.clip(np.minimum(low, given[0]), 0, mean), np.clip(np.maximum(high, given[1]), mean, 1)
    found = [ExpectedRate(*map(float, row)) for row in zip(mean, low, high, strict=True)]
    kept = None
    if target is not None:
        aimed = 0 if rule.startswith("sensitivity") else 1
        kept = float(np.mean(likely[:, aimed] >= target - _EQUAL))
        if len(np.unique(codes)) == len(codes):
            hits, n = (whole.tp[at], whole.positives) if aimed == 0 else (whole.tn[at], whole.negatives)
            found[aimed], kept = _beta(int(hits), n, target, level)
    return Expected(found[0], found[1], kept)


def _beta(hits: int, n: int, target: float, level: float) -> tuple[ExpectedRate, float]:
    """Return what a rate is for other patients where the threshold is at the patient that is the last of ``hits`` of
    n.
    """
    from scipy.special import betainc, betaincinv

    a, b = hits, n - hits + 1
    if a == 0:
        return ExpectedRate(0.0, 0.0, 0.0), 0.0
    low, high = (float(betaincinv(a, b, share)) for share in ((1 - level) / 2, (1 + level) / 2))
    return ExpectedRate(a / (a + b), low, high), float(1 - betainc(a, b, min(target, 1.0)))


def lower_limit(hits: int, n: int, level: float) -> float:
    """Return the one-sided lower confidence limit of a share (Clopper and Pearson 1934, Biometrika 26:404).

    It holds for a threshold that the same patients chose, as long as the number of hits was settled by n alone: the
    share of other patients above the patient with the k-th highest probability of n has a beta distribution, whatever
    the probabilities are (Wilks 1941, Ann Math Stat 12:91), and the limit is its quantile.
    """
    from scipy.special import betaincinv

    return float(betaincinv(hits, n - hits + 1, 1 - level)) if hits else 0.0


def patients_needed(target: float, level: float) -> int:
    """Return the fewest patients whose lower limit reaches the target, all of them being predicted correctly."""
    n = max(1, math.ceil(math.log(1 - level) / math.log(target)) - 1)
    while lower_limit(n, n, level) < target - _EQUAL:
        n += 1
    return n


def check_classes(labels: np.ndarray, rule: str, unit: str) -> None:
    """Refuse to choose a threshold on samples of one class.

    Raises:
        UserError: so they are.
    """
    n, positives = len(labels), int((labels == 1).sum())
    if not 0 < positives < n:
        raise UserError(
            f"No threshold can be chosen for {rule}: of {n} validation {unit}s {positives} are positive, and it takes "
            "both classes. Set evaluation.threshold=0.5, or choose a split with both classes in validation."
        )


def check_patients(counts: dict[str, int], rule: Rule, target: float, level: float, unit: str = "patient") -> None:
    """Refuse a guaranteed rule that these many validation patients cannot meet, whatever the network does.

    Args:
        counts: positive and negative ones, by ``positive`` and ``negative``.
        rule, target, level: as in :func:`choose`.
        unit: what is counted.

    Raises:
        UserError: there are too few.
    """
    name, which = _aim(rule)
    needed = patients_needed(target, level)
    if counts[which] < needed:
        raise UserError(
            f"evaluation.threshold={rule}: a {name} of {target:g} with a lower {100 * level:g} % limit takes {needed} "
            f"{which} validation {unit}s or more, and there are {counts[which]}. "
            f"{_alternatives(name, counts[which], level)}"
        )


def _alternatives(name: str, n: int, level: float) -> str:
    best = math.floor(1000 * lower_limit(n, n, level)) / 1000
    lower = f"Set evaluation.target={best:g} or lower, or " if best >= 0.5 else "Set "
    return f"{lower}evaluation.threshold={name}, which promises nothing for other patients."


def _aim(rule: Rule) -> tuple[str, str]:
    """Return the rate that a rule aims at, and the class that it is about."""
    return ("sensitivity", "positive") if rule.startswith("sensitivity") else ("specificity", "negative")


def _cuts(labels: np.ndarray, p: np.ndarray) -> _Cuts:
    distinct, of_sample = np.unique(p, return_inverse=True)
    positives = np.bincount(of_sample, labels == 1).astype(int)
    negatives = np.bincount(of_sample, labels != 1).astype(int)
    low, high = np.append(0.0, distinct), np.append(distinct, 1.0)
    middle = (low + high) / 2
    value = np.where(middle > low, middle, high)  # where no number lies between two
    inside = (value > low) & (value < 1)  # not next to a probability of exactly 0 or 1
    tp = positives.sum() - np.append(0, positives.cumsum())
    tn = np.append(0, negatives.cumsum())
    total = int(positives.sum()), int(negatives.sum())
    return _Cuts(value[inside], (high - low)[inside], tp[inside], tn[inside], *total)


def _youden(cuts: _Cuts) -> int:
    index = cuts.tp * cuts.negatives + cuts.tn * cuts.positives  # whole numbers: ties are exact
    best = np.flatnonzero(index == index.max())
    return int(min(best, key=lambda i: (-cuts.gap[i], abs(cuts.value[i] - 0.5))))


def _pick(cuts: _Cuts, rule: Rule, target: float | None, level: float) -> int | None:
    """Return the cut that the rule chooses; None where a guaranteed rule finds none."""
    if rule == "youden":
        return _youden(cuts)
    assert target is not None, "checked with the configuration"
    if rule == "sensitivity_guaranteed":
        hits, n, last = cuts.tp, cuts.positives, -1
    elif rule == "specificity_guaranteed":
        hits, n, last = cuts.tn, cuts.negatives, 0
    else:
        return _reaching(cuts, rule, target)
    enough = np.flatnonzero(hits >= _hits_needed(n, target, level))
    return int(enough[last]) if len(enough) else None


@cache
def _hits_needed(n: int, target: float, level: float) -> int:
    """Return the fewest hits of n whose lower limit reaches the target; n + 1 where all of them do not."""
    return bisect_left(range(n + 1), True, key=lambda hits: lower_limit(hits, n, level) >= target - _EQUAL)


def _reaching(cuts: _Cuts, rule: Rule, target: float) -> int:
    """Of the cuts that reach the target the one that costs least; the nearest to it where none does."""
    if rule == "sensitivity":
        enough = np.flatnonzero(cuts.tp / cuts.positives >= target - _EQUAL)
        return int(enough[-1]) if len(enough) else 0
    enough = np.flatnonzero(cuts.tn / cuts.negatives >= target - _EQUAL)
    return int(enough[0]) if len(enough) else len(cuts.value) - 1


def _note(reached: dict[str, float], rule: Rule, target: float | None, unit: str) -> str | None:
    if rule == "youden":
        if reached["sensitivity"] + reached["specificity"] <= 1:
            return f"no threshold does better than chance on the validation {unit}s"
        return None
    name, which = _aim(rule)
    if rule not in GUARANTEED and target is not None and reached[name] < target - _EQUAL:
        value = "0" if which == "positive" else "1"
        return (
            f"a {name} of {target:g} is out of reach on the validation {unit}s, {reached[name]:.3g} is not: "
            f"the model gives {which} ones a probability of {value}"
        )
    if reached["specificity" if name == "sensitivity" else "sensitivity"] == 0:
        return f"a {name} of {target:g} is reached only by calling every validation {unit} {which}"
    return None


def _no_guarantee(cuts: _Cuts, rule: Rule, target: float, level: float, unit: str) -> str:
    """Return why no cut has the limit: too few patients, or probabilities of exactly 0 or 1."""
    check_patients({"positive": cuts.positives, "negative": cuts.negatives}, rule, target, level, unit)
    name, which = _aim(rule)
    value = "0" if which == "positive" else "1"
    return (
        f"evaluation.threshold={rule}: no threshold has a {name} of {target:g} by its lower limit, because the model "
        f"gives {which} validation {unit}s a probability of exactly {value}. Set evaluation.threshold=0.5."
    )
