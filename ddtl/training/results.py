"""From predictions to ``results.json``, for trained runs and stored predictions alike; without torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ddtl.evaluation import record
from ddtl.evaluation.predictions import Predictions
from ddtl.schema.run import EvaluationConfig
from ddtl.training.identity import scoring as scoring_settings


@dataclass(frozen=True)
class RunResult:
    """What a run left behind: its folder, and the contents of its ``results.json``."""

    folder: Path
    results: dict[str, Any]


def score_predictions(
    table: Predictions, val: Predictions, splits_: Sequence[str], config: EvaluationConfig, grouping: str
) -> dict[str, Any]:
    """Return the part of ``results.json`` about predictions: the operating point, then each split.

    Args:
        table: the predictions that are scored.
        val: what decides about threshold and calibration: validation images of the dataset that the run trained on.
        splits_: which splits of the table are scored.
        grouping: of the manifest: what an interval may take for independent.
    """
    choices = record.choose_on_validation(val, config)
    results = record.setting(choices, config, grouping)
    results["evaluation"] = scoring_settings(config)
    return results | {split: record.of_split(table.of(split), choices, config) for split in splits_}


def warn_of_inversion(results: dict[str, Any], splits_: Sequence[str]) -> None:
    """Put it among the warnings where a score is worse than chance."""
    found = record.worse_than_chance(results, splits_)
    results["warnings"] = [*(text for text in results["warnings"] if record.WORSE not in text), *found]
