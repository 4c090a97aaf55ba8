"""How often a study's intervals hold the truth: means over seeds, what is lost elsewhere, and pooled folds.

    python -m benchmarks.study_intervals                 # the figures in docs/studies.md: 200 draws a row
    python -m benchmarks.study_intervals --draws 10      # to see that it works

Two hospitals of 60 and 95 patients with one image or more, two on average. A network is good at home (a true ROC AUC
of 0.93) and poor elsewhere (0.69). Its seeds differ: ``spread`` is the standard deviation of their true separations of
the classes, 0.5 being about 0.03 in ROC AUC at home and 0.09 elsewhere; a good seed is good at both.
"""

from __future__ import annotations

import argparse
import os
import time
from statistics import NormalDist

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np

from benchmarks.measuring import finish
from ddtl.evaluation.answers import Answers, Method
from ddtl.evaluation.intervals import Interval
from ddtl.evaluation.matrix import Measured, Settings, drop, measure, pooled
from ddtl.evaluation.predictions import Predictions

HOME, AWAY = (3.0, 60), (1.0, 95)  # separation of the classes at a standard deviation of sqrt(2), and patients
FOLDS = 5
SETTINGS = Settings(replicates=500)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=200, help="of both hospitals, a row")
    draws = parser.parse_args().draws
    started = time.perf_counter()
    held = {}
    for spread in (0.25, 0.5):
        for seeds in (1, 2, 3, 5):
            held[f"{spread} {seeds}"] = found = over_seeds(seeds, spread, draws)
            shown = ", ".join(f"{name} {share:.1%}" for name, share in found.items())
            print(f"seeds {seeds}, spread {spread}: 95 % intervals hold the truth: {shown}", flush=True)
    held["pooled"] = found = {"pooled": folds(draws)}
    print(f"{FOLDS} pooled folds: {found['pooled']:.1%}")
    finish(benchmark="study_intervals", draws=draws, held=held, seconds=time.perf_counter() - started)


def area(separation: float, spread: float = 0.0) -> float:
    """The mean true ROC AUC of networks whose separations are normal: E Phi(X / 2)."""
    return NormalDist().cdf(separation / 2 / (1 + spread**2 / 4) ** 0.5)


def over_seeds(seeds: int, spread: float, draws: int) -> dict[str, float]:
    """The share of draws in which the interval holds the mean of all seeds: at home, elsewhere, and of the loss."""
    truth = {"home": area(HOME[0], spread), "elsewhere": area(AWAY[0], spread)}
    truth["lost"] = truth["home"] - truth["elsewhere"]
    held = dict.fromkeys(truth, 0)
    for draw in range(draws):
        random = np.random.default_rng([seeds, draw])
        luck = (spread * random.normal(size=seeds)).tolist()
        home, away = (cell(place, luck, random, f"{place}") for place in (HOME, AWAY))
        found = {
            "home": home.scores["roc_auc"].interval,
            "elsewhere": away.scores["roc_auc"].interval,
            "lost": drop(home, away, same_runs=True)["roc_auc"].interval,
        }
        for name, interval in found.items():
            held[name] += holds(interval, truth[name])
    return {name: count / draws for name, count in held.items()}


def folds(draws: int) -> float:
    """The same for the pooled predictions of a cross-validation, each fold with a network of its own."""
    held = 0
    for draw in range(draws):
        random = np.random.default_rng([9, draw])
        whole = answers(AWAY[1], [2.0] * FOLDS, random, "x")
        parts = [
            Answers("fold", "drawn", run.predictions.where(patients_of(run) % FOLDS == k), 0.5)
            for k, run in enumerate(whole)
        ]
        found = measure(Method("pooled", (pooled(parts, "pooled"),)), SETTINGS)
        held += holds(found.scores["roc_auc"].interval, area(2.0))
    return held / draws


def cell(place: tuple[float, int], luck: list[float], random: np.random.Generator, name: str) -> Measured:
    separation, patients = place
    return measure(Method(name, tuple(answers(patients, [separation + x for x in luck], random, name))), SETTINGS)


def answers(patients: int, separations: list[float], random: np.random.Generator, name: str) -> list[Answers]:
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
        found.append(Answers("run", "drawn", table, 0.5))
    return found


def patients_of(run: Answers) -> np.ndarray:
    return run.predictions.patient_id.astype(int)


def holds(interval: Interval | None, truth: float) -> bool:
    return interval is not None and interval.low <= truth <= interval.high


if __name__ == "__main__":
    main()
