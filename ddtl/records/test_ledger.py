"""The ledger of test-set uses: each use makes the next score on a test set a little less honest."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from filelock import FileLock

from ddtl.evaluation import test_use
from ddtl.records import small
from ddtl.records.identity import differences, short_hash
from ddtl.records.ledger import is_use
from ddtl.schema.run import NEUTRAL
from ddtl.utils.errors import UserError
from ddtl.utils.files import append_line
from ddtl.utils.reading import MIB, Unreadable, lines, parse_line

log = logging.getLogger(__name__)

_LARGEST = 32 * MIB  # bytes of a ledger: 50,000 uses

# What a setting was where a row or a record of an earlier version does not state it.
_UNSTATED: dict[str, Any] = {
    "evaluation.target": None,
    "evaluation.patient": "mean",
    "evaluation.interval": "default",
    "evaluation.level": 0.95,
    "evaluation.replicates": 2000,
    "evaluation.prevalences": [0.05, 0.2, 0.5],
    **{key: value for key, value in NEUTRAL.items() if key.startswith("evaluation.") or key == "dataset.harmonize"},
}

# The study or comparison whose planned runs this process scores; "" for a run on its own.
_PLANNED: ContextVar[str] = ContextVar("planned", default="")


@contextmanager
def count_as_one(plan: str) -> Iterator[None]:
    """Count all uses of a test set within as the one use of a plan that was on disk before its first.

    Args:
        plan: the plan's name, with a hash of its definition; empty for none: each use counts by itself.
    """
    token = _PLANNED.set(plan)
    try:
        yield
    finally:
        _PLANNED.reset(token)


@dataclass(frozen=True)
class Scoring:
    """What is about to be scored on a test set. The same one again is the same use.

    Attributes:
        run: name of the run's folder.
        checkpoint: which of its weights.
        digest: what the images and their split are.
        identity: hash of what the run is, which a folder keeps when it is moved or renamed; None where unknown.
        decided: the settings that decide about the scores, by dotted key.
        images: hash of the test images' contents, whatever dataset they are filed under; None where unknown.
    """

    run: str
    checkpoint: str
    digest: str
    identity: str | None = None
    decided: Mapping[str, Any] = field(default_factory=dict)
    images: str | None = None


@dataclass(frozen=True)
class TestUse:
    """A use of a test set, as ``results.json`` states it; see :mod:`ddtl.evaluation.test_use`."""

    number: int
    total: int
    of_run: int
    planned: str
    changed: tuple[str, ...]
    others: Mapping[str, int] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()

    def record(self) -> dict[str, Any]:
        """Return the keys of ``results.json``."""
        uses: dict[str, Any] = {"total": self.total, "of_run": self.of_run, "planned": self.planned}
        uses |= {"changed": list(self.changed)}
        uses |= {"others": dict(self.others)} if self.others else {}
        return {test_use.USE: self.number, test_use.USES: uses}


def path_of(runs_dir: Path, dataset: str, protocol: str) -> Path:
    """Return the ledger of a dataset's test set under a protocol."""
    return runs_dir / dataset / f"test_looks_{protocol}.jsonl"


def record_use(
    runs_dir: Path, dataset: str, protocol: str, scoring: Scoring, earlier: Mapping[str, Any] | None = None,
    known: Sequence[Mapping[str, Any]] = (),
) -> TestUse:  # fmt: skip
    """Write down that a test set is about to be scored.

    Args:
        runs_dir: folder of all runs.
        dataset, protocol: whose test set.
        scoring: what is scored.
        earlier: the record (``results.json``) that the scores will replace; None where there is none.
        known: the run's own records of scores on this test set: a copy in another runs folder keeps their history.

    Raises:
        UserError: the ledger cannot be written.
    """
    path = path_of(runs_dir, dataset, protocol)
    scoring_ = json.loads(json.dumps(vars(scoring) | {"decided": dict(scoring.decided)}))
    plan = _PLANNED.get()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(_lock(path)):
            rows, last = _read(path)
            if scoring_["images"] is None:  # of stored predictions: they are those that were scored before
                stated = (row["images"] for row in rows if row.get("digest") == scoring.digest and row.get("images"))
                scoring_["images"] = next(stated, None)
            own = [row for row in rows if _is_of_run(row, scoring_)]
            own.sort(key=lambda row: "decided" not in row)  # what a row states counts more than what is inferred
            same = next((row for row in own if _is_same(row, scoring_, own, earlier)), None)
            total = max(map(test_use.total, known), default=0)
            warnings = [] if total <= last else [_loss_message(path, last, total)]
            count, removed = _count_lines(path)
            warnings += [removed] if removed else []
            if same is None:
                number = _number(rows, max(last, total), scoring_, plan, earlier)
                same = {"use": number, "when": datetime.now(UTC).isoformat(timespec="seconds"), **scoring_}
                same |= {"line": count + 1}
                same |= {"planned": plan} if plan else {}
                same |= {"total": total} if total > max(last, number) else {}
                same |= _settings_of_earlier_version(own, scoring_, earlier)
                if not own:
                    same |= _history(known, number, scoring_)
                append_line(path, same)
                rows.append(same)
    except Unreadable as problem:
        raise _unwritable(path, f"it {problem.reason}") from problem
    except OSError as error:
        raise _unwritable(path, error.strerror or str(error)) from error
    for warning in warnings:
        log.warning(warning)
    own = [row for row in rows if _is_of_run(row, scoring_)]
    return TestUse(
        number=_number_of(same),
        total=max(last, total, *map(_number_of, rows)),
        of_run=len({_number_of(row) for row in own}) + sum(row.get("of_run_before", 0) for row in own),
        planned=same.get("planned", ""),
        changed=_changes(own, same, scoring_, earlier),
        others={
            **_others(path, same.get("planned", "")),
            **_other_uses(path, rows, same.get("planned", ""), scoring_["images"]),
        },
        warnings=tuple(warnings),
    )


def check_writable(runs_dir: Path, dataset: str, protocol: str) -> None:
    """Refuse before anything slow where a use of the test set could not be written down.

    Raises:
        UserError: with the ledger's path.
    """
    path = path_of(runs_dir, dataset, protocol)
    for file in (path, _lock(path)):
        if file.exists() and not (file.is_file() and os.access(file, os.W_OK)):
            raise _unwritable(file, "it is read-only" if file.is_file() else "it is not a file")


def is_used(runs_dir: Path, plan: str) -> bool:
    """Return whether a run of a plan has been scored on any test set."""
    token = json.dumps(plan, ensure_ascii=False).encode()
    return any(token in line for path in runs_dir.glob("*/test_looks_*.jsonl") for _, line, _ in lines(path, _LARGEST))


def uses_by_run(runs_dir: Path, dataset: str, protocol: str, run: str, identity: str | None) -> int:
    """Return how many uses of a test set were by a run, named by its folder and the hash of what it is."""
    rows, _ = _read(path_of(runs_dir, dataset, protocol))
    of_run = [row for row in rows if _is_of_run(row, {"run": run, "identity": identity})]
    return len({_number_of(row) for row in of_run}) + sum(row.get("of_run_before", 0) for row in of_run)


def uses_of(runs_dir: Path, dataset: str) -> dict[str, int]:
    """Return how often each test set of a dataset has been used, by what its ledger is filed under (see
    :func:`path_of`).
    """
    paths = sorted((runs_dir / dataset).glob("test_looks_*.jsonl"))
    found = {path.stem.removeprefix("test_looks_"): _read(path)[1] for path in paths}
    return {name: n for name, n in found.items() if n}


def images_of(runs_dir: Path, dataset: str, digest: str) -> str | None:
    """Return the hash of the contents of the test images that a digest is of; None where no use states it."""
    for path in sorted((runs_dir / dataset).glob("test_looks_*.jsonl")):
        for row in _read(path)[0]:
            if row.get("digest") == digest and row.get("images"):
                return str(row["images"])
    return None


def deciding_settings(evaluation: Mapping[str, Any], *, harmonize: str = "none", refit: bool = False) -> dict[str, Any]:
    """Return the settings that decide about scores, by dotted key.

    Args:
        evaluation: as ``results.json`` contains it, see :func:`ddtl.training.identity.scoring`.
        harmonize: ``dataset.harmonize``.
        refit: ``evaluation.refit``.
    """
    settings = {f"evaluation.{key}": value for key, value in evaluation.items()}
    found: dict[str, Any] = json.loads(
        json.dumps({**settings, "evaluation.refit": refit, "dataset.harmonize": harmonize})
    )
    return found


def deciding_settings_of(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return the same of a record of scores."""
    return deciding_settings(
        record.get("evaluation", {}), harmonize=record.get("harmonize", "none"), refit="refitted" in record
    )


def identity_of(folder: Path) -> str | None:
    """Return a hash of what a run is; None where its folder does not say."""
    try:
        found = small.identity(folder)
    except (OSError, Unreadable):
        return None
    return None if found is None else short_hash(found)


def _number(
    rows: list[dict[str, Any]], last: int, scoring: Mapping[str, Any], plan: str, earlier: Mapping[str, Any] | None
) -> int:
    """Return the number of a scoring that the ledger does not hold."""
    of_plan = [_number_of(row) for row in rows if plan and row.get("planned") == plan]
    if of_plan:
        return min(of_plan)
    if earlier is not None and not any(_is_of_run(row, scoring) for row in rows):
        stated = test_use.number(earlier)
        again = not _otherwise(deciding_settings_of(earlier), earlier.get("digest"), scoring)
        if stated is not None and again:
            return stated  # the same scores as the record has, in a folder that was moved: no further use
    return last + 1


def _others(path: Path, plan: str) -> dict[str, int]:
    """Return how often the dataset's images were used as test sets under other protocols, without those of the same
    plan.
    """
    own = _protocol(path)
    found: dict[str, int] = {}
    for other in sorted(path.parent.glob("test_looks_*.jsonl")):
        if _protocol(other) == own:
            continue
        rows, last = _read(other)
        planned_ = {_number_of(row) for row in rows if plan and row.get("planned") == plan}
        n = last - len(planned_)
        if n > 0:
            found[_protocol(other)] = found.get(_protocol(other), 0) + n
    return found


def _other_uses(path: Path, rows: Sequence[Mapping[str, Any]], plan: str, images: str | None) -> dict[str, int]:
    """Return how often the very same test images were scored under other names of the dataset.

    A pool's scoring is in the ledgers of its sources, too: it is the same one.
    """
    here = {_scoring_of_row(row) for row in rows}
    found: dict[str, int] = {}
    for other in sorted(path.parents[1].glob("*/test_looks_*.jsonl")) if images is not None else ():
        if other.parent.name == path.parent.name:
            continue
        theirs = [row for row in _read(other)[0] if row.get("images") == images and _scoring_of_row(row) not in here]
        n = len({_number_of(row) for row in theirs if not (plan and row.get("planned") == plan)})
        if n:
            name = f"{other.parent.name}, {_protocol(other)}"
            found[name] = found.get(name, 0) + n
    return found


def _scoring_of_row(row: Mapping[str, Any]) -> tuple[object, ...]:
    """Return what was scored, by a row: by whom, with which weights, and how."""
    what = (row.get(key) for key in ("run", "identity", "checkpoint"))
    return *what, json.dumps(row.get("decided"), sort_keys=True)


def _protocol(path: Path) -> str:
    """Of a ledger; all folds of one k-fold split are of one protocol."""
    return path.stem.removeprefix("test_looks_").partition("-")[0]


def _history(known: Sequence[Mapping[str, Any]], number: int, scoring: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a run's first row in a ledger records about the uses that the run's own records know and the ledger
    does not.
    """
    if not known:
        return {}
    latest = max(known, key=lambda record: test_use.number(record) or 0)
    numbers = {test_use.number(record) for record in known}
    before = max(len(numbers), *map(test_use.of_run, known)) - (number in numbers)
    changed = _otherwise(deciding_settings_of(latest), latest.get("digest"), scoring) or test_use.list_changes(latest)
    return {"of_run_before": before, "changed_before": list(changed)}


def _otherwise(was: Mapping[str, Any] | None, digest: str | None, now: Mapping[str, Any]) -> list[str]:
    """Return a line for each setting in which a scoring differs from an earlier one (None: its settings are unknown),
    and for its images.
    """
    found = [] if was is None else differences({**_UNSTATED, **was}, {**_UNSTATED, **now["decided"]})
    return found if digest == now.get("digest") else [*found, "other images or another split"]


def _read(path: Path) -> tuple[list[dict[str, Any]], int]:
    """Return the rows, and the number of the last use. A damaged line was a use; one that a crash cut off was none."""
    rows: list[dict[str, Any]] = []
    last = 0
    if not path.exists():
        return rows, last
    for place, line, is_whole in lines(path, _LARGEST):
        row = parse_line(line)
        if row is not None and is_use(row):
            rows.append(row)
            last = max(last, _number_of(row), row.get("total", 0))
        elif line.strip() and (is_whole or row is not None):
            last += 1
            log.warning("%s, line %d is damaged. It is counted as one use of the test set.", path, place)
    return rows, last


def _count_lines(path: Path) -> tuple[int, str]:
    """Return how many lines a ledger has, and a warning where some were removed: each row knows its place
    (``line``).
    """
    count, edited = 0, ""
    for place, line, is_whole in lines(path, _LARGEST) if path.exists() else ():
        row = parse_line(line)
        count += is_whole or row is not None
        if row is not None and is_use(row) and row.get("line", place) != place and not edited:
            edited = (
                f"The ledger {path.name} of {path.parent.name} was edited: line {place} was written as line "
                f"{row['line']}. Uses of this test set may be missing. Put back a copy of the file."
            )
    return count, edited


def _number_of(row: Mapping[str, Any]) -> int:
    return int(row.get("use", row.get("look", 0)))


def _is_of_run(row: Mapping[str, Any], scoring: Mapping[str, Any]) -> bool:
    """Return whether a row is about the same run; earlier versions wrote down its folder's name alone."""
    if row.get("identity") is not None and scoring["identity"] is not None:
        return bool(row["identity"] == scoring["identity"])
    return bool(row["run"] == scoring["run"])


def _is_same(
    row: Mapping[str, Any], scoring: Mapping[str, Any], own: Sequence[Mapping[str, Any]],
    earlier: Mapping[str, Any] | None,
) -> bool:  # fmt: skip
    """Return whether a row of the run (``own``: all of them) is of the same scoring."""
    if (row.get("checkpoint"), row.get("digest")) != (scoring["checkpoint"], scoring["digest"]):
        return False
    if earlier is None and not any("decided" in each for each in own):
        return True  # an earlier version was killed before the record of its scores was written
    was = _decided(row, own, earlier)
    return was is not None and not _otherwise(was, row.get("digest"), scoring)


def _decided(
    row: Mapping[str, Any], own: Sequence[Mapping[str, Any]], earlier: Mapping[str, Any] | None
) -> Mapping[str, Any] | None:
    """Return the settings that a row of the run was scored with; None where they are unknown.

    An earlier version's row does not state them. The record that it was made for does, until another scoring replaces
    it; the row of that one states them from then on (``decided_before``).
    """
    if "decided" in row:
        return dict(row["decided"])
    later = [each for each in own if "decided" in each and each.get("digest") == row.get("digest")]
    for each in later:
        if "decided_before" in each:
            return dict(each["decided_before"])
    if later or earlier is None or earlier.get("digest", row.get("digest")) != row.get("digest"):
        return None
    return deciding_settings_of(earlier)


def _settings_of_earlier_version(
    own: Sequence[Mapping[str, Any]], scoring: Mapping[str, Any], earlier: Mapping[str, Any] | None
) -> dict[str, Any]:
    """Return what a new row records about the run's rows of earlier versions, whose record is about to be replaced."""
    of_images = [row for row in own if row.get("digest") == scoring["digest"]]
    if not of_images or any("decided" in row for row in of_images):
        return {}
    was = _decided(of_images[-1], own, earlier)
    return {} if was is None else {"decided_before": was}


def _changes(
    own: list[dict[str, Any]], same: Mapping[str, Any], scoring: Mapping[str, Any], earlier: Mapping[str, Any] | None
) -> tuple[str, ...]:
    """Return a line for each thing in which the run was scored otherwise on this test set, the latest other use
    counts.
    """
    others = [row for row in own if row is not same]
    if not others:
        return tuple(same.get("changed_before", ()))
    other = max(others, key=_number_of)
    found = _otherwise(_decided(other, own, earlier), other.get("digest"), scoring)
    if other.get("checkpoint") != scoring["checkpoint"]:
        found.append(f"checkpoint: was {other.get('checkpoint')}, is {scoring['checkpoint']}")
    return tuple(found)


def _loss_message(path: Path, last: int, known: int) -> str:
    return (
        f"The ledger {path.name} of {path.parent.name} contains {last} uses of this test set, the run's own records "
        f"{known}: the run was moved or copied, or the ledger was edited. It is counted from {known}."
    )


def _lock(path: Path) -> Path:
    return path.with_name(f".{path.name}.lock")


def _unwritable(path: Path, why: str) -> UserError:
    return UserError(
        f"{path}: this use of the test set cannot be written down ({why}). Make the file writable, or score validation "
        "alone: evaluation.test=false"
    )
