"""How often a study's intervals cover the truth: means over seeds, drops to another hospital, and pooled folds.

    python -m benchmarks.study_intervals                 # the tables in docs/studies.md: 100 draws a row
    python -m benchmarks.study_intervals --fresh 2000    # then the rows outside of 92 to 98 % again, with fresh draws
    python -m benchmarks.study_intervals --quick         # 10 draws of a few rows, to see that it works

Two hospitals of patients with one image or more, two on average. A network is good in-domain (a true ROC AUC of 0.93 or
0.99) and poor on the other one (0.69, 95 patients). Its seeds differ: the true separation of the classes has a standard
deviation of 0.25 or 0.5 between them, and a good seed is good in both hospitals. An interval that is missing is a miss.
"""

from __future__ import annotations

import argparse
import os
import time
from collections import Counter
from statistics import NormalDist

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np

from benchmarks.measuring import finish
from ddtl.evaluation.comparison.matrix import Measured, drop, measure, pool_folds
from ddtl.evaluation.comparison.paired_predictions import Method, RunPredictions
from ddtl.evaluation.intervals.interval import Interval
from ddtl.evaluation.predictions import Predictions

IN_DOMAIN = {0.93: 2.95, 0.99: 4.65}  # the separation of the classes by ROC AUC, at a standard deviation of sqrt(2)
EXTERNAL = (1.0, 95)  # separation and patients
PATIENTS = (20, 100, 500)
SPREADS = (0.25, 0.5)
SEEDS = (1, 2, 3, 5)  # one with the larger spread alone: what it cannot know
SCORES = ("roc_auc", "balanced_accuracy")
FOLDS = 5
LEAST, MOST = 0.92, 0.98  # of what an interval is to cover
_FRESH = 1_000_000  # the first draw of a row that is drawn again


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=100, help="of both hospitals, a row")
    parser.add_argument("--fresh", type=int, default=0, help="draws of a row that is drawn again")
    parser.add_argument("--quick", action="store_true", help="10 draws of the smallest hospitals")
    args = parser.parse_args()
    draws, patients = (10, PATIENTS[:1]) if args.quick else (args.draws, PATIENTS)
    started = time.perf_counter()
    covered, rows = {}, {}
    print("| home patients | home ROC AUC | SD of separation | seeds | " + " | ".join(titles()) + " |", flush=True)
    for count in patients:
        for auc, separation in IN_DOMAIN.items():
            for spread in SPREADS:
                for seeds in SEEDS if spread == SPREADS[-1] else SEEDS[1:]:
                    found = over_seeds(seeds, spread, (separation, count), draws)
                    covered[f"{count} {auc} {spread} {seeds}"] = found
                    rows[f"{count} {auc} {spread} {seeds}"] = (seeds, spread, (separation, count))
                    cells = " | ".join(f"{found[title]:.1%}" for title in titles())
                    print(f"| {count} | {auc} | {spread} | {seeds} | {cells} |", flush=True)
    covered["pooled"] = found = {"pooled": folds(draws)}
    error = (0.95 * 0.05 / draws) ** 0.5
    print(f"{FOLDS} pooled folds: {found['pooled']:.1%}; Monte-Carlo standard error at 95 %: {error:.1%}")
    # The lowest and the highest of many shares are so by chance as well: they are judged by fresh draws alone.
    outside = [
        name
        for name, (seeds, *_) in rows.items()
        if seeds > 1 and not all(LEAST <= share <= MOST for share in covered[name].values())
    ]
    again = {}
    for name in outside if args.fresh else ():
        again[name] = over_seeds(*rows[name], args.fresh, first=_FRESH)
        cells = " | ".join(f"{again[name][title]:.1%}" for title in titles())
        print(f"| again {name} | {cells} |", flush=True)
    finish(
        benchmark="study_intervals", draws=draws, covered=covered, again=again, seconds=time.perf_counter() - started
    )


def titles() -> list[str]:
    return [f"{score} {where}" for score in SCORES for where in ("home", "external", "drop")]


def truth(score: str, separation: float, spread: float) -> float:
    """Return the mean true score of networks whose separations are normal: E Phi(X / width)."""
    width = 2.0 if score == "roc_auc" else 2 * 2**0.5
    return NormalDist().cdf(separation / width / (1 + (spread / width) ** 2) ** 0.5)


def over_seeds(
    seeds: int, spread: float, home_place: tuple[float, int], draws: int, first: int = 0
) -> dict[str, float]:
    """Return the share of draws in which the interval covers the mean of all seeds and patients."""
    covered: Counter[str] = Counter()
    for draw in range(first, first + draws):
        random = np.random.default_rng([seeds, home_place[1], draw])
        luck = (spread * random.normal(size=seeds)).tolist()
        home, external = cell(home_place, luck, random, "home"), cell(EXTERNAL, luck, random, "external")
        drops = drop(home, external, same_runs=True)
        for score in SCORES:
            here, there = truth(score, home_place[0], spread), truth(score, EXTERNAL[0], spread)
            covered[f"{score} home"] += covers(home.scores[score].interval, here)
            covered[f"{score} external"] += covers(external.scores[score].interval, there)
            covered[f"{score} drop"] += covers(drops[score].interval, here - there)
    return {title: covered[title] / draws for title in titles()}


def folds(draws: int) -> float:
    """Return the same for the pooled predictions of a cross-validation, each fold with a network of its own."""
    covered = 0
    for draw in range(draws):
        random = np.random.default_rng([9, draw])
        whole = answers(EXTERNAL[1], [2.0] * FOLDS, random, "x")
        parts = [
            RunPredictions("fold", "drawn", run.predictions.where(patients_of(run) % FOLDS == k), 0.5)
            for k, run in enumerate(whole)
        ]
        found = measure(Method("pooled", (pool_folds(parts, "pooled"),)))
        covered += covers(found.scores["roc_auc"].interval, truth("roc_auc", 2.0, 0.0))
    return covered / draws


def cell(place: tuple[float, int], luck: list[float], random: np.random.Generator, name: str) -> Measured:
    separation, patients = place
    return measure(Method(name, tuple(answers(patients, [separation + x for x in luck], random, name))))


def answers(patients: int, separations: list[float], random: np.random.Generator, name: str) -> list[RunPredictions]:
    """Networks on one test set; patients with odd numbers are positive, some are hard for every network."""
    patient = np.repeat(np.arange(patients), 1 + random.poisson(1, patients))
    labels, shared = patient % 2, random.normal(size=patients)
    split, names = np.full(len(patient), "test"), patient.astype(str)
    images = np.array([f"{name} {i}" for i in range(len(patient))])
    found = []
    for separation in separations:
        own = 0.8 * random.normal(size=patients)
        x = separation * (labels - 0.5) + (shared + own)[patient] + 0.6 * random.normal(size=len(patient))
        logits = np.stack([-x / 2, x / 2], axis=1)
        table = Predictions(("0", "1"), split, images, names, names, split, labels, logits)
        found.append(RunPredictions("run", "drawn", table, 0.5))
    return found


def patients_of(run: RunPredictions) -> np.ndarray:
    return run.predictions.patient_id.astype(int)


def covers(interval: Interval | None, value: float) -> bool:
    return interval is not None and interval.low <= value <= interval.high


if __name__ == "__main__":
    main()
