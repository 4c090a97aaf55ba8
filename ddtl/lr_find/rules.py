"""A learning-rate range test: its ramp, when it has diverged, and the rate that its curve suggests. Pure; no torch.

While training, the rate rises exponentially from far too small to far too large (Smith 2017, "Cyclical learning rates
for training neural networks", WACV). The loss stays level, falls, and diverges; where it falls are the useful rates.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from dataclasses import dataclass
from typing import Literal

import numpy as np

LEAST_STEPS = 10
RULES = ("valley", "steep", "minimum / 10", "minimum / 3")  # the last one is suggested

_WIDTH = 0.04  # standard deviation of the window in which losses are averaged, as a share of the ramp
_LEAST_WIDTH = 3.0  # of that window, in steps
_MEMORY = 0.05  # of the running mean that is watched, as a share of the ramp
_END = 0.05  # share of the ramp that counts as one of its ends
_ONSET = 0.1  # share of the fall after which it counts as begun
_CERTAIN = 5.0  # standard errors by which a fall must stand out from the noise
_LEAST_FALL = 0.02  # share of the starting loss by which the loss must fall at least

Ended = Literal["", "diverged", "not finite"]


def ramp(lr_min: float, lr_max: float, steps: int) -> np.ndarray:
    """(steps,) rates from ``lr_min`` to ``lr_max``, each the same multiple of the one before."""
    return np.geomspace(lr_min, lr_max, steps)


class LossWatch:
    """Tells, loss by loss, when a ramp has diverged: the smoothed loss is over 4 times its best, and twice its first.

    Smoothed by the exponential mean over the steps so far, corrected for its start at 0 (Kingma & Ba 2015, ICLR). The
    second condition leaves alone a network that has hardly any loss to begin with.

    Args:
        steps: length of the ramp.
    """

    def __init__(self, steps: int) -> None:
        self._decay = math.exp(-1 / (_MEMORY * steps))
        self._sum = self._weight = 0.0
        self._first = self._best = math.inf

    def ended(self, loss: float) -> Ended:
        """Take in the next loss; why the ramp ends with it, or nothing."""
        if not math.isfinite(loss):
            return "not finite"
        self._sum = self._decay * self._sum + (1 - self._decay) * loss
        self._weight = self._decay * self._weight + 1 - self._decay
        smoothed = self._sum / self._weight
        self._first = min(self._first, smoothed) if math.isinf(self._first) else self._first
        self._best = min(self._best, smoothed)
        return "diverged" if smoothed > max(4 * self._best, 2 * self._first) else ""


@dataclass(frozen=True)
class Curve:
    """What a ramp measured.

    Attributes:
        rates: (n,) learning rates.
        losses: (n,) loss of the batch that was then trained on at that rate; all finite.
        ended: why it stopped before the end of the ramp; empty where it did not.
        untrained: (n,) loss of the same batches in the network as it was before; None where that is not known.
    """

    rates: np.ndarray
    losses: np.ndarray
    ended: Ended = ""
    untrained: np.ndarray | None = None


@dataclass(frozen=True)
class Suggestion:
    """What a curve suggests.

    Attributes:
        rate: by the last of the rules; None where the curve does not tell.
        rules: rate by rule, see :func:`suggest`; empty where the curve does not tell.
        smoothed: (n,) the losses without their noise.
        why_not: why there is no rate; empty where there is one.
        notes: what to know about the rate.
    """

    rate: float | None
    rules: dict[str, float]
    smoothed: np.ndarray
    why_not: str = ""
    notes: tuple[str, ...] = ()


def smooth(curve: Curve, steps: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the losses as they would be on batches of equal difficulty: their noise is mostly that of the batches.

    A mean under a Gaussian window, corrected where the window passes an end. Unlike a running mean over past steps it
    does not lag: on a ramp, a lag is a wrong rate. The loss that the untrained network has on the same batches serves
    as control variate (Lavenberg and Welch 1981, Management Science 27:322), with the coefficient that regression
    finds within the window, from 0 to 1. Losses over twice the first ones count as twice, or the last steps before the
    ramp broke off would hide where the loss was lowest.

    Args:
        curve: of a ramp.
        steps: of the whole ramp, which give the width of the window.

    Returns:
        (n,) smoothed losses, and (n,) what of the losses they leave unexplained.
    """
    untrained = np.zeros(len(curve.losses)) if curve.untrained is None else curve.untrained
    first = float(np.mean(curve.losses[: max(1, steps // 10)]))
    losses = np.minimum(curve.losses, max(2 * first, float(untrained.max())))
    window = _window(len(losses), steps)
    mean, level = window @ losses, window @ untrained
    variance = window @ untrained**2 - level**2
    covariance = window @ (losses * untrained) - mean * level
    share = np.clip(np.divide(covariance, variance, out=np.zeros_like(mean), where=variance > 1e-12), 0, 1)
    usual = untrained.mean()
    smoothed = mean - share * (level - usual)
    return smoothed, losses - smoothed - share * (untrained - usual)


def suggest(curve: Curve, steps: int) -> Suggestion:
    """Return the rate that a curve suggests, a third of that at which the smoothed loss is lowest; or why it suggests
    none.

    At the lowest point what a step gains and what too large a step loses are in balance, so a little below it a run
    trains fast and is still stable (Smith 2017 reads the same upper bound by eye). The record also has the estimates of
    fastai, from where a tenth of the fall is done to its lowest point:

    - valley: the middle of the longest run of ever lower losses (``SuggestionMethod.Valley``);
    - steep: where the loss falls fastest for the logarithm of the rate (``SuggestionMethod.Steep``);
    - minimum / 10: a tenth of the rate at the lowest point (``SuggestionMethod.Minimum``).

    Those tell where a few steps already show, which is sooner than where many train well, the more so on a long ramp;
    ``docs/lr_find.md`` compares all four with the best rate of a search.

    Args:
        curve: of a ramp.
        steps: that the whole ramp was to have.
    """
    rates, losses = curve.rates, curve.losses
    if len(losses) < LEAST_STEPS:
        what = "became infinite or no number" if curve.ended == "not finite" else "diverged"
        why = f"the loss {what} after {len(losses)} steps, before anything could be measured: lower lr_min"
        return Suggestion(None, {}, losses.copy(), why)
    smoothed, unexplained = smooth(curve, steps)
    lowest = int(np.argmin(smoothed))
    fall = float(smoothed[0] - smoothed[lowest])
    least = max(_CERTAIN * _standard_error(unexplained, lowest, steps), _LEAST_FALL * abs(float(smoothed[0])))
    if not fall > least:
        return Suggestion(None, {}, smoothed, _no_descent(curve, smoothed, fall, least))
    onset = int(np.flatnonzero(smoothed[: lowest + 1] >= smoothed[0] - _ONSET * fall)[-1])
    part = slice(onset, lowest + 1)
    steepest = int(np.argmin(np.gradient(smoothed[part], np.log(rates[part]))))
    places = {"valley": onset + valley(smoothed[part]), "steep": onset + steepest}
    rules = {name: float(rates[place]) for name, place in places.items()}
    rules |= {"minimum / 10": float(rates[lowest]) / 10, "minimum / 3": float(rates[lowest]) / 3}
    return Suggestion(rules[RULES[-1]], rules, smoothed, notes=tuple(_notes(curve, onset, lowest, steps)))


def valley(losses: np.ndarray) -> int:
    """Middle of the longest run of ever lower losses, others between them excluded (fastai, ``valley``).

    As there, the run is taken to begin as many steps before its end as it has losses.

    Args:
        losses: (n,)

    Returns:
        The place in ``losses``.
    """
    ends: list[float] = []  # negated loss in which a rising run of each length ends at the least
    longest, at = 0, 0
    for place, loss in enumerate(-losses):
        length = bisect_left(ends, loss)
        ends[length : length + 1] = [loss]
        if length + 1 > longest:
            longest, at = length + 1, place
    third = longest / 3
    return max(0, at - longest + int(third) + int(third / 2))


def _window(n: int, steps: int) -> np.ndarray:
    """(n, n) weights of the losses in each step's mean; every row sums to 1."""
    place = np.arange(n)
    weights = np.exp(-0.5 * ((place[:, None] - place) / max(_WIDTH * steps, _LEAST_WIDTH)) ** 2)
    window: np.ndarray = weights / weights.sum(axis=1, keepdims=True)
    return window


def _standard_error(unexplained: np.ndarray, lowest: int, steps: int) -> float:
    """Of the fall from the first to the lowest smoothed loss.

    The noise may differ from step to step, and each loss has drawn its own mean towards it: MacKinnon and White 1985
    (J Econometrics 29:305), HC3.
    """
    window = _window(len(unexplained), steps)
    return float(np.linalg.norm((window[lowest] - window[0]) * unexplained / (1 - np.diag(window))))


def _no_descent(curve: Curve, smoothed: np.ndarray, fall: float, least: float) -> str:
    how = f"from {smoothed[0]:.4g} by {max(fall, 0):.2g} at the most, and {least:.2g} is the least that would tell"
    fix = {
        "": "Raise lr_max, or take more steps",
        "diverged": "Lower lr_min or take more steps: it diverged without falling first",
        "not finite": "Lower lr_min or take more steps: it became infinite or no number without falling first",
    }[curve.ended]
    return f"the loss has no descent to read a rate from: it fell {how}. {fix}"


def _notes(curve: Curve, onset: int, lowest: int, steps: int) -> list[str]:
    margin = max(1, round(_END * steps))
    notes = []
    if not curve.ended and lowest >= len(curve.rates) - margin:
        notes.append("the loss was still falling at lr_max, so larger rates may do: raise lr_max")
    if onset < margin:
        notes.append("the loss fell from the first steps on, so smaller rates may do: lower lr_min")
    return notes


def settings_for(head: float | None, network: float | None, head_rate: float, *, head_alone: bool) -> dict[str, float]:
    """Return the keys to set, to two digits; none where the rate that ``optimizer.lr`` stands for is not known.

    The backbone trains at ``optimizer.lr`` itself and the head at a multiple of it. Where the head's rate is not known
    it trains at ``optimizer.lr`` too.

    Args:
        head, network: suggested rates; None where there is none.
        head_rate: what the schedule itself multiplies the head's rate by while it trains alone.
        head_alone: whether the head is all that ever trains.
    """
    if head_alone:
        return {} if head is None else {"optimizer.lr": _two_digits(head / head_rate), "finetune.head_lr_ratio": 1.0}
    if network is None:
        return {}
    lr = _two_digits(network)
    ratio = 1.0 if head is None else _two_digits(head / (lr * head_rate))
    return {"optimizer.lr": lr, "finetune.backbone_lr_ratio": 1.0, "finetune.head_lr_ratio": ratio}


def _two_digits(value: float) -> float:
    return float(f"{value:.2g}")
