"""ROC curves by name in one chart: of a run by patient and by image, of several runs, of one run on each test set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ddtl.reports.html.curves import GRID, Band, Curves
from ddtl.reports.html.figures import FILLS, Spec, Trace, band, chance, chart, point, share, square, stroke

REPLICATES = 500  # of the bands: they are seen, not read off
BANDS = 2  # at most: more would cover each other


def spec(curves: Mapping[str, Curves], at: tuple[float, float] | None = None, bands: int = 1) -> Spec:
    """Draw curves by name.

    Args:
        curves: in the order of the legend.
        at: false-positive and true-positive rate at the threshold in use.
        bands: how many of the first curves have their band.
    """
    lines = [stroke(*curve.roc, name, i) for i, (name, curve) in enumerate(curves.items())]
    if at is not None:
        lines.append(point(*at, "at the threshold"))
    return drawn(lines, [(i, curve.roc_band) for i, curve in enumerate(curves.values())][:bands], legend="bottom right")


def drawn(lines: Sequence[Trace], bands: Sequence[tuple[int, Band | None]], *, legend: str) -> Spec:
    """Draw lines over their bands and over the diagonal of chance.

    Args:
        lines: the curves.
        bands: of the first :data:`BANDS` of them, each with the place of its colour.
        legend: where it is.
    """
    fills = [part for place, found in bands[:BANDS] for part in band(found, FILLS[place % len(FILLS)])]
    traces = [chance(GRID, GRID), *fills, *lines]
    return square(chart(traces, share("1 - specificity"), share("sensitivity"), legend=legend))
