"""Records of sweeps that never ran, with everything that a report reads: drawn from a simple world with known truth.

The score is highest at a learning rate of 3e-4, is lower by 0.06 for linear_probe, dips after each unfreezing, and
depends neither on the batch size nor on the augmentation.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np

START = datetime(2026, 11, 23, 9, 0, tzinfo=UTC)
EPOCHS = 10
SPACE = {
    "space.optimizer.lr": {"key": "optimizer.lr", "float": [1e-5, 1e-2], "log": True},
    "space.finetune": {"key": "finetune", "choice": ["linear_probe", "lp_ft", "gradual"]},
    "space.finetune.backbone_lr_ratio": {
        "key": "finetune.backbone_lr_ratio",
        "float": [0.01, 1.0],
        "log": True,
        "where": ["finetune=lp_ft", "finetune=gradual"],
    },
    "space.augment": {"key": "augment", "choice": ["none", "standard", "strong"]},
    "space.dataset.batch_size": {"key": "dataset.batch_size", "choice": [16, 32]},
}
FIXED = ["dataset=covid19ct", "paths.runs_dir=/home/someone/runs", "evaluation.test=false"]


def record(
    trials: int = 60, *, two: bool = False, final: Mapping[str, Any] | None = None, seed: int = 0, **changes: Any
) -> dict[str, Any]:
    """A sweep's record.

    Args:
        trials: how many; the last two still run, some are pruned and some failed.
        two: whether time is an objective too; nothing is pruned then.
        final: the answer of the comparison on the test set.
        seed: of the world.
        changes: what to replace in the record.
    """
    random = np.random.default_rng(seed)
    made: list[dict[str, Any]] = []
    free = [0.0, 4.0]  # seconds since the start at which each of two workers takes its next trial
    for number in range(trials):
        worker = int(np.argmin(free))
        trial = _trial(number, trials, random, made, two)
        trial |= _times(trial, free[worker], worker)
        free[worker] += trial["seconds"] + 0.8
        made.append(trial)
    done = [trial for trial in made if trial["state"] == "complete"]
    best = max(done, key=lambda trial: trial["values"][0])["number"] if done and not two else None
    found = {
        "name": "covid19ct-lr_unfreeze",
        "dataset": "covid19ct",
        "search": "lr_unfreeze",
        "objective": ["score", "seconds"] if two else ["score"],
        "directions": ["maximize", "minimize"] if two else ["maximize"],
        "monitor": "val/roc_auc",
        "identity": {
            "seed": seed,
            "sampler.name": "TPESampler",
            "sampler.args.group": True,
            "pruner.name": "NopPruner" if two else "AfterUnfreeze",
            **SPACE,
            "train.dataset.name": "covid19ct",
            "train.dataset.root": "/home/someone/images",
            "train.model.weights": "/home/someone/squeezenet.safetensors",
        },
        "optuna": "5.0.0",
        "started": START.isoformat(),
        "ended": (START + timedelta(seconds=max(free))).isoformat(),
        "counts": {
            state: sum(t["state"] == state for t in made) for state in ("complete", "pruned", "failed", "running")
        },
        "trials": made,
        "best": best,
        "final": final,
    }
    return {**found, **changes}


def _trial(
    number: int, trials: int, random: np.random.Generator, before: list[dict[str, Any]], two: bool
) -> dict[str, Any]:
    params: dict[str, Any] = {"optimizer.lr": float(10 ** random.uniform(-5, -2))}
    params["finetune"] = str(random.choice(["linear_probe", "lp_ft", "gradual"]))
    if params["finetune"] != "linear_probe":
        params["finetune.backbone_lr_ratio"] = float(10 ** random.uniform(-2, 0))
    params["augment"] = str(random.choice(["none", "standard", "strong"]))
    params["dataset.batch_size"] = int(random.choice([16, 32]))
    phases = {"linear_probe": [0], "lp_ft": [0, 3], "gradual": [0, 2, 4, 6]}[params["finetune"]]
    reach = 0.93 - 0.05 * abs(math.log10(params["optimizer.lr"] / 3e-4)) - 0.06 * (params["finetune"] == "linear_probe")
    curve = []
    for epoch in range(EPOCHS):
        dip = 0.05 * any(epoch == phase for phase in phases[1:])
        curve.append([epoch, float(reach - 0.25 * math.exp(-epoch / 2.5) - dip + random.normal(scale=0.006))])
    state, reason, words = "complete", None, ""
    if number >= trials - 2:
        state, curve = "running", curve[:3]
    elif number % 13 == 5:
        state, reason, words, curve = "failed", *_FAILURES[number // 13 % len(_FAILURES)], curve[: number % 4]
    elif (
        not two
        and len(before) > 5
        and curve[4][1] < float(np.median([t["curve"][4][1] for t in before if len(t["curve"]) > 4]))
    ):
        state, curve = "pruned", curve[:5]
    words_of = [f"{key}={value}" for key, value in params.items()]
    seconds = len(curve) * (14.0 if params["finetune"] == "linear_probe" else 31.0) + 1.0
    values = [max(value for _, value in curve)] if state == "complete" else None
    return {
        "number": number,
        "state": state,
        "reason": reason,
        "words": words,
        "params": params,
        "overrides": [*words_of, *FIXED],
        "line": " ".join(["python train.py", *words_of, *FIXED]),
        "values": [*values, seconds] if values and two else values,
        "curve": curve,
        "epochs": len(curve),
        "phases": phases,
        "seconds": seconds,
        "fit_seconds": seconds - 1.0,
        "run": f"squeezenet1_1-{params['finetune']}-s0-{number:010x}",
        "attempts": [],
    }


_FAILURES = (
    ("out_of_memory", "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB"),
    ("nan", "The training loss is nan in epoch 2, step 61 (optimizer.lr=0.0093)"),
    ("time_limit", "no end after 30 minutes (sweep.trial_minutes=30)"),
)


def _times(trial: Mapping[str, Any], start: float, worker: int) -> dict[str, Any]:
    """When the trial began and ended; every seventeenth was killed once on the way."""
    name = f"somebodys-laptop-{worker}"
    begun, ended = (START + timedelta(seconds=s) for s in (start, start + trial["seconds"]))

    def attempt(start: datetime, end: datetime, reason: str, words: str = "") -> dict[str, Any]:
        times = {"started": start.isoformat(), "ended": end.isoformat()}
        return {"worker": name, **times, "reason": reason, "words": words}

    attempts = []
    since = begun
    if trial["number"] % 17 == 9 and trial["state"] == "complete":
        middle = begun + (ended - begun) / 3
        attempts.append(attempt(begun, middle, "killed", "ended by SIGKILL"))
        since = middle + timedelta(seconds=0.5)
    if trial["state"] != "running":
        end = {"complete": "completed", "pruned": "pruned"}.get(trial["state"], trial["reason"])
        attempts.append(attempt(since, ended, end, trial["words"]))
    return {
        "worker": name,
        "started": begun.isoformat(),
        "ended": None if trial["state"] == "running" else ended.isoformat(),
        "attempts": attempts,
    }


def final(difference: float = 0.031, low: float = 0.004, high: float = 0.058) -> dict[str, Any]:
    """The answer of a comparison: the winner's test score less the default's, with its interval."""
    spread = [0.004, -0.006, 0.002, -0.003, 0.003]
    methods = {"the winner": 0.842, "the default": 0.842 - difference}
    interval = {"low": low, "high": high, "method": "percentile"}
    return {
        "monitor": "val/roc_auc",
        "seeds": [1, 2, 3, 4, 5],
        "runs": {
            name: [
                {"run": f"{name}-{seed}", "seed": seed, "score": at + 0.05 + off} for seed, off in enumerate(spread, 1)
            ]
            for name, at in methods.items()
        },
        "comparison": {
            "score": "roc_auc",
            "unit": "patient",
            "level": 0.95,
            "methods": [
                {
                    "name": name,
                    "scores": {"roc_auc": at},
                    "intervals": {"roc_auc": {"low": at - 0.06, "high": at + 0.05}},
                }
                for name, at in methods.items()
            ],
            "pairs": [{"differences": {"roc_auc": {"value": difference, "interval": interval}}}],
        },
        "claimed": low > 0,
        "claim": (
            f"Over 5 seeds each, on these 95 patients (203 images) the winner is better than the default by "
            f"{difference:.3f} ROC AUC (95 % interval {low:.3f} to {high:.3f}, paired by patient, p = 0.02)."
        ),
        "caveats": ["The latest of these runs was test-set use number 10."],
    }
