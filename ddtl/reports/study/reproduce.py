"""How a study is reproduced: its files, its settings, and the command of each run."""

from __future__ import annotations

import json

from ddtl.reports.html.page import Code, Fold, Section, Text
from ddtl.reports.sections.reproduce import TITLE
from ddtl.reports.study.cells import Cells
from ddtl.reports.sweep.record import without_folders
from ddtl.schema.run import OWN_FILES


def section(found: Cells) -> Section:
    """Return where the tables are, the settings, and the commands."""
    study = found.study
    shared = {key: value for key, value in study["identity"].items() if key.removeprefix("dataset.") not in OWN_FILES}
    settings = {key: value for key, value in study["settings"].items() if key != "own"}
    text = json.dumps({"study": settings, "shared": shared}, indent=2, ensure_ascii=False)
    lines = dict.fromkeys(without_folders(job["line"]) for job in study["jobs"])
    how = f"{len(lines)} runs; `ddtl evaluate` scored each on the other test sets."
    return Section(
        TITLE,
        [
            Text("tables.txt, tables.md and tables.tex next to this page contain its tables, scores.csv every score."),
            Fold("Settings", [Code(without_folders(text))]),
            Fold("Each run", [Text(how), Code("\n".join(lines))]),
        ],
    )
