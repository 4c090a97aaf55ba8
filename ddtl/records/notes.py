"""``notes.json``: what a person wrote about a run, and its tags. They change neither its name nor its resume."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import Field, with_config
from typing_extensions import TypedDict

from ddtl.records.checking import OPEN, check
from ddtl.utils.errors import UserError
from ddtl.utils.files import remove, write_json
from ddtl.utils.reading import Unreadable, printable, read_object

NAME = "notes.json"
LONGEST = 2000  # characters of a note
MOST_TAGS = 20
_LARGEST = 64 << 10  # bytes of the file
_TAG = re.compile(r"\w[\w.:/-]{0,39}")


@with_config(OPEN)
class _Notes(TypedDict):
    note: Annotated[str, Field(max_length=LONGEST)]
    tags: Annotated[list[Annotated[str, Field(min_length=1, max_length=40)]], Field(max_length=MOST_TAGS)]


@dataclass(frozen=True)
class Notes:
    """What was written about a run: a note on one line, and tags in the order in which they were given."""

    note: str = ""
    tags: tuple[str, ...] = ()


def read(folder: Path) -> Notes:
    """Return the notes in a run's folder, control characters escaped; empty ones where there are none.

    Raises:
        Unreadable: the file is damaged, too large, or a link.
    """
    path = folder / NAME
    try:
        found = check(path, _read_own(path), _Notes, _fix(path))
    except FileNotFoundError:
        return Notes()
    return Notes(printable(found["note"]), tuple(dict.fromkeys(map(printable, found["tags"]))))


def _read_own(path: Path) -> dict[str, object]:
    """Return what is in the file itself: what a link leads to is not the run's."""
    if os.path.islink(path):
        raise Unreadable(path, "is a link, which is not followed", _fix(path))
    try:
        return read_object(path, _LARGEST)
    except Unreadable as problem:
        raise Unreadable(path, problem.reason, _fix(path)) from None


def _fix(path: Path) -> str:
    return f"Delete it: rm {shlex.quote(printable(path))}"


def write(folder: Path, notes: Notes) -> None:
    """Write the notes into a run's folder; empty ones delete the file."""
    path = folder / NAME
    if notes == Notes():
        remove(path)
    else:
        write_json(path, {"note": notes.note, "tags": list(notes.tags)})


def checked_note(text: str) -> str:
    """Return a note on one line.

    Raises:
        UserError: it is too long, or contains control characters.
    """
    flat = " ".join(text.split())
    if len(flat) > LONGEST:
        raise UserError(f"the note has {len(flat):,} characters, and at most {LONGEST:,} are stored. Shorten it.")
    if not flat.isprintable():
        raise UserError("the note contains control characters. Leave them out.")
    return flat


def checked_tags(words: Sequence[str]) -> tuple[str, ...]:
    """Return tags, each once.

    Raises:
        UserError: one is none, or there are too many.
    """
    for word in words:
        if not _TAG.fullmatch(word):
            raise UserError(
                f"{printable(word)[:60]}: is not a tag. A tag has up to 40 letters, digits and . : / _ -, and begins "
                "with a letter, a digit or _."
            )
    found = tuple(dict.fromkeys(words))
    if len(found) > MOST_TAGS:
        raise UserError(
            f"a run has at most {MOST_TAGS} tags, and these are {len(found)}. Delete some: ddtl runs untag RUN TAG"
        )
    return found
