"""Names from strangers on a terminal and in a spreadsheet: shown, and nothing more."""

from __future__ import annotations

import csv
import io
import logging
from pathlib import Path

import pytest
from hypothesis import given, strategies as st
from rich.table import Table

from ddtl.data.manifest import Manifest, Sample
from ddtl.data.splits.exclusion import leave_out
from ddtl.inference.output import Tables
from ddtl.reports.html.page import Cell, Table as PageTable
from ddtl.reports.study import export
from ddtl.utils import console
from ddtl.utils.console import Screen, safe
from ddtl.utils.files import spreadsheet_cell, text_of_cell, write_csv
from ddtl.utils.reading import Unreadable

ESCAPES = "\x1b[31mred\x1b]0;title\x07 \x9b2J \u202eltr \u200bwide \x00 \x7f \ud800 \r over \x08"
SHOWN = r"\x1b[31mred\x1b]0;title\x07 \x9b2J \u202eltr \u200bwide \x00 \x7f \ud800 \r over \x08"


def control(text: str) -> set[str]:
    """What in a text is neither a sign to be seen nor a line break."""
    return {sign for sign in text if not (sign.isprintable() or sign in "\n")}


def test_a_name_is_shown_escaped_wherever_the_console_gets_it(capsys: pytest.CaptureFixture[str]) -> None:
    console.renew()
    try:
        console.set_up_logging()
        console.error(f"{ESCAPES}: is damaged.\n  second line")
        console.line(ESCAPES)
        logging.getLogger("ddtl.x").warning("class %s", ESCAPES)
        table = Table(title=console.escape(ESCAPES))
        table.add_column(console.escape(ESCAPES))
        table.add_row(console.escape(ESCAPES))
        console.out.print(table)
        console.out.print(ESCAPES, markup=False)
    finally:
        console.renew()
        logging.getLogger("ddtl").handlers.clear()
        logging.getLogger("ddtl").propagate = True
    out, err = capsys.readouterr()
    assert control(out) == set()
    assert control(err) == set()
    assert f"error: {SHOWN}: is damaged.\n  second line\n" in err
    assert f"warning: class {SHOWN}\n" in err
    assert out.count(SHOWN) >= 3


def test_markup_of_ours_stays_and_names_have_none() -> None:
    screen = Screen(file=io.StringIO(), force_terminal=True, color_system="standard", width=80, highlight=False)
    screen.print("plain", style="red")
    screen.print(console.escape("[bold]\x1b[1m"))
    assert screen.file.getvalue() == "\x1b[31mplain\x1b[0m\n[bold]\\x1b[1m\n"  # type: ignore[attr-defined]


@given(st.text())
def test_what_is_safe_stays_and_is_all_there(text: str) -> None:
    assert control(safe(text)) <= {"\t"}
    if not control(text) and not set("@=:") & set(text):
        assert safe(text) == text


def test_a_path_of_several_lines_is_one() -> None:
    assert str(Unreadable(Path("a\nerror: all is well"), "is a folder")) == r"a\nerror: all is well: is a folder."


FORMULAS = ["=1+1", "+cmd|' /C calc'!A0", "-2+3", "@SUM(A1)", "\tx", "\rx", "'=x", "''-y", "\uff1d1", "-", "=", "-1 +2"]
PLAIN = ["", "P01", "covid/a=b.png", "-5", "+3.5e-7", "-0.25", "'", "'quoted'", "a-b", " =x"]


@pytest.mark.parametrize("text", FORMULAS)
def test_text_that_a_spreadsheet_would_run_is_text(text: str) -> None:
    assert spreadsheet_cell(text) == f"'{text}"
    assert text_of_cell(f"'{text}") == text


@pytest.mark.parametrize("text", PLAIN)
def test_other_text_and_numbers_stay(text: str) -> None:
    assert spreadsheet_cell(text) == text
    assert text_of_cell(text) == text
    assert [spreadsheet_cell(value) for value in (-1, -0.5, None, True)] == [-1, -0.5, None, True]


@given(st.text(alphabet="'=+-@\t\r1.5eab "))
def test_a_cell_comes_back(text: str) -> None:
    assert text_of_cell(spreadsheet_cell(text)) == text


def test_predictions_for_people_hold_no_formula_and_their_json_the_name(tmp_path: Path) -> None:
    with Tables(tmp_path, ["picture", "patient", "logit"], {"run": "x"}) as tables:
        tables.add({"picture": "=HYPERLINK(1).png", "patient": "@p", "logit": -1.5})
        tables.finish([{"patient": "@p", "score": -0.5, "decision": True}], {})
    rows = [list(csv.reader((tmp_path / name).open())) for name in ("predictions.csv", "patients.csv")]
    assert rows[0][1] == ["'=HYPERLINK(1).png", "'@p", "-1.5"]
    assert rows[1][1] == ["'@p", "-0.5", "yes"]
    assert (
        '"picture": "=HYPERLINK(1).png", "patient": "@p", "logit": -1.5' in (tmp_path / "predictions.json").read_text()
    )


@pytest.mark.parametrize("written_by", [spreadsheet_cell, str])
def test_a_list_of_images_to_leave_out_comes_back(tmp_path: Path, written_by: object) -> None:
    """As the audit writes it, and as it did before, or a person does."""
    names = ["+covid/1.png", "'=x.png", "@a", "-5", "plain"]
    samples = tuple(Sample(name, Path(name), i % 2) for i, name in enumerate([*names, "stays"]))
    manifest = Manifest("chest", ("normal", "covid"), samples, "none", protocol="random")
    write_csv(tmp_path / "exclude.csv", ["sample_id"], ([written_by(name)] for name in names))  # type: ignore[operator]
    assert [sample.sample_id for sample in leave_out(manifest, tmp_path / "exclude.csv").samples] == ["stays"]


def test_scores_of_a_study_hold_no_formula() -> None:
    table = PageTable("scores", ["source", "score"], [["=cmd()", Cell("-0.25")], ["a", "-1e-05"]])
    assert export.as_csv(table) == "source,score\n'=cmd(),-0.25\na,-1e-05\n"
    assert "\\x1b" in export.text([PageTable("scores", ["a"], [["\x1b[1m"]])])


def test_tables_of_predictions_move_no_cursor() -> None:
    from ddtl.inference.output import _cell

    assert _cell("a\x1b[31m\u202eb\n.png") == r"a\x1b[31m\u202eb\n.png"
    assert _cell("größe 肺 👩‍⚕️.png") == "größe 肺 👩‍⚕️.png"
    assert _cell("=1+1") == "'=1+1"
    assert [_cell(one) for one in (None, True, -0.5, 3)] == ["", "yes", "-0.5", 3]
