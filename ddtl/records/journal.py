"""``journal.log``: Optuna's log of a sweep, checked before Optuna replays it, which takes every line at its word.

The operations and their keys are those of ``optuna.storages.journal`` (Optuna 4 and 5). Scores may be infinite or no
number there: a loss that diverged is reported as what it was.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NotRequired, TypeGuard

from pydantic import Field, with_config
from typing_extensions import TypedDict

from ddtl.records.checking import OPEN, Count, Moment, Name, Number, Text, fits
from ddtl.utils.reading import Unreadable, lines

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

_STATES = range(5)  # of optuna.trial.TrialState
_MOST_TRIALS = 1_000_000
_FIX = "Put back a copy of the file; to search again, set another sweep.name."


@with_config(OPEN)
class _Attempt(TypedDict):
    claim: Text
    worker: Text
    started: Moment
    ended: Moment
    found: NotRequired[Moment]
    reason: Literal[
        "completed", "pruned", "killed", "out_of_memory", "nan", "time_limit", "error", "disk_full", "stopped"
    ]
    words: Text
    values: list[Number]


@with_config(OPEN)
class _Process(TypedDict):
    """As :func:`ddtl.utils.processes.process` has it."""

    pid: Annotated[int, Field(ge=1, lt=2**31)]
    host: Text
    place: Text
    started: Text | None


@with_config(OPEN)
class _Worker(_Process):
    claim: Text
    worker: Text
    since: Moment


@with_config(OPEN)
class _Evaluated(TypedDict):
    target: Name
    words: list[Text]
    folder: Text | None
    reason: Text


# The attributes that ddtl gives to a trial and to a study.
_OF_TRIAL: Mapping[str, Any] = {
    "owner": _Worker,
    "process": _Process,
    "overrides": list[Text],
    "attempts": list[_Attempt],
    "reason": Text,
    "words": Text,
    "phases": list[Count],
    "epochs": Annotated[int, Field(ge=1, le=100_000)],
    "run": Text,
    "fit_seconds": Number,
    "predict_seconds": Number,
    "evaluations": list[_Evaluated],
}
_OF_STUDY: Mapping[str, Any] = {"identity": dict[Text, Any], "sessions": list[Moment], "final": dict[Text, Any] | None}


def check(path: Path) -> None:
    """Refuse a journal that Optuna could not replay, or that contains what ddtl would not write.

    A last line without its end is passed over, for a writer may be at it.

    Raises:
        Unreadable: with the number of the line.
    """
    checker = _Checker()
    try:
        for number, line, is_whole in lines(path):
            if is_whole and (fault := checker.fault(line)):
                raise Unreadable(path, f"line {number}: {fault}", _FIX)
    except FileNotFoundError:
        return


class _Checker:
    """Knows how many studies and trials the lines so far have made."""

    def __init__(self) -> None:
        self._studies = 0
        self._trials = 0
        self._distributions: dict[str, BaseDistribution | None] = {}

    def fault(self, line: bytes) -> str:
        """Return what is wrong with a line; nothing where Optuna can replay it."""
        try:
            log = json.loads(line)
        except (ValueError, RecursionError):
            return "is damaged, no JSON"
        if not isinstance(log, dict) or not isinstance(log.get("worker_id"), str):
            return "is damaged, no operation of a journal"
        number = log.get("op_code")
        check = None if isinstance(number, bool) or not isinstance(number, int) else _OPERATIONS.get(number)
        if check is None:
            return "op_code is none that ddtl knows"
        return check(self, log)

    def create_study(self, log: Mapping[str, Any]) -> str:
        self._studies += 1
        directions = log.get("directions")
        is_whole = isinstance(directions, list) and 1 <= len(directions) <= 2
        if not is_whole or not all(_is_count(one) and one in (1, 2) for one in log["directions"]):
            return "directions should be one or two of 1 and 2"
        return "" if isinstance(log.get("study_name"), str) else "study_name should be text"

    def create_trial(self, log: Mapping[str, Any]) -> str:
        self._trials += 1
        if self._trials > _MOST_TRIALS:
            return f"there are more than {_MOST_TRIALS:,} trials"
        given = sorted(log.keys() - {"op_code", "worker_id", "study_id", "datetime_start", "begin"})
        if given:  # of trials that were run by another program, which ddtl adds to no study
            return "contains a key that ddtl does not write there"
        return self.of_study(log) or _time(log, "datetime_start")

    def param(self, log: Mapping[str, Any]) -> str:
        text, name = log.get("distribution"), log.get("param_name")
        if not isinstance(name, str) or not isinstance(text, str):
            return "param_name and distribution should be text"
        if text not in self._distributions:
            self._distributions[text] = _distribution(text)
        known = self._distributions[text]
        if known is None:
            return "distribution is none of Optuna's"
        value = log.get("param_value_internal")
        if isinstance(value, bool) or not isinstance(value, int | float) or not known._contains(value):
            return "param_value_internal should be a value of the distribution"
        return self.of_trial(log)

    def state(self, log: Mapping[str, Any]) -> str:
        state, values = log.get("state"), log.get("values")
        if not _is_count(state) or state not in _STATES:
            return "state is none of Optuna's"
        if not (values is None or (isinstance(values, list) and values and all(map(_is_float, values)))):
            return "values should be numbers"
        if state == 1 and values is None:
            return "values is missing"
        when = "datetime_start" if state == 0 else "datetime_complete" if state in (1, 2, 3) else ""
        return self.of_trial(log) or (_time(log, when, needed=True) if when else "")

    def intermediate(self, log: Mapping[str, Any]) -> str:
        if not _is_count(log.get("step")) or log["step"] > 10**6:
            return "step should be the number of an epoch"
        return self.of_trial(log) or ("" if _is_float(log.get("intermediate_value")) else "should contain a number")

    def of_study(self, log: Mapping[str, Any]) -> str:
        study = log.get("study_id")
        return "" if _is_count(study) and study < self._studies else "study_id is that of no study"

    def of_trial(self, log: Mapping[str, Any]) -> str:
        trial = log.get("trial_id")
        return "" if _is_count(trial) and trial < self._trials else "trial_id is that of no trial"


_OPERATIONS: Mapping[int, Callable[[_Checker, Mapping[str, Any]], str]] = {
    0: _Checker.create_study,
    2: lambda checker, log: checker.of_study(log) or _attribute(log, "user_attr", _OF_STUDY),
    3: lambda checker, log: checker.of_study(log) or _attribute(log, "system_attr", {}),
    4: _Checker.create_trial,
    5: _Checker.param,
    6: _Checker.state,
    7: _Checker.intermediate,
    8: lambda checker, log: checker.of_trial(log) or _attribute(log, "user_attr", _OF_TRIAL),
    9: lambda checker, log: checker.of_trial(log) or _attribute(log, "system_attr", {}),
}


def _attribute(log: Mapping[str, Any], key: str, known: Mapping[str, Any]) -> str:
    found = log.get(key)
    if not isinstance(found, dict) or len(found) != 1:
        return f"{key} should be an object of one attribute"
    ((name, value),) = found.items()
    return "" if name not in known or fits(value, known[name]) else f"{key}.{name} is not what ddtl writes there"


def _distribution(text: str) -> BaseDistribution | None:
    from optuna.distributions import json_to_distribution

    try:
        return json_to_distribution(text)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None


def _time(log: Mapping[str, Any], key: str, needed: bool = False) -> str:
    value = log.get(key)
    if value is None and not needed and key in log:
        return ""
    try:
        whole = isinstance(value, str) and 1970 < datetime.fromisoformat(value).year < 3000
    except ValueError:
        whole = False
    return "" if whole else f"{key} should be a time in ISO 8601"


def _is_count(value: Any) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_float(value: Any) -> bool:
    """NaN and infinity included."""
    return isinstance(value, int | float) and not isinstance(value, bool)
