"""The small files of a run's folder: machine, identity, owner, grey levels, split, and why it ended early."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, NotRequired

from pydantic import Field, with_config
from typing_extensions import TypedDict

from ddtl.records.checking import OPEN, Count, FolderName, Name, Text, check, fits
from ddtl.utils.reading import Unreadable, lines, read_object, read_table, read_text

_LEVELS = 256
_SMALL = 16 << 20  # bytes
_EPOCH = re.compile(rb"(\d{4}-\d\d-\d\d)T[\d:.+]+ epoch \d+/\d+ ")  # of a line of log.txt
_RUN_ID = re.compile(r"[A-Za-z0-9_-]{1,128}")  # what W&B takes


@with_config(OPEN)
class Environment(TypedDict):
    """``environment.json``: the command, and what it ran on."""

    command: NotRequired[list[Text] | None]
    python: NotRequired[Text | None]
    platform: NotRequired[Text | None]
    cpu: NotRequired[Text | None]
    cores: NotRequired[Count | None]
    threads: NotRequired[Count | None]
    gpus: NotRequired[list[Text] | None]
    packages: NotRequired[dict[Text, Text]]


Identity = TypedDict(
    "Identity",
    {
        "dataset.name": NotRequired[FolderName],
        "dataset.protocol": NotRequired[Name],
        "dataset.digest": NotRequired[Name],
        "model.name": NotRequired[Name],
        "finetune.name": NotRequired[Name],
        "seed": NotRequired[Count],
        "trainer.max_epochs": NotRequired[Count],
        "trainer.monitor": NotRequired[Name],
    },
)
"""``identity.json``: everything that changes the result, by dotted key; these are those that are read one by one."""
with_config(OPEN)(Identity)


@with_config(OPEN)
class Owner(TypedDict):
    """``.owner.json``: the process that works in a folder."""

    pid: Annotated[int, Field(ge=1, lt=2**31)]
    host: Text
    place: NotRequired[Text]
    started: NotRequired[Text | None]


FAILED = "failed"


@with_config(OPEN)
class EndedEarly(TypedDict):
    """``ended_early.json``."""

    why: Text
    reason: NotRequired[Text]


@with_config(OPEN)
class Histogram(TypedDict):
    """``histogram.json``: how often each grey level is in the training images."""

    train: Annotated[list[Count], Field(min_length=_LEVELS, max_length=_LEVELS)]


def environment(folder: Path) -> dict[str, Any]:
    """``environment.json``; empty where there is none.

    Raises:
        Unreadable: it is damaged.
    """
    return _read_record(folder / "environment.json", Environment) or {}


def identity(folder: Path) -> dict[str, Any] | None:
    """``identity.json``; None where there is none.

    Raises:
        Unreadable: it is damaged.
    """
    return _read_record(folder / "identity.json", Identity)


def owner(path: Path) -> dict[str, Any] | None:
    """Return which process a file says works in its folder; None where it does not state it in the form that ddtl
    writes.
    """
    try:
        found = read_object(path, _SMALL)
    except (OSError, Unreadable):
        return None
    is_whole = fits(found, Owner) and ("started" not in found or "place" in found)
    return found if is_whole else None


def why_ended_early(folder: Path) -> str:
    """Return why a run's training was ended before its last epoch; empty where it was not.

    Raises:
        Unreadable: the file is damaged.
    """
    found = _read_record(folder / "ended_early.json", EndedEarly)
    return "" if found is None else str(found["why"])


def failure(folder: Path) -> str:
    """Return what broke a run's training, on a line; empty where nothing did.

    Raises:
        Unreadable: the file is damaged.
    """
    found = _read_record(folder / "ended_early.json", EndedEarly)
    return "" if found is None or found["why"] != FAILED else str(found.get("reason") or FAILED)


def last_epoch_on(folder: Path) -> str:
    """Return the day of a run's last epoch, ``2026-11-30``, by its log; empty where that does not say."""
    day = ""
    try:
        for _, line, _ in lines(folder / "log.txt"):
            found = _EPOCH.match(line)
            day = found[1].decode() if found else day
    except (OSError, Unreadable):
        return ""
    return day


def _read_record(path: Path, schema: Any) -> dict[str, Any] | None:
    """Return the record in a file; None where there is no file."""
    try:
        found: dict[str, Any] = check(path, read_object(path, _SMALL), schema)
    except FileNotFoundError:
        return None
    return found


def histogram(path: Path) -> list[int]:
    """Return how often each grey level is in the training images.

    Raises:
        FileNotFoundError: there is no such file.
        Unreadable: it is damaged.
    """
    fix = "The command that made the run retrains it with run.overwrite=true."
    counts: list[int] = check(path, read_object(path, _SMALL), Histogram, fix)["train"]
    if not sum(counts):
        raise Unreadable(path, "train should count grey levels", fix)
    return counts


SPLIT_COLUMNS = ("sample_id", "split", "group", "label", "content")  # earlier records lack the last one


def content(sha256: str) -> str:
    """Return what tells a file's content from that of others in ``split.csv``."""
    return sha256[:32]


def split(path: Path) -> Iterator[Mapping[str, str]]:
    """Yield the rows of ``split.csv``.

    Raises:
        Unreadable: it is not there, or is damaged.
    """
    try:
        for row in read_table(path):
            if not {"group", "split"} <= row.keys():
                raise Unreadable(path, f"should have the columns {', '.join(SPLIT_COLUMNS[:4])}")
            yield row
    except FileNotFoundError:
        raise Unreadable(path, "is missing", "The command that made the run writes it again.") from None


def trained_on(path: Path) -> tuple[set[str], set[str]]:
    """Return the groups of training and validation by ``split.csv``, and :func:`content` of each of their files; of
    earlier records no files.

    Raises:
        Unreadable: it is not there, or is damaged.
    """
    rows = [row for row in split(path) if row["split"] in ("train", "val")]
    return {row["group"] for row in rows}, {row["content"] for row in rows if row.get("content")}


def run_id(path: Path) -> str:
    """Return the id of a run at W&B or in MLflow.

    Raises:
        FileNotFoundError: there is no such file.
        Unreadable: it contains something else.
    """
    text = read_text(path, 4096).strip()
    if not _RUN_ID.fullmatch(text):
        raise Unreadable(path, "is not an id of a run", "Delete it: the run is shown under a new one.")
    return text


@with_config(OPEN)
class _Cached(TypedDict):
    files: list[Text]
    size: Annotated[int, Field(ge=1, le=65536)]
    sha256: Name
    levels: list[list[Count]]
    dataset: NotRequired[Text]


def cache_index(folder: Path) -> dict[str, Any]:
    """``index.json`` of a folder of decoded images.

    Raises:
        OSError: it cannot be read.
        Unreadable: it is damaged.
    """
    path = folder / "index.json"
    found: dict[str, Any] = check(path, read_object(path), _Cached)
    if any(len(pair) != 2 for pair in found["levels"]):
        raise Unreadable(path, "levels should contain pairs")
    return found
