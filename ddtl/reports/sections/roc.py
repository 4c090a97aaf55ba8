"""ROC curves by name in one chart: of a run by patient and by image, of several runs, of one run on each test set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ddtl.reports.html.curves import GRID, Band, Curves
from ddtl.reports.html.figures import Spec, Trace, band, chance, chart, point, share, stroke

REPLICATES = 500  # of the bands: they are seen, not read off
FILLS = ("var(--band)", "var(--band-2)")  # of the bands: more would cover each other


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
    return drawn(lines, [curve.roc_band for curve in curves.values()][:bands], legend="bottom right")


def drawn(lines: Sequence[Trace], bands: Sequence[Band | None], *, legend: str) -> Spec:
    """Draw lines over their bands and over the diagonal of chance."""
    fills = [part for found, fill in zip(bands, FILLS, strict=False) for part in band(found, fill)]
    traces = [chance(GRID, GRID), *fills, *lines]
    return chart(traces, share("1 - specificity"), share("sensitivity"), legend=legend)
