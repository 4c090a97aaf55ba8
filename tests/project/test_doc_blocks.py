"""Every block of code in README and docs is run, parsed by what reads it, or listed here with the reason why not."""

from __future__ import annotations

import ast
import csv
import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from tests.support.doc_commands import NO_COMMANDS, PAGES, ROOT, Block, blocks

GUIDE = ROOT / "CONTRIBUTING.md"
BLOCKS = [block for page in [*PAGES, GUIDE] for block in blocks(page)]
GALLERY = sorted((ROOT / "docs" / "gallery").glob("*.py"))
# Blocks that are the output of a program, paths or text, and nothing that could be typed.
SHOWN = ("text",)
# Blocks of Python: what runs them, or why nothing does.
PYTHON = {
    "plugins.md": "tests/project/test_plugins.py runs it",
    "python.md": "tests/project/test_python_api.py runs all of them, one after the other",
    "CONTRIBUTING.md": "parts of functions to be pasted: that they are Python is all that can be checked",
}
# Commands that are read and not run, since they take longer than a test may: tests/project/test_doc_commands.py holds
# each against the parser of its program. What runs the same code in a small form:
SMALL_FORM = {
    "train.py": "tests/training, and tests/project/test_quickstart.py the first one of README",
    "sweep.py": "tests/sweeps, tests/studies",
    "ddtl": "tests/commands; finetune, runs, report, data list and each --help are run as typed",
    "benchmarks": "minutes to hours; tests of the functions that they call",
    "make": "sets up an environment or runs all tests, as CI does",
    "pip, uv": "tests/project/test_wheel.py builds the wheel and installs it with the lock",
    "docker": "needs a service that CI does not have",
}
# Pages outside the repository that are linked. None is opened by a test: a site that is down is no fault of this tree.
EXTERNAL = {
    "README.md": {"https://doi.org/10.25271/sjuoz.2023.11.4.1166"},
    "explain.md": {"https://captum.ai"},
    "lightning_finetuning_drift.md": {"https://github.com/Lightning-AI/pytorch-lightning/issues/20340"},
}


def as_python(block: Block) -> None:
    assert block.page in PYTHON, "name what runs it"
    text = "\n".join(block.lines)
    if block.page == GUIDE.name:  # methods and steps of a function begin with an indentation
        text = f"if True:\n{text}" if text.startswith(" ") else text
        text = "def part():\n" + re.sub(r"^", "    ", text, flags=re.MULTILINE)
    ast.parse(text)


def as_yaml(block: Block) -> None:
    assert yaml.safe_load("\n".join(block.lines)), "says nothing"


def as_csv(block: Block) -> None:
    header, *rows = csv.reader(block.lines)
    assert rows
    assert {len(row) for row in rows} == {len(header)}


def as_json(block: Block) -> None:
    json.loads("\n".join(block.lines))


READERS: dict[str, Callable[[Block], None]] = {"python": as_python, "yaml": as_yaml, "csv": as_csv, "json": as_json}


def test_each_language_is_read_by_something() -> None:
    assert set(NO_COMMANDS) == {*READERS, *SHOWN}
    found = {block.language for block in BLOCKS}
    assert found <= {"", "bash", *NO_COMMANDS, "{toctree}"}, "a block without a language is one of commands"


@pytest.mark.parametrize("block", [block for block in BLOCKS if block.language in READERS], ids=str)
def test_a_block_is_what_it_says_it_is(block: Block) -> None:
    READERS[block.language](block)


def test_the_commands_are_read_by_their_parsers() -> None:
    """That test_doc_commands finds each block of commands, and that what it does not run is listed above."""
    from tests.project.test_doc_commands import ELSEWHERE, LINES

    found = {(line.page, line.number) for line in LINES}
    for block in BLOCKS:
        if block.language in ("", "bash") and block.page != GUIDE.name:
            inside = {(block.page, block.number + i) for i in range(len(block.lines))}
            assert inside & found, f"{block}: no command of it is tried"
    named = " ".join(SMALL_FORM)
    assert all(name in named for name in ("train.py", "sweep.py", "ddtl"))
    assert [name for name in ELSEWHERE if name not in f"{named} python wandb scontrol mlflow"] == []


@pytest.mark.parametrize("example", GALLERY, ids=lambda path: path.stem)
def test_an_example_uses_what_there_is(example: Path) -> None:
    """``make docs`` runs it; here only that its names are public and its settings exist."""
    import ddtl
    from ddtl.config.load import load

    tree = ast.parse(example.read_text(encoding="utf-8"))
    used = {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "ddtl"
    }
    assert used <= set(ddtl.__all__)
    keys = {
        key.value: ast.literal_eval(value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Dict)
        for key, value in zip(node.keys, node.values, strict=True)
        if isinstance(key, ast.Constant) and "." in str(key.value) and isinstance(value, ast.Constant)
    }
    of_own_files = ("dataset.patient_regex", "dataset.name")
    words = [f"{key}={value}" for key, value in keys.items() if key not in of_own_files]
    load(["model.weights=none", *words], writes=False)
    first = ast.get_docstring(tree) or ""
    assert first.splitlines()[1] == "=" * len(first.splitlines()[0]), "a title, underlined"


def test_there_are_enough_examples() -> None:
    assert len(GALLERY) >= 6


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_to_other_sites_are_listed(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert set(re.findall(r"\]\((https?://[^)\s]+)\)", text)) == EXTERNAL.get(page.name, set())


def test_the_first_page_is_short() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 120
    assert (ROOT / "docs" / "images" / "report_top.png").stat().st_size < 200_000


def test_every_page_is_in_the_table_of_contents() -> None:
    index = (ROOT / "docs" / "index.md").read_text(encoding="utf-8")
    listed = {line for line in index.splitlines() if re.fullmatch(r"[\w/]+", line)}
    assert {page.stem for page in PAGES} - {"README", "index"} <= listed


def test_every_benchmark_of_a_page_is_in_the_list_of_measurements() -> None:
    listed = (ROOT / "docs" / "measurements.md").read_text(encoding="utf-8")
    for page in PAGES:
        for name in re.findall(r"python -m (benchmarks\.\w+)", page.read_text(encoding="utf-8")):
            assert name in listed, f"{page.name}: {name}"


def test_the_container_is_built_from_the_lock_and_runs_without_rights() -> None:
    recipe = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    assert len(recipe.splitlines()) <= 30
    assert recipe.index("USER ddtl") < recipe.index("ENTRYPOINT")
    joined = recipe.replace("\\\n", " ")
    for part in re.split(r"RUN |&& |; ", joined):
        if "pip install" in part:
            by_hash = "--require-hashes" in part
            assert by_hash or "--no-deps --no-build-isolation ." in part or "--torch-backend cpu" in part, part
    context = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    for name in re.findall(r"^COPY (?!--from)(.+) \S+$", recipe, re.MULTILINE):
        assert all(f"!{word}" in context for word in name.split()), name
