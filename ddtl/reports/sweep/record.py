"""The record of a sweep, ``sweep.json``, as its report reads it."""

from __future__ import annotations

import json
import re
import shlex
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from ddtl.records import sweep
from ddtl.reports.sections import reproduce
from ddtl.reports.sweep import replicates as sweep_replicates, trials as sweep_trials
from ddtl.reports.sweep.replicates import Setting
from ddtl.reports.sweep.trials import Trial, score
from ddtl.schema.run import OWN_FILES
from ddtl.schema.scores import TITLES, title_of, with_unit
from ddtl.utils.errors import UserError

RECORD = sweep.NAME

# What ended a trial, in words.
REASONS = {
    "killed": "killed",
    "out_of_memory": "out of memory",
    "nan": "loss became NaN or infinite",
    "time_limit": "took longer than allowed",
    "error": "raised an error",
    "disk_full": "disk full",
    "stopped": "stopped by its user",
}
_PATH = re.compile(r"(?:[A-Za-z]:)?(?:[/\\][^\s/\\:'\"]+)+[/\\]([^\s/\\:'\"]+)")


@dataclass(frozen=True)
class Sweep:
    """A sweep's record, and what its page needs of it more than once."""

    record: Mapping[str, Any]

    @property
    def trials(self) -> list[Trial]:
        return list(self.record["trials"])

    @property
    def monitor(self) -> str:
        return str(self.record["monitor"])

    @cached_property
    def signs(self) -> list[int]:
        """Of each objective: 1 where more is better, else -1."""
        return [1 if direction == "maximize" else -1 for direction in self.record["directions"]]

    @property
    def two(self) -> bool:
        return len(self.signs) > 1

    @cached_property
    def names(self) -> list[str]:
        """Of the objectives, as an axis shows them."""
        return [
            {"score": with_unit(self.monitor), "seconds": "seconds of training"}[name]
            for name in self.record["objective"]
        ]

    @cached_property
    def counts(self) -> Counter[str]:
        return Counter(trial["state"] for trial in self.trials)

    @cached_property
    def replicates(self) -> list[str]:
        """The keys in which trials differ by chance alone, such as ``seed``; none where nothing is repeated."""
        return sweep_replicates.varied(trial["overrides"] for trial in self.trials)

    @cached_property
    def settings(self) -> list[Setting]:
        """What is compared, the best first: each setting over its replicates."""
        scored = [(t["number"], t["overrides"], t["values"] if score(t) is not None else None) for t in self.trials]
        return sweep_replicates.ranked(scored, self.signs[0])

    @cached_property
    def ranked(self) -> list[Trial]:
        """Completed trials, the best first; where trials are replicates, their settings instead.

        A setting is shown as its first trial, with the means for values and without what makes a replicate.
        """
        if not self.replicates:
            return sweep_trials.ranked(self.trials, self.signs[0])
        first = {trial["number"]: trial for trial in self.trials}
        return [
            {
                **first[setting.trials[0]],
                "values": setting.means,
                "overrides": [*setting.words, *sweep_replicates.parts(trial["overrides"] for trial in self.trials)],
                "params": self.chosen(first[setting.trials[0]]),
            }
            for setting in self.settings
        ]

    @cached_property
    def never_completed(self) -> int:
        """How many settings have no completed trial, and so no place among :attr:`settings`."""
        begun = {sweep_replicates.setting(trial["overrides"]) for trial in self.trials}
        return len(begun) - len({setting.words for setting in self.settings}) if self.replicates else 0

    def chosen(self, trial: Trial) -> dict[str, Any]:
        """Return the parameters of a trial that may be chosen: a seed may not."""
        return {name: trial["params"][name] for name in sweep_replicates.without(trial["params"])}

    @property
    def winner(self) -> Trial | None:
        return self.ranked[0] if self.ranked else None

    @property
    def final(self) -> Mapping[str, Any] | None:
        """The comparison on the test set, where there was one."""
        return self.record.get("final")

    @property
    def space(self) -> dict[str, Mapping[str, Any]]:
        """What was searched, by parameter; of a grid nothing, as its values are in the trials."""
        found = {
            key.removeprefix("space."): what
            for key, what in self.record["identity"].items()
            if key.startswith("space.")
        }
        return {name: what for name, what in found.items() if isinstance(what, Mapping)}

    @property
    def title(self) -> str:
        """Of the score, with its unit."""
        name = self.monitor.partition("/")[2]
        return with_unit(title_of(name) if name in TITLES else name)


def read(folder: Path) -> Sweep:
    """Return the record of a sweep.

    Raises:
        UserError: there is none in the folder, or it is damaged.
    """
    try:
        return Sweep(sweep.read(folder))
    except FileNotFoundError as error:
        raise UserError(f"{folder}: there is no {RECORD} in it. Name a sweep's folder, as runs/sweeps/NAME.") from error


def line(trial: Trial, *, test: bool = False) -> str:
    """Return the command of a trial, without what concerns only this machine; with ``test`` it scores the test."""
    words = [word for word in trial["overrides"] if not (test and word == "evaluation.test=false")]
    return reproduce.command({"command": ["train.py", *words]}) or ""


def varied(trial: Trial) -> str:
    """Return what was sampled, as it is typed. A name is a key, or one after the choice that it belongs to."""
    words = (f"{name.rpartition('/')[2]}={spelled(value)}" for name, value in trial["params"].items())
    return shlex.join(words) or "(nothing varied)"


def settings(sweep: Sweep) -> dict[str, Any]:
    """Return what all trials shared, without what concerns only this machine."""
    shared = {
        key.removeprefix("train."): value
        for key, value in sweep.record["identity"].items()
        if key.startswith("train.") and key.removeprefix("train.dataset.") not in OWN_FILES
    }
    if "model.weights" in shared:
        shared["model.weights"] = without_folders(str(shared["model.weights"]))
    return shared


def without_folders(words: str) -> str:
    """Return words whose paths are cut to their last part: a report may be shared."""
    return _PATH.sub(r"\1", words)


def spelled(value: Any) -> str:
    """Return a value as it is typed."""
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    return f"{value:.4g}" if isinstance(value, float) else str(value)
