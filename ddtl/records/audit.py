"""``audit.json``, as far as others than its own page read it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, NotRequired

from pydantic import Field, with_config
from typing_extensions import TypedDict

from ddtl.records.checking import OPEN, Count, Moment, Name, Number, Seconds, Share, Text, check
from ddtl.records.run import Finding
from ddtl.utils.reading import read_object

NAME = "audit.json"


@with_config(OPEN)
class Power(TypedDict):
    """What the probes could find."""

    sentence: Text | None


@with_config(OPEN)
class Audited(TypedDict):
    dataset: Name
    digest: Text
    power: NotRequired[Power | None]


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


_Half = Annotated[float, Field(ge=-1, le=1)] | None


@with_config(OPEN)
class Excluded(TypedDict):
    images: Count


@with_config(OPEN)
class Dataset(Audited):
    """A dataset, as the page tells of it."""

    protocol: Text | None
    classes: list[Text]
    images: Count
    patients: Count
    test_images: Count
    leaked_test_images: Count
    excluded: Excluded | None
    to_leave_out: Count


@with_config(OPEN)
class CheckResult(Check):
    check: Text
    why_not: Text


@with_config(OPEN)
class FindingInFull(FindingAbout):
    fix: Text
    details: dict[Text, Text | dict[Text, Text | list[Text]]]


@with_config(OPEN)
class Shuffled(TypedDict):
    mean: Share
    low: Share
    high: Share


@with_config(OPEN)
class Probe(TypedDict):
    dataset: Name
    view: Text
    about: Text
    verdict: Text
    protocol: Literal["test", "held-out half"] | None
    roc_auc: Share | None
    low: Share | None
    high: Share | None
    accuracy: Share | None
    accuracy_low: Share | None
    accuracy_high: Share | None
    majority: Share | None
    shuffled: Shuffled | None
    images: Count


@with_config(OPEN)
class Difference(TypedDict):
    dataset: Name
    quantity: Text
    unit: Text
    of_class: Text
    others: Text
    median: Number
    median_others: Number
    mean: Number
    mean_others: Number
    delta: Annotated[float, Field(ge=-1, le=1)]
    low: _Half
    high: _Half
    p_adjusted: Share | None
    size: Text


Pairs = TypedDict("Pairs", {"total": Count, "same file": Count, "same pixels": Count, "near": Count})


@with_config(OPEN)
class Whole(TypedDict):
    """All that its page is made of."""

    when: Moment
    ddtl: Name
    command: Text
    seconds: Seconds
    datasets: list[Dataset]
    checked: list[CheckResult]
    findings: list[FindingInFull]
    pairs: Pairs
    probes: list[Probe]
    differences: list[Difference]
    rule: Text


def read(folder: Path, *, whole: bool = False) -> dict[str, Any]:
    """Return the record in an audit's folder.

    Args:
        folder: of the audit.
        whole: whether all that its page is made of is needed, and not only what a run's record takes over.

    Raises:
        FileNotFoundError: there is none.
        Unreadable: it is damaged.
    """
    path = folder / NAME
    found: dict[str, Any] = check(path, read_object(path), Whole if whole else Audit, "`ddtl audit` rewrites it.")
    return found
