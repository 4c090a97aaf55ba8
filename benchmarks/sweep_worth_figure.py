"""The figure of :mod:`benchmarks.sweep_worth`: best validation score against epochs spent, as SVG."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape

import numpy as np

_WIDTH, _HEIGHT, _LEFT, _RIGHT, _TOP, _BOTTOM = 720, 400, 64, 16, 56, 48  # pixels
_COLOURS = ("#1a5fb4", "#c4570a")


def figure(curves: Mapping[str, np.ndarray], title: str) -> str:
    """Return each repeat thin, the mean over repeats thick.

    Args:
        curves: by name the (repeats, epochs) best score so far, NaN before there is one.
        title: above it.
    """
    known = np.concatenate([rows[np.isfinite(rows)] for rows in curves.values()])
    high = float(known.max())
    low = min(float(np.quantile(known, 0.02)), high - 0.01)  # the first trials may be much lower than all that matters
    high += 0.04 * (high - low)
    budget = max(rows.shape[1] for rows in curves.values())

    def x(epoch: float) -> float:
        return round(_LEFT + epoch / budget * (_WIDTH - _LEFT - _RIGHT), 1)

    def y(score: float) -> float:
        return round(_HEIGHT - _BOTTOM - (max(score, low) - low) / (high - low) * (_HEIGHT - _TOP - _BOTTOM), 1)

    def line(row: np.ndarray) -> str:
        first = int(np.argmax(np.isfinite(row)))
        steps = [i for i in range(first, len(row)) if i == first or row[i] != row[i - 1]]
        moves = [f"M{x(steps[0] + 1)},{y(row[steps[0]])}"] + [f"H{x(i + 1)}V{y(row[i])}" for i in steps[1:]]
        return "".join(moves) + f"H{x(budget)}"

    parts = [f'<text x="{_LEFT}" y="18" font-size="14" font-weight="bold">{escape(title)}</text>']
    for tick in _ticks(low, high):
        at = y(tick)
        parts.append(f'<line x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{at}" y2="{at}" stroke="#e3e6ea"/>')
        parts.append(f'<text x="{_LEFT - 8}" y="{at + 4}" text-anchor="end">{tick:.3g}</text>')
    for tick in _ticks(0, budget):
        parts.append(f'<text x="{x(tick)}" y="{_HEIGHT - _BOTTOM + 18}" text-anchor="middle">{tick:.0f}</text>')
    for place, ((name, rows), colour) in enumerate(zip(curves.items(), _COLOURS, strict=True)):
        shown = [row for row in rows if np.isfinite(row).any()]
        for row in shown:
            parts.append(f'<path d="{line(row)}" fill="none" stroke="{colour}" stroke-width="1" opacity="0.35"/>')
        mean = rows.mean(axis=0)
        if np.isfinite(mean).any():
            parts.append(f'<path d="{line(mean)}" fill="none" stroke="{colour}" stroke-width="3"/>')
        left = _LEFT + 220 * place
        parts.append(f'<line x1="{left}" x2="{left + 26}" y1="38" y2="38" stroke="{colour}" stroke-width="3"/>')
        parts.append(f'<text x="{left + 33}" y="42">{escape(name)}</text>')
    middle = (_LEFT + _WIDTH - _RIGHT) / 2
    parts.append(
        f'<text x="{middle}" y="{_HEIGHT - 10}" text-anchor="middle">epochs trained, all trials together</text>'
    )
    parts.append(
        f'<text transform="translate(16,{_HEIGHT / 2}) rotate(-90)" text-anchor="middle">best validation ROC AUC</text>'
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" width="{_WIDTH}" '
        f'height="{_HEIGHT}" font-family="Helvetica, Arial, sans-serif" font-size="12" fill="#222">\n'
        f"<title>Best validation score against epochs spent: {escape(title)}</title>\n"
        '<rect width="100%" height="100%" fill="#fff"/>\n' + "\n".join(parts) + "\n</svg>\n"
    )


def _ticks(low: float, high: float) -> list[float]:
    """About five round numbers."""
    rough = (high - low) / 5
    scale = 10.0 ** np.floor(np.log10(rough))
    step = scale * min((1, 2, 5, 10), key=lambda n: abs(n * scale - rough))
    return [float(tick) for tick in np.arange(np.ceil(low / step) * step, high + 1e-9, step)]
