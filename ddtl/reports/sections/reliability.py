"""Reliability diagrams in one chart: of a run before and after correction, of one network on several test sets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from ddtl.evaluation.calibration import Bin
from ddtl.reports.html.figures import Spec, chance, chart, label, scale, share, short, stroke


def spec(bins: Mapping[str, Sequence[Bin]], x: str, y: str) -> Spec:
    """Draw reliability diagrams by name, above the number of samples in each bin.

    Args:
        bins: from :func:`ddtl.evaluation.calibration.reliability`.
        x, y: what the axes show.
    """
    ends = np.array([0.0, 1.0])
    traces = [chance(ends, ends, "perfect")]
    for i, (name, found) in enumerate(bins.items()):
        counts = [part.count for part in found]
        shares = [part.share_positive for part in found]
        line = stroke(np.array([part.mean_p for part in found]), shares, name, i, mode="lines+markers")
        traces.append({**line, "customdata": counts, "hovertemplate": "%{x:.3f}, %{y:.3f}, n = %{customdata}"})
        traces.append(
            {
                "type": "bar",
                "x": short([(part.low + part.high) / 2 for part in found]),
                "width": short([(part.high - part.low) * 0.9 / max(1, len(bins)) for part in found]),
                "offset": short([(i / len(bins) - 0.5) * (part.high - part.low) * 0.9 for part in found]),
                "y": counts,
                "yaxis": "y2",
                "marker": {"color": ("var(--bar)", "var(--bar-2)")[i % 2]},
                "name": label(name),
                "showlegend": False,
                "hovertemplate": "n = %{y}",
            }
        )
    drawn = chart(traces, share(x), {**share(y), "domain": [0.3, 1]}, legend="bottom right")
    drawn["layout"]["legend"]["y"] = 0.32  # within the upper part
    drawn["layout"]["xaxis"]["anchor"] = "y2"
    drawn["layout"]["yaxis2"] = {**scale("n"), "domain": [0, 0.2], "rangemode": "tozero", "nticks": 3}
    drawn["layout"]["barmode"] = "overlay"
    return drawn
