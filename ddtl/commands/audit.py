"""``ddtl audit``: what is wrong with datasets and their splits, before anything is trained on them."""

from __future__ import annotations

import hashlib
import logging
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field
from rich.markup import escape

from ddtl.audits.record import AUDITS, RECORD, SEVERITIES
from ddtl.commands.arguments import Command
from ddtl.config import sources
from ddtl.config.load import ConfigError, load
from ddtl.config.overrides import whole_words
from ddtl.config.where import options
from ddtl.schema.run import Config
from ddtl.schema.section import Section
from ddtl.utils import console, reading
from ddtl.utils.errors import EXIT_FAILURE, UserError
from ddtl.utils.files import spreadsheet_cell, write_csv, write_json, write_text
from ddtl.utils.suggest import did_you_mean
from ddtl.utils.version import VERSION
from ddtl.utils.wording import count

log = logging.getLogger(__name__)

if TYPE_CHECKING:
    from ddtl.audits.audit import Audit, Subject
    from ddtl.data.manifest import Manifest


class Strictness(Section):
    """Settings of ``ddtl audit``, in addition to its datasets."""

    strict: bool = Field(
        False, description="true: exit code 1 where a split leaks, labels conflict or patients are in several splits"
    )


COMMAND = Command(
    "audit",
    Strictness,
    intro="Look for what makes a score mean less than it seems: duplicates within and across splits, classes and "
    "datasets, patients across splits, label conflicts, and shortcuts by which classes can be distinguished without "
    "seeing "
    "the disease.",
    examples=(
        ("audit dataset=covid19ct", ""),
        ("audit covid19ct sarscov2ct", "both, and what they share"),
        ("audit dataset=sarscov2ct dataset.protocol=random", ""),
        ("audit dataset=folder dataset.root=/images dataset.name=mine strict=true", ""),
    ),
    notes=(
        "It takes dataset, dataset.… and paths.… as train.py does; dataset.… behind a dataset is of that one alone.",
        "Nothing is trained on a network and no image is changed. <paths.runs_dir>/audits/<dataset>/ gets report.html "
        "(with images: keep it where they may be), audit.json, pairs.csv with every pair of duplicates, and "
        "exclude.csv, "
        "a list of images to exclude that train.py takes: dataset.exclude=…/exclude.csv.",
    ),
    exit_codes="0 audited, 1 strict=true and a finding of the gravest kind, 2 a mistake in the command or the data",
    flags={"--strict": "strict=true"},
)
_TAKES = "`ddtl audit` takes dataset, dataset.…, paths.… and strict."
_PAIR_COLUMNS = (
    "first_dataset", "first", "first_split", "first_class",
    "second_dataset", "second", "second_split", "second_class",
    "kind", "transform", "distance", "similarity", "breaks",
)  # fmt: skip


@dataclass(frozen=True)
class AuditRequest:
    """What was requested: a configuration for each dataset."""

    configs: tuple[Config, ...]
    strict: bool

    @property
    def folder(self) -> Path:
        """Where the audit is filed."""
        runs_dir = Path(self.configs[0].paths.runs_dir).expanduser()
        return runs_dir / AUDITS / "-".join(map(_folder_part, self.configs))


def main(argv: Sequence[str]) -> int:
    """Run ``ddtl audit`` with the words that follow it; return the exit code.

    Raises:
        UserError: a mistake in the command, the configuration or the data.
    """
    if COMMAND.wants_help(argv):
        return 0
    settings = parse(argv)
    found, _ = audit_datasets(settings, argv)
    _show(found, settings)
    return EXIT_FAILURE if settings.strict and found.failed else 0


def audit_datasets(settings: AuditRequest, argv: Sequence[str]) -> tuple[Audit, dict[str, Any]]:
    """Audit datasets and write the record with its page.

    Args:
        settings: what to audit.
        argv: the words, for the record.

    Returns:
        The audit, and its record as it was written.

    Raises:
        UserError: images that are not here or are broken, or a folder that cannot be written.
    """
    started = datetime.now(UTC)
    from ddtl.audits import audit

    subjects = [_subject(config) for config in settings.configs]
    found = audit.run(subjects, console.progress)
    record = {
        "when": started.isoformat(timespec="seconds"),
        "ddtl": VERSION,
        "command": shlex.join(["ddtl", "audit", *argv]),
        "seconds": round((datetime.now(UTC) - started).total_seconds(), 1),
        **found.record(),
    }
    _write(settings.folder, found, record)
    return found, record


def parse(argv: Sequence[str]) -> AuditRequest:
    """Return the command line, all mistakes in one message.

    Raises:
        UserError: there are mistakes.
    """
    settings: list[AuditRequest] = []

    def problems(strictness: Strictness, words: tuple[str, ...]) -> list[str]:
        datasets, common, found = _by_dataset(words)
        configs = []
        for named, *own in datasets or [["dataset=phantom"]]:
            try:
                configs.append(load([named, *common, *own]))
            except ConfigError as error:
                found += error.problems
        names = [config.dataset.name for config in configs]
        for name in dict.fromkeys(name for name in names if names.count(name) > 1):
            found.append(f"dataset.name={name}: two datasets of this name. Give each a dataset.name of its own.")
        settings.append(AuditRequest(tuple(configs), strictness.strict))
        return found

    COMMAND.read(argv, is_word=lambda word: True, problems=problems)
    return settings[0]


def _by_dataset(argv: Sequence[str]) -> tuple[list[list[str]], list[str], list[str]]:
    """Return the datasets, each with the settings behind it, which are of that one alone; settings of all; and
    mistakes.
    """
    datasets: list[list[str]] = []
    common: list[str] = []
    problems: list[str] = []
    known = options("dataset")
    for word, fault in whole_words(argv):
        key, equals, _ = word.lstrip("+").partition("=")
        if fault:
            problems.append(fault)
        elif key == "dataset" and equals:
            datasets.append([word])
        elif word in known:
            datasets.append([f"dataset={word}"])
        elif key.startswith(("dataset.", "paths.")):
            own = key.startswith("dataset.") and datasets
            (datasets[-1] if own else common).append(word)
        elif not equals and not word.startswith("-"):
            hint = did_you_mean(word, known)
            problems.append(f"{word}: no such dataset.{hint} There are {', '.join(known)}.")
        else:
            problems.append(f"{word}: not a setting of an audit.{did_you_mean(key, _KEYS)} {_TAKES}")
    return datasets, common, problems


_KEYS = ("--strict", "--help", "strict", "dataset")


def _folder_part(config: Config) -> str:
    """Return a dataset's part of the folder's name: what differs from the plain command has a folder of its own."""
    c = config.dataset
    parts = [c.name]
    plain = sources.usual(c.kind)
    if c.kind == "phantom" and c.phantom != plain.phantom:
        assert c.phantom is not None, "conf/dataset/phantom.yaml has the section"
        parts.append(hashlib.sha256(c.phantom.model_dump_json().encode()).hexdigest()[:8])
    if c.protocol != plain.protocol:
        parts.append(c.protocol)
    if c.protocol == "kfold":
        parts.append(f"{c.fold}-of-{c.n_folds}")
    if c.exclude is not None:
        parts.append(f"without-{reading.sha256(Path(c.exclude).expanduser(), reading.TABLE)[:8]}")
    return "-".join(parts)


def _subject(config: Config) -> Subject:
    """Return a dataset as training would read and split it; where training would refuse its split, what can be had."""
    from ddtl.audits.audit import Subject
    from ddtl.data.datasets import registry

    registry.require_images(config)
    with console.progress(f"drawing {config.dataset.name}") as bar:
        manifest = registry.build(config, bar)
    for doubt in manifest.doubts():
        log.warning(doubt)
    try:
        return Subject(registry.split(manifest, config.dataset))
    except UserError as error:
        if config.dataset.protocol == "official" and manifest.published:
            return Subject(manifest.with_splits(manifest.published, "official"), str(error))
        return Subject(manifest, str(error))


def _write(folder: Path, found: Audit, record: dict[str, Any]) -> None:
    from ddtl.audits.exclude_list import COLUMNS
    from ddtl.reports.audit.pairs import pair_views
    from ddtl.reports.audit.report import page

    lists = exclude_lists(folder, [subject.manifest.dataset for subject in found.subjects])
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for dataset, path in lists.items():
            write_csv(path, COLUMNS, (map(spreadsheet_cell, row) for row in found.to_leave_out(dataset)))
        write_csv(folder / "pairs.csv", _PAIR_COLUMNS, (map(spreadsheet_cell, row) for row in _pair_rows(found)))
        images = pair_views(found.pairs, found.leaks, [subject.manifest for subject in found.subjects])
        paths = {name: str(path) for name, path in lists.items()}
        write_text(folder / "report.html", page(record, images, lists=paths))
        write_json(folder / RECORD, record)
    except OSError as error:
        raise UserError(
            f"{error.filename or folder}: cannot be written ({error.strerror}). Make room, or set another "
            "paths.runs_dir."
        ) from error


def exclude_lists(folder: Path, names: Sequence[str]) -> dict[str, Path]:
    """Return the exclude list of each dataset: ``exclude.csv``; of several ``exclude-<dataset>.csv`` each."""
    return {name: folder / ("exclude.csv" if len(names) == 1 else f"exclude-{name}.csv") for name in names}


def _pair_rows(found: Audit) -> list[tuple[Any, ...]]:
    manifests: dict[str, Manifest] = {subject.manifest.dataset: subject.manifest for subject in found.subjects}
    samples = {(name, sample.sample_id): sample for name, manifest in manifests.items() for sample in manifest.samples}
    broken = {
        "splits": set(found.leaks.across_splits),
        "labels": set(found.leaks.across_labels),
        "datasets": set(found.leaks.across_datasets),
    }
    rows = []
    for pair in found.pairs:
        ends: list[str] = []
        for dataset, sample_id in (pair.first, pair.second):
            sample = samples[dataset, sample_id]
            ends += [dataset, sample_id, sample.split or "", manifests[dataset].classes[sample.label]]
        breaks = " ".join(what for what, pairs in broken.items() if pair in pairs)
        rows.append((*ends, pair.kind, pair.transform, pair.distance, f"{pair.similarity:.4f}", breaks))
    return rows


def _show(found: Audit, settings: AuditRequest) -> None:
    style = dict(zip(SEVERITIES, ("bold red", "yellow", ""), strict=True))
    for finding in found.findings:
        where = ", ".join(finding.datasets)
        console.out.print(
            f"{finding.severity}: {escape(where)}: {escape(finding.title)}", style=style[finding.severity]
        )
        console.out.print(f"  {escape(finding.sentence)}")
        if finding.severity != "note":
            console.out.print(f"  {escape(finding.fix)}")
    if not found.findings:
        console.out.print("nothing found")
    for subject in found.subjects:
        sentence = found.power_sentence(subject.manifest.dataset)
        if sentence:
            console.out.print(escape(f"{subject.manifest.dataset}: probes for shortcuts: {sentence}"))
    for dataset, path in exclude_lists(settings.folder, [one.manifest.dataset for one in found.subjects]).items():
        n = len(found.to_leave_out(dataset))
        if n:
            console.out.print(escape(f"{dataset}: {count(n, 'image')} to exclude: dataset.exclude={path}"))
    console.line(f"report: {settings.folder / 'report.html'}")
