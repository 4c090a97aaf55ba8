"""How far the estimates of a learning-rate range test are from the rate that a search finds best.

    python -m benchmarks.lr_find_rules

Logistic regression trained by Adam on batches of simulated data: the search trains 300 steps at each of 25 rates (a
warm-up, then a half cosine, as in ``train.py``) and takes the one with the lowest loss on all data. The last line is
one JSON object: by kind of data the median and the standard deviation of log10(reading / best) over the cases.
"""

from __future__ import annotations

import argparse
import json

import numpy as np

from ddtl.lr_find.rules import RULES, Curve, LossWatch, ramp, suggest, valley

STEPS, SAMPLES, FEATURES, LENGTH = 100, 400, 50, 300
GRID = np.geomspace(1e-6, 1, 25)
FASTAI = "valley of fastai's mean"


class Task:
    """Data of one draw; ``widths`` is the smallest feature's scale as a share of the largest one's."""

    def __init__(self, seed: int, batch: int, widths: float) -> None:
        rng = np.random.default_rng(seed)
        self.x = rng.normal(size=(SAMPLES, FEATURES)) * np.geomspace(1, widths, FEATURES)
        positive = rng.random(SAMPLES) < 1 / (1 + np.exp(-self.x @ rng.normal(size=FEATURES)))
        self.sign = np.where(positive, 1.0, -1.0)
        self.batch, self.seed = batch, seed

    def train(self, rates: np.ndarray, watch: LossWatch | None = None) -> tuple[np.ndarray, float]:
        """Loss of each batch, up to where ``watch`` says stop, and that of all data at the end."""
        rng = np.random.default_rng([self.seed, watch is None])
        w, m, v, losses = np.zeros(FEATURES), np.zeros(FEATURES), np.zeros(FEATURES), []
        for t, rate in enumerate(rates, start=1):
            rows = rng.integers(0, SAMPLES, self.batch)
            margin = self.sign[rows] * (self.x[rows] @ w)
            losses.append(float(np.mean(np.logaddexp(0, -margin))))
            if watch is not None and watch.ended(losses[-1]):
                break
            slope = self.sign[rows] * np.exp(-np.logaddexp(0, margin))
            gradient = -np.mean(slope[:, None] * self.x[rows], axis=0)
            m, v = 0.9 * m + 0.1 * gradient, 0.999 * v + 0.001 * gradient**2
            w = w - rate * (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
        return np.array(losses), float(np.mean(np.logaddexp(0, -self.sign * (self.x @ w))))

    def best(self) -> float:
        """Return the rate of the grid that trains best."""
        step = np.arange(LENGTH)
        shape = np.minimum(1, (step + 1) / 16) * (0.5 + 0.5 * np.cos(np.pi * step / LENGTH))
        return float(min(GRID, key=lambda rate: self.train(rate * shape)[1]))

    def readings(self) -> dict[str, float]:
        """Of a range test; none where it suggests nothing."""
        rates = ramp(1e-7, 1, STEPS)
        losses, _ = self.train(rates, LossWatch(STEPS))
        found = suggest(Curve(rates[: len(losses)], losses), STEPS).rules
        return found and {**found, FASTAI: float(rates[_fastai_valley(losses)])}


def _fastai_valley(losses: np.ndarray) -> int:
    """As fastai 2.7 reads it: a running mean of memory 0.98, without the first tenth and the last five steps."""
    weights = 0.98 ** np.maximum(0, np.subtract.outer(np.arange(len(losses)), np.arange(len(losses))))
    weights = np.tril(weights)
    mean = weights @ losses / weights.sum(axis=1)
    return STEPS // 10 + valley(mean[STEPS // 10 : -5])


def main(cases: int) -> dict[str, dict[str, object]]:
    """Return the comparison for batches of 16 and 64, and features of like and of unlike scale."""
    result: dict[str, dict[str, object]] = {}
    for batch in (16, 64):
        for widths in (1.0, 0.05):
            found = [(task.readings(), task.best()) for task in (Task(seed, batch, widths) for seed in range(cases))]
            reported = [(readings, best) for readings, best in found if readings]
            off = {rule: [np.log10(readings[rule] / best) for readings, best in reported] for rule in (*RULES, FASTAI)}
            summary = {rule: [round(float(f(values)), 2) for f in (np.median, np.std)] for rule, values in off.items()}
            result[f"batch {batch}, widths {widths:g}"] = {**summary, "suggest nothing": cases - len(reported)}
    return result


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=12)
    print(json.dumps(main(parser.parse_args().cases)))
