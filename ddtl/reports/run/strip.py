"""Every patient of the scored split on one axis: the images' probabilities, the patient's score, and the threshold.

Patients are numbered by their score: the page names none, so that it may be shared.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ddtl.reports.html import figures
from ddtl.reports.html.figures import Spec, Trace
from ddtl.reports.html.page import Figure, Section
from ddtl.reports.run.stored import Stored
from ddtl.utils import wording

_MOST = 6000  # images drawn: more make the page slow and show no more


@dataclass(frozen=True)
class _Marks:
    """Points of one kind: x and y of each, and what a pointer shows about it."""

    x: list[int]
    y: np.ndarray
    texts: list[str]


def section(stored: Stored) -> Section:
    """Return the strip; nothing with more than two classes or where patients are not known."""
    found = figure(stored)
    return Section("Patients", [] if found is None else [found])


def figure(stored: Stored) -> Figure | None:
    """Return the strip; None with more than two classes or where patients are not known."""
    if not stored.binary or stored.unit != "patient":
        return None
    rows, table = stored.predictions.of(stored.split), stored.by_patient()
    order = np.lexsort((table.patient_id, table.p))
    place = {str(table.patient_id[row]): i + 1 for i, row in enumerate(order)}
    traces: list[Trace] = []
    drawn = len(rows) <= _MOST
    for label, name in enumerate(stored.classes):
        style = {"color": figures.SERIES[label], "symbol": ("circle", "diamond")[label]}
        if drawn:
            of = [i for i in np.flatnonzero(rows.label == label).tolist() if str(rows.patient_id[i]) in place]
            marks = _Marks(
                [place[str(rows.patient_id[i])] for i in of],
                rows.probabilities[of, 1],
                [f"an image of patient {place[str(rows.patient_id[i])]}" for i in of],
            )
            traces.append(_trace(marks, f"{name}, image", {**style, "size": 5, "opacity": 0.45}))
        mine = [row for row in order.tolist() if table.label[row] == label]
        marks = _Marks(
            [place[str(table.patient_id[row])] for row in mine],
            table.p[mine],
            [
                f"patient {place[str(table.patient_id[row])]}, {wording.count(n, 'image')}"
                for row, n in zip(mine, table.images[mine].tolist(), strict=True)
            ],
        )
        line = {"width": 1.5, "color": "var(--ground)"}
        traces.append(_trace(marks, f"{name}, patient", {**style, "size": 10, "line": line}))
    return Figure(
        "Patient by patient",
        _spec(traces, len(place), table.threshold),
        f"{len(place)} patients sorted by their score, with the probabilities of their images: {_in_words(stored)}",
        f"Each column is a patient, by score. Large: the patient's score ({stored.main['aggregation']} over the "
        f"images); small: the images{'' if drawn else ', not drawn because there are too many'}. Shape and colour "
        f"show the true class. Dotted: the threshold {table.threshold:.3g}; on the wrong side of it is an error.",
    )


def _in_words(stored: Stored) -> str:
    c = stored.main["confusion"]
    wrong = f"{c['fn']} of {c['fn'] + c['tp']} positive and {c['fp']} of {c['fp'] + c['tn']} negative ones"
    return f"{wrong} are predicted wrongly."


def _trace(marks: _Marks, name: str, marker: dict[str, object]) -> Trace:
    return {
        "type": "scatter",
        "mode": "markers",
        "x": marks.x,
        "y": figures.short(marks.y),
        "text": marks.texts,
        "name": figures.label(name),
        "marker": marker,
        "cliponaxis": False,
        "hovertemplate": "%{text}: %{y:.3f}",
    }


def _spec(traces: list[Trace], patients: int, threshold: float) -> Spec:
    x = {**figures.scale("patients, by score"), "range": [0.2, patients + 0.8], "showgrid": False, "nticks": 6}
    spec = figures.chart(traces, x, figures.share("probability"), legend="outside")
    line = {"color": figures.REFERENCE, "width": 1.5, "dash": "dot"}
    spec["layout"]["shapes"] = [
        {"type": "line", "xref": "paper", "x0": 0, "x1": 1, "y0": threshold, "y1": threshold, "line": line}
    ]
    return spec
