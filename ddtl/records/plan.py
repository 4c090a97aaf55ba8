"""``plan.json``: what a sweep is."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NotRequired

from pydantic import with_config
from typing_extensions import TypedDict

from ddtl.records.checking import OPEN, Name, Text, check
from ddtl.utils.reading import Unreadable, read_object

NAME = "plan.json"
_FIX = "Delete it; the command of the sweep writes it again."


@with_config(OPEN)
class PlanRecord(TypedDict):
    """The whole file. A target is a pair of a dataset's name and the words of ``ddtl evaluate``."""

    name: Name
    identity: dict[str, Any]
    settings: dict[str, Any]
    fixed: list[Text]
    jobs: list[list[Text]] | None
    words: list[Text]
    targets: NotRequired[list[list[Any]]]
    planned: NotRequired[list[Text]]


def read(folder: Path) -> dict[str, Any] | None:
    """Return the plan in a sweep's folder; None where there is none.

    Raises:
        Unreadable: it is damaged.
    """
    path = folder / NAME
    try:
        record = read_object(path)
    except FileNotFoundError:
        return None
    except Unreadable as problem:
        raise Unreadable(path, problem.reason, _FIX) from None
    record = check(path, record, PlanRecord, _FIX)
    for each in record.get("targets", ()):
        if not all(_is_target(target) for target in each):
            raise Unreadable(path, "targets should be pairs of a name and words", _FIX)
    if record["jobs"] is None and not record["settings"].get("search"):
        raise Unreadable(path, "jobs should be a list where there is no search", _FIX)
    if record["jobs"] == []:
        raise Unreadable(path, "jobs should not be empty", _FIX)
    return record


def _is_target(target: Any) -> bool:
    return (
        isinstance(target, list)
        and len(target) == 2
        and isinstance(target[0], str)
        and isinstance(target[1], list)
        and all(isinstance(word, str) for word in target[1])
    )
