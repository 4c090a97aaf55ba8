"""``explain/explain.json``: what the heat maps of a run are of, and how far they can be believed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, NotRequired

from pydantic import Field, with_config
from typing_extensions import TypedDict

from ddtl.records.checking import OPEN, Below, Contradiction, Count, Number, Share, Text, agree, check
from ddtl.utils.reading import read_object

NAME = "explain.json"
_FIX = "`ddtl explain` recreates it."


@with_config(OPEN)
class Image(TypedDict):
    sample_id: Text
    true: Text
    called: Text
    probabilities: Annotated[list[Share], Field(min_length=2)]
    picture: Below


@with_config(OPEN)
class Group(TypedDict):
    title: Text
    total: Count
    images: list[Image]


@with_config(OPEN)
class Played(TypedDict):
    """The pointing game: how often the hottest cell is in a lesion."""

    share: Share
    low: NotRequired[Number | None]
    high: NotRequired[Number | None]
    chance: NotRequired[Share | None]
    other_patients: NotRequired[Share | None]


@with_config(OPEN)
class Game(TypedDict):
    images: NotRequired[Count]
    patients: NotRequired[Count]
    strict: Played
    tolerant: Played


@with_config(OPEN)
class RandomNetwork(TypedDict):
    rank_correlation: NotRequired[Number | None]
    pointing_game: Game | None


@with_config(OPEN)
class Randomised(TypedDict):
    rank_correlation: Number | None
    networks: list[RandomNetwork]


@with_config(OPEN)
class Explanation(TypedDict):
    """The whole file."""

    digest: Text
    threshold: Number | None
    layer: Text
    cells: Annotated[list[Count], Field(min_length=2, max_length=2)]
    pointing_game: Game | None
    randomised: Randomised | None
    groups: list[Group]


def read(folder: Path) -> dict[str, Any]:
    """Return the record in a folder ``explain/``.

    Raises:
        FileNotFoundError: there is none.
        Unreadable: it is damaged.
    """
    path = folder / NAME
    found: dict[str, Any] = check(path, read_object(path), Explanation, _FIX)
    agree(path, _contradictions(found), _FIX)
    return found


def _contradictions(found: Mapping[str, Any]) -> Iterator[Contradiction]:
    game = found["pointing_game"]
    for part in ("images", "patients"):
        if game is not None and part not in game:
            yield Contradiction(f"pointing_game.{part}", "is missing")
    for key in ("strict", "tolerant"):
        for part in ("low", "high", "chance", "other_patients"):
            if game is not None and part not in game[key]:
                yield Contradiction(f"pointing_game.{key}.{part}", "is missing")
