"""What the page of an audit is about: its record, and the worst pairs as images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ddtl.reports.audit.pairs import PairView


@dataclass(frozen=True)
class Audited:
    """An audit.

    Attributes:
        record: ``audit.json``.
        shown: its worst pairs as images; none on a page to share.
        lists: the exclude list of each dataset, as a command names it; none on a page to share.
    """

    record: Mapping[str, Any]
    shown: Sequence[PairView]
    lists: Mapping[str, str] = field(default_factory=dict)

    @property
    def names(self) -> list[str]:
        """The datasets."""
        return [one["dataset"] for one in self.record["datasets"]]
