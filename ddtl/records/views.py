"""``views.json`` in the runs folder: views of the dashboard by their names, for everyone who opens it."""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from typing import Annotated
from urllib.parse import parse_qsl

from pydantic import Field, with_config
from typing_extensions import TypedDict

from ddtl.records.checking import OPEN, check
from ddtl.utils.errors import UserError
from ddtl.utils.files import remove, write_json
from ddtl.utils.reading import Unreadable, printable, read_object

NAME = "views.json"
LONGEST_NAME = 60
MOST = 50
_LONGEST = 4000  # characters of an address
_LARGEST = 512 << 10  # bytes of the file
# What dashboard.js writes into the address.
KEYS = (
    "filter", "kind", "state", "group", "sweep", "sort", "columns", "smooth", "log", "robust", "show", "run", "fold",
    "hide",
)  # fmt: skip


@with_config(OPEN)
class _Views(TypedDict):
    views: Annotated[
        dict[Annotated[str, Field(min_length=1, max_length=LONGEST_NAME)], Annotated[str, Field(max_length=_LONGEST)]],
        Field(max_length=MOST),
    ]


def read(runs_dir: Path) -> dict[str, str]:
    """Return each view by its name: what follows # in the dashboard's address. Empty where there are none.

    Raises:
        Unreadable: the file is damaged, too large, or a link.
    """
    path = runs_dir / NAME
    fix = f"Delete it: rm {shlex.quote(printable(path))}"
    if os.path.islink(path):
        raise Unreadable(path, "is a link, which is not followed", fix)
    try:
        found = check(path, read_object(path, _LARGEST), _Views, fix)
    except FileNotFoundError:
        return {}
    except Unreadable as problem:
        raise Unreadable(path, problem.reason, fix) from None
    return {printable(name): printable(view) for name, view in found["views"].items()}


def write(runs_dir: Path, views: dict[str, str]) -> None:
    """Write the views into the runs folder; none delete the file."""
    if views:
        write_json(runs_dir / NAME, {"views": views})
    else:
        remove(runs_dir / NAME)


def checked_name(text: str) -> str:
    """Return a view's name on one line.

    Raises:
        UserError: it is empty, too long, or contains control characters.
    """
    name = " ".join(text.split())
    if not 1 <= len(name) <= LONGEST_NAME or not name.isprintable():
        raise UserError(f"{printable(name)[:80]!r}: a view's name has 1 to {LONGEST_NAME} printable characters.")
    return name


def checked_view(address: str) -> str:
    """Return the view in an address of the dashboard: what follows its #.

    Raises:
        UserError: it contains no view.
    """
    view = address.strip().rpartition("#")[2]
    wrong = [key for key, _ in parse_qsl(view, keep_blank_values=True) if key not in KEYS]
    if not parse_qsl(view) or wrong or len(view) > _LONGEST or not view.isprintable():
        raise UserError(
            f"{printable(address)[:100]}: is not the address of a view. Copy it from the dashboard (Copy link to this "
            "view), and put it in quotes."
        )
    return view
