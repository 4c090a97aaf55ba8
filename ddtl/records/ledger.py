"""The rows of ``test_looks_*.jsonl``: each use of a test set."""

from __future__ import annotations

from typing import Annotated, Any, NotRequired

from pydantic import Field, with_config
from typing_extensions import TypedDict

from ddtl.records.checking import OPEN, Count, Text, fits

_Use = Annotated[int, Field(ge=1, le=10**9)]


@with_config(OPEN)
class Use(TypedDict):
    """A use; earlier versions called its number ``look``."""

    use: NotRequired[_Use]
    look: NotRequired[_Use]
    when: NotRequired[Text]
    run: Text
    checkpoint: NotRequired[Text]
    digest: NotRequired[Text]
    identity: NotRequired[Text | None]
    decided: NotRequired[dict[Text, Any]]
    decided_before: NotRequired[dict[Text, Any]]
    images: NotRequired[Text | None]
    line: NotRequired[_Use]
    planned: NotRequired[Text]
    total: NotRequired[_Use]
    of_run_before: NotRequired[Count]
    changed_before: NotRequired[list[Text]]


def is_use(row: dict[str, Any]) -> bool:
    """Return whether a row is of that form."""
    return ("use" in row or "look" in row) and fits(row, Use)
