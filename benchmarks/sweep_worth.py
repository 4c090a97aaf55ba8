"""What the search of ``sweep.py`` is worth: TPE with AfterUnfreeze against random search that ends nothing early.

    python -m benchmarks.sweep_worth                                          # the phantom
    python -m benchmarks.sweep_worth dataset=covid19ct model.weights=FILE     # SqueezeNet's ImageNet weights

Each repeat runs a real sweep of each kind over the same space, each with its own folder of runs, so that neither finds
what the other has trained. Cost is counted in epochs, which no neighbour on the machine can change. Random search gets
``--trials`` full trainings; the other sweep continues until it has spent as many epochs. The score is that of completed
trials alone, on validation. The two sweeps of a repeat share their seeds, and with them the first ten trials, which TPE
too draws at random.

The answer is the ratio of epochs: how many random search needs for the mean best score that it has at the end, by how
many the other one needs for the same score, with an interval from 2,000 bootstrap draws of the repeats. A draw in which
the other one never gets there counts as 0. ``--folder`` keeps everything, and the same command resumes it where it was
stopped. It writes ``sweep_worth-DATASET.svg`` there; the last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import measuring
from benchmarks.sweep_worth_figure import figure
from ddtl.reports.sweep.trials import score

OURS, RANDOM = "TPE + AfterUnfreeze", "random search"
ARMS: dict[str, tuple[str, ...]] = {
    OURS: (),  # what sweep.py does by default
    RANDOM: ("sampler.name=RandomSampler", "pruner.name=NopPruner"),
}
SHARES = (0.25, 0.5, 0.75, 1.0)  # of random search's epochs: its score there is what has to be reached
DRAWS = 2000
_MOST = 4  # times as many trials as random search has, at the most


@dataclass(frozen=True)
class Setting:
    """What is run.

    Attributes:
        dataset: and ``words``, further words for train.py.
        search: the space.
        trials, epochs: of random search; their product is the budget of both.
        workers: trials at a time.
    """

    dataset: str
    words: tuple[str, ...]
    search: str
    trials: int
    epochs: int
    workers: int

    @property
    def budget(self) -> int:
        return self.trials * self.epochs


def main(setting: Setting, repeats: int, folder: Path) -> dict[str, Any]:
    """Run all sweeps and compare them."""
    found: dict[str, list[np.ndarray]] = {name: [] for name in ARMS}
    begun = time.monotonic()
    for repeat in range(repeats):
        for name in ARMS:
            found[name].append(_best_by_epoch(_swept(setting, name, repeat, folder), setting))
            minutes = (time.monotonic() - begun) / 60
            done = sum(map(len, found.values()))
            left = minutes / done * (repeats * len(ARMS) - done)
            print(
                f"repeat {repeat + 1} of {repeats}, {name}: best {found[name][-1][-1]:.4f} in {setting.budget} epochs; "
                f"{minutes:.1f} min, about {left:.1f} left",
                flush=True,
            )
    arrays = {name: np.array(rows) for name, rows in found.items()}
    path = folder / f"sweep_worth-{setting.dataset}.svg"
    path.write_text(figure(arrays, f"{setting.dataset}, {repeats} repeats"), encoding="utf-8")
    print(f"plot: {path}", flush=True)
    return summary(arrays)


def summary(curves: Mapping[str, np.ndarray], seed: int = 0) -> dict[str, Any]:
    """Return the comparison.

    Args:
        curves: by arm the (repeats, epochs) best score so far after each epoch spent, NaN before there is one.
        seed: of the bootstrap.
    """
    ours, random = curves[OURS], curves[RANDOM]
    rng = np.random.default_rng(seed)
    drawn = [rng.integers(len(ours), size=len(ours)) for _ in range(DRAWS)]  # the same repeats of both
    ratios = {}
    for share in SHARES:
        found = ratio(ours, random, share)
        draws = [each for rows in drawn if (each := ratio(ours[rows], random[rows], share)) is not None]
        low, high = np.quantile(draws, [0.025, 0.975], method="inverted_cdf") if draws else (None, None)
        ratios[f"{share:.0%}"] = {
            "ratio": found,
            "low": None if low is None else float(low),
            "high": None if high is None else float(high),
            "never_reached": draws.count(0.0) / DRAWS,
            "no_score_yet": 1 - len(draws) / DRAWS,
        }
    ends = {name: [float(row[-1]) for row in rows] for name, rows in curves.items()}
    return {
        "epochs_ratio": ratios["100%"],
        "ratios_by_share_of_the_budget": ratios,
        "best": {name: {"mean": float(np.mean(values)), "each": values} for name, values in ends.items()},
    }


def ratio(ours: np.ndarray, random: np.ndarray, share: float) -> float | None:
    """Return epochs that random search needs for its score at a share of its budget, by those that ours needs for it.

    Both by the mean over repeats. 0 where ours never gets there, None where random search has no score by then.
    """
    mean_ours, mean_random = ours.mean(axis=0), random.mean(axis=0)
    target = mean_random[max(0, round(share * len(mean_random)) - 1)]
    if np.isnan(target):
        return None
    needed = np.flatnonzero(mean_ours >= target - 1e-12)
    return float((np.flatnonzero(mean_random >= target - 1e-12)[0] + 1) / (needed[0] + 1)) if len(needed) else 0.0


def _best_by_epoch(trials: Iterable[Mapping[str, Any]], setting: Setting) -> np.ndarray:
    """(budget,) the best score of completed trials after each epoch spent, NaN before there is one.

    A trial's epochs are all counted at its end, so of trials that ran at the same time the first to end comes first.
    """
    best = np.full(setting.budget, np.nan)
    spent = 0
    for trial in sorted((t for t in trials if t["ended"]), key=lambda trial: str(trial["ended"])):
        spent += len(trial["curve"])
        value = score(trial)
        if value is not None and spent <= setting.budget:
            best[max(0, spent - 1) :] = np.fmax(best[max(0, spent - 1) :], value)
    return best


def _swept(setting: Setting, name: str, repeat: int, folder: Path) -> Sequence[Mapping[str, Any]]:
    """Return the trials of one sweep: as many as spend the budget."""
    runs = folder / f"{setting.dataset}-{repeat}-{'ours' if name == OURS else 'random'}"
    trials = setting.trials
    while True:
        found = _run(setting, name, repeat, runs, trials)
        spent = sum(len(trial["curve"]) for trial in found)
        if name == RANDOM or spent >= setting.budget or trials >= _MOST * setting.trials:
            return found
        # As many more as the rest of the epochs is good for, if the coming ones are as long as those there are.
        trials += max(1, min(round((setting.budget - spent) / (spent / len(found))), _MOST * setting.trials - trials))


def _run(setting: Setting, name: str, repeat: int, runs: Path, trials: int) -> list[Mapping[str, Any]]:
    words = [
        f"search={setting.search}",
        f"dataset={setting.dataset}",
        f"trainer.max_epochs={setting.epochs}",
        f"n_trials={trials}",
        f"engine.workers={setting.workers}",
        f"sweep.seed={repeat}",
        f"seed={repeat}",
        "sweep.name=worth",
        "sweep.keep=1",
        "finalize=false",
        "logger=none",
        f"paths.runs_dir={runs}",
        *setting.words,
        *ARMS[name],
    ]
    ended = subprocess.run([sys.executable, "-m", "ddtl", "sweep", *words], capture_output=True, text=True, check=False)
    if ended.returncode:
        sys.exit(f"{name}, repeat {repeat + 1}: the sweep ended with {ended.returncode}\n{ended.stderr[-3000:]}")
    record = json.loads((runs / "sweeps" / "worth" / "sweep.json").read_text(encoding="utf-8"))
    return list(record["trials"])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("words", nargs="*", help="dataset=… and further settings of train.py")
    parser.add_argument("--search", default="lr_unfreeze")
    parser.add_argument("--trials", type=int, default=24, help="of random search; TPE needs more than its first ten")
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--folder", type=Path, help="where runs are kept; by default they are deleted")
    given = parser.parse_args()
    chosen = next((word.partition("=")[2] for word in given.words if word.startswith("dataset=")), "phantom")
    # Small images on a small network: a whole epoch in about a second, so that hundreds of trainings can be afforded.
    small = ("model=squeezenet1_1", "dataset.image_size=64", "dataset.val_fraction=0.3", "trainer=cpu")
    usual = small if chosen == "phantom" else tuple(word for word in small if "val_fraction" not in word)
    others = tuple(word for word in given.words if not word.startswith("dataset="))
    arguments = Setting(chosen, (*usual, *others), given.search, given.trials, given.epochs, given.workers)
    with tempfile.TemporaryDirectory() as scratch:
        kept = given.folder or Path(scratch)
        kept.mkdir(parents=True, exist_ok=True)
        result = main(arguments, given.repeats, kept.absolute())
    measuring.finish(
        benchmark="sweep_worth",
        dataset=chosen,
        settings=list(arguments.words),
        trials=given.trials,
        epochs=given.epochs,
        repeats=given.repeats,
        **result,
    )
