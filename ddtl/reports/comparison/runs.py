"""Finished runs as methods to compare: those that differ in the seed alone are one, named by what sets it apart."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ddtl.evaluation.comparison.paired_predictions import Method, RunPredictions
from ddtl.records import test_ledger
from ddtl.reports.run import stored
from ddtl.reports.run.stored import Stored
from ddtl.schema.run import NEUTRAL, OWN_FILES
from ddtl.utils.errors import UserError
from ddtl.utils.reading import Unreadable

# What does not make a run another method: the seed, where things are, who gets the curves, how it is scored.
_NEUTRAL_GROUPS = ("run", "paths", "logger", "evaluation")
_NEUTRAL = {
    "seed", "dataset.num_workers", "trainer.profiler", "trainer.detect_anomaly", "trainer.checkpoint_seconds",
    *(f"dataset.{name}" for name in OWN_FILES),
}  # fmt: skip
# What a reader wants to know first about a method, if it differs between the methods.
_FIRST = ("model.name", "finetune.name", "dataset.name", "dataset.protocol", "augment.name", "optimizer.name")
_NEEDED = ("dataset", "protocol", "grouping", "classes", "threshold")
_AGAIN = "Delete results.json there and repeat the command that made it: it scores again, without training."


@dataclass(frozen=True)
class Compared:
    """Runs to compare.

    Attributes:
        methods: in the order in which the first run of each was named.
        runs: the stored runs, in the order in which they were named.
        split: ``test`` or ``val``.
        also: settings in which the methods differ other than those in their names.
        only_seeds: the runs are all of one method, so each was taken for a method of its own.
    """

    methods: list[Method]
    runs: list[Stored]
    split: str
    also: list[str]
    only_seeds: bool


def read(folders: Sequence[Path], split: str) -> Compared:
    """Read the runs and find which of them belong together.

    Raises:
        UserError: a folder contains no finished run, no such split, or damaged predictions; a run is named twice.
    """
    twice = [folder for i, folder in enumerate(folders) if folder.resolve() in {f.resolve() for f in folders[:i]}]
    if twice:
        raise UserError(f"{twice[0]} is named twice. Name each run once.")
    runs = [_checked(stored.read(folder), split) for folder in folders]
    configs = [run.config if isinstance(run.config, Mapping) else {} for run in runs]
    settings = [_settings(config) for config in configs]
    together = _together(settings, [config.get("seed") for config in configs])
    only_seeds = len(together) == 1
    if only_seeds:
        together = [[i] for i in range(len(runs))]
        settings = [{"seed": config.get("seed")} for config in configs]
    first = [rows[0] for rows in together]
    names, also = label([settings[i] for i in first], _short([folders[i] for i in first]))
    methods = [
        Method(name, tuple(_answers(runs[i], folders[i], split) for i in rows))
        for name, rows in zip(names, together, strict=True)
    ]
    return Compared(methods, runs, split, also, only_seeds)


def label(settings: Sequence[Mapping[str, Any]], folders: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return a name for each method: the fewest settings that distinguish all of them, else its folder.

    Args:
        settings: by dotted key.
        folders: names to fall back on, all different.

    Returns:
        The names, and the settings that differ too and are in no name.
    """
    keys = dict.fromkeys(itertools.chain.from_iterable(settings))
    spelled = {key: [_spelled(one.get(key)) for one in settings] for key in keys}
    varying = sorted((key for key in keys if len(set(spelled[key])) > 1), key=_rank)
    for count in (1, 2, 3):
        for chosen in itertools.combinations(varying[:20], count):
            found = [" ".join(f"{key}={spelled[key][i]}" for key in chosen) for i in range(len(settings))]
            if len(set(found)) == len(settings) and max(map(len, found)) <= 80:
                return found, [key for key in varying if key not in chosen and not _comes_with(key, chosen)]
    return list(folders), varying


def _rank(key: str) -> tuple[bool, int]:
    """Return the sorting key: those of ``_FIRST`` first, the others in the order of the configuration."""
    return key not in _FIRST, _FIRST.index(key) if key in _FIRST else 0


def _comes_with(key: str, chosen: Sequence[str]) -> bool:
    """Return whether a name that is shown brings the setting: ``model.name`` does so for all of ``model``."""
    return any(name.endswith(".name") and key.startswith(name.removesuffix("name")) for name in chosen)


def _spelled(value: Any) -> str:
    """Return a setting as it is typed."""
    return value if isinstance(value, str) else json.dumps(value, default=str)


def _settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return what makes a method, by dotted key."""
    own = {key: value for key, value in config.items() if key not in _NEUTRAL_GROUPS}
    if isinstance(own.get("dataset"), Mapping):  # what follows from the sources' names is not a further setting
        own["dataset"] = {key: value for key, value in own["dataset"].items() if key != "source_settings"}
    # A setting that earlier versions did not have is, at its default, no other method.
    return {key: value for key, value in _flat(own) if key not in _NEUTRAL and NEUTRAL.get(key, ...) != value}


def _flat(tree: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _together(settings: Sequence[Mapping[str, Any]], seeds: Sequence[Any]) -> list[list[int]]:
    """Return the rows of the runs of each method. Runs without known settings, or of one seed, are separate methods."""
    groups: dict[str, list[int]] = {}
    for i, one in enumerate(settings):
        groups.setdefault(json.dumps(one, sort_keys=True, default=str) if one else f"run {i}", []).append(i)
    split = [
        [rows] if len({_spelled(seeds[i]) for i in rows}) == len(rows) else [[i] for i in rows]
        for rows in groups.values()
    ]
    return sorted(itertools.chain.from_iterable(split))


def _short(folders: Sequence[Path]) -> list[str]:
    """Return the last parts of the folders' paths, as many as distinguish them."""
    parts = [folder.resolve().parts for folder in folders]
    for count in range(1, max(map(len, parts)) + 1):
        short = ["/".join(each[-count:]) for each in parts]
        if len(set(short)) == len(short):
            return short
    return [str(folder) for folder in folders]


def _checked(run: Stored, split: str) -> Stored:
    """Return the run, if its predictions of the split can be compared."""
    if split not in run.record and "val" in run.record:
        raise UserError(
            f"{run.folder} has no test scores: it was run with evaluation.test=false. split=val compares validation; "
            "the same command with evaluation.test=true scores the test set."
        )
    if split not in run.record and "test" in run.record:
        raise UserError(f"{run.folder} has no validation scores: it was tested on other data. Remove split=val.")
    results, path = run.folder / "results.json", run.folder / "predictions.csv"
    missing = [key for key in (*_NEEDED, split) if key not in run.record]
    if missing or not isinstance(run.record[split], Mapping) or not isinstance(run.record["threshold"], int | float):
        raise UserError(f"{results} is damaged: it lacks {', '.join(missing) or 'numbers'}. {_AGAIN}")
    table = run.predictions.of(split)
    images = run.record[split].get("images")
    if len(table) != images or list(table.classes) != run.classes:
        raise UserError(
            f"{path} is damaged: it contains {len(table)} images of {split} and classes {', '.join(table.classes)}; by "
            f"results.json there are {images} and {', '.join(run.classes)}. {_AGAIN}"
        )
    return run


def _answers(run: Stored, folder: Path, split: str) -> RunPredictions:
    what = f"{run.record['dataset']}, protocol {run.record['protocol']}"
    return RunPredictions(
        str(folder), what, run.predictions.of(split), float(run.record["threshold"]), stored.design_of(run.record),
        _content(run, folder, split),
    )  # fmt: skip


def _content(run: Stored, folder: Path, split: str) -> str | None:
    """Return the hash of the contents of a split's images; of a record without it, that of the test set's ledger."""
    if "contents" in run.record:
        found: str | None = run.record["contents"].get(split)
        return found
    if split != "test" or "digest" not in run.record:
        return None
    above = folder.resolve().parents
    runs_dir = above[3 if above[0].name == "evaluations" else 1] if len(above) > 3 else folder
    try:
        return test_ledger.images_of(runs_dir, str(run.record["dataset"]), run.record["digest"])
    except (OSError, Unreadable):
        return None
