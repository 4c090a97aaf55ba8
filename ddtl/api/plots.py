"""The charts of a run's page as Plotly figures: the same numbers, from the same functions."""

from __future__ import annotations

import html
import shlex
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ddtl.utils.errors import UserError

if TYPE_CHECKING:
    import plotly.graph_objects as go

    from ddtl.reports.html.page import Figure
    from ddtl.reports.run.stored import Stored

_WIDTH = 110  # signs of a line below the title
_LINE = 18  # its height, in pixels


def roc(folder: Path) -> go.Figure:
    """Return the ROC curve of the record in a folder; see :meth:`ddtl.Scored.plot_roc`."""
    from ddtl.reports.run import curves, stored

    found = stored.read(folder)
    figure = curves.roc_figure(found)
    if figure is None:
        raise UserError(f"{folder}: there is no ROC curve: the {_split(found)} images are all of one class.")
    return _plotly(figure, found, [figure.alt, figure.caption], (640, 560))


def calibration(folder: Path) -> go.Figure:
    """Return the reliability diagram of the record in a folder; see :meth:`ddtl.Scored.plot_calibration`."""
    from ddtl.reports.run import calibration as section, stored

    found = stored.read(folder)
    if not found.scores.get("calibration"):
        raise UserError(
            f"{folder}: the record contains no calibration of the {_split(found)} images. Score the run again: "
            f"{shlex.join(['ddtl', 'evaluate', str(folder)])}"
        )
    figure = section.figure(found)
    by_patient = (stored.patients(found.scores) or {}).get("calibration")
    errors = [
        _errors(unit, measured) for unit, measured in (("image", found.scores["calibration"]), ("patient", by_patient))
        if measured
    ]  # fmt: skip
    return _plotly(figure, found, [*errors, figure.caption], (640, 640))


def _errors(unit: str, measured: Mapping[str, Any]) -> str:
    """Return the calibration error with what chance shows, and the calibration line with its limits."""
    from ddtl.reports.html import format

    parts = [f"By {unit}: ECE {format.score(measured['ece'])}"]
    if chance := (measured.get("floor") or {}).get("ece"):
        parts[0] += f" (by chance {format.score(chance['mean'])}, up to {format.score(chance['high'])} in 95 %)"
    for name in ("intercept", "slope"):
        one = (measured.get("line") or {}).get(name)
        if one is not None and None not in one.values():
            parts.append(f"{name} {format.score(one['value'])} {format.interval(one)}")
    return f"{', '.join(parts)}."


def patients(folder: Path) -> go.Figure:
    """Return all patients of the record in a folder; see :meth:`ddtl.Scored.plot_patients`."""
    from ddtl.reports.html import format
    from ddtl.reports.run import stored, strip

    found = stored.read(folder)
    figure = strip.figure(found)
    if figure is None:
        why = "there are more than two classes" if not found.binary else "the patients are not known"
        raise UserError(f"{folder}: no chart of patients: {why}. plot_calibration() is by image.")
    both = ", ".join(f"{name} {format.with_interval(found.main, name)}" for name in ("sensitivity", "specificity"))
    return _plotly(figure, found, [f"By patient: {both}.", figure.caption], (900, 520))


def _split(found: Stored) -> str:
    from ddtl.reports.run.stored import SPLITS

    return SPLITS[found.split]


def _plotly(figure: Figure, found: Stored, notes: Sequence[str], size: tuple[int, int]) -> go.Figure:
    """Return a chart of a page, with its title, its numbers, and what a reader must know about it."""
    import plotly.graph_objects as go

    from ddtl.reports.html.figures import on_paper

    drawn = go.Figure(on_paper(figure.spec))
    lines = [html.escape(line, quote=False) for note in notes for line in textwrap.wrap(note, _WIDTH * size[0] // 900)]
    title = {"text": found.marked(f"{figure.title}, {_split(found)}"), "subtitle": {"text": "<br>".join(lines)}}
    legend = _LINE * (drawn.layout.legend.orientation == "h")  # it is above the chart
    drawn.update_layout(
        title={**title, "x": 0.02, "yref": "container", "y": 1, "yanchor": "top", "pad": {"t": 14}},
        margin={"t": 48 + _LINE * len(lines) + 2 * legend, "l": 64, "b": 56, "r": 16},
        width=size[0],
        height=size[1] + _LINE * len(lines),
        dragmode="zoom",
        paper_bgcolor="white",
        plot_bgcolor="white",
    )
    drawn.update_xaxes(fixedrange=False)
    drawn.update_yaxes(fixedrange=False)
    return drawn
