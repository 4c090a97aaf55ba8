"""A study's controls, as its folder contains them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ddtl.records import study

if TYPE_CHECKING:
    pass


NAME = study.CONTROLS


@dataclass(frozen=True)
class Controls:
    """By source and target: ``duplicates`` (sample ids), ``majority`` and ``file_facts``."""

    pairs: Mapping[tuple[str, str], Mapping[str, Any]] = field(default_factory=dict)

    def twice(self, source: str, target: str) -> frozenset[str]:
        """Return the target's test images that are excluded, as they or others of their patient are in the source."""
        return frozenset(self.pairs.get((source, target), {}).get("duplicates", ()))

    def scores(self, source: str, target: str, name: str) -> Mapping[str, Any] | None:
        """Return those of ``majority`` or ``file_facts``; None where there are none."""
        found: Mapping[str, Any] | None = self.pairs.get((source, target), {}).get(name)
        return found


def read(folder: Path) -> Controls:
    """Return the controls in a study's folder; none where there is no such file.

    Raises:
        UserError: it is damaged.
    """
    try:
        return Controls({(row["source"], row["target"]): row for row in study.controls(folder)})
    except FileNotFoundError:
        return Controls()
