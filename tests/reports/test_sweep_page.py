"""The page about a sweep: what it says of the record, and that a browser draws it."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from ddtl.commands import report
from ddtl.reports.html.page import Figure, Page, Table, Text
from ddtl.reports.sweep import (
    parameters,
    pareto,
    record as sweep_stored,
    report as sweep_report,
    search,
    trials as sweep_trials,
    workers,
)
from ddtl.reports.sweep.axes import Parameter
from ddtl.reports.sweep.record import Sweep
from ddtl.utils.errors import UserError
from ddtl.utils.files import write_json
from tests.reports.test_run_page import HOSTILE, Parsed, as_text, blocks, golden
from tests.support import browser, sweep_records


@pytest.fixture(scope="module")
def sweep() -> Sweep:
    return Sweep(sweep_records.record(final=sweep_records.final()))


@pytest.fixture(scope="module")
def two() -> Sweep:
    return Sweep(sweep_records.record(two=True))


def figures(page: Page) -> dict[str, dict[str, Any]]:
    return {block.title: block.spec for block in blocks(page) if isinstance(block, Figure)}


def texts(page: Page) -> str:
    parts = [block.text for block in blocks(page) if isinstance(block, Text)]
    return "\n".join([*page.warnings, *parts])


def done(number: int, value: float, seconds: float = 1.0, **changes: Any) -> dict[str, Any]:
    """A completed trial with what these functions read."""
    return {"number": number, "state": "complete", "values": [value, seconds], "curve": [], "params": {}, **changes}


def trace(spec: dict[str, Any], name: str) -> dict[str, Any]:
    return next(part for part in spec["data"] if part["name"] == name)


# --- what it says ------------------------------------------------------------------------------------------------


def test_tables_as_they_were(sweep: Sweep) -> None:
    tables = [block for block in blocks(sweep_report.page(sweep)) if isinstance(block, Table)]
    golden("sweep_tables.txt", "\n".join(as_text(table) for table in tables if "All" not in table.caption))


def test_the_page_warns_of_selection_and_tells_the_test_in_the_end(sweep: Sweep) -> None:
    page = sweep_report.page(sweep)
    n = sum(trial["state"] == "complete" for trial in sweep.trials)
    assert f"the best of {n} trials and therefore optimistic" in page.warnings[0]
    assert [headline.value for headline in page.headlines] == ["0.928", "60", "3.2 h", "0.031"]
    assert page.headlines[3].note == "95 % CI 0.004–0.058"
    assert page.answer == f"The winner is better than the default settings. {sweep_records.final()['claim']}"
    without = sweep_report.page(Sweep(sweep_records.record()))
    assert len(without.headlines) == 3
    assert without.subtitle == "covid19ct · search lr_unfreeze · TPESampler · AfterUnfreeze · Optuna 5.0.0"
    assert "which finalize=true makes" in without.warnings[0]
    assert "This sweep has not used the test set. This command" in texts(without)


@pytest.mark.parametrize(("uses", "words"), [(0, "no use"), (1, "1 use"), (3, "3 uses")])
def test_the_page_names_the_uses_of_the_test_set_by_other_runs(uses: int, words: str) -> None:
    page = sweep_report.page(Sweep(sweep_records.record(test_uses=uses)))
    assert f"This sweep has not used the test set; the ledger had counted {words} by other runs" in texts(page)


def test_the_winners_line_scores_the_test_and_names_no_place_of_this_machine(sweep: Sweep) -> None:
    assert sweep.winner is not None
    typed = sweep_stored.line(sweep.winner, test=True)
    assert typed.startswith("python train.py optimizer.lr=0.000261")
    assert typed.endswith(" dataset=covid19ct")
    assert sweep_stored.line(sweep.winner).endswith("evaluation.test=false")
    html = sweep_report.render_sweep(sweep)
    assert "/home/someone" not in html
    assert "laptop" not in html


def test_words_of_failures_keep_no_folder() -> None:
    for words, shown in (
        ("see /home/x/runs/sweeps/a/trials/3.log", "see 3.log"),
        (r"C:\Users\x\data\a.png: no image", "a.png: no image"),
        ("the loss is nan (optimizer.lr=0.1) 1/2", "the loss is nan (optimizer.lr=0.1) 1/2"),
    ):
        assert sweep_stored.without_folders(words) == shown


def test_a_record_of_any_progress_has_a_page() -> None:
    for trials in (0, 1, 2, 3, 5, 12):
        page = sweep_report.page(Sweep(sweep_records.record(trials)))
        assert page.headlines[1].value == str(trials)
    empty = sweep_report.page(Sweep(sweep_records.record(2)))  # both still run
    assert "No trial was completed" in texts(empty)
    assert "2 trials had not ended" in texts(empty)


def test_a_sweep_of_failures_says_why() -> None:
    record = sweep_records.record(8)
    for trial in record["trials"]:
        trial |= {"state": "failed", "reason": "error", "words": "Traceback\nValueError: at /a/b/c.py", "values": None}
        trial["curve"] = []
    page = sweep_report.page(Sweep(record))
    assert "8 of 8 trials failed" in texts(page)
    table = next(b for b in blocks(page) if isinstance(b, Table) and b.caption == "Failed trials by reason")
    assert [list(row) for row in table.rows] == [
        ["raised an error", "8", "0, 1, 2, 3, 4, 5, 6, 7", "ValueError: at c.py"]
    ]


def test_a_grid_shows_its_words_as_choices() -> None:
    record = sweep_records.record(6, search=None, identity={"seed": 0, "space.jobs": ["a"], "train.seed": 0})
    for trial, lr in zip(record["trials"], ("1e-4", "3e-4", "1e-3") * 2, strict=True):
        trial |= {"state": "complete", "values": [0.7 + trial["number"] / 100], "params": {"optimizer.lr": lr}}
    page = sweep_report.page(Sweep(record))
    assert page.subtitle.startswith("covid19ct · grid")
    notes = [note["text"] for note in figures(page)["From settings to score"]["layout"]["annotations"]]
    assert notes[:3] == ["1e-4", "3e-4", "1e-3"]  # by their size


@pytest.mark.slow
def test_the_same_record_gives_the_same_page() -> None:
    code = (
        "from hashlib import sha256; from ddtl.reports.sweep import report; "
        "from tests.support import sweep_records as r; "
        "print(sha256(report.render_sweep(report.Sweep(r.record())).encode()).hexdigest())"
    )
    told = {
        subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            check=True,
            env={**os.environ, "PYTHONHASHSEED": seed},
        ).stdout
        for seed in ("1", "2")
    }
    assert len(told) == 1


# --- history and front -------------------------------------------------------------------------------------------


def test_only_completed_trials_raise_the_best_so_far() -> None:
    pruned = done(1, 0.99) | {"state": "pruned", "values": None, "curve": [[0, 0.99]]}
    trials = [done(0, 0.7), pruned, done(2, 0.6), done(3, 0.8), pruned | {"number": 4}]
    assert search.running_best(trials, 1) == [(0, 0.7), (3, 0.8), (4, 0.8)]
    assert search.running_best(trials, -1) == [(0, 0.7), (2, 0.6), (4, 0.6)]
    spec = search.history_spec(trials, "val/roc_auc", 1)
    assert trace(spec, "pruned")["y"] == [0.99, 0.99]
    assert trace(spec, "complete")["x"] == [0, 2, 3]


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), max_size=12), st.sampled_from([1, -1]))
def test_the_front_is_that_of_optuna(values: list[tuple[int, int]], sign: int) -> None:
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(directions=["maximize" if sign > 0 else "minimize", "minimize"])
    for pair in values:
        study.add_trial(optuna.trial.create_trial(values=list(pair)))
    found = pareto.front([done(n, *pair) for n, pair in enumerate(values)], [sign, -1])
    assert {tuple(t["values"]) for t in found} == {tuple(t.values) for t in study.best_trials}
    assert [t["values"][1] for t in found] == sorted({t["values"][1] for t in found})


def test_two_objectives_have_a_front_and_one_has_none(sweep: Sweep, two: Sweep) -> None:
    spec = figures(sweep_report.page(two))["Pareto front"]
    assert len(trace(spec, "Pareto front")["x"]) + len(trace(spec, "complete")["x"]) == len(two.ranked)
    assert "Pareto front" not in figures(sweep_report.page(sweep))


# --- parameters --------------------------------------------------------------------------------------------------


def test_importances_find_what_matters_also_where_only_some_trials_use_it() -> None:
    rng = np.random.default_rng(0)
    space = {
        "head": {"float": [1e-5, 1e-1], "log": True},
        "kind": {"choice": ["a", "b"]},
        "inner": {"float": [0.0, 1.0]},
        "noise": {"int": [0, 9]},
    }
    trials = []
    for number in range(200):
        params: dict[str, Any] = {"head": float(10 ** rng.uniform(-5, -1)), "noise": int(rng.integers(10))}
        params["kind"] = str(rng.choice(["a", "b"]))
        if params["kind"] == "b":
            params["inner"] = float(rng.uniform())
        value = params.get("inner", 0.0) + 0.001 * float(rng.normal())  # the head's rate does nothing
        trials.append(done(number, value, params=params))
    found = parameters.importances(trials, space, 1)
    assert list(found.shares)[:2] == ["inner", "kind"] or list(found.shares)[:2] == ["kind", "inner"]
    assert sum(found.shares.values()) == pytest.approx(1)
    assert found.shares["inner"] + found.shares["kind"] > 0.8
    assert (found.best, found.of) == (20, 200)
    lowest = parameters.importances(trials, space, -1)
    assert next(iter(lowest.shares)) == "kind"  # a low score needs kind a, and no value of inner


def test_importances_say_why_there_are_none() -> None:
    many = [done(number, 0.1 * number, params={"x": float(number)}) for number in range(20)]
    few = parameters.importances(many[:14], {}, 1)
    assert few.shares == {}
    assert "completed trials: 14; importances need 15" in few.why_not
    alike = [trial | {"values": [0.5]} for trial in many]
    assert "the same score" in parameters.importances(alike, {}, 1).why_not
    fixed = [trial | {"params": {"x": 1.0}} for trial in many]
    assert "nothing was varied" in parameters.importances(fixed, {}, 1).why_not
    assert "importances need 15" in texts(sweep_report.page(Sweep(sweep_records.record(12))))


@settings(max_examples=100)
@given(st.floats(1e-6, 1e6), st.floats(1e-6, 1e6), st.booleans())
def test_places_on_an_axis_keep_the_order_and_fill_it(one: float, other: float, log: bool) -> None:
    low, high = min(one, other), max(one, other)
    axis = Parameter("x", (), low, high, log)
    middle = math.sqrt(low * high) if log else (low + high) / 2
    places = [axis.place(value) for value in (low, middle, high)]
    assert places == pytest.approx([0.0, 0.5, 1.0] if high > low * (1 + 1e-9) else places, abs=1e-6)
    assert all(place is not None and -1e-9 <= place <= 1 + 1e-9 for place in places)


def test_what_a_trial_did_not_use_runs_through_its_own_lane() -> None:
    trials = [
        done(0, 0.7, params={"finetune": "linear_probe"}),
        done(1, 0.8, params={"finetune": "lp_ft", "ratio": 0.1}),
    ]
    axes = parameters.parameters(trials, {"ratio": {"float": [0.01, 1.0], "log": True}})
    assert [axis.name for axis in axes] == ["finetune", "ratio"]
    spec = parameters.parallel_spec(trials, axes, [1], 1)
    assert trace(spec, "complete")["y"][1] < -0.1
    assert trace(spec, "the best")["y"][1] == pytest.approx(0.5)
    assert spec["layout"]["yaxis"]["range"][0] < -0.16
    assert "not used" in [note["text"] for note in spec["layout"]["annotations"]]


def test_null_is_a_choice_and_not_the_absence_of_one() -> None:
    trials = [done(0, 0.7, params={"stages": None}), done(1, 0.8, params={"stages": 4}), done(2, 0.9)]
    axes = parameters.parameters(trials, {"stages": {"choice": [None, 4]}})
    spec = parameters.parallel_spec(trials, axes, [], 1)
    assert [round(y, 1) for y in trace(spec, "complete")["y"][::3]] == [0.0, 1.0, -0.2]
    assert [note["text"] for note in spec["layout"]["annotations"][:2]] == ["null", "4"]
    assert sweep_stored.varied(trials[0]) == "stages=null"


# --- workers -----------------------------------------------------------------------------------------------------


def attempt(worker: str, start: float, end: float) -> dict[str, Any]:
    def stamp(seconds: float) -> str:
        return f"2026-11-23T{int(seconds // 3600):02}:{int(seconds % 3600 // 60):02}:{seconds % 60:06.3f}+00:00"

    return {"worker": worker, "started": stamp(start), "ended": stamp(end), "reason": "completed", "words": ""}


def timed(*attempts: list[dict[str, Any]], **changes: Any) -> dict[str, Any]:
    trials = [done(number, 0.5, attempts=each, worker="", started=None) for number, each in enumerate(attempts)]
    return {"trials": trials, "ended": "2026-11-23T10:00:00+00:00", **changes}


def test_idle_share_is_that_between_trials() -> None:
    record = timed([attempt("a", 0, 10)], [attempt("a", 12, 20)], [attempt("b", 0, 4)])
    parts = workers.stretches(record)
    assert workers.idle_share(parts) == pytest.approx(2 / 24)
    assert workers.workers(parts) == ["worker 1", "worker 2"]


def test_the_night_in_which_a_sweep_was_stopped_is_left_out() -> None:
    night = 8 * 3600
    record = timed([attempt("a", 0, 10)], [attempt("b", 1, 11)], [attempt("a", night, night + 5)])
    parts = workers.stretches(record)
    assert [(part.start, part.end) for part in parts] == [(0, 10), (1, 11), (11, 16)]
    assert workers.idle_share(parts) == pytest.approx(1 / 26)


def test_a_killed_attempt_has_a_bar_of_its_own_and_a_running_trial_one_up_to_now() -> None:
    record = timed(
        [attempt("a", 0, 10), attempt("b", 11, 20)], [attempt("a", 10, 15)], ended="2026-11-23T00:00:30+00:00"
    )
    record["trials"][1] |= {"state": "running", "worker": "a"}
    parts = workers.stretches(record)
    assert [(part.trial, part.state, part.start, part.end) for part in parts] == [
        (0, "interrupted", 0, 10),
        (1, "interrupted", 10, 15),
        (0, "complete", 11, 20),
        (1, "running", 15, 30),
    ]
    assert len(sweep_trials.interrupted(record["trials"][0])) == 1


# --- the command -------------------------------------------------------------------------------------------------


def test_report_writes_the_page_of_a_sweep_beside_those_of_runs(tmp_path: Path, sweep: Sweep) -> None:
    write_json(tmp_path / "sweep.json", sweep.record)
    assert report.main([str(tmp_path)]) == 0
    html = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert html.startswith("<!doctype html>")
    assert html.count("plotly.js v") == 1
    assert not (tmp_path / "methods.md").exists()


@pytest.mark.parametrize(
    ("text", "words"),
    [("{", "is damaged, no JSON"), ("[]", "is damaged, no JSON object"), ('{"name": "x"}', "dataset is missing")],
)
def test_a_damaged_record_is_named(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "sweep.json").write_text(text)
    with pytest.raises(UserError, match=rf"sweep\.json: {words}"):
        report.main([str(tmp_path)])


def test_the_page_needs_no_torch_and_no_optuna_to_be_imported() -> None:
    code = (
        "import sys, ddtl.commands.report; "
        "print(sorted({'torch', 'plotly', 'jinja2', 'optuna', 'scipy'} & set(sys.modules)))"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ended.stdout.strip() == "[]"


# --- in a real browser -------------------------------------------------------------------------------------------


def hostile() -> Sweep:
    """A sweep in which everything that a user names is an attack."""
    record = deepcopy(sweep_records.record(40, name=HOSTILE[0], dataset=HOSTILE[1], search=HOSTILE[2]))
    record["identity"] |= {"space.augment": {"choice": list(HOSTILE)}, f"space.{HOSTILE[1]}": {"choice": [1, 2]}}
    for trial in record["trials"]:
        trial["params"] = {**trial["params"], "augment": HOSTILE[trial["number"] % 4], HOSTILE[1]: 1}
        trial |= {"worker": HOSTILE[0], "words": HOSTILE[1], "overrides": list(HOSTILE)}
    return Sweep(json.loads(json.dumps(record)))


@pytest.mark.slow
@pytest.mark.parametrize("which", ["one", "two", "hostile"])
@pytest.mark.parametrize(("width", "dark"), [(1280, False), (390, True)])
def test_a_browser_draws_every_chart(
    tab: browser.Tab, tmp_path: Path, sweep: Sweep, two: Sweep, which: str, width: int, dark: bool
) -> None:
    found = {"one": sweep, "two": two, "hostile": hostile()}[which]
    path = tmp_path / "report.html"
    html = sweep_report.render_sweep(found)
    path.write_text(html, encoding="utf-8")
    del tab.complaints[:], tab.requests[:]
    tab.show(path, width=width, dark=dark)
    assert tab.complaints == []
    assert [address for address in tab.requests if not address.startswith("data:")] == [path.resolve().as_uri()]
    assert tab.run("document.querySelectorAll('.chart').length") == len(Parsed(html).figures) >= 4
    drawn = "[...document.querySelectorAll('.chart')].every(c => c.querySelector('.trace, .point, .bars'))"
    assert tab.run(drawn) is True
    assert tab.run("document.documentElement.scrollWidth") <= width
    assert tab.run("document.querySelectorAll('.legendtext a, .annotation-text a').length") == 0
    assert tab.run("typeof window.alerted") == "undefined"
