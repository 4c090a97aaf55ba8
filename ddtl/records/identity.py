"""Differences of two identities, and the hash that names one."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from ddtl.utils.reading import printable

_ABSENT = "(absent)"
_LONGEST = 300  # characters of a value in a message


def short_hash(identity_: Mapping[str, Any]) -> str:
    """Return ten hexadecimal digits that name an identity."""
    text = json.dumps(identity_, sort_keys=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:10]


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Return a line for each key in which two identities differ."""
    return [
        f"{_short(key)}: was {_short(before.get(key, _ABSENT))}, is {_short(now.get(key, _ABSENT))}"
        for key in sorted({*before, *now})
        if before.get(key, _ABSENT) != now.get(key, _ABSENT)
    ]


def _short(value: Any) -> str:
    """Return a value on a line in a reader's words, a long one cut."""
    if value is None:
        return "not set"
    if isinstance(value, bool):
        return str(value).lower()  # as it is written in a configuration
    text = printable(value)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"
