"""Write the reference pages of the docs from the program itself: every setting, every command, the Python API.

``make docs`` does it before each build; the pages are in ``docs/generated``, and in no commit.
"""

from __future__ import annotations

import contextlib
import io
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import yaml

import ddtl
from ddtl.commands import cli
from ddtl.config.help_page import file_comments
from ddtl.config.where import bases_of, conf_dir, groups, options, text_of
from ddtl.schema.backbones import BACKBONES
from ddtl.schema.run import Config
from ddtl.schema.section import Section
from ddtl.schema.sweep import SweepConfig

FOLDER = Path(__file__).resolve().parents[1] / "docs" / "generated"
_TITLES: dict[str, tuple[str, str, type[Section]]] = {
    "train": ("Settings of train.py", "python train.py", Config),
    "sweep": ("Settings of sweep.py", "python sweep.py", SweepConfig),
}


def flat(tree: Mapping[str, Any], node: yaml.MappingNode, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield each dotted key with its value; a mapping in braces, such as a parameter's, is a value."""
    written = {key.value: value for key, value in node.value}
    for key, value in tree.items():
        inner = written[key]
        if isinstance(value, Mapping) and value and not inner.flow_style:
            yield from flat(value, inner, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def option_values(path: Path, group: str) -> dict[str, Any]:
    """Return the dotted keys of an option's file, and of the files that it begins with, with their values."""
    found: dict[str, Any] = {}
    for base in bases_of(path):
        found |= option_values(base, group)
    text = text_of(path)
    tree = {key: value for key, value in (yaml.safe_load(text) or {}).items() if key != "defaults"}
    if group == "search":
        return found | {f"search.{key}": value for key, value in tree.items()}
    prefix = f"{group}." if group and "# @package _global_" not in text else ""
    node = yaml.compose(text)
    assert isinstance(node, yaml.MappingNode), path
    return found | dict(flat(tree, node, prefix))


def about(path: Path) -> str:
    """Return the comment with which a file begins, as one paragraph."""
    if not path.exists():
        return BACKBONES[path.stem].about
    words = []
    for line in text_of(path).splitlines():
        if line.startswith("# @"):
            continue
        if not line.startswith("# "):
            break
        words.append(line[2:].strip())
    return " ".join(words)


def allowed(schema: Mapping[str, Any], key: str) -> str:
    """Return the values that the schema takes for a dotted key, in words; empty where it has no such field."""
    node: Mapping[str, Any] = schema
    for name in key.split("."):
        parts = [_resolved(schema, part) for part in node.get("anyOf", [node])]
        node = next((part["properties"][name] for part in parts if name in part.get("properties", {})), {})
        node = _resolved(schema, node)
    return " or ".join(dict.fromkeys(_words(schema, part) for part in node.get("anyOf", [node]) if part))


def _resolved(schema: Mapping[str, Any], node: Mapping[str, Any]) -> Mapping[str, Any]:
    while "$ref" in node:
        node = schema["$defs"][node["$ref"].rpartition("/")[2]]
    return node


_NAMES = {
    "integer": "whole number", "number": "number", "string": "text", "boolean": "true, false", "null": "null",
    "array": "list", "object": "mapping",
}  # fmt: skip
_BOUNDS = {
    "minimum": "at least {}", "exclusiveMinimum": "above {}", "maximum": "at most {}", "exclusiveMaximum": "below {}",
}  # fmt: skip


def _words(schema: Mapping[str, Any], node: Mapping[str, Any]) -> str:
    node = _resolved(schema, node)
    if "enum" in node:
        return ", ".join(map(str, node["enum"]))
    if "const" in node:
        return str(node["const"])
    bounds = [words.format(f"{node[key]:,}") for key, words in _BOUNDS.items() if key in node]
    return ", ".join([_NAMES.get(node.get("type", ""), "any value"), *bounds])


def code(value: object) -> str:
    """Return a value in the notation of YAML, as code in a cell of a table."""
    text = yaml.safe_dump(value, default_flow_style=True, width=10_000).strip().removesuffix("\n...")
    return f"`{text.strip()}`".replace("|", r"\|")


def cell(text: str) -> str:
    """Return text for a cell of a table, in which nothing is markup but what is within backticks."""
    parts = re.split(r"(`[^`]*`)", " ".join(text.split()))
    return "".join(
        part.replace("|", r"\|") if part.startswith("`") else re.sub(r"([\\*_<>\[\]|$#{}])", r"\\\1", part)
        for part in parts
    )


def key_rows(
    keys: Mapping[str, Any], comments: Mapping[str, str], schema: Mapping[str, Any], other: Mapping[str, str]
) -> Iterator[str]:
    """Yield a table with a row for each key: its default, what it takes, and what it means."""
    yield "| key | default | takes | |"
    yield "|---|---|---|---|"
    for key, value in keys.items():
        only = f" (with {other[key]})" if key in other else ""
        yield f"| `{key}` | {code(value)} | {cell(allowed(schema, key))} | {cell(comments.get(key, '') + only)} |"
    yield ""


def settings(config_name: str) -> str:
    """Return the page of every setting of ``train.py`` or ``sweep.py``."""
    title, program, model = _TITLES[config_name]
    schema, folder = model.model_json_schema(), conf_dir()
    root = folder / f"{config_name}.yaml"
    lines = [
        f"# {title}", "",
        f"Made from the files of `conf/` and the classes that check them, when these pages were built. "
        f"`{program} --help` lists the most used, `{program} --cfg job` shows all as they would be used.", "",
        "## At the top", "",
    ]  # fmt: skip
    root_comments = file_comments(root, "")
    lines += key_rows(option_values(root, ""), root_comments, schema, {})
    for group, default in groups(config_name).items():
        found = {option: folder / group / f"{option}.yaml" for option in options(group)}
        present = {option: path for option, path in found.items() if path.exists()}
        lines += [f"## `{group}=`", "", f"{cell(root_comments[f'- {group}']).capitalize()}.", ""]
        first = [default] if default in present else []
        order = [*first, *(option for option in present if option not in first)]
        values = {option: option_values(present[option], group) for option in order}
        keys: dict[str, Any] = {}
        comments: dict[str, str] = {}
        other: dict[str, str] = {}
        for option in order:
            heading = about(present[option])
            notes = file_comments(present[option], f"{group}.")
            for key, value in values[option].items():
                if key in keys or not key.startswith(f"{group}."):
                    continue
                note = notes.get(key, "")
                keys[key], comments[key] = value, "" if note in heading else note
                if default is not None and option != default:
                    other[key] = ", ".join(f"{group}={name}" for name in order if key in values[name])
        lines += ["| option | | sets |", "|---|---|---|"]
        for option, path in found.items():
            changed = [
                f"`{key}`: {code(value)}"
                for key, value in values.get(option, {}).items()
                if key not in keys or value != keys[key]
            ]
            mark = " (default)" if option == default else ""
            lines.append(f"| `{group}={option}`{mark} | {cell(about(path))} | {', '.join(changed)} |")
        lines += ["", *(key_rows(keys, comments, schema, other) if keys else [])]
    return "\n".join(lines)


def help_of(name: str) -> str:
    """Return what ``ddtl NAME --help`` prints."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        status = cli.main([name, "--help"])
    assert status == 0, name
    return printed.getvalue().rstrip()


def commands() -> str:
    """Return the page of every command, as its own help describes it."""
    lines = ["# Commands", "", "What `ddtl COMMAND --help` prints, when these pages were built.", ""]
    for name, (_, line) in cli.COMMANDS.items():
        lines += [f"## `ddtl {name}`", "", f"{cell(line).capitalize()}.", "", "```text", help_of(name), "```", ""]
    return "\n".join(lines)


def api() -> str:
    """Return the page of the names in ``ddtl.__all__``, which Sphinx fills with their docstrings."""
    lines = ["# Python API", "", "[From Python](../python.md) shows how they are used together.", "", "```{eval-rst}"]
    for name in ddtl.__all__:
        found = getattr(ddtl, name)
        if isinstance(found, ModuleType):
            lines += [f".. automodule:: {found.__name__}", "   :members: loss, backbone, dataset, sampler", ""]
            continue
        is_class = isinstance(found, type)
        lines += [f".. auto{'class' if is_class else 'function'}:: ddtl.{name}"]
        lines += ["   :members:", "   :inherited-members: Exception", ""] if is_class else [""]
    return "\n".join([*lines, "```", ""])


def root_page(name: str) -> str:
    """Return a Markdown file of the repository's root with links that lead from the folder of these pages."""
    text = (FOLDER.parents[1] / f"{name}.md").read_text(encoding="utf-8")
    text = re.sub(r"\]\(docs/", "](../", text)
    return re.sub(r"\]\(([A-Z]+)\.md", lambda match: f"]({match[1].lower()}.md", text)


def write(folder: Path = FOLDER) -> None:
    """Write the pages; one whose text is what it was keeps its date, so that it is not built again."""
    folder.mkdir(parents=True, exist_ok=True)
    pages = {"train": settings("train"), "sweep": settings("sweep"), "commands": commands(), "api": api()}
    pages |= {name.lower(): root_page(name) for name in ("CHANGELOG", "CONTRIBUTING", "SECURITY")}
    for name, text in pages.items():
        path = folder / f"{name}.md"
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    write()
