"""``ddtl runs``: what is below the runs folder, at a terminal; notes and tags on it; and what of it may go."""

from __future__ import annotations

import csv
import json
import logging
import re
import shlex
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal

from pydantic import Field
from rich.markup import escape
from rich.table import Table

from ddtl.commands.arguments import Command, RunsFolder
from ddtl.commands.dashboard import runs_folder
from ddtl.dashboard.index import FolderRow, Index, curve
from ddtl.records import notes, run_folder, views
from ddtl.records.notes import Notes
from ddtl.schema.scores import with_unit
from ddtl.utils import console
from ddtl.utils.errors import EXIT_FAILURE, UserError
from ddtl.utils.files import lock, spreadsheet_cell
from ddtl.utils.reading import printable, walk
from ddtl.utils.suggest import did_you_mean
from ddtl.utils.wording import count

log = logging.getLogger(__name__)

_KEY = re.compile(r"\+{0,2}[a-z_]+(?:\.[a-z_]+)*")
_VERBS = ("list", "show", "note", "tag", "untag", "view", "clean")
_CLASSES = ("stopped", "failed", "pruned", "broken", "checkpoints")


class RunsSettings(RunsFolder):
    """Settings of ``ddtl runs``."""

    older_than: float = Field(0.0, ge=0, lt=1e6, description="days: leave alone what has changed since")
    yes: bool = Field(False, description="true deletes without asking, for scripts")
    format: Literal["table", "csv", "json"] = Field(
        "table", description="of list; into a pipe a table has tabs between its cells"
    )


COMMAND = Command(
    "runs",
    RunsSettings,
    intro="What is below the runs folder, notes and tags on it, and what of it may go.",
    examples=(
        ("runs list [WORD …]", "a line for each run, evaluation, sweep, study and audit that has all of the words"),
        ("runs list --json", "with all that is known; --csv as a table for a spreadsheet"),
        ("runs show RUN", "all that is known about one; RUN: its folder, or as much of its name as is enough"),
        ('runs note RUN "TEXT"', 'write a note about one, in place of an earlier one; "" deletes it'),
        ("runs tag RUN TAG …", "add tags; `ddtl runs list \\#TAG` and the dashboard find what has them"),
        ("runs untag RUN TAG …", "delete tags"),
        ('runs view NAME "ADDRESS"', 'keep a view of the dashboard, by its address, under a name; "" deletes it'),
        ("runs view", "the views that are kept"),
        ("runs clean stopped", "delete runs without results that no process works at, after showing them and asking"),
        ("runs clean failed", "runs whose training broke"),
        ("runs clean pruned", "runs that a sweep's pruner ended"),
        ("runs clean broken", "runs whose record cannot be read"),
        ("runs clean checkpoints", "of finished runs: scores, predictions and weights stay, so that commands work"),
        ("runs clean RUN", "one run, whatever its state"),
    ),
    notes=(
        "A run in use is never deleted, nor anything outside the runs folder or behind a link. The ledgers of test-set "
        "uses stay: a use stays counted.",
    ),
    flags={"--csv": "format=csv", "--json": "format=json"},
    exit_codes="0 done, 1 not agreed to, or something was not deleted, 2 a mistake",
)


@dataclass(frozen=True)
class DeletionTarget:
    """Something to delete: a run's folder, or its checkpoints.

    Attributes:
        run: the folder of the run.
        path: what is deleted.
        why: in a word or two.
        size: bytes.
    """

    run: Path
    path: Path
    why: str
    size: int


def main(argv: Sequence[str]) -> int:
    """Run ``ddtl runs`` with the words that follow it; return the exit code.

    Raises:
        UserError: a mistake in the command.
    """
    if COMMAND.wants_help(argv):
        return 0
    verb, *rest = argv
    if verb not in _VERBS:
        raise UserError(
            f"ddtl runs {verb}: no such command.{did_you_mean(verb, _VERBS)} There are {', '.join(_VERBS)}."
        )
    if verb in ("note", "view"):
        return (_note if verb == "note" else _view)(rest)
    words = COMMAND.read(rest, is_word=lambda word: not _is_setting(word))
    settings, root = words.settings, runs_folder(words.settings.runs_dir)
    rows = Index(root).rows()
    if verb == "list":
        return _list(rows, words.rest, settings.format)
    if verb == "show":
        return _show(root, rows, words.rest)
    if verb in ("tag", "untag"):
        return _tag(root, rows, words.rest, add=verb == "tag")
    return _clean(root, rows, words.rest, settings.older_than, settings.yes)


def _is_setting(word: str) -> bool:
    """Return whether a word reads as a setting or a flag, and not as a part of a run's name."""
    key, equals, _ = word.partition("=")
    return word.startswith("-") or bool(equals and _KEY.fullmatch(key))


def _note(argv: Sequence[str]) -> int:
    """Write a note about a run. Its text is the second word, and no setting even where it reads ``key=value``."""
    settings = [word for word in argv if word.startswith("paths.runs_dir=")]
    others = [word for word in argv if word not in settings]
    words = COMMAND.read([*settings, *others[2:]])
    if words.rest or len(others) < 2:
        raise UserError('ddtl runs note takes a run and a text in quotes: ddtl runs note RUN "TEXT"')
    run, text = others[:2]
    root = runs_folder(words.settings.runs_dir)
    row = find_row(root, Index(root).rows(), run)
    note = notes.checked_note(text)
    _rewrite(root, row, lambda before: Notes(note, before.tags))
    console.line(f"{row.path}: {'the note is written' if note else 'has no note'}")
    return 0


def _view(argv: Sequence[str]) -> int:
    """Keep a view of the dashboard under a name, delete one, or list them."""
    settings = [word for word in argv if word.startswith("paths.runs_dir=")]
    others = [word for word in argv if word not in settings]
    root = runs_folder(COMMAND.read([*settings, *others[2:]]).settings.runs_dir)
    if not others:
        for name, view in views.read(root).items():
            sys.stdout.write(f"{console.safe(name)}\t#{console.safe(view)}\n")
        return 0
    if len(others) != 2:
        raise UserError('ddtl runs view takes a name and an address in quotes: ddtl runs view NAME "ADDRESS"')
    name, view = views.checked_name(others[0]), others[1] and views.checked_view(others[1])
    with lock(root / ".notes.lock"):
        before = views.read(root)
        if not view and name not in before:
            known = f"There are {', '.join(before)}." if before else "There are none."
            raise UserError(f"{name}: there is no such view. {known}")
        after = {**before, name: view} if view else {key: one for key, one in before.items() if key != name}
        if len(after) > views.MOST:
            raise UserError(f'{views.MOST} views are kept at most. Delete one: ddtl runs view NAME ""')
        views.write(root, after)
    console.line(f"{name}: {'the view is kept' if view else 'the view is deleted'}")
    return 0


def _tag(root: Path, rows: Sequence[FolderRow], words: Sequence[str], *, add: bool) -> int:
    """Add tags to a run, or delete some of its tags."""
    verb = "tag" if add else "untag"
    if len(words) < 2:
        raise UserError(f"ddtl runs {verb} takes a run and tags: ddtl runs {verb} RUN TAG …")
    row = find_row(root, rows, words[0])
    given = tuple(word.removeprefix("#") for word in words[1:])

    def changed(before: Notes) -> Notes:
        if add:
            return Notes(before.note, notes.checked_tags((*before.tags, *notes.checked_tags(given))))
        if missing := [tag for tag in given if tag not in before.tags]:
            tags = f"Its tags: {', '.join(before.tags)}." if before.tags else "It has none."
            raise UserError(f"{row.path}: has no tag {printable(missing[0])[:60]}. {tags}")
        return Notes(before.note, tuple(tag for tag in before.tags if tag not in given))

    after = _rewrite(root, row, changed)
    console.line(f"{row.path}: {'tags ' + ', '.join(after.tags) if after.tags else 'has no tags'}")
    return 0


def _rewrite(root: Path, row: FolderRow, change: Callable[[Notes], Notes]) -> Notes:
    """Change the notes of a run, one process at a time; the notes after it.

    Raises:
        UserError: its folder's name is not text, or what is there cannot be read.
    """
    folder = root / row.path
    if not folder.is_dir():
        raise UserError(f"{row.path}: its folder's name is not UTF-8. Rename it.")
    with lock(root / ".notes.lock"):
        after = change(notes.read(folder))
        notes.write(folder, after)
    return after


_HEADINGS = (
    "kind", "run", "model", "schedule", "seed", "ROC AUC", "epoch", "state", "changed", "note", "tags",
    "user_note",
)  # fmt: skip


def _list(rows: Sequence[FolderRow], words: Sequence[str], form: str) -> int:
    """Print the rows that have all of the words: for a person, or whole for other programs."""
    found = [row for row in rows if all(word.lower() in _text(row).lower() for word in words)]
    if form == "json":
        sys.stdout.write(json.dumps([asdict(row) for row in found], ensure_ascii=False, indent=1) + "\n")
    elif form == "csv":
        writer = csv.writer(sys.stdout, lineterminator="\n")
        names = [one.name for one in fields(FolderRow)]
        writer.writerow(names)
        writer.writerows([spreadsheet_cell(_cell(getattr(row, name))) for name in names] for row in found)
    elif console.out.is_terminal:
        table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
        # A name is on one line, to be copied, in a terminal of 100 columns.
        longest = max((len(_name(row)) for row in found), default=0)
        table.add_column("run", overflow="fold", min_width=min(longest, 60))
        for heading in ("ROC AUC by patient", "state", "changed"):
            table.add_column(heading, overflow="fold")
        for row in found:
            about = " ".join([*(f"#{tag}" for tag in row.tags), *row.user_note.split()])
            name = escape(_name(row)) + (f"\n  [dim]{escape(about)}[/dim]" if about else "")
            table.add_row(name, escape(_short_score(row)), escape(_state(row)), _ago(row.when))
        console.out.print(table)
    else:
        lines = [[" ".join(value.split()) for value in _values(row)] for row in found]
        sys.stdout.write("".join("\t".join(map(console.safe, line)) + "\n" for line in [_HEADINGS, *lines]))
    console.line(f"{len(found)} of {len(rows)} rows" if words else count(len(rows), "row"))
    return 0


def _name(row: FolderRow) -> str:
    """Return what commands take for it: the path, or of a run's evaluation its end, which fits on a line."""
    run, evaluations, name = row.path.rpartition("/evaluations/")
    return f"{run[-10:]}{evaluations}{name}" if row.kind == "evaluation" and evaluations else row.path


def _short_score(row: FolderRow) -> str:
    if row.score is None:
        return ""
    interval = "" if row.low is None or row.high is None else f" ({row.low:.2f}–{row.high:.2f})"
    unit = " by image" if row.by == "image" else ""
    return f"{row.score:.3f}{interval}{unit}{'' if row.split == 'test' else ' val'}"


def _state(row: FolderRow) -> str:
    return row.state if row.epoch is None or row.state == "finished" else f"{row.state} {_epoch(row)}"


def _epoch(row: FolderRow) -> str:
    return "" if row.epoch is None else f"{row.epoch}/{row.epochs}" if row.epochs else str(row.epoch)


def _cell(value: Any) -> Any:
    return " ".join(map(str, value)) if isinstance(value, tuple) else "" if value is None else value


def _values(row: FolderRow) -> list[str]:
    seed = "" if row.seed is None else str(row.seed)
    return [
        row.kind, row.path, row.model, row.finetune, seed, _score(row), _epoch(row), row.state, _ago(row.when),
        row.note, " ".join(f"#{tag}" for tag in row.tags), row.user_note,
    ]  # fmt: skip


_NOT_SHOWN = ("path", "when", "report", "tags", "members")


def _show(root: Path, rows: Sequence[FolderRow], words: Sequence[str]) -> int:
    if len(words) != 1:
        raise UserError("ddtl runs show takes one run: its folder, or as much of its name as is enough.")
    row = find_row(root, rows, words[0])
    folder = root / row.path
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    values: dict[str, Any] = {"folder": folder}
    values |= {one.name: getattr(row, one.name) for one in fields(row) if one.name not in _NOT_SHOWN}
    values["tags"] = " ".join(row.tags)
    values["members"] = count(len(row.members), "run") if row.members else None
    values["score"] = _score(row) or None
    values["best"] = None if row.best is None else f"{row.best:.4f} {with_unit(row.monitor)}"
    values["changed"] = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(row.when))
    values["size"] = _size(sum(size for _, size in _files(folder)))
    values["report"] = folder / "report.html" if row.report else None
    epochs = curve(folder)
    if epochs and row.monitor:
        scores = [f"{value:.4f}" for one in epochs if isinstance(value := one.get(row.monitor), int | float)]
        values[row.monitor] = " ".join(scores[-12:])
    for name, value in values.items():
        if value not in (None, "") and name not in ("low", "high"):
            table.add_row(name, escape(str(value)))
    console.out.print(table)
    return 0


def _clean(root: Path, rows: Sequence[FolderRow], words: Sequence[str], days: float, yes: bool) -> int:
    if not words:
        raise UserError(f"ddtl runs clean: name what to delete: {', '.join(_CLASSES)}, or the folder of a run.")
    found = targets(root, rows, words, before=time.time() - 86400 * days)
    if not found:
        console.line("nothing to delete")
        return 0
    for target in found:
        console.out.print(
            escape(f"{_size(target.size):>9}  {target.path.relative_to(root)}  ({target.why})"), soft_wrap=True
        )
    whole = f"{len(found)} {'folder' if len(found) == 1 else 'folders'}, {_size(sum(t.size for t in found))}"
    if not yes and not console.confirm(f"Delete these {whole}? [y/N] "):
        console.line("nothing was deleted")
        return EXIT_FAILURE
    failed = [f"{target.path}: {why}" for target in found if (why := _delete(root, target))]
    console.line(f"deleted {len(found) - len(failed)} of {whole}")
    if failed:
        console.error("\n".join(failed))
    return EXIT_FAILURE if failed else 0


def targets(root: Path, rows: Sequence[FolderRow], words: Iterable[str], before: float) -> list[DeletionTarget]:
    """Return what is to go, each once.

    Args:
        root: the runs folder.
        rows: all of it.
        words: ``stopped``, ``failed``, ``pruned``, ``broken``, ``checkpoints``, or a run.
        before: only what has not changed since.

    Raises:
        UserError: there is no such run, or it is in use or no run.
    """
    found: dict[Path, DeletionTarget] = {}
    for word in words:
        if word in _CLASSES:
            for row in rows:
                path = root / row.path
                if not path.is_dir():  # its name is not text, and the row does not have it
                    continue
                if row.kind != "run" or row.when > before or row.state == "running" or path.is_symlink():
                    continue
                if word == "checkpoints" and row.state == "finished" and (path / "checkpoints").is_dir():
                    _add(found, path, path / "checkpoints", "checkpoints of a finished run")
                elif word == row.state:
                    _add(found, path, path, word)
            continue
        row = find_row(root, rows, word)
        if row.kind != "run":
            raise UserError(
                f"{row.path}: is of kind {row.kind}; ddtl runs clean deletes runs. Delete its folder by hand."
            )
        if row.state == "running":
            raise UserError(f"{row.path}: a process works at it. Stop that first.")
        _add(found, root / row.path, root / row.path, f"requested, {row.state}")
    whole = {target.run for target in found.values() if target.path == target.run}
    return [target for target in found.values() if target.path == target.run or target.run not in whole]


def _add(found: dict[Path, DeletionTarget], run: Path, path: Path, why: str) -> None:
    found.setdefault(path, DeletionTarget(run, path, why, sum(size for _, size in _files(path))))


def find_row(root: Path, rows: Sequence[FolderRow], word: str) -> FolderRow:
    """Return the row that a word means: a folder, or a part of just one path.

    Raises:
        UserError: none, or several.
    """
    given = Path(word).expanduser()
    for path in (given, root / word):
        if path.is_dir() and path.resolve().is_relative_to(root.resolve()):
            at = path.resolve().relative_to(root.resolve()).as_posix()
            if row := next((row for row in rows if row.path == at), None):
                return row
    found = [row for row in rows if word in row.path and row.kind != "evaluation"]
    whole = [row for row in found if row.path.rpartition("/")[2] == word]  # a whole name means that run alone
    found = whole if len(whole) == 1 else found
    if len(found) == 1:
        return found[0]
    if not found:
        raise UserError(f"{word}: there is no such run in {root}. `ddtl runs list` names them.")
    some = ", ".join(row.path for row in found[:3])
    raise UserError(f"{word}: {len(found)} runs are called so, as {some}. Give more of the name.")


def _delete(root: Path, target: DeletionTarget) -> str:
    """Delete it; why not, or nothing."""
    if target.path.is_symlink() or not target.path.resolve().is_relative_to(root.resolve()):
        return "is a link, or outside of the runs folder"
    try:
        with run_folder.own_for_deletion(target.run):
            shutil.rmtree(target.path)
    except run_folder.InUse:
        return "a process works at it"
    except OSError as error:
        return str(error.strerror or error)
    except RecursionError:
        return f"its folders are nested too deep; delete it by hand: rm -r {shlex.quote(str(target.path))}"
    return ""


def _files(folder: Path) -> list[tuple[Path, int]]:
    """Return the files of a folder, with their sizes; what is nested beyond use is passed over, as is what cannot be
    seen.
    """
    found = []
    for files in walk(folder, lambda folder, why: None, links=False):
        for entry in files:
            with suppress(OSError):
                found.append((Path(entry.path), entry.stat(follow_symlinks=False).st_size))
    return found


def _text(row: FolderRow) -> str:
    words = (
        row.kind,
        row.path,
        row.dataset,
        row.model,
        row.finetune,
        row.protocol,
        row.state,
        row.note,
        row.trained_on,
    )
    return " ".join([*words, row.user_note, *(f"#{tag}" for tag in row.tags)])


def _score(row: FolderRow) -> str:
    if row.score is None:
        return ""
    interval = "" if row.low is None or row.high is None else f" ({row.low:.3f}–{row.high:.3f})"
    unit = f" by {row.by}" if row.by else ""
    return f"{row.score:.3f}{interval}{unit}{'' if row.split == 'test' else ', validation'}"


def _ago(when: float) -> str:
    seconds = max(0.0, time.time() - when)
    for length, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= length:
            return f"{int(seconds // length)} {unit} ago"
    return "now"


def _size(size: float) -> str:
    for unit in ("B", "kB", "MB"):
        if size < 1000:
            return f"{size:.0f} {unit}"
        size /= 1000
    return f"{size:.1f} GB"
