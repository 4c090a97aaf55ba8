"""Everything below the runs folder as rows: runs, their evaluations, sweeps, studies and audits. No torch.

A row is made of small files, and made again only where one of them has changed; so a second request for ten thousand
runs reads next to nothing. A file that is damaged or half written costs its row alone, which says why.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from ddtl.evaluation import test_use
from ddtl.records import audit, epochs, notes, run, run_folder, small, study, sweep
from ddtl.records.checking import is_number
from ddtl.utils.reading import TABLE, Unreadable, is_text, opened, printable
from ddtl.utils.redaction import redact

Kind = Literal["run", "evaluation", "sweep", "study", "audit"]
State = Literal["finished", "running", "stopped", "failed", "pruned", "broken"]

# Whose change makes a run's row another one. The folder itself ("") changes with each file that is made, replaced or
# removed, as the one that names its owner; of a finished run the epochs do not change any more. Asking for few files is
# what makes a table fast.
_FINISHED = ("", "results.json")
_WATCHED = (*_FINISHED, "metrics.jsonl")
_LOG_SHOWN = 256 << 10  # bytes of the end of a log
_RECORDS: Mapping[str, tuple[Kind, str]] = {
    "sweeps": ("sweep", "sweep.json"),
    "studies": ("study", "study.json"),
    "audits": ("audit", "audit.json"),
}


_SEVERAL = ("sweep", "study")  # kinds that consist of runs


@dataclass(frozen=True)
class FolderRow:
    """One run, evaluation, sweep, study or audit.

    Attributes:
        path: of its folder, below the runs folder, with slashes.
        kind, state: ``stopped`` is what neither has ended nor is under way; ``failed`` is a run whose training broke,
            and ``note`` says by what; ``pruned`` is a sweep's trial that the pruner ended; ``broken`` has no record
            that can be read.
        name: of the folder.
        dataset, model, finetune, protocol, seed: of a run; empty or None where it is not known.
        score, low, high: ROC AUC of the test set by patient, or by image where patients are not known, with its
            interval; of validation where ``split`` reports it, and then without one.
        split: of the score: ``test`` or ``val``.
        by: ``patient`` or ``image``.
        epoch, epochs: how many epochs are done, and how many there will be.
        best: the monitored score of the best epoch so far; ``monitor`` is its name.
        when: of the last change, seconds since 1970.
        report: whether there is a page.
        note: a line more: what is wrong, or what it is made of.
        trained_on: of an evaluation, the dataset that the network comes from.
        test_use: number of the use of the test set.
        user_note, tags: what a person wrote about it, see :mod:`ddtl.records.notes`.
        members: of a sweep or a study, the paths of its runs.
    """

    path: str
    kind: Kind
    state: State
    name: str
    dataset: str = ""
    model: str = ""
    finetune: str = ""
    protocol: str = ""
    seed: int | None = None
    score: float | None = None
    low: float | None = None
    high: float | None = None
    split: str = ""
    by: str = ""
    epoch: int | None = None
    epochs: int | None = None
    best: float | None = None
    monitor: str = ""
    when: float = 0.0
    report: bool = False
    note: str = ""
    trained_on: str = ""
    test_use: int | None = None
    user_note: str = ""
    tags: tuple[str, ...] = ()
    members: tuple[str, ...] = ()


@dataclass
class Index:
    """The rows of a runs folder.

    Attributes:
        runs_dir: the folder.
    """

    runs_dir: Path
    _rows_by_path: dict[str, tuple[tuple[Any, ...], FolderRow]] = field(default_factory=dict)
    _unchanged: set[str] = field(default_factory=set)
    _without_evaluations: set[str] = field(default_factory=set)  # runs without a folder of evaluations

    def rows(self) -> list[FolderRow]:
        """Return all rows as they are now, the latest first; none where the folder is not there yet."""
        found: dict[str, tuple[tuple[Any, ...], FolderRow]] = {}
        self._unchanged = set()
        for path, names, read in self._folders():
            folder = f"{self.runs_dir}/{path}"
            before = self._rows_by_path.get(path)
            finished = before is not None and before[1].state == "finished"
            stamp = _stamp(folder, _FINISHED if finished and names is _WATCHED else names)
            if before is not None and before[0][: len(stamp)] == stamp and before[1].state != "running":
                found[path] = before
                self._unchanged.add(path)
            elif (row := read(path, Path(folder))) is not None:
                row = _with_notes(row, folder)
                found[path] = stamp, row if path.isascii() or is_text(path) else _unnamed(row)
        self._rows_by_path = found
        rows = [self._with_state(row, found) if row.kind in _SEVERAL else row for _, row in found.values()]
        return sorted(rows, key=lambda row: (-row.when, row.path))

    def _with_state(self, row: FolderRow, found: Mapping[str, tuple[Any, FolderRow]]) -> FolderRow:
        """Return the row of a sweep or a study, as running where a command works at it, or one of its runs is."""
        if row.state != "stopped":
            return row
        folder = self.runs_dir / row.path
        runs = (found[path][1] for path in row.members if path in found)
        is_running = os.path.lexists(folder / run_folder.OWNER) and in_use(folder)
        return replace(row, state="running") if is_running or any(run.state == "running" for run in runs) else row

    def _folders(self) -> Iterator[tuple[str, tuple[str, ...], Read]]:
        """Yield every folder that may be a row, the files that it is made of, and what makes it; links are not
        followed.

        Folders are given relative to ``runs_dir``, with slashes: text, of which a hundred thousand are made sooner
        than paths.
        """
        root = str(self.runs_dir)
        for group in _children(root):
            known = _RECORDS.get(group)
            if not os.access(f"{root}/{group}", os.R_OK | os.X_OK):  # what is in it must not seem not to be
                yield group, (), _unreadable
                continue
            for name in _children(f"{root}/{group}"):
                path = f"{group}/{name}"
                if known is not None:
                    yield path, (known[1], "report.html", notes.NAME), _record_reader(*known)
                    continue
                yield path, _WATCHED, _run
                if path not in self._without_evaluations or path not in self._unchanged:
                    yield from self._evaluations(root, path)

    def _evaluations(self, root: str, path: str) -> Iterator[tuple[str, tuple[str, ...], Read]]:
        evaluations = f"{root}/{path}/evaluations"
        if not os.path.lexists(evaluations):
            self._without_evaluations.add(path)
            return
        self._without_evaluations.discard(path)
        if not os.path.islink(evaluations):
            for name in _children(evaluations):
                yield f"{path}/evaluations/{name}", ("results.json", "report.html", notes.NAME), _evaluation


Read = Callable[[str, Path], FolderRow | None]


def _unnamed(row: FolderRow) -> FolderRow:
    """Return the row of a folder whose name is not text."""
    note = "its folder's name is not UTF-8: rename it"
    return replace(row, path=printable(row.path), name=printable(row.name), state="broken", note=note)


def _with_notes(row: FolderRow, folder: str) -> FolderRow:
    """Return the row with what a person wrote about it; where that cannot be read, with why."""
    if not os.path.lexists(f"{folder}/{notes.NAME}"):
        return row
    try:
        found = notes.read(Path(folder))
    except (OSError, Unreadable) as error:
        return replace(row, note="; ".join(filter(None, [row.note, f"its notes {_why(error)}"])))
    return replace(row, user_note=found.note, tags=found.tags)


def _children(folder: str) -> list[str]:
    try:
        with os.scandir(folder) as entries:
            return [e.name for e in entries if e.is_dir(follow_symlinks=False) and not e.name.startswith(".")]
    except OSError:
        return []


def _stamp(folder: str | Path, names: tuple[str, ...]) -> tuple[Any, ...]:
    """Return another one where one of the files is another one."""
    found: list[tuple[int, int] | None] = []
    for name in names:
        try:
            about = os.stat(f"{folder}/{name}")
            found.append((about.st_mtime_ns, about.st_size))
        except OSError:
            found.append(None)
    return tuple(found)


def _when(folder: Path, *names: str) -> float:
    times = [about[0] / 1e9 for about in _stamp(folder, names) if about is not None]
    return max(times, default=0.0) or _modified(folder)


def _modified(folder: Path) -> float:
    try:
        return folder.stat().st_mtime
    except OSError:
        return 0.0


def _run(path: str, folder: Path) -> FolderRow | None:
    if not any(os.path.lexists(folder / name) for name in ("identity.json", "results.json")):
        if os.access(folder, os.X_OK):
            return None  # not the folder of a run
        return _unreadable(path, folder)
    about: dict[str, Any] = {"dataset": folder.parent.name, "when": _when(folder, "results.json", "metrics.jsonl")}
    about["report"] = os.path.isfile(folder / "report.html")
    try:
        about |= _settings(folder)
        about |= _progress(folder, str(about.get("monitor", "")))
        if os.path.lexists(folder / "results.json"):
            return FolderRow(path, "run", "finished", folder.name, **{**about, **_read_score(folder)})
        state, why = _ended(folder)
    except (OSError, Unreadable) as error:
        return FolderRow(path, "run", "broken", folder.name, **{**about, "note": _why(error)})
    if in_use(folder):
        state, why = "running", ""
    return FolderRow(path, "run", state, folder.name, note=why, **about)


def _ended(folder: Path) -> tuple[State, str]:
    """Return the state of a run that no process works at, and what broke it."""
    if failure := small.failure(folder):
        return "failed", printable(failure)
    return ("pruned" if small.why_ended_early(folder) == "pruned" else "stopped"), ""


def _unreadable(path: str, folder: Path) -> FolderRow:
    return FolderRow(path, "run", "broken", folder.name, when=_modified(folder), note="the folder cannot be read")


def _evaluation(path: str, folder: Path) -> FolderRow | None:
    if not os.path.lexists(folder / "results.json"):
        return None
    about: dict[str, Any] = {"when": _when(folder, "results.json"), "report": os.path.isfile(folder / "report.html")}
    try:
        about |= {key: value for key, value in _settings(folder.parents[1]).items() if key in ("model", "finetune")}
        return FolderRow(path, "evaluation", "finished", folder.name, **{**about, **_read_score(folder)})
    except (OSError, Unreadable) as error:
        return FolderRow(path, "evaluation", "broken", folder.name, **{**about, "note": _why(error)})


def _record_reader(kind: Kind, name: str) -> Read:
    """Read a sweep, a study or an audit."""

    def read(path: str, folder: Path) -> FolderRow:
        about: dict[str, Any] = {"when": _when(folder, name), "report": os.path.isfile(folder / "report.html")}
        try:
            found, ended = _ABOUT[kind](folder)
            return FolderRow(path, kind, "finished" if ended else "stopped", folder.name, **{**about, **found})
        except FileNotFoundError:
            return FolderRow(path, kind, "stopped", folder.name, **{**about, "note": "no record yet"})
        except (OSError, Unreadable) as error:
            return FolderRow(path, kind, "broken", folder.name, **{**about, "note": _why(error)})

    return read


def _sweep(folder: Path) -> tuple[dict[str, Any], bool]:
    record = sweep.read(folder)
    states = [trial["state"] for trial in record["trials"]]
    done = sum(state in ("complete", "pruned", "failed") for state in states)
    values = [trial["values"][0] for trial in record["trials"] if trial["state"] == "complete" and trial["values"]]
    scores = [value for value in values if value is not None]
    lower = record["directions"][0] == "minimize"
    best = (min(scores) if lower else max(scores)) if scores else None
    if record.get("settings"):  # the best mean, and not the luckiest replicate
        best = record["settings"][0]["mean"][0]
    total = max(record.get("total") or 0, len(states))  # while it runs, not all of them are there yet
    note = f"{done} of {total} trials, {states.count('pruned')} pruned, {states.count('failed')} failed"
    found = {"dataset": record["dataset"], "best": best, "monitor": record["monitor"], "note": note}
    members = dict.fromkeys(f"{record['dataset']}/{trial['run']}" for trial in record["trials"] if trial.get("run"))
    found["members"] = tuple(members)
    return found, done == total


def _study(folder: Path) -> tuple[dict[str, Any], bool]:
    record = study.read(folder)
    jobs = record["jobs"]
    scores = [evaluation["folder"] is not None for job in jobs for evaluation in job["evaluations"]]
    datasets = ", ".join(dict.fromkeys(job["labels"]["source"] for job in jobs))
    note = f"{record['study']}: {sum(scores)} of {len(scores)} scores of {len(jobs)} runs"
    members = dict.fromkeys(str(job["run"]) for job in jobs if job["run"] is not None)
    return {"dataset": datasets, "note": note, "members": tuple(members)}, all(scores)


def _audit(folder: Path) -> tuple[dict[str, Any], bool]:
    record = audit.read(folder)
    severities = [finding["severity"] for finding in record["findings"]]
    counts = ", ".join(f"{severities.count(name)} {name}" for name in ("fail", "warn", "note") if name in severities)
    return {"dataset": ", ".join(one["dataset"] for one in record["datasets"]), "note": counts or "nothing found"}, True


_ABOUT: Mapping[Kind, Callable[[Path], tuple[dict[str, Any], bool]]] = {
    "sweep": _sweep,
    "study": _study,
    "audit": _audit,
}


def _settings(folder: Path) -> dict[str, Any]:
    """Of ``identity.json``, which is quicker read than the YAML of ``config.yaml`` and says the same."""
    found = small.identity(folder)
    if found is None:
        return {}
    return {
        "dataset": str(found.get("dataset.name", folder.parent.name)),
        "model": str(found.get("model.name", "")),
        "finetune": str(found.get("finetune.name", "")),
        "protocol": str(found.get("dataset.protocol", "")),
        "seed": found.get("seed"),
        "epochs": found.get("trainer.max_epochs"),
        "monitor": str(found.get("trainer.monitor", "")),
    }


def _progress(folder: Path, monitor: str) -> dict[str, Any]:
    rows = epochs.last(folder)
    values = [row[monitor] for row in rows if is_number(row.get(monitor))]
    best = None if not values else min(values) if monitor.endswith("loss") else max(values)
    if rows and rows[0]["epoch"] > 0:  # the best epoch may be before those that were read
        best = None
    return {"epoch": max(len(rows), rows[-1]["epoch"] + 1) if rows else 0, "best": best}


def curve(folder: Path) -> list[dict[str, Any]]:
    """Return a row for each epoch, of a long training for its last ones; none where they cannot be read."""
    try:
        return epochs.last(folder)
    except (OSError, Unreadable):
        return []


def _read_score(folder: Path) -> dict[str, Any]:
    record = run.read(folder)
    split = "test" if "test" in record else "val"
    scores = record[split]
    patients = scores.get("patients") or {}
    main, by = (patients, "patient") if "roc_auc" in patients else (scores, "image")
    interval = (main.get("intervals") or {}).get("roc_auc") or {}
    return {
        "dataset": str(record["dataset"]),
        "protocol": str(record["protocol"]),
        "seed": record.get("seed"),
        "score": main.get("roc_auc"),
        "low": interval.get("low"),
        "high": interval.get("high"),
        "split": split,
        "by": by,
        "trained_on": str((record.get("trained_on") or {}).get("dataset", "")),
        "test_use": test_use.number(record),
    }


def log_lines(folder: Path) -> tuple[str, bool]:
    """Return the end of a run's log, control characters escaped and secrets masked, and whether it is all of it.

    Raises:
        FileNotFoundError: there is none, as of a run of an earlier version.
        Unreadable: it is a link, or not a regular file.
    """
    path = folder / run_folder.LOG
    if path.is_symlink():
        raise Unreadable(path, "is a link, which is not followed")
    with opened(path, TABLE) as file:
        size = os.fstat(file.fileno()).st_size
        file.seek(max(0, size - _LOG_SHOWN))
        text = file.read(_LOG_SHOWN).decode("utf-8", "replace")
    if size > _LOG_SHOWN:
        text = text.partition("\n")[2]
    return redact("\n".join(map(printable, text.splitlines()))), size <= _LOG_SHOWN


def in_use(folder: Path) -> bool:
    """Return whether a process works in a run's folder; one on another machine is taken at its word."""
    owner = run_folder.owner_of(folder)
    return owner is not None and run_folder.alive(owner)


def _why(error: OSError | Unreadable) -> str:
    """Return a line for the row: which file, and what is wrong with it."""
    if isinstance(error, Unreadable):
        return f"cannot be read: {error.path.name} {error.reason}"[:200]
    name = Path(os.fsdecode(error.filename)).name if isinstance(error.filename, str | bytes) else ""
    return f"cannot be read: {name} ({error.strerror or 'error'})"[:200]
