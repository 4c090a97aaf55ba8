"""What a study found, before everything else: a sentence a row, with intervals and against chance."""

from __future__ import annotations

from dataclasses import dataclass, replace

from ddtl.evaluation.comparison.matrix import drop
from ddtl.evaluation.intervals.interval import Interval
from ddtl.reports.html import format
from ddtl.reports.prose import Words
from ddtl.reports.study.cells import SCORE, Cell, Cells
from ddtl.reports.study.format import as_mapping, unit_of_scores

_WORDS = Words("study.txt.jinja")
_CHANCE = 0.5
_SENTENCES = 3


@dataclass(frozen=True)
class _Number:
    """A score in words: of what, its limits as text, and the verdict against chance."""

    name: str
    target: str
    value: float
    limits: str
    verdict: str
    seeds: int


def sentence(found: Cells) -> str:
    """Return the finding of a study; of many rows the first ones."""
    cells = [
        cell for cell in found.cells if cell.measured is not None and cell.measured.scores[SCORE].value is not None
    ]
    if not cells:
        return _WORDS.nothing()
    kind = found.study["study"]
    sentences = _protocols(found, cells) if kind == "paper_vs_honest" else []
    if not sentences and len(found.targets) > 1:
        sentences = _transfer(found, cells)
    if not sentences:
        sentences = _one_target(found, cells)
    more = len(sentences) - _SENTENCES
    return " ".join([*sentences[:_SENTENCES], *([_WORDS.more(more)] if more > 0 else [])])


def _transfer(found: Cells, cells: list[Cell]) -> list[str]:
    """Return, of each row, its score in-domain and on every external test set."""
    sentences = []
    unit = unit_of_scores(cells)
    for row in dict.fromkeys(cell.row for cell in cells):
        own = [_number(found, cell) for cell in cells if cell.row == row and cell.is_in_domain]
        others = [_number(found, cell) for cell in cells if cell.row == row and not cell.is_in_domain]
        name = f"trained on {found.name(row)}" if "source" in found.varying else found.name(row)
        if own and others:
            sentences.append(_WORDS.transfer(name, unit, own[0], others))
        elif others:
            sentences.append(_WORDS.external(name, unit, others))
        else:
            sentences.append(_WORDS.one(name, unit, own[0]))
    return sentences


def _one_target(found: Cells, cells: list[Cell]) -> list[str]:
    """Return the score of the only setting, the ends of a learning curve, or the lowest and the highest of several."""
    unit = unit_of_scores(cells)
    if len(cells) == 1:
        return [_WORDS.one(found.name(cells[0].row), unit, _number(found, cells[0]))]
    if found.study["study"] == "learning_curve":
        ordered = sorted(cells, key=_patients)
        return [_WORDS.curve(_number(found, ordered[0]), _number(found, ordered[-1]), unit)]
    numbers = sorted((_number(found, cell) for cell in cells), key=lambda one: one.value)
    return [_WORDS.spread(numbers[0], numbers[-1], len(numbers), unit)]


def _protocols(found: Cells, cells: list[Cell]) -> list[str]:
    """Return, of each dataset, the score of a leaky split next to that of a sound one."""
    sentences = []
    for cell in cells:
        random = found.at(replace(cell.row, protocol="random"), cell.target)
        if random is None or random is cell or not any(random is one for one in cells):
            continue
        assert random.measured is not None, "it is among those with a score"
        assert cell.measured is not None, "it has a score"
        found_drop = drop(random.measured, cell.measured, same_runs=False)[SCORE]
        difference = {"value": found_drop.value, "limits": _limits(found_drop.interval)}
        honest = replace(_number(found, cell), name=cell.row.protocol)
        sentences.append(_WORDS.protocols(cell.target, _number(found, random), honest, difference))
    return sentences


def _patients(cell: Cell) -> float:
    groups = cell.records[0].get("splits", {}).get("train", {}).get("groups") if cell.records else None
    return float("inf") if groups is None else float(groups)


def _number(found: Cells, cell: Cell) -> _Number:
    assert cell.measured is not None, "it has a score"
    score = cell.measured.scores[SCORE]
    assert score.value is not None, "it has a score"
    return _Number(
        found.name(cell.row),
        cell.target,
        score.value,
        _limits(score.interval),
        _verdict(score.interval),
        len(cell.seeds),
    )


def _limits(interval: Interval | None) -> str:
    return format.interval(as_mapping(interval))[1:-1]


def _verdict(interval: Interval | None) -> str:
    if interval is None:
        return "too few for an interval"
    if interval.low > _CHANCE:
        return "better than chance"
    return "worse than chance" if interval.high < _CHANCE else "not shown to be better than chance"
