"""What the dashboard shows of picked runs and of a sweep: curves, differences of their settings, logs, parameters.

Each is a pure function of the records. The page draws it, and takes every text in it for text alone.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePath
from typing import Any

from ddtl.dashboard import index
from ddtl.dashboard.index import FolderRow
from ddtl.records import settings, small
from ddtl.records.checking import is_number
from ddtl.utils.reading import Unreadable, printable
from ddtl.utils.redaction import redact

_MOST_CURVES = 12
_LONGEST_VALUE = 200  # characters of a setting
_LONGEST_KEY = 80
_MOST_PARAMETERS = 24
_OF_FILES = ("dataset.root", "dataset.table", "dataset.exclude")  # shown without their folders
_NOT_CURVES = ("epoch", "step")
_LAST = ("lr", "seconds")


def curves(picked: Sequence[FolderRow], folders: Sequence[Path]) -> list[dict[str, Any]]:
    """Return charts of runs' epochs, title and specification each: losses and the monitored score first."""
    from ddtl.reports.sections.history import several_runs

    named = zip(names(picked), folders, strict=True)
    known = {name: found for name, folder in named if (found := index.curve(folder))}
    if not known:
        return []
    monitor = next((row.monitor for row in picked if row.monitor), "val/loss")
    recorded = {
        key: None
        for rows in known.values()
        for row in (rows[0], rows[-1])
        for key, value in row.items()
        if is_number(value) and key not in _NOT_CURVES and len(key) <= _LONGEST_KEY
    }
    first = ("train/loss", "val/loss", monitor)
    keys = list(dict.fromkeys([*first, *(key for key in recorded if key not in _LAST), *_LAST]))
    shown = [key for key in keys if key in first or key in recorded][:_MOST_CURVES]
    later = " (earlier epochs are excluded)" if any(rows[0]["epoch"] > 0 for rows in known.values()) else ""
    return [{"title": f"{key}{later}", "spec": several_runs(known, key)} for key in shown]


def names(picked: Sequence[FolderRow]) -> list[str]:
    """Return short names that tell all of them apart."""
    several = len({row.dataset for row in picked}) > 1
    for model, end in ((False, False), (True, False), (False, True)):
        found = []
        for row in picked:
            words = [row.dataset if several else "", row.model if model else "", row.finetune]
            seed = "" if row.seed is None else f"s{row.seed}"
            found.append(" ".join(filter(None, [*words, seed, row.name.rpartition("-")[2][-10:] if end else ""])))
        if len(set(found)) == len(found) and all(found):
            return found
    return [f"{number}: {row.name[-20:]}" for number, row in enumerate(picked, start=1)]


def differences(picked: Sequence[FolderRow], folders: Sequence[Path]) -> dict[str, Any]:
    """Return the settings in which runs differ: names of the runs, and for each key a value of each run, as text.

    Where files are, and who is shown the curves, are none of them. What is only in the identity is, as the digest of
    the images. A run whose settings cannot be read is named in ``problems``.
    """
    found: list[Mapping[str, str]] = []
    kept: list[FolderRow] = []
    problems: list[str] = []
    for row, folder in zip(picked, folders, strict=True):
        try:
            found.append(_settings(folder))
            kept.append(row)
        except (OSError, Unreadable) as error:
            why = error.reason if isinstance(error, Unreadable) else error.strerror or "error"
            problems.append(f"{row.name}: its settings cannot be read: {why}")
    keys = dict.fromkeys(key for one in found for key in one)
    rows = [(key, [one.get(key, "") for one in found]) for key in keys]
    return {
        "names": names(kept),
        "paths": [row.path for row in kept],
        "keys": [{"key": key, "values": values} for key, values in rows if len(set(values)) > 1],
        "problems": problems,
    }


def _settings(folder: Path) -> dict[str, str]:
    """Return all settings of a run by dotted key, as text; of an evaluation those of its run."""
    run = folder if (folder / settings.NAME).exists() else folder.parents[1]
    found: dict[str, Any] = {}
    waiting: list[tuple[str, Any]] = [("", settings.read(run))]
    while waiting:
        at, value = waiting.pop()
        if isinstance(value, dict) and (value or not at):
            waiting += [(f"{at}.{key}" if at else str(key), each) for key, each in reversed(value.items())]
        elif not at.startswith(("paths.", "logger.")):
            found[at] = value
    found |= {key: value for key, value in (small.identity(run) or {}).items() if key not in found}
    found |= {key: PurePath(found[key]).name for key in _OF_FILES if isinstance(found.get(key), str)}
    return {printable(key)[:_LONGEST_VALUE]: _spelled(value) for key, value in found.items()}


def _spelled(value: Any) -> str:
    if value is None:
        return "not set"
    if isinstance(value, bool):
        return str(value).lower()
    written = json.dumps(value, ensure_ascii=False) if isinstance(value, list | dict) else value
    text = redact(printable(written))
    return text if len(text) <= _LONGEST_VALUE else f"{text[:_LONGEST_VALUE]}…"


def logs(picked: Sequence[FolderRow], folders: Sequence[Path]) -> list[dict[str, Any]]:
    """Return the end of each run's log: its name, the text, and a remark."""
    found = []
    for row, folder in zip(picked, folders, strict=True):
        about = {"name": row.name, "path": row.path, "text": "", "note": ""}
        try:
            about["text"], whole = index.log_lines(folder)
            about["note"] = "" if whole else "Only the end is shown; all of it is in log.txt."
        except FileNotFoundError:
            about["note"] = "There is no log: an earlier version trained this run, or it is an evaluation."
        except (OSError, Unreadable) as error:
            why = error.reason if isinstance(error, Unreadable) else error.strerror or "error"
            about["note"] = f"log.txt cannot be read: {why}."
        found.append(about)
    return found


def sweep(folder: Path) -> list[dict[str, Any]]:
    """Return the charts of a sweep as it is now: all parameters side by side, trial by trial, and one for each
    parameter.

    Raises:
        UserError: it has no record, or one that cannot be read.
    """
    from ddtl.reports.sweep import parameters, record, scatter, search, trials

    found = record.read(folder)
    every = [{**trial, "params": found.chosen(trial)} for trial in found.trials]
    scored = [trial for trial in every if trials.last_score(trial) is not None]
    if not scored:
        return []
    axes = parameters.parameters(scored, found.space)[:_MOST_PARAMETERS]
    charts = []
    if axes and len(scored) > 1:
        best = [number for one in found.settings[: max(1, round(len(found.settings) / 10))] for number in one.trials]
        ended = [trial for trial in scored if trial["state"] in ("complete", "pruned")]
        if ended:
            spec = parameters.parallel_spec(ended, axes, best, found.signs[0])
            charts.append({"title": f"Parameters and {found.names[0]}", "spec": spec, "wide": True})
    history = search.history_spec(scored, found.names[0], found.signs[0], best=not found.replicates)
    charts.append({"title": "Trial by trial", "spec": history, "wide": False})
    for axis in axes:
        spec = scatter.spec(scatter.used(scored, axis), axis, found.names[0], [])
        if axis.is_choice:  # charts are narrower here than on the page
            x = spec["layout"]["xaxis"]
            broken = [name.replace("_", "_<br>") for name in x["ticktext"]]
            x |= {"ticktext": broken, "tickangle": 0, "tickfont": {"size": 11}}
        charts.append({"title": axis.name, "spec": spec, "wide": False})
    return charts
