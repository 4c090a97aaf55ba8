"""Assign whole units (groups, or single images) to the parts of a dataset. No protocol and no file is known here.

In each class the units are put in a random order and assigned to the parts. Orders are drawn until the parts contain
what was requested within two points, at most ``_DRAWS`` times; then the best one is taken. So a large group can land
anywhere; scikit-learn's StratifiedGroupKFold places the largest group first, in the same fold under every seed, and
knows no fractions but 1/2, 1/3, 1/4, ...

The order is that of sha256(key, draw, unit): the same on every machine and under every version of every library, and
it does not depend on the order of the samples.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence

from ddtl.data.manifest import Sample

_DRAWS = 200
_CLOSE = 0.02  # a draw this near to what was requested is taken

Units = Mapping[str, Sequence[Sample]]
Shares = Mapping[str, float]  # part -> share of the images, 1 together
Strata = Mapping[int, Sequence[str]]  # class -> units in a random order
Assignment = dict[str, str]  # sample id -> part
Rule = Callable[[Strata, Units, Shares, str], Assignment]


def gather(samples: Iterable[Sample], unit_of: Callable[[Sample], str]) -> Units:
    """The samples of each unit."""
    units: dict[str, list[Sample]] = defaultdict(list)
    for sample in samples:
        units[unit_of(sample)].append(sample)
    return units


def assign_units(units: Units, shares: Shares, key: str, rule: Rule) -> Assignment | None:
    """Each sample's part.

    Args:
        units: what is never split.
        shares: the parts and how large they should be.
        key: another key is another random order.
        rule: ``cut`` or ``fill``.

    Returns:
        None where no draw gave every part an image of every class that there is.
    """
    overall = Counter(sample.label for samples in units.values() for sample in samples)
    strata = _strata(units, overall)
    best: tuple[float, Assignment] | None = None
    for draw in range(_DRAWS):
        drawn = f"{key}\x1f{draw}"
        ordered = {label: _shuffled(names, drawn) for label, names in strata.items()}
        assignment = rule(ordered, units, shares, drawn)
        error = _error(assignment, units, shares, overall)
        if error is not None and (best is None or error < best[0]):
            best = error, assignment
        if best is not None and best[0] <= _CLOSE:
            break
    return None if best is None else best[1]


def cut(strata: Strata, units: Units, shares: Shares, drawn: str) -> Assignment:
    """Cut each class's row of units into the parts, in the order of ``shares``, where that comes closest to them.

    Every part gets a unit at least; where there are fewer units than parts, it is random who goes without.
    """
    assignment: Assignment = {}
    for row in strata.values():
        if len(row) < len(shares):
            part_of = dict(zip(row, _shuffled(shares, drawn), strict=False))
        else:
            part_of = dict(zip(row, _cut_row([len(units[unit]) for unit in row], shares), strict=True))
        assignment.update((sample.sample_id, part) for unit, part in part_of.items() for sample in units[unit])
    return assignment


def fill(strata: Strata, units: Units, shares: Shares, drawn: str) -> Assignment:
    """Assign unit after unit to the part that has fewest images of the unit's class, then of all. For equal shares."""
    parts = _shuffled(shares, drawn)
    table: Counter[tuple[str, int]] = Counter()
    sizes: Counter[str] = Counter()
    assignment: Assignment = {}
    for label, row in strata.items():
        for unit in row:
            part = min(parts, key=lambda part: (table[part, label], sizes[part]))
            for sample in units[unit]:
                assignment[sample.sample_id] = part
                table[part, sample.label] += 1
                sizes[part] += 1
    return assignment


def _strata(units: Units, overall: Mapping[int, int]) -> dict[int, list[str]]:
    """Units by the rarest class among their images, so that rare classes are the first to be assigned."""
    strata: dict[int, list[str]] = defaultdict(list)
    for unit, samples in units.items():
        strata[min({s.label for s in samples}, key=lambda label: (overall[label], -label))].append(unit)
    return {label: strata[label] for label in sorted(strata)}


def _cut_row(sizes: Sequence[int], shares: Shares) -> list[str]:
    """The part of each unit of a row, by the units' sizes."""
    parts: list[str] = []
    *cuts, last = shares
    for left, part in zip(range(len(cuts), 0, -1), cuts, strict=True):
        end = _closest(sizes, len(parts), shares[part] * sum(sizes), len(sizes) - left)
        parts += [part] * (end - len(parts))
    return parts + [last] * (len(sizes) - len(parts))


def _closest(sizes: Sequence[int], start: int, wanted: float, most: int) -> int:
    """The ``end`` in (start, most] for which ``sum(sizes[start:end])`` comes closest to ``wanted``."""
    end, total = start + 1, sizes[start]
    while end < most and abs(total + sizes[end] - wanted) < abs(total - wanted):
        total += sizes[end]
        end += 1
    return end


def _error(assignment: Assignment, units: Units, shares: Shares, overall: Mapping[int, int]) -> float | None:
    """The worst deviation, as a share, of a part's size and of its classes; None if a class lacks in a part."""
    table = Counter((assignment[s.sample_id], s.label) for samples in units.values() for s in samples)
    total = sum(overall.values())
    deviations = []
    for part, share in shares.items():
        counts = {label: table[part, label] for label in overall}
        if min(counts.values()) == 0:
            return None
        size = sum(counts.values())
        deviations.append(abs(size / total - share))
        deviations.extend(abs(counts[label] / size - overall[label] / total) for label in counts)
    return max(deviations)


def _shuffled(names: Iterable[str], drawn: str) -> list[str]:
    return sorted(names, key=lambda name: hashlib.sha256(f"{drawn}\x1f{name}".encode()).digest())
