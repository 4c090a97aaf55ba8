"""Class names, lists and maps on the command line: kept as they are spelled, or refused with a line to paste."""

from __future__ import annotations

import shlex
import subprocess
from typing import Any

import pytest
from hypothesis import example, given, settings, strategies as st

from ddtl.config.load import load
from ddtl.config.overrides import format_value, read
from ddtl.config.where import groups
from ddtl.data.datasets.classes import classes_override, map_override
from ddtl.utils.errors import UserError

FOLDER = ("dataset=folder", "dataset.root=/tmp", "dataset.name=mine")
POOL = ("dataset=pooled", "dataset.sources=[phantom:a,third]")
# What a shell can hand over and a table can hold.
LABELS = st.text(
    st.characters(codec="utf-8", exclude_characters="\0") | st.sampled_from("'\"\\{}[]:,$ !`~#\n\t"), min_size=1
)


def in_bash(line: str) -> str:
    """The one word that bash makes of a line."""
    done = subprocess.run(["bash", "-c", f"printf '%s\\0' {line}"], capture_output=True, check=True)
    (word,) = done.stdout.decode().removesuffix("\0").split("\0")
    return word


def refusal(*words: str) -> str:
    with pytest.raises(UserError) as error:
        load([*FOLDER, *words])
    return str(error.value)


@given(st.dictionaries(LABELS, LABELS, min_size=1, max_size=4))
@example({"no lesion": "normal", "null": "COVID"})
@example({"-inf": "${seed}", "a\\": "\\${", "it's": '"\\\'"', "!x": "NaN", "01": "1e3"})
@settings(max_examples=60, deadline=None)
def test_any_label_that_is_printed_and_pasted_comes_back(class_map: dict[str, str]) -> None:
    config = load([*FOLDER, in_bash(map_override(class_map))])
    assert config.dataset.class_map == class_map


@given(st.lists(LABELS, min_size=2, max_size=4, unique=True))
@settings(max_examples=40, deadline=None)
def test_any_classes_that_are_printed_and_pasted_come_back(classes: list[str]) -> None:
    assert load([*FOLDER, in_bash(classes_override(classes))]).dataset.classes == tuple(classes)


@given(st.dictionaries(LABELS, LABELS, min_size=1, max_size=3), st.lists(LABELS, min_size=2, max_size=3, unique=True))
@settings(max_examples=40, deadline=None)
def test_names_inside_a_declared_dataset_come_back(class_map: dict[str, str], classes: list[str]) -> None:
    own = {"third": {"root": "/tmp", "class_map": class_map, "classes": classes}}
    third = (load([*POOL, f"dataset.own={format_value(own, quoted=True)}"]).dataset.own or {})["third"]
    assert (third.class_map, third.classes, third.root) == (class_map, tuple(classes), "/tmp")


def test_a_printed_line_adds_to_a_declared_dataset() -> None:
    """``dataset.own.NAME.class_map=…`` is what a pool prints; its place on the command line does not matter."""
    line = in_bash(map_override({"no lesion": "non-COVID"}, "dataset.own.third.class_map"))
    third = (load([*POOL, "dataset.own={third: {root: /tmp}}", line]).dataset.own or {})["third"]
    assert (third.root, third.class_map) == ("/tmp", {"no lesion": "non-COVID"})


@pytest.mark.parametrize(
    ("word", "names"),
    [
        ("{null: a, NaN: b, True: c, 1e3: d, 01: e}", {"null": "a", "NaN": "b", "True": "c", "1e3": "d", "01": "e"}),
        ("""{"it's": 'say "x"', no lesion: a: b}""", {"it's": 'say "x"', "no lesion": "a: b"}),
        ("null", None),
    ],
)
def test_bare_names_of_a_map_stay_as_typed(word: str, names: dict[str, str] | None) -> None:
    assert load([*FOLDER, f"dataset.class_map={word}"]).dataset.class_map == names


@pytest.mark.parametrize(
    ("word", "names"),
    [("[0,1]", ("0", "1")), ("[01,1e3]", ("01", "1e3")), ("[true, null]", ("true", "null")), ("null", None)],
)
def test_classes_stay_as_typed(word: str, names: tuple[str, ...] | None) -> None:
    assert load([*FOLDER, f"dataset.classes={word}"]).dataset.classes == names


@pytest.mark.parametrize(
    ("word", "says", "corrected"),
    [
        ("dataset.class_map={CAP: a, CAP: b}", "'CAP' is given twice", "'dataset.class_map={CAP: a}'"),
        ("dataset.class_map={'CAP': a, CAP: a}", "'CAP' is given twice", "'dataset.class_map={CAP: a}'"),
        ("dataset.class_map={CAP: a, b: c", "a brace is not closed", "'dataset.class_map={CAP: a, b: c}'"),
        ("dataset.class_map={CAP: 'a}", "a quote is not closed", "'dataset.class_map={CAP: a}'"),
        ("dataset.class_map={'no' lesion: a}", "behind a closing quote", "'dataset.class_map={no lesion: a}'"),
        ("dataset.class_map={CAP}", "'CAP' has no class", "'dataset.class_map={CAP: NAME_OF_THE_CLASS}'"),
        ("dataset.class_map={CAP: a} b", "there is ' b' behind it", "'dataset.class_map={CAP: a}'"),
        ("dataset.class_map={CAP: {a: b}}", "a class is one name", "\"dataset.class_map={CAP: 'a: b'}\""),
        ("dataset.classes=[0,1", "a bracket is not closed", "'dataset.classes=[0,1]'"),
        ("dataset.classes=['no, yes]", "a quote is not closed", "'dataset.classes=[no,yes]'"),
    ],
)
def test_what_is_not_in_order_is_refused_with_the_line_to_paste(word: str, says: str, corrected: str) -> None:
    message = refusal(word)
    assert says in message
    assert message.endswith(f"Write {corrected}")
    assert not read([in_bash(corrected)], groups()).problems


@pytest.mark.parametrize(
    "typed",
    [
        "dataset.classes=[normal, covid]",
        "dataset.classes=['no lesion', covid]",
        "dataset.class_map={CAP: non-COVID, normal: non-COVID}",
        "dataset.class_map={CAP:non-COVID,normal:non-COVID}",
        "dataset.window={center: -600, width: 1500, slope: 1}",
        "dataset.window={center:-600,width:1500}",
        "optimizer.betas=[0.9, 0.99]",
        "dataset.own={third: {root: /tmp, class_map: {CAP: a}}}",
        "dataset.classes=[normal, covid",
        "dataset.window={center: -600, width: 1500",
    ],
)
def test_a_list_or_map_without_a_shells_quotes_is_printed_with_them(typed: str) -> None:
    """What bash makes of it is joined; the corrected line, pasted, holds what was meant."""
    split = subprocess.run(["bash", "-c", f"printf '%s\\0' {typed} seed=3"], capture_output=True, check=True).stdout
    words = split.decode().removesuffix("\0").split("\0")
    asked = read(words, groups())
    assert len(words) > 2
    assert (len(asked.problems), [one.key for one in asked.settings]) == (1, ["seed"])
    assert "Quote it whole: " in asked.problems[0]
    again = read([in_bash(asked.problems[0].partition("Quote it whole: ")[2])], groups())
    (meant,) = read([_closed(typed.replace(":", ": "))], groups()).settings
    assert not again.problems
    assert again.settings[0].value == meant.value


def _closed(text: str) -> str:
    return text + {"[": "]", "{": "}"}.get(text.partition("=")[2][0], "") * (text[-1] not in "]}")


@pytest.mark.parametrize(
    ("word", "says"),
    [
        ("run.name=2024_01_05", "run.name=2024_01_05: must be text. To have it taken as text, quote it: "),
        ("dataset.root=1e5", "dataset.root=1e5: must be text. To have it taken as text, quote it: "),
        ("dataset.name=1_000", "dataset.name=1_000: must be text. To have it taken as text, quote it: "),
        ("seed=1e3", "seed=1e3: must be a whole number."),
        ("augment.scale=1_0.5", "augment.scale=1_0.5: must be a list in brackets: augment.scale=[1_0.5]."),
    ],
)
def test_numbers_are_repeated_as_they_were_typed(word: str, says: str) -> None:
    message = refusal(word)
    assert says in message
    if "quote it" in says:
        corrected: Any = message.partition("quote it: ")[2].removesuffix(".").split("\n")[0]
        key, _, text = word.partition("=")
        (setting,) = read(shlex.split(corrected), groups()).settings
        assert (setting.key, setting.value) == (key, text)


def test_an_open_bracket_is_closed_and_its_numbers_stay() -> None:
    assert "'seed=[1]'" in refusal("seed=[1")
