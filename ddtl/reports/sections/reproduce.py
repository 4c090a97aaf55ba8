"""How a run is reproduced: its command and settings, without what concerns only the machine it ran on.

A report is made to be sent to others, so no local path, no server and no own file's name is in it.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import Any

import yaml

from ddtl.config import sources
from ddtl.config.overrides import format_value
from ddtl.reports.html.page import Code, Fold
from ddtl.schema.run import OWN_FILES

TITLE = "Reproduce"
_OF_THE_MACHINE = ("paths", "logger", "run")  # sections, and the groups of the same name, that no result depends on
_OWN = {
    "root": "FOLDER", "table": "FILE", "labels": "FILE", "patients": "FILE", "patient_regex": "PATTERN", "own": "FILES",
    "exclude": "FILE",
}  # fmt: skip
assert set(_OWN) == set(OWN_FILES)
# Settings of a dataset that change neither its images nor its split.
_NOT_ITS_IMAGES = ("kind", "image_size", "batch_size", "sampling", "num_workers", "source_settings")


def command(environment: Mapping[str, Any]) -> str | None:
    """Return the command, ready for a shell; None where the record has none.

    Settings of this machine are excluded, an own file becomes ``FILE`` and a weights file its bare name.
    """
    words: Sequence[str] = environment.get("command") or ()
    if not words:
        return None
    program, *arguments = words
    shown = [_format(word) for word in arguments if not _is_local(word)]
    start = ["python", "-m", "ddtl"] if program == "__main__.py" else [program]
    if program.endswith(".py") and program != "__main__.py":
        start = ["python", program]
    return shlex.join([*start, *shown])


def settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the configuration that the result depends on."""
    remaining = {name: value for name, value in config.items() if name not in _OF_THE_MACHINE}
    if "dataset" in remaining:
        remaining["dataset"] = _without_own_files(remaining["dataset"])
    if "model" in remaining:
        remaining["model"] = {**remaining["model"], "weights": _bare(str(remaining["model"].get("weights")))}
    return remaining


def as_yaml(title: str, tree: Mapping[str, Any]) -> Fold:
    """Return settings as YAML, folded."""
    return Fold(title, [Code(yaml.safe_dump(tree, sort_keys=False, allow_unicode=True, width=100).rstrip())])


def _without_own_files(dataset: Mapping[str, Any]) -> dict[str, Any]:
    remaining = {name: value for name, value in dataset.items() if name not in OWN_FILES}
    if remaining.get("source_settings"):
        remaining["source_settings"] = {
            source: _without_own_files(found) for source, found in remaining["source_settings"].items()
        }
    return remaining


def audit_command(config: Mapping[str, Any], environment: Mapping[str, Any], *, is_external: bool) -> str:
    """Return the command that audits the images and the split of a record; an own file becomes ``FILE``.

    Args:
        config: settings of the run.
        environment: with the command that made the record.
        is_external: the record is an evaluation on other data, which that command names and the settings do not.
    """
    typed = [word for word in environment.get("command") or () if word.startswith(("dataset=", "dataset."))]
    words = list(map(_format, typed)) if is_external or not config else _data_words(config["dataset"])
    return shlex.join(["ddtl", "audit", *(words or ["dataset=NAME"])])


def _data_words(found: Mapping[str, Any]) -> list[str]:
    """Return a dataset as it would be typed, without what changes neither its images nor their split."""
    usual = sources.usual(str(found["kind"])).model_dump(mode="json")
    words = [f"dataset={found['kind']}"]
    for key, value in found.items():
        if key in _OWN:
            words += [f"dataset.{key}={_OWN[key]}"] if value is not None else []
        elif key not in _NOT_ITS_IMAGES:
            words += _changed(f"dataset.{key}", value, usual.get(key))
    return words


def _changed(key: str, value: Any, usual: Any) -> list[str]:
    if isinstance(value, Mapping) and isinstance(usual, Mapping):
        return [word for name in value for word in _changed(f"{key}.{name}", value[name], usual.get(name))]
    return [] if value == usual else [f"{key}={format_value(value)}"]


def _is_local(word: str) -> bool:
    key = word.partition("=")[0].lstrip("+~")
    return key.partition(".")[0] in _OF_THE_MACHINE


def _format(word: str) -> str:
    key, equals, value = word.partition("=")
    plain = key.lstrip("+~")
    if plain.removeprefix("dataset.") in _OWN and plain.startswith("dataset."):
        return f"{key}={_OWN[plain.removeprefix('dataset.')]}"
    if plain == "model.weights":
        return f"{key}={_bare(value)}"
    # Not a setting: a folder or a file, as in `ddtl evaluate RUN`.
    return word if equals else _bare(word)


def _bare(path: str) -> str:
    """Return the last part of a path in either system's spelling."""
    return PurePath(path.replace("\\", "/")).name or path
