"""Why trials of a sweep failed, or were interrupted and resumed."""

from __future__ import annotations

from collections import Counter

from ddtl.reports.html import format
from ddtl.reports.html.page import Block, Cell, Section, Table, Text
from ddtl.reports.sweep.record import REASONS, Sweep, without_folders
from ddtl.reports.sweep.trials import interrupted
from ddtl.utils import wording


def section(sweep: Sweep) -> Section:
    """Return failed trials by reason, and what was interrupted and resumed."""
    failed = [trial for trial in sweep.trials if trial["state"] == "failed"]
    blocks: list[Block] = []
    if failed:
        rows: list[list[str | Cell]] = []
        for reason, count in Counter(str(trial["reason"]) for trial in failed).most_common():
            which = [trial for trial in failed if str(trial["reason"]) == reason]
            numbers = ", ".join(str(trial["number"]) for trial in which)
            rows.append([REASONS.get(reason, reason), f"{count}", numbers, _last_line(which[0]["words"])])
        note = "trials/NUMBER.log in the sweep's folder contains everything that a trial printed."
        blocks.append(
            Table("Failed trials by reason", ["", "trials", "which", "last line of the first"], rows, note, (2, 3))
        )
    reasons = Counter(part["reason"] for trial in sweep.trials for part in interrupted(trial))
    if reasons:
        each = [f"{count} × {REASONS.get(reason, reason)}" for reason, count in reasons.most_common()]
        blocks.append(Text(f"Interrupted, and resumed from the last checkpoint: {wording.listed(each)}."))
    return Section("Failures", blocks)


def _last_line(words: str | None) -> str:
    lines = (words or "").strip().splitlines()
    return without_folders(lines[-1])[:200] if lines else format.NONE
