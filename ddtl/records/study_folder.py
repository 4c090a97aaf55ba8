"""``study.json``: every run that a study is made of, the test sets that it is scored on, and what became of each."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ddtl.config.overrides import key_of
from ddtl.records import study
from ddtl.records.identity import short_hash
from ddtl.records.study import Evaluation, JobRecord, Labels, State, Study
from ddtl.utils.errors import UserError
from ddtl.utils.files import write_json
from ddtl.utils.wording import train_command

NAME = study.NAME
EVALUATIONS = "evaluations"  # attribute of a trial: what its run was evaluated on
PLAIN = "plain"  # the method of a run to which nothing but fine-tuning is applied


def labels(source: str, seed: int = 0, **others: Any) -> Labels:
    """Return labels with the usual value on each axis that is not named."""
    usual: Labels = {
        "source": source, "method": PLAIN, "protocol": "grouped", "schedule": "full", "fold": None, "patients": None,
        "seed": seed,
    }  # fmt: skip
    return {**usual, **others}  # type: ignore[typeddict-item]


def evaluation(target: str, folder: str | None = None, words: Sequence[str] = (), reason: str = "") -> Evaluation:
    """Return a run on one test set; done where it has a folder."""
    return {"target": target, "words": list(words), "folder": folder, "reason": reason}


def job(
    labels: Labels,
    evaluations: Sequence[Evaluation],
    overrides: Sequence[str] = (),
    run: str | None = None,
    reason: str = "",
) -> JobRecord:
    """Return a run: done where it has a folder, failed where it has a reason, else missing."""
    state: State = "done" if run is not None else "failed" if reason else "missing"
    return {
        "labels": labels, "overrides": list(overrides), "line": train_command(tuple(overrides)), "run": run,
        "state": state, "reason": reason, "evaluations": list(evaluations),
    }  # fmt: skip


def use(labels: Mapping[str, Any], target: str, words: Sequence[str]) -> str:
    """Return a hash that names a run on a test set, wherever files lie."""
    counting = [word for word in words if not key_of(word).startswith("paths.")]
    return short_hash({"labels": dict(labels), "target": target, "words": counting})


def uses(jobs: Sequence[Mapping[str, Any]]) -> list[str]:
    """Of each run on each of its test sets."""
    return [use(job["labels"], each["target"], each["words"]) for job in jobs for each in job["evaluations"]]


def write(folder: Path, study: Study) -> None:
    """Write the record into a study's folder."""
    write_json(folder / NAME, study)


def read(folder: Path) -> Study:
    """Return the record in a study's folder.

    Raises:
        UserError: there is none, or it is damaged.
    """
    try:
        return study.read(folder)
    except FileNotFoundError:
        raise UserError(f"{folder}: is not the folder of a study: it contains no {NAME}.") from None


def runs_dir(folder: Path) -> Path:
    """Return what the record's folders are relative to, from the study's folder."""
    return folder.parent.parent


def key_of_labels(labels: Mapping[str, Any]) -> str:
    """Return labels as something to look up."""
    return json.dumps(labels, sort_keys=True)


def lost(study: Mapping[str, Any]) -> list[str]:
    """Return a line for each run and each evaluation that failed, with its reason."""
    found: list[str] = []
    for each in study["jobs"]:
        name = format_labels(each["labels"])
        if each["state"] == "failed":
            found.append(f"{name}: {each['reason']}")
        else:
            found += [f"{name} on {e['target']}: {e['reason']}" for e in each["evaluations"] if e["reason"]]
    return found


def format_labels(labels: Mapping[str, Any]) -> str:
    """Return a run's labels as a person reads them, without those that give no information."""
    usual = {"method": PLAIN, "fold": None, "patients": None}
    named = {"fold": "fold {}", "patients": "{} patients", "seed": "seed {}"}
    return ", ".join(
        named.get(key, "{}").format(value) for key, value in labels.items() if usual.get(key, ...) != value
    )
