"""``audit.json``, as far as others than its own page read it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NotRequired

from pydantic import with_config
from typing_extensions import TypedDict

from ddtl.reading import read_object
from ddtl.records.checking import OPEN, Moment, Name, Text, check
from ddtl.records.run import Finding

NAME = "audit.json"


@with_config(OPEN)
class Audited(TypedDict):
    dataset: Name
    digest: Text


@with_config(OPEN)
class Check(TypedDict):
    datasets: list[Text]
    done: bool


@with_config(OPEN)
class FindingAbout(Finding):
    datasets: list[Text]


@with_config(OPEN)
class Audit(TypedDict):
    """The parts that a run's record takes over."""

    when: Moment
    ddtl: Name
    datasets: list[Audited]
    checked: list[Check]
    findings: list[FindingAbout]
    command: NotRequired[Text]


def read(folder: Path) -> dict[str, Any]:
    """The record in an audit's folder.

    Raises:
        FileNotFoundError: there is none.
        Unreadable: it is damaged.
    """
    path = folder / NAME
    found: dict[str, Any] = check(path, read_object(path), Audit, "`ddtl audit` writes it anew.")
    return found
