"""``sweep.json``: a sweep's trials, and what came of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, NotRequired

from pydantic import AfterValidator, Field, with_config
from typing_extensions import TypedDict

from ddtl.records.checking import (
    OPEN,
    Contradiction,
    Count,
    Moment,
    Name,
    Number,
    Scalar,
    Seconds,
    Share,
    Text,
    agree,
    check,
    fault,
    is_number,
)
from ddtl.records.run import Limits
from ddtl.schema.scores import SCORES
from ddtl.utils.reading import Unreadable, read_object

NAME = "sweep.json"
_FIX = "The command that ran the sweep rewrites it from its storage."


def _point(pair: Any) -> Any:
    whole = isinstance(pair, list) and len(pair) == 2 and isinstance(pair[0], int) and not isinstance(pair[0], bool)
    if not whole or not 0 <= pair[0] < 10**9 or not (pair[1] is None or is_number(pair[1])):
        raise fault("should be an epoch and a number")
    return pair


Point = Annotated[Any, AfterValidator(_point)]


@with_config(OPEN)
class Attempt(TypedDict):
    worker: Text
    started: Moment
    ended: Moment
    found: NotRequired[Moment]
    reason: Text
    words: NotRequired[Text | None]


@with_config(OPEN)
class Trial(TypedDict):
    number: Annotated[int, Field(ge=0, le=10**9)]
    state: Literal["complete", "pruned", "failed", "running", "waiting"]
    reason: Text | None
    words: Text | None
    params: dict[Name, Scalar]
    overrides: list[Text]
    values: list[Number | None] | None
    curve: list[Point]
    seconds: Seconds | None
    attempts: list[Attempt]
    phases: NotRequired[list[Count] | None]
    epochs: NotRequired[Count | None]
    line: NotRequired[Text]
    started: NotRequired[Moment | None]
    ended: NotRequired[Moment | None]
    fit_seconds: NotRequired[Number | None]
    predict_seconds: NotRequired[Number | None]
    run: NotRequired[Text | None]
    worker: NotRequired[Text | None]


@with_config(OPEN)
class Difference(TypedDict):
    value: Number | None
    interval: Limits | None


@with_config(OPEN)
class Pair(TypedDict):
    differences: dict[Name, Difference]


@with_config(OPEN)
class Method(TypedDict):
    name: Text
    scores: dict[Name, Number | None]
    intervals: dict[Name, Limits | None]


@with_config(OPEN)
class Comparison(TypedDict):
    score: Literal[SCORES]  # type: ignore[valid-type]
    unit: Text
    level: Share
    methods: list[Method]
    pairs: Annotated[list[Pair], Field(min_length=1)]


@with_config(OPEN)
class FinalRun(TypedDict):
    seed: NotRequired[Count]
    score: Number | None


@with_config(OPEN)
class Final(TypedDict):
    seeds: list[Count]
    runs: dict[Text, list[FinalRun]]
    comparison: Comparison | None
    claimed: bool
    claim: Text
    caveats: list[Text]


@with_config(OPEN)
class Setting(TypedDict):
    overrides: NotRequired[list[Text]]
    trials: NotRequired[list[Count]]
    mean: Annotated[list[Number | None], Field(min_length=1)]


@with_config(OPEN)
class Sweep(TypedDict):
    """The whole file."""

    name: Name
    dataset: Name
    search: Text | None
    objective: Annotated[list[Literal["score", "seconds"]], Field(min_length=1, max_length=2)]
    directions: Annotated[list[Literal["maximize", "minimize"]], Field(min_length=1, max_length=2)]
    monitor: Name
    identity: dict[Text, Any]
    optuna: Text
    started: NotRequired[Moment]
    ended: Moment
    counts: NotRequired[dict[Text, Count]]
    total: NotRequired[Count]
    trials: Annotated[list[Trial], Field(max_length=100_000)]
    best: NotRequired[Count | None]
    front: NotRequired[list[Count]]
    final: NotRequired[Final | None]
    test_uses: NotRequired[Count | None]
    replicates: NotRequired[list[Text]]
    settings: NotRequired[list[Setting] | None]


@with_config(OPEN)
class Parameter(TypedDict):
    """How the space describes a parameter, under ``space.NAME`` in the identity."""

    key: NotRequired[Text]
    choice: NotRequired[Annotated[list[Scalar], Field(min_length=1)]]
    int: NotRequired[Annotated[list[Number], Field(min_length=2, max_length=2)]]
    float: NotRequired[Annotated[list[Number], Field(min_length=2, max_length=2)]]
    log: NotRequired[bool | None]
    step: NotRequired[Number | None]
    where: NotRequired[list[Text] | None]


def read(folder: Path) -> dict[str, Any]:
    """Return the record of a sweep.

    Raises:
        FileNotFoundError: there is none in the folder.
        Unreadable: it is damaged.
    """
    path = folder / NAME
    try:
        record = read_object(path)
    except Unreadable as problem:
        raise Unreadable(path, problem.reason, _FIX) from None
    found: dict[str, Any] = check(path, record, Sweep, _FIX)
    for key, what in found["identity"].items():
        if key.startswith("space.") and isinstance(what, dict):
            check(path, what, Parameter, _FIX, "identity.space.…")
    agree(path, _contradictions(found), _FIX)
    return found


def _contradictions(record: Mapping[str, Any]) -> Iterator[Contradiction]:
    objectives = record["objective"]
    if len(record["directions"]) != len(objectives):
        yield Contradiction("directions", "should be one for each objective")
    for key in ("sampler.name", "pruner.name"):
        if not isinstance(record["identity"].get(key, ""), str):
            yield Contradiction(f"identity.{key}", "should be text")
    trials = record["trials"]
    if len({trial["number"] for trial in trials}) != len(trials):
        yield Contradiction("trials", "should have different numbers")
    spaces = {name.removeprefix("space."): what for name, what in record["identity"].items() if isinstance(what, dict)}
    yield from _of_spaces(record["identity"])
    for i, trial in enumerate(trials):
        at = f"trials[{i}]"
        if trial["state"] == "complete" and len(trial["values"] or ()) != len(objectives):
            yield Contradiction(f"{at}.values", "should contain a number for each objective")
        if trial["state"] == "running" and not (trial["attempts"] or trial.get("started")):
            yield Contradiction(f"{at}.started", "is missing")
        for name, value in trial["params"].items():
            if name in spaces and not _is_drawn_from(value, spaces[name]):
                yield Contradiction(f"{at}.params", "should be values of what was searched")
    comparison = (record.get("final") or {}).get("comparison")
    if comparison:
        score = comparison["score"]
        if any(score not in pair["differences"] for pair in comparison["pairs"]):
            yield Contradiction("final.comparison.pairs", "should contain the difference in the score that is judged")
        if any(score not in one["scores"] or score not in one["intervals"] for one in comparison["methods"]):
            yield Contradiction("final.comparison.methods", "should contain the score that is judged")


def _of_spaces(identity: Mapping[str, Any]) -> Iterator[Contradiction]:
    for key, what in identity.items():
        if not key.startswith("space.") or not isinstance(what, dict):
            continue
        if sum(kind in what for kind in ("choice", "int", "float")) != 1:
            yield Contradiction("identity.space.…", "should be a choice, or a range of int or float")
        limits = what.get("int", what.get("float"))
        if limits is not None and not (limits[0] <= limits[1] and (limits[0] > 0 or not what.get("log"))):
            yield Contradiction("identity.space.…", "should be a range, positive where it is logarithmic")


def _is_drawn_from(value: Any, space: Mapping[str, Any]) -> bool:
    if "choice" in space:
        return True
    limits = space.get("int", space.get("float"))
    return limits is None or (is_number(value) and limits[0] <= value <= limits[1])
