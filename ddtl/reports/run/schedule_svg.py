"""A schedule as words and as a drawing: pure functions of its table."""

from __future__ import annotations

import math
from collections.abc import Iterator
from html import escape

from ddtl.finetuning.schedule import Phase, Schedule, StageState

_WIDTH, _LEFT, _TOP, _ROW, _LETTER = 860, 84, 46, 34, 7.2  # in pixels
_DARKEST, _PALEST, _DECADES = 0.45, 0.1, 3  # of a trained stage's colour, and the range of rates that it spans


# Parameters of a stage, where not all of them train.
SUBSETS = {"biases": "biases", "norm_affine": "normalisation", "ssf": "scale and shift", "lora": "LoRA"}


def span(phase: Phase) -> str:
    """Return the epochs of a phase, counted from 1."""
    return f"{phase.first + 1}" if phase.end == phase.first + 1 else f"{phase.first + 1}–{phase.end}"


def epochs(phase: Phase) -> str:
    """Return ``epoch 3``, or ``epochs 1–3``."""
    return f"epoch{'s' * (phase.end > phase.first + 1)} {span(phase)}"


def rate(state: StageState) -> str:
    """Return a stage's rate as a multiple of ``optimizer.lr``."""
    if state.frozen:
        return "frozen"
    if state.fitted:
        return "fitted"
    return f"×{state.rate:.3g}" + ("" if state.parameters == "all" else f" {SUBSETS[state.parameters]}")


def batchnorm(state: StageState) -> str:
    """Return what BatchNorm does in a stage that has one."""
    return "BN fixed" if state.fixed_statistics else "BN train"


def cell(state: StageState, has_batchnorm: bool) -> str:
    """Return a stage's state in a few words; a frozen stage's BatchNorm is always fixed and not shown."""
    return rate(state) if state.frozen or not has_batchnorm else f"{rate(state)}, {batchnorm(state)}"


def note(schedule: Schedule, has_batchnorm: bool) -> str:
    """Return what a reader must know about the table."""
    parts = ["×: the rate as a multiple of optimizer.lr."]
    if schedule.penalties is not None:
        first, last = schedule.penalties
        parts = [
            f"fitted: logistic regression, with a penalty of {first:g} in the first epoch to {last:g} in the last."
        ]
    if has_batchnorm:
        parts.append("BN: BatchNorm's statistics follow the images (train) or stay (fixed), always so where frozen.")
    if schedule.rewarm and len(schedule.phases) > 1:
        parts.append(
            f"After a stage is unfrozen its rate rises linearly, for {schedule.rewarm:g} of an epoch's length."
        )
    return " ".join(parts)


def svg(schedule: Schedule, has_batchnorm: bool) -> str:
    """Return stages (the head on top) × epochs; the higher its rate, the darker a stage.

    Text is escaped. The colours are those of the page that it is in, and blue without one.
    """
    stages = list(reversed(schedule.epochs[0]))
    height = _TOP + _ROW * len(stages) + 40
    summary = "; ".join(
        f"{epochs(phase)}: " + ", ".join(f"{name} {rate(state)}" for name, state in phase.states.items())
        for phase in schedule.phases
    )
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" role="img" width="{_WIDTH}" '
        'font-family="system-ui,sans-serif" font-size="12" fill="currentColor">',
        f"<title>Schedule: {escape(summary)}</title>",
        *(_text(_LEFT - 8, _middle(i), name, anchor="end") for i, name in enumerate(stages)),
        *(part for phase in schedule.phases for part in _phase(phase, stages, schedule, has_batchnorm)),
        _text((_LEFT + _WIDTH) / 2, height - 6, "epoch"),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def _phase(phase: Phase, stages: list[str], schedule: Schedule, has_batchnorm: bool) -> Iterator[str]:
    total = len(schedule.epochs)
    left, right = (_LEFT + (_WIDTH - _LEFT - 2) * epoch / total for epoch in (phase.first, phase.end))
    middle, width = (left + right) / 2, right - left
    yield _text(middle, _TOP - 12, _short(phase.name, width), weight=600)
    yield _text(middle, _TOP + _ROW * len(stages) + 16, _short(span(phase), width))
    highest = max(state.rate for row in schedule.epochs for state in row.values())
    for i, stage in enumerate(stages):
        state = phase.states[stage]
        batchnorm_here = has_batchnorm and stage != stages[0]
        colour = 'fill="none"'
        if not state.frozen:
            colour = f'fill="var(--series-1,#2b6cb0)" fill-opacity="{_shade(state, highest)}"'
        hint = f"{stage}, {epochs(phase)} ({phase.name}): {cell(state, batchnorm_here)}"
        yield (
            f'<rect x="{left + 1:.1f}" y="{_TOP + _ROW * i + 1}" width="{max(1.0, width - 2):.1f}" '
            f'height="{_ROW - 2}" rx="3" {colour} stroke="currentColor" stroke-opacity="0.25">'
            f"<title>{escape(hint)}</title></rect>"
        )
        two_lines = batchnorm_here and not state.frozen
        yield _text(middle, _middle(i) - 7 * two_lines, _short(rate(state), width), opacity=0.6 if state.frozen else 1)
        if two_lines:
            yield _text(middle, _middle(i) + 8, _short(batchnorm(state), width), opacity=0.75)


def _shade(state: StageState, highest: float) -> str:
    """Return opacity by the logarithm of the rate."""
    down = min(1.0, math.log10(highest / state.rate) / _DECADES)
    return f"{_DARKEST - (_DARKEST - _PALEST) * down:.3f}"


def _middle(row: int) -> float:
    return _TOP + _ROW * (row + 0.5) + 4


def _short(text: str, width: float) -> str:
    """Return as much of a text as fits into the width; nothing where that is next to nothing."""
    room = int((width - 4) / _LETTER)
    if len(text) <= room:
        return text
    return f"{text[: room - 1]}…" if room >= 4 else ""


def _text(x: float, y: float, text: str, *, anchor: str = "middle", weight: int = 400, opacity: float = 1) -> str:
    if not text:
        return ""
    style = f'text-anchor="{anchor}" font-weight="{weight}" opacity="{opacity:g}"'
    return f'<text x="{x:.1f}" y="{y:.1f}" {style}>{escape(text)}</text>'
