"""``ddtl data list | fetch | verify | cache``: the public datasets and the decoded images on this machine."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.markup import escape
from rich.table import Table

from ddtl.config.command_line import number_of_days, own_settings, truth
from ddtl.config.load import load
from ddtl.data.catalogue import ORIGINS
from ddtl.data.download import fetching
from ddtl.data.download.published import Origin, image_files, named, read_index, ways_on
from ddtl.data.download.verifying import FINE, Finding, State, verify
from ddtl.data.images import cached
from ddtl.schema.run import PathsConfig
from ddtl.utils import console
from ddtl.utils.errors import EXIT_FAILURE, UserError
from ddtl.utils.reading import size as file_size
from ddtl.utils.suggest import did_you_mean

HELP = f"""\
The public datasets: {", ".join(ORIGINS)}.

  ddtl data list                          which there are, and what of them is on this machine
  ddtl data fetch covid19ct               download what is missing, damaged or another picture
  ddtl data fetch covid19ct from=A.zip    take it out of an archive (zip, tar, tar.gz) or a folder instead
  ddtl data verify covid19ct              compare every file with its published checksum
  ddtl data cache                         the decoded images, which are patients' pixels: where, how large, how old
  ddtl data cache delete WHAT             delete, after asking: all, or the first letters of a key; what is missing is
                                          decoded anew when it is needed

Several names may be given. Settings, as for train.py:
  paths.data_dir=FOLDER    (or DDTL_DATA)         where the images lie: FOLDER/covid19ct/CT_COVID/…
  paths.data_mirror=URL    (or DDTL_DATA_MIRROR)  a server that has covid19ct/CT_COVID/… instead of GitHub
  paths.cache_dir=FOLDER   (or DDTL_CACHE)        the cache
  older_than=0             days: leave alone what was made since
  yes=false                true deletes without asking, for scripts

Exit codes: 0 all is well, 1 not agreed to or not deleted, 2 something is missing or wrong (the message says what),
129/130/143 stopped.
"""

_ACTIONS = ("list", "fetch", "verify", "cache")
_SETTINGS = ("paths.data_dir", "paths.data_mirror")
_DRAWN = {
    "phantom": "is drawn on this machine",
    "folder": "reads your own files",
    "table": "reads your own files",
    "pooled": "joins other datasets",
}
_SHOWN = 10  # files of a kind that are named


def main(argv: list[str]) -> int:
    """What follows ``ddtl data`` on the command line; returns the exit code.

    Raises:
        UserError: a mistake in the command, or images that are missing or wrong.
    """
    if not argv or {"--help", "-h"} & set(argv):
        sys.stdout.write(HELP)
        return 0
    action, *words = argv
    if action not in _ACTIONS:
        raise UserError(
            f"ddtl data {action}: no such action.{did_you_mean(action, _ACTIONS)} There are list, fetch, verify and "
            "cache."
        )
    if action == "cache":
        return _cache(words)
    origins, paths, source = _read(action, words)
    data_dir = Path(paths.data_dir).expanduser()
    if action == "list":
        _list(origins or list(ORIGINS.values()), data_dir)
        return 0
    problems = []
    for origin in origins:
        try:
            if action == "fetch":
                _fetch(origin, data_dir, paths.data_mirror, source)
            else:
                _verify(origin, data_dir)
        except UserError as problem:
            problems.append(str(problem))
    if problems:
        raise UserError("\n".join(problems))
    return 0


def _read(action: str, words: Sequence[str]) -> tuple[list[Origin], PathsConfig, Path | None]:
    """Datasets, where they lie, and the archive or folder to take them from."""
    source = None
    overrides, names, problems = [], [], []
    for word in words:
        key, equals, value = word.partition("=")
        if not equals:
            names.append(word)
        elif key == "from" and action == "fetch" and value:
            source = Path(value).expanduser()
            if "://" in value:
                problems.append(f"{word}: is a URL. Download it first, and name the file.")
            elif not source.exists():
                problems.append(f"{word}: there is no such file or folder. Name an archive or a folder that is there.")
        elif key in _SETTINGS:
            overrides.append(word)
        else:
            problems.append(f"{word}: not a setting of `ddtl data {action}`.{_meant(key, value, action)}")
    problems += [_unknown(name) for name in names if name not in ORIGINS]
    if action != "list" and not names and not problems:
        problems.append(f"ddtl data {action} needs the name of a dataset: {', '.join(ORIGINS)}.")
    if problems:
        raise UserError("\n".join(problems))
    return [ORIGINS[name] for name in dict.fromkeys(names)], load(overrides, writes=False).paths, source


def _meant(key: str, value: str, action: str) -> str:
    if key == "dataset":
        return f" Write the name alone: ddtl data {action} {value}"
    keys = (*_SETTINGS, "from=ARCHIVE") if action == "fetch" else _SETTINGS
    return f"{did_you_mean(key, keys)} There are {', '.join(keys)}."


def _unknown(name: str) -> str:
    if name in _DRAWN:
        return f"{name}: {_DRAWN[name]}, there is nothing to fetch or verify."
    return f"{name}: no such public dataset.{did_you_mean(name, ORIGINS)} There are {', '.join(ORIGINS)}."


def _list(origins: Sequence[Origin], data_dir: Path) -> None:
    table = Table(title=escape(f"public datasets in {data_dir.absolute()}"), title_justify="left")
    for heading in ("name", "images", "MB", "here", "licence", "source"):
        table.add_column(heading, justify="right" if heading in ("images", "MB") else "left", overflow="fold")
    for origin in origins:
        rows = read_index(origin.name)
        here = len({row.sample_id for row in rows} & image_files(data_dir / origin.name, rows))
        state = "present" if here == len(rows) else f"incomplete: {here}" if here else "absent"
        source = f"github.com/{origin.repository}@{origin.commit[:12]}"
        table.add_row(origin.name, str(len(rows)), str(fetching.megabytes(rows)), state, origin.licence, source)
    console.out.print(table)


def parse_cache(argv: Sequence[str]) -> tuple[dict[str, Any], list[str]]:
    """The settings of ``ddtl data cache``, and what is to be deleted; nothing where it only lists.

    Raises:
        UserError: a mistake in the command.
    """
    readers = {"paths.cache_dir": _folder, "older_than": number_of_days, "yes": truth}
    values, words, problems = own_settings(argv, readers)
    problems += [f"{word}: no such setting of `ddtl data cache`." for word in words if "=" in word]
    if words and words[0] != "delete":
        problems.append(f"ddtl data cache {words[0]}: no such action. There is delete.")
    elif len(words) == 1:
        problems.append("ddtl data cache delete: say what: all, or the first letters of a key.")
    if problems:
        raise UserError("\n".join(problems))
    return values, words[1:]


def _cache(argv: Sequence[str]) -> int:
    values, words = parse_cache(argv)
    asked = [f"paths.cache_dir={values['paths.cache_dir']}"] if "paths.cache_dir" in values else []
    root = Path(load(asked, writes=False).paths.cache_dir).expanduser().absolute()
    caches = cached.found(root)
    if not words:
        _list_caches(root, caches)
        return 0
    picked = cached.chosen(caches, words, values.get("older_than", 0.0))
    if not picked:
        console.line("nothing to delete")
        return 0
    _list_caches(root, picked)
    total = file_size(sum(one.size for one in picked))
    if not values.get("yes", False) and not console.agreed(f"Delete these {len(picked)}, {total}? [y/N] "):
        console.line("nothing was deleted")
        return EXIT_FAILURE
    failed = [f"{one.folder}: {why}" for one in picked if (why := cached.delete(one))]
    console.line(f"deleted {len(picked) - len(failed)} of {len(picked)}")
    if failed:
        console.error("\n".join(failed))
    return EXIT_FAILURE if failed else 0


def _list_caches(root: Path, caches: Sequence[cached.Cached]) -> None:
    table = Table(title=escape(f"decoded images in {root}"), title_justify="left")
    for heading in ("key", "holds", "dataset", "images", "pixels", "size", "made"):
        table.add_column(heading, justify="right" if heading in ("images", "pixels", "size") else "left")
    for one in caches:
        table.add_row(
            one.key,
            "decoded images" if one.holds == "decoded" else "drawn phantom",
            escape(one.dataset),
            "" if one.images is None else str(one.images),
            "" if one.side is None else f"{one.side} × {one.side}",
            file_size(one.size),
            time.strftime("%Y-%m-%d %H:%M", time.localtime(one.made)),
        )
    console.whole_table(table)
    console.line(f"{len(caches)} in {root}, {file_size(sum(one.size for one in caches))} in all")


def _folder(text: str) -> Path:
    if not text:
        raise ValueError("name the folder of the cache: paths.cache_dir=FOLDER")
    return Path(text)


def _fetch(origin: Origin, data_dir: Path, mirror: str | None, source: Path | None) -> None:
    """Replace what is missing or wrong; what is as published or the same picture stays."""
    wanted = fetching.missing(origin, data_dir)
    total = len(read_index(origin.name))
    if len(wanted) < total:
        wanted = [finding.row for finding in _examined(origin, data_dir) if finding.state not in FINE]
    if wanted:
        with console.progress(f"fetching {origin.name}") as progress:
            fetching.fetch(origin, data_dir, wanted, mirror=mirror, source=source, progress=progress)
    console.line(f"{origin.name}: all {total} images are in {data_dir / origin.name}")


def _verify(origin: Origin, data_dir: Path) -> None:
    findings = _examined(origin, data_dir)
    counts = Counter(finding.state for finding in findings)
    if counts[State.MISSING] == len(findings):
        raise UserError(
            f"{origin.title}: no images in {(data_dir / origin.name).absolute()}.\n"
            f"`ddtl data fetch {origin.name}` fetches them.\n{ways_on(origin)}"
        )
    table = Table(title=f"{origin.name}: {len(findings)} images", title_justify="left")
    table.add_column("what the files are")
    table.add_column("files", justify="right")
    for state in State:
        if counts[state] or state is State.PUBLISHED:
            table.add_row(state.value, str(counts[state]))
    console.out.print(table)
    extra = image_files(data_dir / origin.name, read_index(origin.name)) - {f.row.sample_id for f in findings}
    if extra:
        console.out.print(escape(f"not part of the dataset, and not used: {named(sorted(extra))}"))
    wrong = [finding for finding in findings if finding.state not in FINE]
    if wrong:
        raise UserError(
            "\n".join(
                [f"{origin.title}: {len(wrong)} of {len(findings)} images in {data_dir / origin.name} are not right:"]
                + [line for state in State for line in _lines(state, wrong)]
                + [f"`ddtl data fetch {origin.name}` fetches just these."]
            )
        )


def _lines(state: State, wrong: Sequence[Finding]) -> list[str]:
    found = [finding for finding in wrong if finding.state is state]
    more = [f"  … and {len(found) - _SHOWN} more: {state.value}"] if len(found) > _SHOWN else []
    return [f"  {finding}" for finding in found[:_SHOWN]] + more


def _examined(origin: Origin, data_dir: Path) -> list[Finding]:
    with console.progress(f"checking {origin.name}") as progress:
        return verify(data_dir / origin.name, read_index(origin.name), progress)
