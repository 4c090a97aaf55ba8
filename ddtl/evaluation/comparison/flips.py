"""How large a difference between two methods is by chance, from the sign flips of what each cluster adds to it.

Where two methods are equally good, it is chance which of them a patient favours. So a wild cluster bootstrap with the
null imposed multiplies each cluster's contribution by a random weight of mean 0, again and again (Cameron, Gelbach and
Miller 2008, Review of Economics and Statistics 90:414; Canay, Santos and Shaikh 2021, ibid. 103:346). The weights are
those of Webb (2023, Canadian Journal of Economics 56:839), which leave no gaps where few clusters differ.

Contributions are symmetric about 0 where both methods fail alike, but skewed where one fails on whole patients and the
other on single images; the rare large contributions may then be missing by chance. Two terms allow for that. A
difference is widened on the side that is affected by the Cornish-Fisher term of a studentized mean (Johnson 1978, J Am
Stat Assoc 73:536; Hall 1992, J R Stat Soc B 54:221), with the skewness that clusters of all sizes let expect. And it is
widened where sizes are uneven, by Student's t with the effective number of clusters (Carter, Schnepel and Steigerwald
2017, Review of Economics and Statistics 99:698) against that with their number. What that costs and gains is measured
(docs/comparing.md).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np

DRAWS = 3999
_RESOLVED = 10 / DRAWS  # the smallest p-value that draws tell; Student's t extends them beyond
_STEEPEST = 3.0  # standard errors, up to which the skewness term is an approximation of anything
_UNEVEN = 2.25  # the power of the ratio of t quantiles; chosen by simulation
_TIES = 1 + 1e-6  # float32
_ROUNDING = 1e-12  # of a standard error


@dataclass(frozen=True)
class Contributions:
    """What the clusters of one stratum add to a difference.

    Attributes:
        moves: (C,) how far each cluster moves the difference.
        sizes: (C,) images.
    """

    moves: np.ndarray
    sizes: np.ndarray

    @cached_property
    def residuals(self) -> np.ndarray:
        """(C,) what each cluster adds, about the mean of the stratum by images.

        Leaving a cluster out moves a mean by what it adds over 1 - its share of the images, which is undone.
        """
        share = self.sizes / self.sizes.sum()
        added = self.moves * (1 - share)
        return np.asarray(added - share * added.sum())

    @property
    def freedom(self) -> tuple[float, float]:
        """Degrees of freedom: by the number of clusters, and by the effective number of them."""
        effective = float(self.sizes.sum() ** 2 / (self.sizes @ self.sizes))
        return len(self.sizes) - 1.0, max(1.0, effective - 1)

    @property
    def variance(self) -> float:
        return float(self.residuals @ self.residuals)

    def moment(self, power: int) -> float:
        """Return the sum of the residuals to a power, if clusters of all sizes were distributed alike, image by
        image.
        """
        return float(np.mean((self.residuals / self.sizes) ** power) * np.sum(self.sizes**power))


class Flips:
    """The sign flips of a difference.

    Attributes:
        error: its standard error.
        freedom: Satterthwaite's degrees of freedom (1946, Biometrics Bulletin 2:110) of its square, by the numbers of
            clusters; ``effective`` by the effective ones.
    """

    def __init__(self, strata: Sequence[Contributions]) -> None:
        self._strata = [part for part in strata if len(part.moves) > 1]
        self._variance = sum(part.variance for part in self._strata)
        self.error = math.sqrt(sum(len(one.moves) / (len(one.moves) - 1) * one.variance for one in self._strata))
        self.freedom, self.effective = (self._satterthwaite(kind) for kind in (0, 1))

    def _satterthwaite(self, kind: int) -> float:
        squares = sum(part.variance**2 / part.freedom[kind] for part in self._strata)
        return self._variance**2 / squares if squares else math.inf

    @property
    def varies(self) -> bool:
        """Whether any cluster tells the two methods apart."""
        return self.error > _ROUNDING

    def limit(self, side: int, tail: float) -> float:
        """Return the difference that chance reaches with a two-sided probability of ``tail``, above 0 or below it.

        Args:
            side: 1 for differences above 0, -1 for those below.
            tail: as 0.05.
        """
        known = max(tail, _RESOLVED)
        found = float(self._reaches[side][max(0, math.ceil(known * DRAWS - 1e-9) - 1)])
        return found if tail >= known else found * self._t(tail) / self._t(known)

    def p_value(self, value: float) -> float:
        """Return the two-sided p-value of a true difference of 0: below ``tail`` where ``value`` is beyond its
        :meth:`limit`.
        """
        from scipy.special import stdtr

        side = 1 if value > 0 else -1
        farthest = self.limit(side, _RESOLVED)
        if abs(value) <= farthest or not math.isfinite(farthest):
            return float((self._reaches[side] >= abs(value)).mean())
        return float(2 * stdtr(self.freedom, -abs(value) / farthest * self._t(_RESOLVED)))

    def _t(self, tail: float) -> float:
        from scipy.special import stdtrit

        return float(stdtrit(self.freedom, 1 - tail / 2))

    @cached_property
    def _reaches(self) -> dict[int, np.ndarray]:
        """Of either side, (B,) the largest difference that each draw reaches or exceeds, in descending order.

        At a difference d the residuals are those about 0: r + d w, with d shared among the strata by their variances,
        and within a stratum by images. A draw g reaches d if abs(sum of g (r + d w)) >= d, which is true up to one
        limit.
        """
        of_strata = [part.variance / self._variance for part in self._strata]
        shares = [share * part.sizes / part.sizes.sum() for share, part in zip(of_strata, self._strata, strict=True)]
        # Of a stratum's mean as much is estimated as the null does not impose, which takes degrees of freedom.
        residuals = [
            part.residuals * math.sqrt(len(part.moves) / (len(part.moves) - 1 + share))
            for share, part in zip(of_strata, self._strata, strict=True)
        ]
        both = np.stack([np.concatenate(residuals), np.concatenate(shares)], axis=1).astype(np.float32)
        drawn = _weights(len(both)) @ both
        own, moved = drawn.T.astype(np.float64)
        own, moved = np.abs(own), np.where(own < 0, -moved, moved)
        skewness = sum(part.moment(3) for part in self._strata)
        spread = max(self._variance, sum(part.moment(2) for part in self._strata))
        wider = self._uneven
        found = {}
        for side in (1, -1):
            left = 1 - side * moved
            reach = np.divide(own, left, out=np.full(len(own), np.inf), where=np.abs(moved) < 1)
            steps = np.minimum(reach / self.error, _STEEPEST)
            reach = reach + max(0.0, -side * skewness) / spread * (2 * steps**2 + 1) / 6
            found[side] = np.sort(wider * _TIES * reach)[::-1]
        return found

    @property
    def _uneven(self) -> float:
        from scipy.special import stdtrit

        by_effective, by_number = stdtrit([self.effective, self.freedom], 0.975)
        return float((by_effective / by_number) ** _UNEVEN)


@lru_cache(maxsize=2)
def _weights(clusters: int) -> np.ndarray:
    """Return (B, C) Webb's weights: the same for the same number of clusters."""
    values = np.sqrt([0.5, 1.0, 1.5]).astype(np.float32)
    drawn = np.random.default_rng(clusters).integers(6, size=(DRAWS, clusters), dtype=np.uint8)
    return np.concatenate([values, -values])[drawn]
