"""Words from templates: facts are needed, are never markup, and never code."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

import jinja2
import pytest

from ddtl.records.checking import MissingKey, Record
from ddtl.reports import prose
from ddtl.reports.prose import Markdown, Words
from tests.reports.test_run_page import HOSTILE

SENTENCES, PARAGRAPHS = Words("sentences.txt.jinja"), Words("paragraphs.md.jinja")


def test_a_line_is_one_line() -> None:
    assert SENTENCES.excluded("abc", 1) == (
        "Excluded by a list (dataset.exclude, sha256 abc): 1 image, which no count and no score includes."
    )


def test_a_fact_that_is_missing_is_an_error() -> None:
    with pytest.raises(jinja2.UndefinedError):
        SENTENCES.repeated_use("test-set use number 2")
    with pytest.raises(KeyError):
        PARAGRAPHS.selection({"record": {"best_epoch": 3, "monitor": "val/loss"}})


def test_a_setting_that_a_file_lacks_is_one_line_that_names_the_file() -> None:
    config = Record.of({"optimizer": {"name": "adamw"}}, (Path("config.yaml"), "Repeat the command."))
    with pytest.raises(MissingKey, match=r"config\.yaml: optimizer\.weight_decay is missing"):
        PARAGRAPHS.optimizer({"config": config, "peak_rates": "peak learning rate 0.1"})


@pytest.mark.parametrize("name", HOSTILE)
def test_plain_text_keeps_a_name_letter_by_letter(name: str) -> None:
    assert f" {name} " in SENTENCES.repeated_use(f"a {name} b", "It was.")


@pytest.mark.parametrize("name", HOSTILE)
def test_markdown_escapes_every_fact(name: str) -> None:
    facts = {"record": {"weights": {"source": name, "digest": "ab" * 32}}}
    found = PARAGRAPHS.initial_weights(facts)
    assert found == f"its backbone started from the weights {prose.escaped(name)} (SHA-256 abababababab…)"


def test_only_markdown_of_our_own_is_markup() -> None:
    facts = {"command": Markdown("`a_b`")}
    assert PARAGRAPHS.command(facts) == "Command: `a_b`."
    assert PARAGRAPHS.command({"command": "`a_b`"}) == r"Command: \`a\_b\`."


def test_code_ends_where_it_should() -> None:
    assert prose.code("a b") == "`a b`"
    assert prose.code("a `` b") == "``` a `` b ```"


def test_every_template_compiles_and_is_in_the_package() -> None:
    names = [path.name for path in resources.files("ddtl.reports").joinpath("templates").iterdir()]
    assert {"sentences.txt.jinja", "claims.txt.jinja", "methods.md.jinja", "model_card.md.jinja"} <= set(names)
    for name in names:
        assert prose._environment(name).get_template(name).name == name
        assert name.endswith((".txt.jinja", ".md.jinja")), "the ending says how facts are escaped"
