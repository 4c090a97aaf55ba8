"""What `ddtl compare` claims where nothing differs: how often McNemar's tests and the intervals over seeds are wrong.

    python -m benchmarks.comparison                 # the figures in docs/comparing.md: 200 test sets a row
    python -m benchmarks.comparison --draws 10      # to see that it works

95 patients with one image or more, two on average (four for McNemar's test). Two methods are equally good. Each has
patients of its own that it finds hard, and its seeds differ: ``spread`` is the standard deviation of their true ROC
AUC.
"""

from __future__ import annotations

import argparse
import os
import time

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np

from benchmarks.measuring import finish
from ddtl.evaluation.answers import Answers, Method
from ddtl.evaluation.comparison import compare
from ddtl.evaluation.predictions import Predictions
from ddtl.evaluation.significance import mcnemar

PATIENTS = 95
SEPARATION = 2.0  # of the classes, at a standard deviation of sqrt(2): a ROC AUC of 0.84
SLOPE = 0.121  # of the ROC AUC in the separation there: phi(1) / 2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=200, help="test sets a row")
    draws = parser.parse_args().draws
    started = time.perf_counter()
    plain, clustered = mcnemar_levels(10 * draws)
    print(f"McNemar at 5 %: {plain:.1%} of equal pairs are told apart, {clustered:.1%} with patients kept together")
    wrong = {}
    for spread in (0.02, 0.05):
        for seeds in (1, 2, 3, 5):
            wrong[f"{spread} {seeds}"] = found = over_seeds(seeds, spread, draws)
            print(f"seeds {seeds}, ROC AUC +- {spread} a seed: 95 % intervals miss {found:.1%}", flush=True)
    seconds = time.perf_counter() - started
    finish(benchmark="comparison", draws=draws, mcnemar=plain, clustered=clustered, seeds=wrong, seconds=seconds)


def mcnemar_levels(draws: int) -> tuple[float, float]:
    """The share of pairs of equal models with p < 0.05, by McNemar's test of images and by that of patients."""
    random = np.random.default_rng(0)
    told = np.zeros(2)
    for _ in range(draws):
        patient = np.repeat(np.arange(PATIENTS), 1 + random.poisson(3, PATIENTS))
        shared, of_a, of_b = random.normal(size=(3, PATIENTS))
        a, b = ((shared + own)[patient] + 0.5 * random.normal(size=len(patient)) > -1.5 for own in (of_a, of_b))
        told += mcnemar(a, b).p_value < 0.05, mcnemar(a, b, patient).p_value < 0.05
    plain, clustered = (told / draws).tolist()
    return plain, clustered


def over_seeds(seeds: int, spread: float, draws: int) -> float:
    """The share of test sets on which the interval of the difference of two equal methods leaves out 0."""
    missed = 0
    for draw in range(draws):
        random = np.random.default_rng([seeds, draw])
        patient = np.repeat(np.arange(PATIENTS), 1 + random.poisson(1, PATIENTS))
        shared = random.normal(size=PATIENTS)
        methods = []
        for name in ("a", "b"):
            hard = (shared + 0.8 * random.normal(size=PATIENTS))[patient]
            runs = tuple(answers(patient, hard, spread / SLOPE, random) for _ in range(seeds))
            methods.append(Method(name, runs))
        interval = compare(methods, replicates=500).pairs[0].judged.interval
        assert interval is not None
        missed += interval.low > 0 or interval.high < 0
    return missed / draws


def answers(patient: np.ndarray, hard: np.ndarray, spread: float, random: np.random.Generator) -> Answers:
    """One seed: patients with odd numbers are positive."""
    labels = patient % 2
    separation = SEPARATION + spread * random.normal()
    x = separation * (labels - 0.5) + hard + 0.6 * random.normal(size=len(patient))
    names, images = patient.astype(str), np.arange(len(patient)).astype(str)
    split = np.full(len(patient), "test")
    logits = np.stack([-x / 2, x / 2], axis=1)
    return Answers("run", "drawn", Predictions(("0", "1"), split, images, names, names, split, labels, logits), 0.5)


if __name__ == "__main__":
    main()
