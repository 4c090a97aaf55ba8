"""What `ddtl compare` claims where nothing differs, and how often it finds a difference that is there.

    python -m benchmarks.comparison                 # the tables in docs/comparing.md: 200 test sets a row
    python -m benchmarks.comparison --fresh 10000   # then the rows with a figure above 6 % again, with fresh test sets
    python -m benchmarks.comparison --quick         # 10 test sets of a few rows, to see that it works

Patients are half positive and have one image, two on average, or a heavy-tailed number of 1 to 16. Errors are
``symmetric`` (each network has patients of its own that it finds hard) or ``asymmetric`` (one network fails on whole
patients, the other on single images, equally often). Seeds differ by a standard deviation of the true ROC AUC; those of
both networks are independent, or the same and compared run by run. A claim is an interval that excludes 0, which is p
below 0.05. Power is in brackets that of ``old_claims``, an earlier rule: for single runs the jackknife's interval and p
by DeLong, McNemar or the bootstrap, over seeds the pigeonhole bootstrap.
"""

from __future__ import annotations

import argparse
import os
import time
from collections import Counter
from dataclasses import dataclass

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np

from benchmarks.measuring import finish
from ddtl.evaluation.comparison.paired_predictions import Method, RunPredictions
from ddtl.evaluation.comparison.repeated import Chance, difference, draw_seeds, leave_out
from ddtl.evaluation.comparison.significance import mcnemar
from ddtl.evaluation.intervals.intervals import paired_intervals
from ddtl.evaluation.intervals.resampling import resample
from ddtl.evaluation.predictions import Predictions
from ddtl.schema.scores import SCORES

SEPARATION = 2.0  # of the classes, at a standard deviation of sqrt(2): a ROC AUC of 0.84
SLOPE = 0.121  # of the ROC AUC in the separation there: phi(1) / 2
FAILURES = 0.15  # of the images, with asymmetric errors
OLD_REPLICATES = 200
_FRESH = 1_000_000  # the first test set that is drawn again


@dataclass(frozen=True)
class Row:
    """Test sets of one kind: of ``gain`` more separation of the first network, 0 where both are equally good."""

    patients: int
    images: str  # a patient: one, two, tail
    errors: str  # symmetric, asymmetric
    seeds: int = 1
    spread: float = 0.0
    paired: bool = False
    gain: float = 0.0


NULL = [
    *(Row(n, images, errors) for n in (20, 40, 95, 400) for images, errors in (
        ("one", "symmetric"), ("two", "symmetric"), ("tail", "symmetric"), ("tail", "asymmetric"))),
    *(Row(n, "two", "symmetric", seeds, 0.04, paired) for n in (20, 95) for seeds in (2, 3, 5)
      for paired in (False, True)),
    *(Row(400, "two", "symmetric", 3, 0.04, paired) for paired in (False, True)),
    *(Row(n, "tail", "asymmetric", 3, 0.04) for n in (20, 95)),
]  # fmt: skip
POWER = [
    Row(40, "one", "symmetric", gain=1.5),
    Row(95, "one", "symmetric", gain=1.0),
    Row(95, "two", "symmetric", gain=1.0),
    Row(95, "tail", "symmetric", gain=1.2),
    *(Row(95, "two", "symmetric", seeds, 0.02, paired, gain=0.7) for seeds in (3, 5) for paired in (False, True)),
]
PROMISED = [row for row in NULL if row.errors == "symmetric" and not row.paired and row.seeds in (1, 3)]
QUICK = [NULL[3], NULL[16]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=200, help="test sets a row")
    parser.add_argument("--fresh", type=int, default=0, help="test sets of a row that is drawn again")
    parser.add_argument("--quick", action="store_true", help="10 test sets of two rows")
    args = parser.parse_args()
    draws, rows = (10, QUICK) if args.quick else (args.draws, [*NULL, *POWER])
    started = time.perf_counter()
    plain, clustered = mcnemar_levels(10 * draws)
    print(f"McNemar at 5 %: {plain:.1%} of equal pairs differ by images, {clustered:.1%} by patient", flush=True)
    claimed = {}
    for row in rows:
        found = claims(row, draws)
        claimed[str(row)] = found
        before = [f" ({100 * found[f'{name} before']:.0f})" if row.gain else "" for name in SCORES]
        shown = " | ".join(f"{100 * found[name]:.1f}{old}" for name, old in zip(SCORES, before, strict=True))
        which = f"{row.seeds} {'paired' if row.paired else ''}".strip()
        print(f"| {row.patients} | {row.images} | {row.errors} | {which} | {row.gain:g} | {shown} |", flush=True)
    power = {f"{row.patients} {row.images} {row.seeds}": promised(row, draws) for row in rows if row in PROMISED}
    print("real power where 80 % is promised:", {name: f"{share:.1%}" for name, share in power.items()})
    error = (0.05 * 0.95 / draws) ** 0.5
    false = [found[name] for row, found in zip(rows, claimed.values(), strict=True) if not row.gain for name in SCORES]
    above = sum(share > 0.06 for share in false)
    print(f"% claimed; Monte-Carlo standard error at 5 %: {100 * error:.1f} points")
    print(f"false: {np.mean(false):.1%} on average, {max(false):.1%} at most, {above} of {len(false)} above 6 %")
    again = {}
    if args.fresh:
        high = [row for row in rows if not row.gain and max(claimed[str(row)][name] for name in SCORES) > 0.06]
        again = draw_again(high, args.fresh)
    seconds = time.perf_counter() - started
    finish(
        benchmark="comparison",
        draws=draws,
        mcnemar=(plain, clustered),
        claimed=claimed,
        promised=power,
        again=again,
        seconds=seconds,
    )


def draw_again(rows: list[Row], draws: int) -> dict[str, dict[str, float]]:
    """Return the false claims of these rows by fresh test sets alone: the highest of many figures is high by chance."""
    found = {}
    for row in rows:
        found[str(row)] = claims(row, draws, first=_FRESH)
        shown = " | ".join(f"{100 * found[str(row)][name]:.1f}" for name in SCORES)
        which = f"{row.seeds} {'paired' if row.paired else ''}".strip()
        print(f"| again | {row.patients} | {row.images} | {row.errors} | {which} | {shown} |", flush=True)
    figures = [share[name] for share in found.values() for name in SCORES]
    above = sum(share > 0.06 for share in figures)
    error = 100 * (0.05 * 0.95 / draws) ** 0.5
    print(
        f"again, error {error:.1f} points: {max(figures, default=0.0):.1%} at most, {above} of {len(figures)} above 6 %"
    )
    return found


def mcnemar_levels(draws: int) -> tuple[float, float]:
    """Return the share of pairs of equal models with p < 0.05, by McNemar's test of images and by that of patients."""
    random = np.random.default_rng(0)
    rejected = np.zeros(2)
    for _ in range(draws):
        patient = np.repeat(np.arange(95), 1 + random.poisson(3, 95))
        shared, of_a, of_b = random.normal(size=(3, 95))
        a, b = ((shared + own)[patient] + 0.5 * random.normal(size=len(patient)) > -1.5 for own in (of_a, of_b))
        rejected += mcnemar(a, b).p_value < 0.05, mcnemar(a, b, patient).p_value < 0.05
    plain, clustered = (rejected / draws).tolist()
    return plain, clustered


def claims(row: Row, draws: int, first: int = 0) -> dict[str, float]:
    """Return the share of test sets on which each score's difference is claimed, and where there is one by
    ``old_claims``.
    """
    count: Counter[str] = Counter()
    for draw in range(first, first + draws):
        a, b = methods(row, np.random.default_rng([row.patients, row.seeds, draw]))
        for name, found in chances(a, b, row.paired).items():
            value, chance = found
            count[name] += chance.varies and abs(value) > chance.limit(1 if value > 0 else -1, 0.05)
        if row.gain:
            count.update(f"{name} before" for name, found in old_claims(a, b).items() if found)
    return {name: count[name] / draws for score in SCORES for name in (score, f"{score} before")}


def chances(a: Method, b: Method, paired: bool) -> dict[str, tuple[float, Chance]]:
    """Of each score the difference and what chance does to it: what ``compare`` judges by, without all else."""
    first = a.runs[0].predictions
    runs = [leave_out(method, first.patient_id, first.label) for method in (a, b)]
    found = {}
    for name in SCORES:
        x, y = (one.influences(name) for one in runs)
        if x is not None and y is not None:
            value = float(x.points.mean() - y.points.mean())
            found[name] = (value, difference(x, y, same_runs=paired))
    return found


def promised(row: Row, draws: int) -> float:
    """Return the power for the difference that an average of test sets says could have been shown with a power of 80
    %.
    """
    values, sizes, limits = [], [], []
    for draw in range(2 * draws):
        a, b = methods(row, np.random.default_rng([row.patients, 7, draw]))
        value, chance = chances(a, b, row.paired)["roc_auc"]
        if not chance.varies:  # the two rank alike: nothing is promised then
            continue
        values.append(value)
        sizes.append(chance.smallest(0.95))
        limits.append(chance.limit(1, 0.05))
    # Every test set's difference, moved to the one that test sets promise to show on average, with its own limit.
    return float(np.mean(np.array(values) - np.mean(values) + np.mean(sizes) > np.array(limits)))


def methods(row: Row, random: np.random.Generator) -> tuple[Method, Method]:
    sizes = {
        "one": np.ones(row.patients, dtype=int),
        "two": 1 + random.poisson(1, row.patients),
        "tail": np.clip((1 / random.uniform(size=row.patients)).astype(int), 1, 16),
    }[row.images]
    patient = np.repeat(np.arange(row.patients), sizes)
    shared, luck = random.normal(size=row.patients), random.normal(size=row.seeds)
    found = []
    for number, name in enumerate("ab"):
        hard = shared + 0.8 * random.normal(size=row.patients)
        own = random.normal(size=row.seeds)
        # Of the seeds of two paired networks half the variance is common.
        effects = row.spread / SLOPE * ((luck + own) / 2**0.5 if row.paired else own)
        better = row.gain if number == 0 else 0.0
        runs = tuple(
            failing(patient, number == 0, effect, random)
            if row.errors == "asymmetric"
            else answers(patient, SEPARATION + better + effect, hard[patient], random)
            for effect in effects
        )
        found.append(Method(name, runs))
    return found[0], found[1]


def failing(patient: np.ndarray, whole: bool, effect: float, random: np.random.Generator) -> RunPredictions:
    """Return a network that ranks whole patients, or single images, the wrong way round."""
    places = random.uniform(size=patient.max() + 1)[patient] if whole else random.uniform(size=len(patient))
    sign = np.where(places < FAILURES, -1, 1)
    x = (3.0 + effect) * sign * (patient % 2 - 0.5) + 0.7 * random.normal(size=len(patient))
    return answered(patient, x)


def answers(patient: np.ndarray, separation: float, hard: np.ndarray, random: np.random.Generator) -> RunPredictions:
    return answered(patient, separation * (patient % 2 - 0.5) + hard + 0.6 * random.normal(size=len(patient)))


def answered(patient: np.ndarray, x: np.ndarray) -> RunPredictions:
    """Return patients with odd numbers are positive."""
    names, images = patient.astype(str), np.arange(len(patient)).astype(str)
    split, logits = np.full(len(patient), "test"), np.stack([-x / 2, x / 2], axis=1)
    return RunPredictions(
        "run", "drawn", Predictions(("0", "1"), split, images, names, names, split, patient % 2, logits), 0.5
    )


def old_claims(a: Method, b: Method) -> dict[str, bool]:
    """Return the rule before: interval excludes 0 and p below 0.05."""
    first, second = a.runs[0], b.runs[0]
    labels, clusters = first.predictions.label, first.predictions.patient_id
    tables = []
    for number, method in enumerate((a, b)):
        each = [resample(run.weighted, clusters, labels, OLD_REPLICATES, 0) for run in method.runs]
        drawn = draw_seeds(len(each), OLD_REPLICATES, (0, number))
        tables.append({name: np.take_along_axis(np.stack([one[name] for one in each]).T, drawn, axis=1).mean(axis=1)
                       for name in SCORES})  # fmt: skip
    claimed = {}
    single = len(a.runs) == 1
    found = paired_intervals(labels, first.p, second.p, clusters, 0.5, 0.5) if single else {}
    for name in SCORES:
        apart = tables[0][name] - tables[1][name]
        apart = apart[np.isfinite(apart)]
        if len(apart) < 0.95 * OLD_REPLICATES:
            claimed[name] = False
            continue
        low, high = np.quantile(apart, [0.025, 0.975])
        p = 2 * min((1 + (apart <= 0).sum()), (1 + (apart >= 0).sum())) / (1 + len(apart))
        if single:
            interval = found[name]
            if interval is None:
                claimed[name] = False
                continue
            low, high = interval.low, interval.high
            if name == "roc_auc":
                p = 0.0  # DeLong's interval and test agree
            elif name == "accuracy":
                p = mcnemar(first.right, second.right, clusters).p_value
        claimed[name] = bool((low > 0 or high < 0) and p < 0.05)
    return claimed


if __name__ == "__main__":
    main()
