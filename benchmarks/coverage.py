"""How often the default intervals cover the truth, on a public grid of test sets, and where they contain it least.

    python -m benchmarks.coverage --quick            # a few draws, to see that it works
    python -m benchmarks.coverage                    # the grid, 1,000 draws a cell
    python -m benchmarks.coverage --search           # 500 random corners, then the worst 50 again with fresh draws
    python -m benchmarks.coverage --write            # what has been drawn, into the package and the docs

What is drawn is kept in ``--work`` (a line for each cell), so that the same command resumes where it was ended;
what was drawn with other intervals than today's is drawn again. The hours are those of all the calls that drew it.

A simulated test set: patients of two classes, the numbers of both fixed (``case_control``) or drawn (``cohort``). The
latent score of an image is normal; the class shifts it, so that images of different patients have the wanted ROC AUC; a
patient's images share a random effect. Images a patient: one, four, ``tail`` (1 to 16, most have one or two), or
``informative`` (the more images, the lower the patient's own effect). The probability is a function of the latent
score: ``normal`` its distribution function, ``beta`` crowded near 0 and 1, ``tied`` in steps of 0.2, ``saturated``
exactly 0 or 1 beyond one standard deviation. By image, the truth weights patients by their images.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields, replace
from functools import cache
from itertools import product
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Literal, get_args

os.environ.setdefault("OMP_NUM_THREADS", "1")  # the draws are shared out among processes

import numpy as np

from benchmarks.coverage_report import VALID, Cell, figure, grid_table, put_table, read, worst, worst_table, write
from benchmarks.measuring import finish
from ddtl.evaluation.intervals.clusters import Design
from ddtl.evaluation.intervals.interval import Interval
from ddtl.evaluation.intervals.intervals import METHODS, intervals
from ddtl.evaluation.metrics import weighted_scores
from ddtl.schema.scores import SCORES

ROOT = Path(__file__).resolve().parents[1]
TABLE = ROOT / "ddtl" / "evaluation" / "coverage.csv"
SEARCHED = ROOT / "docs" / "images" / "coverage_search.csv"

THRESHOLD = 0.5
_SIZES = np.repeat([1, 2, 3, 4, 5, 6, 8, 10, 12, 14, 16], [30, 20, 12, 10, 6, 5, 5, 4, 3, 2, 3])
_BLOCK = 50  # draws that a process takes at a time
_PATIENTS_OF_TRUTH = 80_000  # of each class
_DRAWS_OF_ALTERNATIVES, _REPLICATES = 200, 400  # the bootstrap is slow

Images = Literal["one", "four", "tail", "informative"]
Kind = Literal["normal", "beta", "tied", "saturated"]
_PUBLISHED: tuple[Images, Images] = ("one", "tail")
Key = tuple[str, str]  # image or patient, score
Limits = tuple[float, float] | None


@dataclass(frozen=True)
class Corner:
    """A kind of test set.

    Attributes:
        prevalence: the share of patients that are positive.
        patients: how many there are.
        images: a patient.
        correlation: of the latent scores of a patient's images.
        auc: true ROC AUC of images of different patients.
        scores: the shape of the probabilities.
        design: whether the numbers of both classes are fixed.
        shift: of all latent scores: negative where sensitivity is below specificity.
    """

    prevalence: float
    patients: int
    images: Images
    correlation: float
    auc: float
    scores: Kind
    design: Design
    shift: float = 0.0


def main(words: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--search", action="store_true", help="look for the corners that are covered least")
    parser.add_argument("--corners", type=int, default=500, help="of the search")
    parser.add_argument(
        "--draws", type=int, default=0, help="test sets a cell (1,000; of the search's first stage 400)"
    )
    parser.add_argument("--worst", type=int, default=50, help="of them that are drawn again")
    parser.add_argument("--fresh", type=int, default=10_000, help="test sets a cell in the search's second stage")
    parser.add_argument("--jobs", type=int, default=2, help="processes")
    parser.add_argument("--work", type=Path, default=ROOT / "runs" / "coverage", help="where draws are kept")
    parser.add_argument("--write", action="store_true", help="put what was drawn into the package and the docs")
    parser.add_argument("--quick", action="store_true", help="10 draws of two cells")
    given = parser.parse_args(words)
    started = time.perf_counter()
    if given.quick:
        cells = [cell for corner in grid()[:2] for cell in measured(corner, 10, 0, given.jobs)]
        print(grid_table(cells))
    elif given.write:
        cells = publish(given.work)
    elif given.search:
        cells = search(given.work, given.corners, given.draws or 400, given.worst, given.fresh, given.jobs)
        print(worst_table(cells))
    else:
        cells = measure_corners(given.work / "grid.jsonl", grid(), given.draws or 1000, 0, given.jobs)
        print(grid_table(cells))
    judged = [cell for cell in cells if cell.given]
    least = min(judged, key=lambda cell: cell.coverage)
    finish(
        benchmark="coverage", cells=len(cells), draws=sum(cell.given for cell in judged), jobs=given.jobs,
        seconds=time.perf_counter() - started, hours=hours(given.work),
        ms_of_1000_images=1000 * seconds_of_1000_images(),
        lowest=least.coverage, of=[least.score, least.unit, least.corner],
        below_93=sum(cell.coverage < 0.93 for cell in judged), below_90=sum(cell.coverage < 0.90 for cell in judged),
        above_99_5=sum(cell.coverage > 0.995 for cell in judged),
    )  # fmt: skip


def grid() -> list[Corner]:
    """Return the published cells: what a page looks up, by patients, images, ROC AUC and prevalence; then the hard
    kinds.
    """
    usual = [
        Corner(prevalence, patients, images, 0.5, auc, "normal", "case_control")
        for patients, prevalence in product((20, 40, 95, 400), (0.5, 0.2))
        for images in _PUBLISHED
        for auc in (0.75, 0.90, 0.97)
        if prevalence * patients >= 5
    ]
    hard = [
        Corner(5 / 95, 95, "tail", 0.5, 0.9, "normal", "case_control"),
        Corner(0.05, 400, "tail", 0.5, 0.9, "normal", "case_control"),
        Corner(0.2, 95, "four", 0.5, 0.9, "normal", "cohort"),
        Corner(0.2, 400, "four", 0.5, 0.9, "normal", "cohort"),
        Corner(0.2, 95, "four", 0.5, 0.9, "normal", "cohort", -1.0),
        *(Corner(0.5, patients, "tail", 0.9, 0.9, "normal", "case_control") for patients in (20, 40, 95)),
        Corner(0.5, 40, "tail", 0.9, 0.95, "normal", "case_control"),
        *(Corner(0.5, patients, "tail", 0.5, 0.99, "normal", "case_control") for patients in (20, 40)),
        Corner(0.5, 40, "informative", 0.6, 0.9, "normal", "case_control"),
        Corner(0.3, 95, "informative", 0.6, 0.8, "beta", "cohort", -0.5),
        Corner(0.5, 20, "tail", 0.3, 0.8, "saturated", "case_control"),
        Corner(0.5, 40, "one", 0.0, 0.99, "tied", "case_control"),
        Corner(0.8, 95, "tail", 0.5, 0.5, "normal", "cohort"),
    ]
    return [*usual, *hard]


def random_corner(random: np.random.Generator) -> Corner:
    """Return one of the search: at least three patients of each class are expected."""
    while True:
        corner = Corner(
            prevalence=round(float(random.uniform(0.05, 0.95)), 3),
            patients=round(10 * 40 ** float(random.random())),
            images=str(random.choice(get_args(Images))),  # type: ignore[arg-type]
            correlation=round(float(random.uniform(0, 0.9)), 2),
            auc=round(float(random.choice([0.5, 0.99, random.uniform(0.5, 0.99), random.uniform(0.85, 0.99)])), 3),
            scores=str(random.choice(get_args(Kind))),  # type: ignore[arg-type]
            design=str(random.choice(get_args(Design))),  # type: ignore[arg-type]
            shift=round(float(random.choice([0.0, random.uniform(-1.2, 1.2)])), 2),
        )
        if min(corner.prevalence, 1 - corner.prevalence) * corner.patients >= 3:
            return Corner(
                **{name: value.item() if hasattr(value, "item") else value for name, value in asdict(corner).items()}
            )


def search(work: Path, corners: int, draws: int, worst_ones: int, fresh: int, jobs: int) -> list[Cell]:
    """Many corners with few draws; those with the lowest coverage again with many fresh ones, and judged on those."""
    random = np.random.default_rng(0)
    first = measure_corners(work / "search.jsonl", [random_corner(random) for _ in range(corners)], draws, 0, jobs)
    lowest: dict[Corner, float] = {}
    for cell in first:
        corner = Corner(**cell.corner)
        if cell.given:
            lowest[corner] = min(lowest.get(corner, 1.0), cell.coverage)
    again = sorted(lowest, key=lambda corner: lowest[corner])[:worst_ones]
    cells = measure_corners(work / "worst.jsonl", again, fresh, 1, jobs)
    shown = [Corner(**cell.corner) for cell in worst(cells)]
    for method in METHODS:
        measure_corners(work / f"worst-{method}.jsonl", shown, _DRAWS_OF_ALTERNATIVES, 1, jobs, method)
    return with_alternatives(work, cells)


def with_alternatives(work: Path, cells: Sequence[Cell]) -> list[Cell]:
    """Return the cells, each with the narrowest interval that can be chosen instead and is valid there."""
    best: dict[str, Cell] = {}
    for method in METHODS:
        for cell in (cell for line in _lines(work / f"worst-{method}.jsonl") for cell in _cells(line)):
            place = json.dumps([cell.corner, cell.unit, cell.score])
            if cell.coverage >= VALID and (place not in best or cell.width < best[place].width):
                best[place] = replace(cell, other=method)
    found = []
    for cell in cells:
        other = best.get(json.dumps([cell.corner, cell.unit, cell.score]))
        found.append(replace(cell, other=other.other, other_width=other.width) if other else cell)
    return found


def publish(work: Path) -> list[Cell]:
    """Return the grid into the package, grid and search into the docs."""
    cells = [cell for line in _lines(work / "grid.jsonl") for cell in _cells(line)]
    if cells:
        write(cells, TABLE)
    searched = [cell for line in _lines(work / "worst.jsonl") for cell in _cells(line)]
    if searched:
        write(with_alternatives(work, searched), SEARCHED)
    cells, searched = read(TABLE), read(SEARCHED)
    put_table(ROOT / "docs" / "intervals.md", "grid", grid_table(cells))
    put_table(ROOT / "docs" / "intervals.md", "worst", worst_table(searched))
    (ROOT / "docs" / "images" / "coverage.svg").write_text(figure(searched), encoding="utf-8")
    return cells


def measure_corners(
    path: Path, corners: Sequence[Corner], draws: int, stream: int, jobs: int, method: str = "default"
) -> list[Cell]:
    """Return how often the intervals cover the truth in each corner, from ``path`` where it was drawn before."""
    path.parent.mkdir(parents=True, exist_ok=True)
    before = {json.dumps(line["corner"]): line for line in _lines(path) if line["draws"] == draws}
    found: list[Cell] = []
    for number, corner in enumerate(corners, start=1):
        line = before.get(json.dumps(asdict(corner)))
        if line is None:
            started = time.perf_counter()
            cells = measured(corner, draws, stream, jobs, method)
            line = {
                "corner": asdict(corner), "draws": draws, "intervals": fingerprint(),
                "seconds": round(time.perf_counter() - started, 1), "cells": [asdict(cell) for cell in cells],
            }  # fmt: skip
            with path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
            print(f"{path.stem}: {number} of {len(corners)}, {hours(path.parent):.2f} h in all", flush=True)
        found += _cells(line)
    return found


def hours(work: Path) -> float:
    """Return how long it took to draw what is in the folder."""
    return sum(line["seconds"] for path in work.glob("*.jsonl") for line in _lines(path)) / 3600


@cache
def fingerprint() -> str:
    """Return what the default intervals of some test sets are, in short: draws with other intervals are not to be
    mixed.
    """
    some = [
        replace(grid()[0], images=images, design=design)
        for images, design in product(get_args(Images), get_args(Design))
    ]
    limits = [
        [round(interval.low, 6), round(interval.high, 6)]
        for corner, number in product(some, range(3))
        for _, interval, _ in one_draw(corner, number, 3)
        if interval
    ]
    return hashlib.sha256(json.dumps(limits).encode()).hexdigest()[:12]


def seconds_of_1000_images() -> float:
    """Return how long all the scores' intervals of 1,000 images of 250 patients take."""
    corner = Corner(0.5, 250, "four", 0.5, 0.9, "normal", "case_control")
    labels, patients, p = simulate(corner, np.random.default_rng(0))
    taken = []
    for _ in range(6):
        started = time.perf_counter()
        intervals(labels, p, patients, THRESHOLD)
        taken.append(time.perf_counter() - started)
    return statistics.median(taken[1:])


@cache
def _pool(jobs: int) -> Any:
    return get_context("spawn").Pool(jobs)


def measured(corner: Corner, draws: int, stream: int, jobs: int, method: str = "default") -> list[Cell]:
    """Return the coverage of every score, by image and by patient. A defined score without an interval is a miss."""
    truths = true_values(corner)
    blocks = [(corner, start, min(start + _BLOCK, draws), stream, method) for start in range(0, draws, _BLOCK)]
    parts = _pool(jobs).map(block, blocks, chunksize=1) if jobs > 1 else [block(work) for work in blocks]
    cells = []
    for key, truth in truths.items():
        limits = [pair for part in parts for pair in part[key]]
        if not limits:
            continue
        held = [low - 1e-12 <= truth <= high + 1e-12 for low, high in filter(None, limits)]
        widths = [high - low for low, high in filter(None, limits)]
        cells.append(
            Cell(
                asdict(corner), *key, truth, len(limits), len(held),
                sum(held) / len(limits), float(np.mean(widths)) if held else float("nan"),
            )
        )  # fmt: skip
    return cells


def block(work: tuple[Corner, int, int, int, str]) -> dict[Key, list[Limits]]:
    """Return the limits by unit and score of some draws; a draw's seed is its number."""
    corner, start, stop, stream, method = work
    found: dict[Key, list[Limits]] = {(unit, name): [] for unit in ("image", "patient") for name in SCORES}
    for number in range(start, stop):
        for key, interval, fair in one_draw(corner, number, stream, method):
            if fair:
                found[key].append((interval.low, interval.high) if interval else None)
    return found


def one_draw(
    corner: Corner, number: int, stream: int, method: str = "default"
) -> Iterator[tuple[Key, Interval | None, bool]]:
    """Yield every interval of one simulated test set, and whether its counts allow any and the score is defined."""
    labels, patients, p = simulate(corner, np.random.default_rng([stream, number]))
    counts = np.bincount(patients)
    of_patient, mean = np.bincount(patients, labels) // counts, np.bincount(patients, p) / counts
    units = {"image": (labels, p, patients), "patient": (of_patient, mean, np.arange(len(counts)))}
    few = min(int((of_patient == label).sum()) for label in (0, 1)) < 3
    for unit, (truth, value, clusters) in units.items():
        if few or (unit == "patient" and corner.images == "one"):
            continue
        found = intervals(
            truth, value, clusters, THRESHOLD, method=method, design=corner.design, replicates=_REPLICATES, seed=number
        )
        scores = weighted_scores(truth, value, np.ones((1, len(truth))), THRESHOLD)
        yield from (((unit, name), found[name], bool(np.isfinite(scores[name][0]))) for name in SCORES)


def simulate(corner: Corner, random: np.random.Generator, each: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return labels, patients (0, 0, 1, ...) and probabilities, (N,); with ``each`` that many patients of each
    class.
    """
    from scipy.special import ndtri

    if each:
        positive, count = each, 2 * each
    elif corner.design == "cohort":
        count, positive = corner.patients, int(random.binomial(corner.patients, corner.prevalence))
    else:
        count, positive = corner.patients, round(corner.patients * corner.prevalence)
    effect = random.normal(size=count)
    patients = np.repeat(np.arange(count), _images(corner.images, effect, random))
    labels = (patients < positive).astype(int)
    own = random.normal(size=len(patients))
    y = np.sqrt(corner.correlation) * effect[patients] + np.sqrt(1 - corner.correlation) * own
    y += np.sqrt(2) * ndtri(corner.auc) * (labels - 0.5) + corner.shift
    return labels, patients, _SHAPES[corner.scores](y)


def true_values(corner: Corner) -> dict[Key, float]:
    """Return what the scores would be on endless patients, by simulation."""
    labels, patients, p = simulate(corner, np.random.default_rng([2]), _PATIENTS_OF_TRUTH)
    share = corner.prevalence
    if corner.design == "case_control":
        share = round(corner.patients * share) / corner.patients
    counts = np.bincount(patients)
    of_patient, mean = np.bincount(patients, labels) // counts, np.bincount(patients, p) / counts
    found = {}
    for unit, truth, value in (("image", labels, p), ("patient", of_patient, mean)):
        weights = np.where(truth == 1, share, 1 - share)[None]
        scores = weighted_scores(truth, value, weights, THRESHOLD)
        found.update({(unit, name): float(scores[name][0]) for name in SCORES})
    return found


def _images(kind: Images, effect: np.ndarray, random: np.random.Generator) -> np.ndarray:
    if kind in ("one", "four"):
        return np.full(len(effect), 1 if kind == "one" else 4)
    if kind == "tail":
        return np.asarray(random.choice(_SIZES, len(effect)))
    from scipy.special import ndtr

    rank = ndtr(-0.7 * effect + np.sqrt(1 - 0.49) * random.normal(size=len(effect)))
    return np.asarray(_SIZES[np.minimum((rank * len(_SIZES)).astype(int), len(_SIZES) - 1)])


def _normal(y: np.ndarray) -> np.ndarray:
    from scipy.special import ndtr

    return np.asarray(ndtr(y))


_SHAPES: dict[Kind, Callable[[np.ndarray], np.ndarray]] = {
    "normal": _normal,
    "beta": lambda y: 1 / (1 + np.exp(-2.5 * y)),
    "tied": lambda y: np.round(5 * _normal(y)) / 5,
    "saturated": lambda y: np.where(np.abs(y) > 1, y > 0, _normal(y)),
}


def _lines(path: Path) -> list[dict[str, Any]]:
    if not path.exists():
        return []
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.endswith("}")]
    return [line for line in lines if line.get("intervals") == fingerprint()]


def _cells(line: dict[str, Any]) -> list[Cell]:
    names = [each.name for each in fields(Cell)]
    return [Cell(**{name: cell[name] for name in names if name in cell}) for cell in line["cells"] if cell["draws"]]


if __name__ == "__main__":
    main()
