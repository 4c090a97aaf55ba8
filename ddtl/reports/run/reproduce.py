"""How a run is reproduced: its command and settings, and the machine and software that it ran on."""

from __future__ import annotations

from ddtl.reports.html.page import Block, Code, Fold, Section, Table, Text
from ddtl.reports.run.stored import Stored
from ddtl.reports.sections import reproduce


def section(stored: Stored) -> Section:
    """Return the command, all settings, and machine and software."""
    command = reproduce.command(stored.environment)
    blocks: list[Block] = []
    if command is not None:
        before = "The command that trained the model. " if stored.trained_on else ""
        blocks += [
            Text(f"{before}What concerns only the machine that it ran on, such as paths and loggers, is excluded."),
            Code(command),
        ]
    if stored.config:
        title = "All settings of the training" if stored.trained_on else "All settings"
        blocks.append(reproduce.as_yaml(title, reproduce.settings(stored.config)))
    return Section(reproduce.TITLE, [*blocks, Fold("Machine and software", [_environment(stored)])])


def _environment(stored: Stored) -> Table:
    found = stored.environment
    facts = {
        "Python": found.get("python"),
        "system": found.get("platform"),
        "processor": found.get("cpu"),
        "cores": found.get("cores"),
        "threads": found.get("threads"),
        "GPUs": ", ".join(found.get("gpus") or []) or "none",
        "precision": stored.record.get("precision"),
        **stored.record.get("versions", {}),
    }
    rows = [[name, str(value)] for name, value in facts.items() if value is not None]
    return Table("Where it ran", ["", ""], rows, words=[1])
