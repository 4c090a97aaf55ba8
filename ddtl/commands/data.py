"""``ddtl data list | fetch | verify | show | cache``: the public datasets and the images on this machine."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import Field
from rich.markup import escape
from rich.table import Table

from ddtl.commands.arguments import Command, OutputFolder, Words
from ddtl.config.load import ConfigError, load
from ddtl.config.where import options
from ddtl.data.datasets.registry import ORIGINS
from ddtl.data.download import fetching
from ddtl.data.download.published import Origin, fetch_advice, image_files, named, read_index
from ddtl.data.download.verifying import FINE, Finding, State, verify
from ddtl.data.images import cached
from ddtl.schema.run import Config, PathsConfig
from ddtl.schema.section import Section
from ddtl.utils import console
from ddtl.utils.errors import EXIT_FAILURE, UserError
from ddtl.utils.files import write_bytes
from ddtl.utils.reading import size as file_size
from ddtl.utils.suggest import did_you_mean

if TYPE_CHECKING:
    from ddtl.data.loading.datamodule import CTDataModule


class DataSettings(Section):
    """Settings of ``ddtl data list``, ``fetch`` and ``verify``, with places as train.py takes them."""

    from_: str | None = Field(
        None, alias="from", description="fetch: an archive (zip, tar, tar.gz) or a folder to take the images out of"
    )


class CacheSettings(Section):
    """Settings of ``ddtl data cache``."""

    older_than: float = Field(0.0, ge=0, lt=1e6, description="days: leave alone what was made since")
    yes: bool = Field(False, description="true deletes without asking, for scripts")


class ShowSettings(Section):
    """Settings of ``ddtl data show``."""

    split: Literal["train", "val", "test"] = Field("train", description="of which images are shown")
    images: int = Field(16, ge=1, le=200, description="how many")
    output: OutputFolder = Field(
        Path("contact_sheets"), description="the folder of the sheet, outside of the runs folder"
    )
    overwrite: bool = Field(False, description="true replaces an earlier sheet")


_PLACES = {
    "paths.data_dir": "(or DDTL_DATA) where the images are: FOLDER/covid19ct/CT_COVID/…",
    "paths.data_mirror": "(or DDTL_DATA_MIRROR) a server that has covid19ct/CT_COVID/… instead of GitHub",
}
COMMAND = Command(
    "data",
    DataSettings,
    intro=f"The public datasets: {', '.join(ORIGINS)}.",
    examples=(
        ("data list", "which there are, and what of them is on this machine"),
        ("data fetch covid19ct", "download what is missing, damaged or another image"),
        ("data fetch covid19ct from=A.zip", "take it out of an archive (zip, tar, tar.gz) or a folder instead"),
        ("data verify covid19ct", "compare every file with its published checksum"),
        (
            "data show DATASET",
            "a contact sheet of its images as the network sees them, before and after augmentation: "
            "`ddtl data show --help`",
        ),
        ("data cache", "the decoded images, which are patients' pixels: where, how large, how old"),
        (
            "data cache delete WHAT",
            "delete, after asking: all, or the first letters of a key; what is missing is decoded again when needed. "
            "older_than=DAYS leaves alone what was made since, yes=true does not ask, paths.cache_dir=FOLDER (or "
            "DDTL_CACHE) is the cache",
        ),
    ),
    notes=("Several names may be given.",),
    exit_codes="0 all is well, 1 not agreed to or not deleted, 2 something is missing or wrong (the message says "
    "what), "
    "129/130/143 stopped",
    passes=_PLACES,
)
CACHE = Command(
    "data cache",
    CacheSettings,
    intro="The decoded images.",
    passes={"paths.cache_dir": "(or DDTL_CACHE) the cache"},
)

SHOW = Command(
    "data show",
    ShowSettings,
    intro="Write a contact sheet (PNG) of a dataset: images as they are decoded, and next to each the same image as "
    "the network sees it, augmented as in the first epoch.",
    examples=(
        ("data show covid19ct", "contact_sheets/covid19ct-train.png"),
        ("data show phantom augment=strong images=6", "settings of train.py: dataset.…, augment.…, paths.…, seed"),
        ("data show folder dataset.root=/images split=val", "validation and test images are not augmented"),
    ),
    notes=(
        "The sheet contains patients' pixels: it may only be where the images themselves may be, and is not part of a "
        "run's record. The images are spread evenly over the split. Nothing is scored: this is not a use of a test "
        "set.",
    ),
    exit_codes="0 written, 2 a mistake in the command or the data",
    configures=True,
)

_ACTIONS = ("list", "fetch", "verify", "show", "cache")
_DRAWN = {
    "phantom": "is drawn on this machine",
    "folder": "reads your own files",
    "table": "reads your own files",
    "dicom": "reads your own files",
    "nifti": "reads your own files",
    "pooled": "joins other datasets",
}
_MOST_NAMED = 10  # files of a kind that are named


def main(argv: list[str]) -> int:
    """Run ``ddtl data`` with the words that follow it; return the exit code.

    Raises:
        UserError: a mistake in the command, or images that are missing or wrong.
    """
    if argv[:1] == ["show"]:
        return _show(argv[1:])
    if COMMAND.wants_help(argv):
        return 0
    action, *words = argv
    if action not in _ACTIONS:
        raise UserError(
            f"ddtl data {action}: no such action.{did_you_mean(action, _ACTIONS)} There are list, fetch, verify, "
            "show and cache."
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


def _read(action: str, argv: Sequence[str]) -> tuple[list[Origin], PathsConfig, Path | None]:
    """Return datasets, where they are, and the archive or folder to take them from."""

    def problems(settings: DataSettings, names: tuple[str, ...]) -> list[str]:
        found = [_unknown(name, action) for name in names if name not in ORIGINS]
        if settings.from_ is not None:
            word = f"from={settings.from_}"
            if action != "fetch":
                found.append(f"{word}: not a setting of `ddtl data {action}`, but of `ddtl data fetch`.")
            elif "://" in settings.from_:
                found.append(f"{word}: is a URL. Download it first, and name the file.")
            elif not settings.from_ or not Path(settings.from_).expanduser().exists():
                found.append(f"{word}: there is no such file or folder. Name an archive or a folder that is there.")
        if action != "list" and not names and not found:
            found.append(f"ddtl data {action} needs the name of a dataset: {', '.join(ORIGINS)}.")
        return found

    words = COMMAND.read(argv, is_word=lambda word: word.startswith("dataset="), problems=problems)
    source = None if words.settings.from_ is None else Path(words.settings.from_).expanduser()
    names = dict.fromkeys(words.rest)
    return [ORIGINS[name] for name in names], load(list(words.passed), writes=False).paths, source


def _unknown(name: str, action: str) -> str:
    if name.startswith("dataset="):
        return f"{name}: write the name alone: ddtl data {action} {name.removeprefix('dataset=')}"
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


def prepared(config: Config) -> CTDataModule:
    """Return the dataset of a configuration as training has it: split, decoded and checked.

    Raises:
        UserError: images are absent or damaged, or cannot be split as requested.
    """
    from ddtl.data.datasets.registry import require_images
    from ddtl.data.loading.datamodule import CTDataModule

    require_images(config)
    module = CTDataModule(config)
    with console.progress("preparing images") as bar:
        module.load(bar)
    return module


def _show(argv: Sequence[str]) -> int:
    if SHOW.wants_help(argv):
        return 0
    config, settings = _read_show(argv)
    path = settings.output / f"{config.dataset.name}-{settings.split}.png"
    runs_dir = Path(config.paths.runs_dir).expanduser().resolve()
    if settings.output.resolve().is_relative_to(runs_dir):
        raise UserError(
            f"output={settings.output}: is in the runs folder, whose records are sent on. Name another folder, as "
            "output=contact_sheets"
        )
    if path.exists() and not settings.overwrite:
        raise UserError(f"{path}: is there already. Replace it with overwrite=true, or name another output=FOLDER.")
    module = prepared(config)
    import io

    from ddtl.data.loading.views import sheet, views

    manifest = module.manifest
    found = views(module, settings.split, settings.images)
    title = f"{manifest.dataset}, {settings.split}: {len(found.rows)} of {len(manifest.rows(settings.split))} images"
    buffer = io.BytesIO()
    sheet(found, title, manifest.classes).save(buffer, "PNG")
    try:
        settings.output.mkdir(parents=True, exist_ok=True)
        write_bytes(path, buffer.getvalue())
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror}). Name another output=FOLDER.") from error
    console.out.print(escape(f"written to {path}, which contains patients' pixels"))
    return 0


def _read_show(argv: Sequence[str]) -> tuple[Config, ShowSettings]:
    """Return what is shown and how, all mistakes in one message."""
    configs: list[Config] = []

    def problems(settings: ShowSettings, words: tuple[str, ...]) -> list[str]:
        names = [word.removeprefix("dataset=") for word in words if "=" not in word or word.startswith("dataset=")]
        if len(names) != 1:
            return [f"ddtl data show: name one dataset: {', '.join(options('dataset'))}."]
        rest = [word for word in words if "=" in word and not word.startswith("dataset=")]
        try:
            configs.append(load([f"dataset={names[0]}", *rest], writes=False))
        except ConfigError as error:
            return list(error.problems)
        return []

    words: Words[ShowSettings] = SHOW.read(argv, problems=problems)
    return configs[0], words.settings


def _cache_problems(settings: CacheSettings, words: tuple[str, ...]) -> list[str]:
    if words and words[0] != "delete":
        return [f"ddtl data cache {words[0]}: no such action. There is delete."]
    if len(words) == 1:
        return ["ddtl data cache delete: name what to delete: all, or the first letters of a key."]
    return []


def _cache(argv: Sequence[str]) -> int:
    typed = CACHE.read(argv, problems=_cache_problems)
    settings, words = typed.settings, typed.rest[1:]
    root = Path(load(list(typed.passed), writes=False).paths.cache_dir).expanduser().absolute()
    caches = cached.found(root)
    if not words:
        _list_caches(root, caches)
        return 0
    picked = cached.chosen(caches, list(words), settings.older_than)
    if not picked:
        console.line("nothing to delete")
        return 0
    _list_caches(root, picked)
    total = file_size(sum(one.size for one in picked))
    if not settings.yes and not console.confirm(f"Delete these {len(picked)}, {total}? [y/N] "):
        console.line("nothing was deleted")
        return EXIT_FAILURE
    failed = [f"{one.folder}: {why}" for one in picked if (why := cached.delete(one))]
    console.line(f"deleted {len(picked) - len(failed)} of {len(picked)}")
    if failed:
        console.error("\n".join(failed))
    return EXIT_FAILURE if failed else 0


_CONTENTS = {"decoded": "decoded images", "half-built": "part of the images", "phantom": "drawn phantom"}


def _list_caches(root: Path, caches: Sequence[cached.Cached]) -> None:
    table = Table(title=escape(f"decoded images in {root}"), title_justify="left")
    for heading in ("key", "contains", "dataset", "images", "pixels", "size", "made"):
        table.add_column(heading, justify="right" if heading in ("images", "pixels", "size") else "left")
    for one in caches:
        table.add_row(
            one.key,
            _CONTENTS[one.content],
            escape(one.dataset),
            "" if one.images is None else str(one.images),
            "" if one.side is None else f"{one.side} × {one.side}",
            file_size(one.size),
            time.strftime("%Y-%m-%d %H:%M", time.localtime(one.made)),
        )
    console.out.print(table, soft_wrap=False)
    console.line(f"{len(caches)} in {root}, {file_size(sum(one.size for one in caches))} in all")


def _fetch(origin: Origin, data_dir: Path, mirror: str | None, source: Path | None) -> None:
    """Replace what is missing or wrong; what is as published or has the same content stays."""
    wanted = fetching.missing(origin, data_dir)
    total = len(read_index(origin.name))
    if len(wanted) < total:
        wanted = [finding.row for finding in _examine(origin, data_dir) if finding.state not in FINE]
    if wanted:
        with console.progress(f"fetching {origin.name}") as progress:
            fetching.fetch(origin, data_dir, wanted, mirror=mirror, source=source, progress=progress)
    console.line(f"{origin.name}: all {total} images are in {data_dir / origin.name}")


def _verify(origin: Origin, data_dir: Path) -> None:
    findings = _examine(origin, data_dir)
    counts = Counter(finding.state for finding in findings)
    if counts[State.MISSING] == len(findings):
        raise UserError(
            f"{origin.title}: no images in {(data_dir / origin.name).absolute()}.\n"
            f"`ddtl data fetch {origin.name}` fetches them.\n{fetch_advice(origin)}"
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
    more = [f"  … and {len(found) - _MOST_NAMED} more: {state.value}"] if len(found) > _MOST_NAMED else []
    return [f"  {finding}" for finding in found[:_MOST_NAMED]] + more


def _examine(origin: Origin, data_dir: Path) -> list[Finding]:
    with console.progress(f"checking {origin.name}") as progress:
        return verify(data_dir / origin.name, read_index(origin.name), progress)
