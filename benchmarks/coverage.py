"""How often the intervals hold the truth: simulated test sets of the size and the patients of COVID19-CT's.

    python -m benchmarks.coverage --quick              # a few draws, to see that it works
    python -m benchmarks.coverage --jobs 2 --write     # the published table: 2,000 draws a cell

53 patients with COVID and 42 without, as in the official test split, each with as many images as some patient of their
class has there (203 on average). The score of an image is binormal: the class shifts it, a patient's images share a
random effect. Two models share half of the variance within a class. ``--write`` puts the table into the package, where
``measured_coverage`` reads it, and table and figure into docs/.
"""

from __future__ import annotations

import argparse
import csv
import os
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from functools import cache
from itertools import product
from multiprocessing import get_context
from pathlib import Path
from typing import get_type_hints

os.environ.setdefault("OMP_NUM_THREADS", "1")  # the draws are shared out among processes

import numpy as np

from benchmarks.coverage_report import Row, figure, markdown, put_table
from benchmarks.measuring import finish
from ddtl.data.published import read_index
from ddtl.evaluation.clustered import Clustered
from ddtl.evaluation.delong import components
from ddtl.evaluation.intervals import Interval, intervals, paired_intervals
from ddtl.evaluation.resampling import Replicates, weighted_scores

ROOT = Path(__file__).resolve().parents[1]
TABLE = ROOT / "ddtl" / "evaluation" / "coverage.csv"

AUCS = (0.75, 0.90, 0.98)
CORRELATIONS = (0.0, 0.3, 0.6)
THRESHOLD = 0.5
SHARED = 0.5  # of the variance of a score within its class, by two models
LEVEL = 0.95
_BLOCK = 20  # draws that a process takes at a time

Cell = tuple[float, float]  # true ROC AUC of images of different patients, correlation within a patient
Found = Iterator[tuple[str, str, Interval | None]]  # target, method, interval


def main(words: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=2000, help="test sets a cell")
    parser.add_argument("--replicates", type=int, default=500, help="of each bootstrap")
    parser.add_argument("--jobs", type=int, default=2, help="processes")
    parser.add_argument("--quick", action="store_true", help="10 draws of 100 replicates in one cell")
    parser.add_argument("--write", action="store_true", help="replace the table of the package and of the docs")
    arguments = parser.parse_args(words)
    cells = [(0.90, 0.3)] if arguments.quick else list(product(AUCS, CORRELATIONS))
    draws, replicates = (10, 100) if arguments.quick else (arguments.draws, arguments.replicates)
    started = time.perf_counter()
    rows = []
    for cell in cells:
        rows += coverage(cell, draws, replicates, arguments.jobs)
        print(f"AUC {cell[0]:.2f}, correlation {cell[1]}: {time.perf_counter() - started:.0f} s", flush=True)
    print(markdown(rows))
    if arguments.write:
        write(rows, TABLE)
        rows = read(TABLE)  # what can be drawn again from the table alone
        put_table(ROOT / "docs" / "intervals.md", markdown(rows))
        (ROOT / "docs" / "images" / "coverage.svg").write_text(figure(rows), encoding="utf-8")
    defaults = [row for row in rows if row.method == "default"]
    finish(
        benchmark="coverage", draws=draws, replicates=replicates, cells=len(cells), jobs=arguments.jobs,
        seconds=time.perf_counter() - started,
        default={f"{row.target} {row.auc} {row.correlation}": row.coverage for row in defaults},
    )  # fmt: skip


def coverage(cell: Cell, draws: int, replicates: int, jobs: int) -> list[Row]:
    """What the intervals of ``draws`` test sets hold, for each target and method."""
    truths = true_values(cell)
    blocks = [(cell, start, min(start + _BLOCK, draws), replicates) for start in range(0, draws, _BLOCK)]
    if jobs > 1:
        with get_context("spawn").Pool(jobs) as pool:
            parts = pool.map(block, blocks, chunksize=1)
    else:
        parts = [block(work) for work in blocks]
    found: dict[tuple[str, str], list[tuple[float, float] | None]] = defaultdict(list)
    for part in parts:
        for key, limits in part.items():
            found[key] += limits
    return [_row(cell, *key, truths[key[0]], limits) for key, limits in found.items()]


def block(work: tuple[Cell, int, int, int]) -> dict[tuple[str, str], list[tuple[float, float] | None]]:
    """The limits by target and method of some draws; a draw's seed is its number."""
    cell, start, stop, replicates = work
    found: dict[tuple[str, str], list[tuple[float, float] | None]] = defaultdict(list)
    for number in range(start, stop):
        for target, method, interval in one_draw(cell, number, replicates):
            found[target, method].append((interval.low, interval.high) if interval else None)
    return found


def one_draw(cell: Cell, number: int, replicates: int) -> Found:
    """Every interval of one simulated test set."""
    labels, patients, p, other = simulate(cell, np.random.default_rng([number, *(round(100 * x) for x in cell)]))
    counts = np.bincount(patients)
    of_patient, mean = labels[np.append(0, np.cumsum(counts)[:-1])], np.bincount(patients, p) / counts

    images = np.arange(len(labels))
    alone = intervals(labels, p, images, THRESHOLD)
    yield from ((name, "images as independent", alone[name]) for name in ("roc_auc", "accuracy"))
    pair_alone = paired_intervals(labels, p, other, images, THRESHOLD, THRESHOLD)
    yield "difference_roc_auc", "images as independent", pair_alone["roc_auc"]
    yield "accuracy", "wilson", intervals(labels, p, patients, THRESHOLD, method="wilson")["accuracy"]

    by_patient = intervals(of_patient, mean, np.arange(len(counts)), THRESHOLD)
    pair = paired_intervals(labels, p, other, patients, THRESHOLD, THRESHOLD)
    default = {
        **intervals(labels, p, patients, THRESHOLD),
        "patient_roc_auc": by_patient["roc_auc"],
        "difference_roc_auc": pair["roc_auc"],
        "difference_accuracy": pair["accuracy"],
    }
    yield from ((name, "default", interval) for name, interval in default.items())

    def scores(weights: np.ndarray) -> Replicates:
        a, b = (weighted_scores(labels, of_model, weights, THRESHOLD) for of_model in (p, other))
        return {**a, **{f"difference_{name}": a[name] - b[name] for name in ("roc_auc", "accuracy")}}

    def of_patients(weights: np.ndarray) -> Replicates:
        return {"patient_roc_auc": weighted_scores(of_patient, mean, weights, THRESHOLD)["roc_auc"]}

    # The replicates are drawn once for all scores; ``intervals`` would draw the same ones for each of its calls.
    for bootstrap in (
        Clustered(scores, labels, patients, LEVEL, replicates, number),
        Clustered(of_patients, of_patient, np.arange(len(counts)), LEVEL, replicates, number),
    ):
        for name in bootstrap.estimates:
            for method, limits in (("percentile", bootstrap.percentile(name)), ("bca", bootstrap.bca(name))):
                yield name, method, Interval(*limits, method) if limits else default[name]


def simulate(cell: Cell, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Labels, patients (0, 0, 1, ...) and the probabilities of two models, each (N,)."""
    sizes = [random.choice(of_class, len(of_class)) for of_class in images_of_patients()]
    of_patient = np.repeat([0, 1], [len(of_class) for of_class in sizes])
    patients = np.repeat(np.arange(len(of_patient)), np.concatenate(sizes))
    labels = of_patient[patients]
    effects = _alike(random, len(of_patient))
    noise = _alike(random, len(labels))
    a, b = (_probability(cell, labels, effect[patients], rest) for effect, rest in zip(effects, noise, strict=True))
    return labels, patients, a, b


@cache
def images_of_patients() -> tuple[np.ndarray, np.ndarray]:
    """For patients without and with COVID: how many images each has in the official test split."""
    rows = [row for row in read_index("covid19ct") if row.split == "test"]
    counts = Counter((row.label, row.patient_id) for row in rows)
    without, with_covid = (np.array([n for (of, _), n in counts.items() if of == label]) for label in (0, 1))
    return without, with_covid


def true_values(cell: Cell) -> dict[str, float]:
    """What the scores would be on endless patients; those by image by integration, that by patient by simulation."""
    from scipy.special import ndtr

    def density(z: np.ndarray) -> np.ndarray:
        return np.exp(-(z**2) / 2) / np.sqrt(2 * np.pi)

    auc, _ = cell
    shift = _shift(auc)
    sizes = images_of_patients()
    prevalence = np.mean(sizes[1]) * len(sizes[1]) / sum(np.sum(of_class) for of_class in sizes)
    rate = float(ndtr(shift / 2))  # sensitivity and specificity, as the threshold lies in the middle
    z = np.linspace(-10, 10, 20001)
    step = z[1] - z[0]
    of_positive, of_negative = density(z - shift / 2), density(z + shift / 2)
    above, false = prevalence * ndtr(shift / 2 - z), (1 - prevalence) * ndtr(-z - shift / 2)
    error = prevalence * of_positive * ndtr(-z) ** 2 + (1 - prevalence) * of_negative * ndtr(z) ** 2
    tp, fp = prevalence * rate, (1 - prevalence) * (1 - rate)
    tn, fn = (1 - prevalence) * rate, prevalence * (1 - rate)
    return {
        "roc_auc": auc,
        "average_precision": float(np.sum(of_positive * above / (above + false)) * step),
        **dict.fromkeys(("accuracy", "balanced_accuracy", "sensitivity", "specificity"), rate),
        "precision": tp / (tp + fp),
        "f1": 2 * tp / (2 * tp + fp + fn),
        "mcc": float((tp * tn - fp * fn) / np.sqrt((tp + fp) * (tp + fn) * (tn + fp) * (tn + fn))),
        "brier": float(np.sum(error) * step),
        "patient_roc_auc": _patient_auc(cell),
        "difference_roc_auc": 0.0,
        "difference_accuracy": 0.0,
    }


def write(rows: Iterable[Row], path: Path) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(Row._fields)
        table.writerows([f"{value:.4g}" if isinstance(value, float) else value for value in row] for row in rows)


def read(path: Path) -> list[Row]:
    with path.open(encoding="utf-8") as file:
        lines = list(csv.DictReader(file))
    kinds = get_type_hints(Row)
    return [Row(**{name: kinds[name](text) for name, text in line.items()}) for line in lines]


def _patient_auc(cell: Cell) -> float:
    random = np.random.default_rng(0)
    per_class = 300_000
    sizes = np.concatenate([random.choice(of_class, per_class) for of_class in images_of_patients()])
    of_patient = np.repeat([0, 1], per_class)
    patients = np.repeat(np.arange(len(sizes)), sizes)
    p = _probability(
        cell, of_patient[patients], random.normal(size=len(sizes))[patients], random.normal(size=len(patients))
    )
    return components(of_patient, np.bincount(patients, p) / sizes).auc


def _probability(cell: Cell, labels: np.ndarray, effect: np.ndarray, noise: np.ndarray) -> np.ndarray:
    from scipy.special import ndtr

    auc, correlation = cell
    p: np.ndarray = ndtr(
        np.sqrt(correlation) * effect + np.sqrt(1 - correlation) * noise + _shift(auc) * (labels - 0.5)
    )
    return p


def _shift(auc: float) -> float:
    from scipy.special import ndtri

    return float(np.sqrt(2) * ndtri(auc))


def _alike(random: np.random.Generator, count: int) -> np.ndarray:
    """(2, count) standard normal, the two rows correlated by ``SHARED``."""
    common, *own = random.normal(size=(3, count))
    return np.stack([np.sqrt(SHARED) * common + np.sqrt(1 - SHARED) * mine for mine in own])


def _row(cell: Cell, target: str, method: str, truth: float, limits: list[tuple[float, float] | None]) -> Row:
    known = [pair for pair in limits if pair]
    share = float(np.mean([low <= truth <= high for low, high in known]))
    error = float(np.sqrt(share * (1 - share) / len(known)))
    width = float(np.mean([high - low for low, high in known]))
    return Row(*cell, target, method, truth, len(limits), len(limits) - len(known), share, error, width)


if __name__ == "__main__":
    main()
