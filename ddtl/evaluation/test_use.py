"""What ``results.json`` records about earlier uses of its test set. Each use makes the next score on it less honest.

``test_use`` is the number of the use, counted from 1 (records of earlier versions call it ``look``). ``test_uses`` is
what belongs to it: ``total`` and ``of_run``, the uses known when the scores were written, by all runs and by this one;
``planned``, the study or comparison whose runs count as one use; ``list_changes``, a line for each setting in which
this run was scored otherwise before; ``others``, by protocol, the uses of the dataset's images as test sets under
other ones, and by dataset and protocol those of the very same test images under another name, where there were any.
``test_uses_before``, of a record without scores on the test set, is how often this run had been scored on it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

USE, USES = "test_use", "test_uses"
BEFORE = "test_uses_before"
_OLD_USE = "look"


def number(record: Mapping[str, Any]) -> int | None:
    """Return the number of the test-set use; None where no test set was scored."""
    found = record.get(USE, record.get(_OLD_USE))
    return found if isinstance(found, int) else None


def is_first(record: Mapping[str, Any]) -> bool:
    """Return whether nothing can have been chosen on this test set: these are the first scores on it, and the only
    ones.
    """
    uses = _uses(record)
    return number(record) in (None, 1) and uses.get("total", 1) == 1 and not (uses.get("changed") or uses.get("others"))


def total(record: Mapping[str, Any]) -> int:
    """Return how many uses of the test set were known when the scores were written, these included; 0 where there
    are none.
    """
    found = number(record)
    return 0 if found is None else max(found, _uses(record).get("total", found))


def of_run(record: Mapping[str, Any]) -> int:
    """Return how many of them were of this run; records of earlier versions do not say, and know their own one."""
    return 0 if number(record) is None else int(_uses(record).get("of_run", 1))


def list_changes(record: Mapping[str, Any]) -> list[str]:
    """Return a line for each setting in which this run was scored otherwise before."""
    return [str(line) for line in _uses(record).get("changed", ())]


def before(record: Mapping[str, Any]) -> str:
    """Of a record without scores on the test set, that this run was scored on it before; empty where it was not."""
    n = record.get(BEFORE)
    if not n:
        return ""
    times = "once" if n == 1 else f"{n} times"
    return f"This record has no scores on the test set, but this run was scored on it {times} before."


def label(record: Mapping[str, Any]) -> str:
    """``test-set use number 2``, with what it was planned as."""
    planned = _uses(record).get("planned")
    return f"test-set use number {number(record)}" + (f" (one planned use: {planned})" if planned else "")


def history(record: Mapping[str, Any]) -> str:
    """Return how often the test set was used by then, and what this run changed since; empty for the first and only
    use.
    """
    if is_first(record):
        return ""
    n, lines = total(record), list_changes(record)
    times = "once" if n == 1 else f"{n} times"
    by_run = f" This run was scored on it before with other settings: {'; '.join(lines)}." if lines else ""
    others = ", ".join(f"{protocol}: {n}" for protocol, n in _uses(record).get("others", {}).items())
    by_others = f" These images were scored as test sets under other protocols or names before ({others})."
    return f"This test set has been used {times}.{by_run}{by_others if others else ''}"


def _uses(record: Mapping[str, Any]) -> Mapping[str, Any]:
    found = record.get(USES)
    return found if isinstance(found, Mapping) else {}
