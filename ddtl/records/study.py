"""``study.json`` and its ``controls.json``: every run of a study, the test sets that it is scored on, and controls."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, NotRequired, cast

from pydantic import AfterValidator, Field, with_config
from typing_extensions import TypedDict

from ddtl.records.checking import OPEN, Below, Contradiction, Count, Moment, Name, Text, agree, check, fault
from ddtl.records.run import Scores
from ddtl.utils.reading import Unreadable, read_object

NAME = "study.json"
CONTROLS = "controls.json"
_FIX = "Delete it; the study's command rewrites it."

State = Literal["done", "failed", "missing"]


def _patients(value: Any) -> Any:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if value is not None and not (is_number and 0 < value < 10**12):
        raise fault("should be a number above 0, or null")
    return value


@with_config(OPEN)
class Labels(TypedDict):
    """Where a run is on each axis of the tables.

    ``source`` is what was trained on: a dataset as ``study.datasets`` names it (``covid19ct``, ``phantom:a``), or
    several joined by ``+`` for a pool. ``schedule`` is the option of ``finetune``. ``fold`` is None but for
    ``kfold``; ``patients`` is None where all training patients are used, else how many, or which share. ``method`` is
    ``plain``, a name of ``ddtl.studies.methods.METHODS``, or for a grid the words in which its jobs differ.
    """

    source: Name
    method: Name
    protocol: Name
    schedule: Name
    fold: Count | None
    patients: Annotated[int | float | None, AfterValidator(_patients)]
    seed: Count


@with_config(OPEN)
class Evaluation(TypedDict):
    """A run on one test set.

    ``target`` is the dataset, named as a source is; ``words`` are those of ``ddtl evaluate RUN``, none where the run
    itself was scored. ``folder``, relative to ``paths.runs_dir``, contains ``results.json`` and ``predictions.csv``:
    the run's own folder, or one below its ``evaluations/``. It is None where there is nothing, and ``reason`` says
    why; an empty reason means that it was not come to yet.
    """

    target: Name
    words: list[Text]
    folder: Below | None
    reason: Text


@with_config(OPEN)
class JobRecord(TypedDict):
    """A run: ``state`` and ``reason`` are about its training; each evaluation has a reason of its own.

    ``run`` is its folder, relative to ``paths.runs_dir``; None unless ``state`` is ``done``. ``line`` repeats it. The
    first evaluation is the one on the run's own test set.
    """

    labels: Labels
    overrides: list[Text]
    line: Text
    run: Below | None
    state: State
    reason: Text
    evaluations: list[Evaluation]


@with_config(OPEN)
class Planned(TypedDict):
    """What a study was to score before its first score was known: all of it counts as one use of a test set.

    ``plan`` names it in the ledgers of test-set uses; ``uses`` contains a hash for each run on each test set (see
    :func:`ddtl.records.study_folder.use`); ``when`` is ISO 8601 in UTC.
    """

    plan: Name
    when: Moment
    uses: list[Text]


@with_config(OPEN)
class Study(TypedDict):
    """The whole file.

    ``study`` is the kind (``cross_dataset``), ``settings`` are those of ``study.…`` in full, ``identity`` is what may
    not change under a name. Times are ISO 8601 in UTC; ``ended`` is None until every run has been come to. Earlier
    versions wrote no ``planned``.
    """

    study: Name
    name: Name
    settings: dict[str, Any]
    identity: dict[str, Any]
    jobs: Annotated[list[JobRecord], Field(max_length=1_000_000)]
    started: Moment
    ended: Moment | None
    planned: NotRequired[Planned]


@with_config(OPEN)
class ControlsOfPair(TypedDict):
    source: Name
    target: Name
    duplicates: list[Text]
    images: NotRequired[Text]
    majority: NotRequired[Scores | None]
    file_facts: NotRequired[Scores | None]


@with_config(OPEN)
class ControlsRecord(TypedDict):
    """The whole of ``controls.json``."""

    pairs: list[ControlsOfPair]


def read(folder: Path) -> Study:
    """Return the record in a study's folder.

    Raises:
        FileNotFoundError: there is none.
        Unreadable: it is damaged.
    """
    path = folder / NAME
    record = check(path, _object(path), Study, _FIX)
    agree(path, _contradictions(record), _FIX)
    return cast(Study, record)


def controls(folder: Path) -> list[dict[str, Any]]:
    """Return the controls in a study's folder, a pair each.

    Raises:
        FileNotFoundError: there is no such file.
        Unreadable: it is damaged.
    """
    path = folder / CONTROLS
    found: list[dict[str, Any]] = check(path, _object(path), ControlsRecord, _FIX)["pairs"]
    return found


def _object(path: Path) -> dict[str, Any]:
    try:
        return read_object(path)
    except Unreadable as problem:
        raise Unreadable(path, problem.reason, _FIX) from None


def _contradictions(record: Mapping[str, Any]) -> Iterator[Contradiction]:
    for i, job in enumerate(record["jobs"]):
        at = f"jobs[{i}]"
        if (job["run"] is None) != (job["state"] != "done"):
            yield Contradiction(f"{at}.run", "should be there if the job is done, and only then")
        if not job["evaluations"]:
            yield Contradiction(f"{at}.evaluations", "should not be empty")
