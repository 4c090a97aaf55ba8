"""Differences of two identities, and the hash that names one."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ddtl.utils.reading import printable

if TYPE_CHECKING:  # for their names only: this module and what imports it can do without torch
    pass


_LONGEST = 300  # characters of a value in a message


def short_hash(identity_: Mapping[str, Any]) -> str:
    """Return ten hexadecimal digits that name an identity."""
    text = json.dumps(identity_, sort_keys=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:10]


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Return a line for each key in which two identities differ."""
    absent = "(absent)"
    return [
        f"{_short(key)}: was {_short(before.get(key, absent))}, is {_short(now.get(key, absent))}"
        for key in sorted({*before, *now})
        if before.get(key, absent) != now.get(key, absent)
    ]


def _short(value: Any) -> str:
    """Return a value on a line, a long one cut."""
    text = printable(value)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"
