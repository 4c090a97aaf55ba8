"""Reliability diagrams in one chart: of a run before and after correction, of one network on several test sets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from ddtl.evaluation.calibration import Bin
from ddtl.reports.html.figures import SERIES, Spec, Trace, chance, chart, label, scale, share, short, stroke

FEW = 5  # samples: a bin with fewer is an open circle that no line runs through
NOTE = (
    f"Vertical bars: 95 % intervals of the share, where the images are of two patients or groups or more. Open "
    f"circles: bins of fewer than {FEW} images, which say next to nothing."
)


def spec(bins: Mapping[str, Sequence[Bin]], x: str, y: str, colours: Mapping[str, int] | None = None) -> Spec:
    """Draw reliability diagrams by name, above the number of samples in each bin.

    Args:
        bins: from :func:`ddtl.evaluation.calibration.reliability`.
        x, y: what the axes show.
        colours: the place of each name among the colours; by default in the order of the legend.
    """
    ends = np.array([0.0, 1.0])
    traces = [chance(ends, ends, "perfect")]
    for i, (name, found) in enumerate(bins.items()):
        counts = [part.count for part in found]
        place = i if colours is None else colours[name]
        traces += _points(found, name, place)
        traces.append(
            {
                "type": "bar",
                "x": short([(part.low + part.high) / 2 for part in found]),
                "width": short([(part.high - part.low) * 0.9 / max(1, len(bins)) for part in found]),
                "offset": short([(i / len(bins) - 0.5) * (part.high - part.low) * 0.9 for part in found]),
                "y": counts,
                "yaxis": "y2",
                "marker": {"color": SERIES[place % len(SERIES)], "opacity": 0.4},
                "name": label(name),
                "showlegend": False,
                "hovertemplate": "n = %{y}",
            }
        )
    drawn = chart(traces, share(x), {**share(y), "domain": [0.3, 1]}, legend="outside")
    drawn["layout"]["xaxis"]["anchor"] = "y2"
    drawn["layout"]["yaxis2"] = {**scale("n"), "domain": [0, 0.2], "rangemode": "tozero", "nticks": 3}
    drawn["layout"]["barmode"] = "overlay"
    return drawn


def _points(bins: Sequence[Bin], name: str, place: int) -> list[Trace]:
    """Return a line through the bins with enough samples, and the others as open circles; each with its interval."""
    traces = []
    for few in (False, True):
        shown = [part if (part.count < FEW) == few else None for part in bins]
        if few and not any(shown):
            continue
        y = [None if part is None else part.share_positive for part in shown]
        line = stroke([part.mean_p for part in bins], y, name, place, mode="markers" if few else "lines+markers")
        above, below = [], []
        for part in shown:
            limits = None if part is None else part.limits
            above.append(None if part is None or limits is None else limits[1] - part.share_positive)
            below.append(None if part is None or limits is None else part.share_positive - limits[0])
        line["error_y"] = {
            "type": "data",
            "symmetric": False,
            "array": short(above),
            "arrayminus": short(below),
            "color": SERIES[place % len(SERIES)],
            "thickness": 1,
            "width": 3,
        }
        line |= {"customdata": [part.count for part in bins], "hovertemplate": "%{x:.3f}, %{y:.3f}, n = %{customdata}"}
        line |= {"legendgroup": name, "showlegend": not few}
        if few:
            line["marker"] |= {"symbol": "circle-open"}
        traces.append(line)
    return traces
