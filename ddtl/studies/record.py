"""``study.json``: every run that a study is made of, the test sets that it is scored on, and what became of each."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NotRequired, TypedDict

from ddtl.config.overrides import key_of
from ddtl.errors import UserError
from ddtl.files import write_json
from ddtl.sweeps.task import line
from ddtl.training.identity import short_hash

NAME = "study.json"
EVALUATIONS = "evaluations"  # attribute of a trial: what its run was evaluated on
PLAIN = "plain"  # the method of a run to which nothing is done beside fine-tuning

State = Literal["done", "failed", "missing"]


class Labels(TypedDict):
    """Where a run stands on each axis of the tables.

    ``source`` is what was learned from: a dataset as ``study.datasets`` names it (``covid19ct``, ``phantom:a``), or
    several joined by ``+`` for a pool. ``schedule`` is the option of ``finetune``. ``fold`` is None but for
    ``kfold``; ``patients`` is None where all training patients are used, else how many, or which share. ``method`` is
    ``plain``, a name of ``ddtl.studies.methods.METHODS``, or for a grid the words in which its jobs differ.
    """

    source: str
    method: str
    protocol: str
    schedule: str
    fold: int | None
    patients: int | float | None
    seed: int


class Evaluation(TypedDict):
    """A run on one test set.

    ``target`` is the dataset, named as a source is; ``words`` are those of ``ddtl evaluate RUN``, none where the run
    itself was scored. ``folder``, relative to ``paths.runs_dir``, holds ``results.json`` and ``predictions.csv``: the
    run's own folder, or one below its ``evaluations/``. It is None where there is nothing, and ``reason`` says why;
    an empty reason means that it was not come to yet.
    """

    target: str
    words: list[str]
    folder: str | None
    reason: str


class Job(TypedDict):
    """A run: ``state`` and ``reason`` are about its training; each evaluation has a reason of its own.

    ``run`` is its folder, relative to ``paths.runs_dir``; None unless ``state`` is ``done``. ``line`` repeats it. The
    first evaluation is the one on the run's own test set.
    """

    labels: Labels
    overrides: list[str]
    line: str
    run: str | None
    state: State
    reason: str
    evaluations: list[Evaluation]


class Planned(TypedDict):
    """What a study was to score before its first score was known: all of it counts as one use of a test set.

    ``plan`` names it in the ledgers of test-set uses; ``uses`` holds a hash for each run on each test set (see
    :func:`use`); ``when`` is ISO 8601 in UTC.
    """

    plan: str
    when: str
    uses: list[str]


class Study(TypedDict):
    """The whole file.

    ``study`` is the kind (``cross_dataset``), ``settings`` are those of ``study.…`` in full, ``identity`` is what may
    not change under a name. Times are ISO 8601 in UTC; ``ended`` is None until every run has been come to. Earlier
    versions wrote no ``planned``.
    """

    study: str
    name: str
    settings: dict[str, Any]
    identity: dict[str, Any]
    jobs: list[Job]
    started: str
    ended: str | None
    planned: NotRequired[Planned]


def labels(source: str, seed: int = 0, **others: Any) -> Labels:
    """Labels with the usual value on each axis that is not named."""
    usual: Labels = {
        "source": source, "method": PLAIN, "protocol": "grouped", "schedule": "full", "fold": None, "patients": None,
        "seed": seed,
    }  # fmt: skip
    return {**usual, **others}  # type: ignore[typeddict-item]


def evaluation(target: str, folder: str | None = None, words: Sequence[str] = (), reason: str = "") -> Evaluation:
    """A run on one test set; done where it has a folder."""
    return {"target": target, "words": list(words), "folder": folder, "reason": reason}


def job(
    labels: Labels,
    evaluations: Sequence[Evaluation],
    overrides: Sequence[str] = (),
    run: str | None = None,
    reason: str = "",
) -> Job:
    """A run: done where it has a folder, failed where it has a reason, else missing."""
    state: State = "done" if run is not None else "failed" if reason else "missing"
    return {
        "labels": labels, "overrides": list(overrides), "line": line(tuple(overrides)), "run": run, "state": state,
        "reason": reason, "evaluations": list(evaluations),
    }  # fmt: skip


def use(labels: Mapping[str, Any], target: str, words: Sequence[str]) -> str:
    """A hash that names a run on a test set, wherever files lie."""
    counting = [word for word in words if not key_of(word).startswith("paths.")]
    return short_hash({"labels": dict(labels), "target": target, "words": counting})


def uses(jobs: Sequence[Mapping[str, Any]]) -> list[str]:
    """Of each run on each of its test sets."""
    return [use(job["labels"], each["target"], each["words"]) for job in jobs for each in job["evaluations"]]


def write(folder: Path, study: Study) -> None:
    """Write the record into a study's folder."""
    write_json(folder / NAME, study)


def read(folder: Path) -> Study:
    """The record in a study's folder.

    Raises:
        UserError: there is none, or it is damaged.
    """
    path = folder / NAME
    try:
        found: Study = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{folder}: is not the folder of a study: it holds no {NAME}.") from None
    except ValueError as error:
        raise UserError(f"{path}: is damaged ({error}). Delete it; the study's command writes it anew.") from error
    return found


def runs_dir(folder: Path) -> Path:
    """What the record's folders are relative to, from the study's folder."""
    return folder.parent.parent


def key_of_labels(labels: Mapping[str, Any]) -> str:
    """Labels as something to look up."""
    return json.dumps(labels, sort_keys=True)


def lost(study: Mapping[str, Any]) -> list[str]:
    """A line for each run and each evaluation that failed, with its reason."""
    found: list[str] = []
    for each in study["jobs"]:
        name = shown(each["labels"])
        if each["state"] == "failed":
            found.append(f"{name}: {each['reason']}")
        else:
            found += [f"{name} on {e['target']}: {e['reason']}" for e in each["evaluations"] if e["reason"]]
    return found


def shown(labels: Mapping[str, Any]) -> str:
    """A run's labels as a person reads them, without those that say nothing."""
    usual = {"method": PLAIN, "fold": None, "patients": None}
    named = {"fold": "fold {}", "patients": "{} patients", "seed": "seed {}"}
    return ", ".join(
        named.get(key, "{}").format(value) for key, value in labels.items() if usual.get(key, ...) != value
    )
