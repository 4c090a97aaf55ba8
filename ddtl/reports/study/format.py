"""How a study's cells are formatted, and what is below its tables."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, replace
from statistics import mean, stdev

from ddtl.evaluation.comparison.matrix import Mean
from ddtl.evaluation.intervals.interval import Interval
from ddtl.reports.html import format
from ddtl.reports.html.page import Cell as PageCell
from ddtl.reports.study.cells import Cell, Cells, Temperature
from ddtl.schema.scores import LOWER_IS_BETTER
from ddtl.schema.units import UNITS
from ddtl.utils import wording


def score_of(cell: Cell | None, name: str) -> str | PageCell:
    """Return a cell of a table: nothing where nothing was requested, a dash where there is no number."""
    if cell is None:
        return ""
    if cell.measured is None:
        return format.NONE
    return mean_of(cell.measured.scores[name], count_seeds(len(cell.seeds), cell.expected))


def shaded(cell: Cell | None, score: str) -> str | PageCell:
    """Return a cell that is the darker the higher its score; chance is white where it is known."""
    shown, value = score_of(cell, score), None if cell is None else value_of(cell, score)
    if isinstance(shown, str) or value is None or score in LOWER_IS_BETTER:
        return shown
    chance = 0.5 if score in ("roc_auc", "balanced_accuracy") else 0.0
    return replace(shown, shade=min(1.0, max(0.0, (value - chance) / (1 - chance))))


def mean_of(one: Mean, more: str) -> PageCell:
    text = format.score(one.value) + ("" if one.sd is None else f" ± {format.score(one.sd)}")
    return PageCell(text, ", ".join(filter(None, [format.interval(as_mapping(one.interval)), more])))


def temperature_of(cell: Cell, found: Sequence[Temperature]) -> list[str | PageCell]:
    """Return temperature and Brier score over the seeds of a cell; dashes where a seed has none."""
    if not found or len(found) != len(cell.seeds):
        return [format.NONE, format.NONE]
    both = ([one.value for one in found], [one.brier for one in found])
    return [mean_of(Mean(mean(values), stdev(values) if len(values) > 1 else None, None), "") for values in both]


def count_seeds(seeds: int, expected: int) -> str:
    return "" if seeds == expected else f"{seeds} of {wording.count(expected, 'seed')}"


def value_of(cell: Cell, score: str) -> float | None:
    return None if cell.measured is None else cell.measured.scores[score].value


def as_mapping(found: Interval | None) -> dict[str, object] | None:
    return None if found is None else asdict(found)


def basis(cells: Sequence[Cell]) -> list[str]:
    """Return what ± and the range mean, and of how many seeds."""
    known = [cell for cell in cells if cell.measured is not None]
    if not known:
        return []
    level = format.level(known[0].measured.settings.level) if known[0].measured else ""
    n = max(len(cell.seeds) for cell in known)
    if n == 1:
        how = f"One seed; the range is its {level} interval for other patients, which does not cover other seeds."
    else:
        how = (
            f"Means over n = {n} seeds; ± is the standard deviation between them; the range is the {level} interval "
            "of the mean, for other patients and other seeds."
        )
    return [how, counts(known)]


def unit_of_scores(cells: Iterable[Cell]) -> str:
    """Return ``by image``: what the scores of cells are computed over, whatever is resampled for their intervals;
    empty where nothing is measured.
    """
    return "by image" if any(cell.measured is not None for cell in cells) else ""


def counts(cells: Sequence[Cell]) -> str:
    """Return how many units and images each test set has, and what its unit is."""
    counts_of: dict[str, list[str]] = {}
    for cell in cells:
        if cell.measured is not None:
            units = wording.count(cell.measured.units, *UNITS[cell.measured.unit])
            images = "" if cell.measured.unit == "image" else f" ({wording.count(cell.measured.images, 'image')})"
            protocol = f"{cell.records[0]['protocol']}, " if cell.records else ""
            counts_of.setdefault(cell.target, []).append(f"{protocol}{units}{images}")
    parts = [f"{target}: {' or '.join(dict.fromkeys(counts))}" for target, counts in counts_of.items()]
    return f"Test sets: {'; '.join(parts)}." if parts else ""


def copies(found: Cells) -> list[str]:
    """Return what is known about images that are in two datasets."""
    external = {(cell.row.source, cell.target) for cell in found.cells if not cell.is_in_domain}
    unknown = external - found.controls.pairs.keys()
    if unknown == external:
        return ["Whether images are in two of the datasets was not checked."]
    excluded = {f"{cell.excluded} of {cell.target} for {cell.row.source}" for cell in found.cells if cell.excluded}
    if excluded:
        notes = [
            "Test images that are also in the training dataset, with the others of their patients, are excluded: "
            f"{wording.listed(sorted(excluded))}."
        ]
    else:
        notes = ["No test image is among the training images of another dataset."]
    if unknown:
        places = wording.listed(sorted(f"{target} for {source}" for source, target in unknown))
        notes.append(f"Not checked, because the images could no longer be read: {places}.")
    return notes


def lost(found: Cells, cells: Iterable[Cell]) -> list[str]:
    """Return why there is no number, or one of fewer seeds: the same reason once."""
    places_of: dict[str, dict[str, list[str]]] = {}
    for cell in cells:
        for each in cell.lost:
            where = f"{found.name(cell.row)} on {cell.target}"
            places_of.setdefault(each.reason.rstrip("."), {}).setdefault(where, []).append(each.which)
    lines = [
        "; ".join(f"{where}, {', '.join(which)}" for where, which in places.items()) + f": {reason}."
        for reason, places in places_of.items()
    ]
    return [f"In no number ({format.NONE}, or fewer seeds): {' '.join(lines)}"] if lines else []
