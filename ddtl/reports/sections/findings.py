"""Findings of an audit, for the page of the audit and for that of a run on the same images."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ddtl.reports.html.format import capitalised
from ddtl.reports.html.page import Notice

# Severities as a reader knows them, and the style of each.
LABELS = {"fail": "fails", "warn": "warning", "note": "note"}
_TONES: Mapping[str, Any] = {"fail": "bad", "warn": "warn", "note": "plain"}


def notice(finding: Mapping[str, Any], where: str = "", fix: str = "") -> Notice:
    """Return a finding with its severity.

    Args:
        finding: of an audit's record, or of its summary in that of a run.
        where: the datasets that it is about, where the page is not about one.
        fix: what to do about it.
    """
    severity = finding["severity"]
    label = " · ".join(filter(None, [LABELS[severity], where]))
    return Notice(label, capitalised(finding["title"]), finding["sentence"], fix, _TONES[severity])
