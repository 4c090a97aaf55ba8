"""``ddtl compare``: what it prints and writes, how it names runs, and every mistake answered in a sentence."""

from __future__ import annotations

import io
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from ddtl.commands import compare
from ddtl.reports.comparison.runs import label
from ddtl.schema.scores import SCORES
from ddtl.utils import console
from ddtl.utils.errors import UserError
from tests.support.hospital import Hospital, answers, folder, good_and_poor

GOLDEN = Path(__file__).resolve().parents[1] / "golden"
FAST = "replicates=100"


@pytest.fixture
def printed(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    """What is printed on stdout, at a terminal of 100 columns."""
    stream = io.StringIO()
    monkeypatch.setattr(console, "out", Console(file=stream, width=100, soft_wrap=True, highlight=False, emoji=False))
    return stream


@pytest.fixture
def two(tmp_path: Path) -> tuple[Path, Path]:
    return good_and_poor(tmp_path)


def said(printed: io.StringIO) -> str:
    """In one line."""
    return " ".join(printed.getvalue().split())


def held(name: str, text: str) -> None:
    """Against the stored file; DDTL_RENEW_GOLDEN=1 writes it."""
    path = GOLDEN / name
    if os.environ.get("DDTL_RENEW_GOLDEN") == "1":
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")
    assert text == path.read_text(encoding="utf-8")


def test_the_comparison_of_two_runs_is_as_stored(
    two: tuple[Path, Path], tmp_path: Path, printed: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert compare.main(["good", "poor", "json=found.json", "markdown=found.md", "replicates=500"]) == 0
    held("compare.txt", "".join(f"{line.rstrip()}\n" for line in printed.getvalue().splitlines()))
    held("compare.md", Path("found.md").read_text(encoding="utf-8"))
    found = json.loads(Path("found.json").read_text(encoding="utf-8"), parse_float=lambda x: round(float(x), 6))
    held("compare.json", json.dumps(found, indent=2, ensure_ascii=False) + "\n")


def test_the_better_one_is_named_whichever_comes_first(two: tuple[Path, Path], printed: io.StringIO) -> None:
    compare.main([*map(str, two), FAST])
    compare.main([*map(str, reversed(two)), FAST])
    claims = [line for line in printed.getvalue().splitlines() if line.startswith("On these 95 patients")]
    assert len(claims) == 2
    assert claims[0] == claims[1]
    assert "this run of model.name=densenet121 is better than this run of model.name=squeezenet1_1 by 0." in claims[0]


def test_of_brier_scores_the_lower_is_better(two: tuple[Path, Path], printed: io.StringIO) -> None:
    compare.main([*map(str, two), "score=brier", FAST])
    better = "this run of model.name=densenet121 is better than this run of model.name=squeezenet1_1 by 0."
    assert better in printed.getvalue()
    assert "Brier score less (95 % interval 0." in printed.getvalue()


def test_where_nothing_may_be_claimed_it_says_what_could_have_been_shown(tmp_path: Path, printed: io.StringIO) -> None:
    hospital = Hospital(40)
    runs = [folder(tmp_path / f"run{i}", hospital.run(2), {"optimizer.lr": lr}) for i, lr in enumerate((1e-3, 1e-4))]
    compare.main([*map(str, runs), FAST, f"json={tmp_path / 'found.json'}"])
    (pair,) = json.loads((tmp_path / "found.json").read_text())["pairs"]
    claim = pair["claim"]
    between = "between this run of optimizer.lr=0.001 and this run of optimizer.lr=0.0001 may be claimed"
    assert f"no difference in ROC AUC {between}" in claim
    assert "the interval includes 0" in claim
    assert f"could have shown a difference of {pair['smallest_difference']:.3f} or more (power 80 %)" in claim
    assert claim in printed.getvalue()
    assert set(pair["differences"]) == set(SCORES)


def test_three_runs_are_adjusted_for_three_pairs(tmp_path: Path, printed: io.StringIO) -> None:
    hospital = Hospital(40)
    runs = [folder(tmp_path / f"r{i}", hospital.run(2), {"model.name": f"m{i}"}) for i in range(3)]
    compare.main([*map(str, runs), FAST])
    assert printed.getvalue().count("after Holm for 3 pairs") == 3


def test_of_many_pairs_the_equal_ones_are_told_together(tmp_path: Path, printed: io.StringIO) -> None:
    hospital = Hospital(60)
    separations = (5, 1, 1, 1)
    runs = [folder(tmp_path / f"r{i}", hospital.run(s), {"model.name": f"m{i}"}) for i, s in enumerate(separations)]
    compare.main([*map(str, runs), FAST, f"json={tmp_path / 'found.json'}"])
    pairs = json.loads((tmp_path / "found.json").read_text())["pairs"]
    assert [pair["claimed"] for pair in pairs] == [True, True, True, False, False, False]
    assert printed.getvalue().count("model.name=m0 is better than") == 3
    assert "No difference in ROC AUC may be claimed between the other 3 of 6 pairs." in said(printed)
    compare.main([*map(str, runs), FAST, "score=brier", "level=0.999999999"])
    assert "No difference in Brier score may be claimed between any of the 6 pairs." in said(printed)


@pytest.mark.parametrize("score", SCORES)
def test_a_model_is_never_better_than_itself(tmp_path: Path, printed: io.StringIO, score: str) -> None:
    run = Hospital(40).run(2)
    runs = [folder(tmp_path / f"r{i}", run, {"model.name": f"m{i}"}) for i in range(2)]
    compare.main([*map(str, runs), FAST, f"score={score}"])
    assert "between this run of model.name=m0 and this run of model.name=m1 may be claimed: " in printed.getvalue()


def test_a_score_that_is_not_defined_is_not_compared(tmp_path: Path, printed: io.StringIO) -> None:
    hospital = Hospital(40)
    runs = []
    for i in range(2):
        run = hospital.run(2)
        run.predictions.label[:] = 1
        runs.append(folder(tmp_path / f"r{i}", run, {"model.name": f"m{i}"}))
    compare.main([*map(str, runs), FAST])
    assert "may be claimed: it is not defined on them." in printed.getvalue()
    assert "–: no DeLong test, as" in said(printed)


def test_runs_that_differ_in_the_seed_alone_are_one_method(tmp_path: Path, printed: io.StringIO) -> None:
    hospital = Hospital(60)
    runs = []
    for name, separation in (("densenet121", 3), ("resnet18", 1)):
        for seed in (0, 1):
            of_the_run = {"seed": seed, "run.name": str(seed), "paths.runs_dir": str(seed), "logger.csv": bool(seed)}
            path = tmp_path / f"{name}{seed}"
            runs.append(folder(path, hospital.run(separation), {"model.name": name, **of_the_run}))
    compare.main([*map(str, runs), FAST, f"json={tmp_path / 'found.json'}"])
    found = json.loads((tmp_path / "found.json").read_text())
    assert [len(method["runs"]) for method in found["methods"]] == [2, 2]
    assert [method["name"] for method in found["methods"]] == ["model.name=densenet121", "model.name=resnet18"]
    assert found["pairs"][0]["claim"].startswith("Over 2 seeds each, on these 60 patients (")
    assert len(found["caveats"]) == 1
    assert found["caveats"][0].startswith("Two seeds show little")
    assert "two single runs" in said(printed)


def test_runs_of_one_method_are_compared_seed_by_seed(tmp_path: Path, printed: io.StringIO) -> None:
    hospital = Hospital(40)
    runs = [folder(tmp_path / f"s{seed}", hospital.run(2), {"seed": seed}) for seed in (0, 1)]
    compare.main([*map(str, runs), FAST])
    assert "between this run of seed=0 and this run of seed=1" in printed.getvalue()
    assert "differ in nothing but the seed" in printed.getvalue()


def test_the_same_method_and_seed_twice_are_two_by_their_folders(tmp_path: Path, printed: io.StringIO) -> None:
    hospital = Hospital(40)
    runs = [folder(tmp_path / name / "run", hospital.run(2)) for name in ("cpu", "gpu")]
    compare.main([*map(str, runs), FAST])
    assert "between this run of cpu/run and this run of gpu/run" in printed.getvalue()


def test_evaluations_of_runs_take_the_names_of_their_runs(tmp_path: Path, printed: io.StringIO) -> None:
    hospital = Hospital(40)
    evaluations = []
    for name, s in (("densenet121", 3), ("resnet18", 1)):
        home = folder(tmp_path / name, Hospital(20, seed=1).run(1), {"model.name": name})
        trained_on = {"dataset": "sarscov2ct", "protocol": "grouped", "run": name}
        evaluations.append(folder(home / "evaluations" / "covid19ct-official", hospital.run(s), trained_on=trained_on))
        (evaluations[-1] / "config.yaml").unlink()
    compare.main([*map(str, evaluations), FAST])
    assert "this run of model.name=densenet121 is better than this run of model.name=resnet18" in printed.getvalue()


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        ({"leaked_share": 0.34}, "leaky: 34 % of the test images have a patient in training"),
        (
            {"protocol": "random", "leaked_share": None, "grouping": "none"},
            "The split is leaky. The scores are optimistic",
        ),
        ({"test_use": 3}, "was test-set use number 3"),
        ({"look": 3}, "was test-set use number 3"),
    ],
)
def test_what_weakens_a_claim_is_said(
    tmp_path: Path, printed: io.StringIO, record: dict[str, Any], expected: str
) -> None:
    hospital = Hospital(40)
    runs = [folder(tmp_path / f"r{i}", hospital.run(2), {"model.name": f"m{i}"}, **record) for i in range(2)]
    compare.main([*map(str, runs), FAST])
    assert expected in printed.getvalue()


def test_thresholds_chosen_in_different_ways_are_told_where_they_count(tmp_path: Path, printed: io.StringIO) -> None:
    hospital = Hospital(40)
    rules = ("fixed", "youden")
    runs = [
        folder(
            tmp_path / rule, hospital.run(2), {"model.name": rule, "evaluation.threshold": rule}, threshold_rule=rule
        )
        for rule in rules
    ]
    compare.main([*map(str, runs), FAST])
    assert "not chosen alike" not in printed.getvalue()
    compare.main([*map(str, runs), FAST, "score=accuracy"])
    assert "not chosen alike (fixed at 0.5 and youden by image)" in printed.getvalue()


def test_a_sound_comparison_of_single_runs_warns_of_the_seed_alone(tmp_path: Path, printed: io.StringIO) -> None:
    hospital = Hospital(40)
    runs = [folder(tmp_path / f"r{i}", hospital.run(2), {"model.name": f"m{i}"}) for i in range(2)]
    compare.main([*map(str, runs), FAST])
    notes = [line for line in printed.getvalue().splitlines() if line.startswith("!")]
    assert len(notes) == 1
    assert "another seed" in notes[0]


def test_settings_that_a_name_does_not_tell_are_listed(tmp_path: Path, printed: io.StringIO) -> None:
    hospital = Hospital(40)
    runs = [
        folder(
            tmp_path / f"r{i}",
            hospital.run(2),
            {"model.name": f"m{i}", "optimizer.lr": i + 1, "evaluation.test": i == 0},
        )
        for i in range(2)
    ]
    compare.main([*map(str, runs), FAST])
    assert "The methods differ in optimizer.lr too" in printed.getvalue()


def test_validation_is_compared_where_it_is_asked_for(tmp_path: Path, printed: io.StringIO) -> None:
    hospital = Hospital(40)
    runs = []
    for i in range(2):
        run = hospital.run(2)
        run.predictions.split[:] = "val"
        runs.append(folder(tmp_path / f"r{i}", run, {"model.name": f"m{i}"}))
    compare.main([*map(str, runs), "split=val", FAST])
    assert "validation:" in printed.getvalue()
    assert "no result" in printed.getvalue()


def test_three_classes_are_compared_without_delong(tmp_path: Path, printed: io.StringIO) -> None:
    random = np.random.default_rng(0)
    labels = np.arange(90) % 3
    runs = [
        folder(
            tmp_path / f"r{s}",
            answers(
                labels, np.eye(3)[labels] * s + random.normal(size=(90, 3)), np.arange(90), classes=("x", "y", "z")
            ),
            {"model.name": f"m{s}"},
        )
        for s in (1, 3)
    ]
    compare.main([*map(str, runs), FAST])
    assert "DeLong's test is for two classes" in said(printed)
    assert "this run of model.name=m3 is better than this run of model.name=m1" in printed.getvalue()


def test_brackets_in_names_are_not_taken_for_colours(tmp_path: Path, printed: io.StringIO) -> None:
    hospital = Hospital(40)
    runs = [
        folder(tmp_path / f"r{i}", hospital.run(2), {"model.grayscale": f"[red{i}]"}, dataset="[red]x")
        for i in range(2)
    ]
    compare.main([*map(str, runs), FAST])
    assert "[red0]" in printed.getvalue()
    assert "[red]x" in printed.getvalue()


@pytest.mark.parametrize("width", [40, 80])
def test_a_narrow_terminal_loses_no_number(two: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, width: int) -> None:
    stream = io.StringIO()
    monkeypatch.setattr(console, "out", Console(file=stream, width=width, soft_wrap=True, highlight=False))
    compare.main([*map(str, two), FAST])
    assert "…" not in stream.getvalue()


def test_names_are_the_fewest_settings_that_tell_methods_apart() -> None:
    settings: list[dict[str, Any]] = [
        {"optimizer.lr": 1e-3, "model.name": "a", "finetune.name": "full"},
        {"optimizer.lr": 1e-4, "model.name": "b", "finetune.name": "full"},
    ]
    assert label(settings, ["x", "y"]) == (["model.name=a", "model.name=b"], ["optimizer.lr"])
    four = [{"model.name": m, "optimizer.lr": lr, "seed": 0} for m in "ab" for lr in (1, 2)]
    names, also = label(four, list("wxyz"))
    assert names == [f"model.name={m} optimizer.lr={lr}" for m in "ab" for lr in (1, 2)]
    assert also == []
    assert label([{}, {}], ["x", "y"]) == (["x", "y"], [])
    assert label([{"a": 1}, {}], ["x", "y"]) == (["a=1", "a=null"], [])


def test_a_run_without_a_configuration_is_named_by_its_folder(two: tuple[Path, Path], printed: io.StringIO) -> None:
    for run in two:
        (run / "config.yaml").unlink()
    compare.main([*map(str, two), FAST])
    assert "this run of good is better than this run of poor" in printed.getvalue()


def test_help_says_how(capsys: pytest.CaptureFixture[str]) -> None:
    for argv in (["--help"], ["a", "-h"]):
        assert compare.main(argv) == 0
        text = capsys.readouterr().out
        assert all(f"{key}=" in text for key in ("score", "level", "replicates", "split", "json", "markdown"))
        assert all(name in text for name in SCORES)


def test_the_design_of_a_run_is_that_of_its_record(tmp_path: Path, printed: io.StringIO) -> None:
    hospital = Hospital(40)
    interval = {
        "level": 0.95,
        "method": "default",
        "design": "cohort",
        "replicates": 2000,
        "unit": "patient",
        "assumes": ".",
    }
    runs = [
        folder(tmp_path / "a", hospital.run(2), {"optimizer.lr": 1e-3}, interval=interval),
        folder(tmp_path / "b", hospital.run(2), {"optimizer.lr": 1e-4}),
    ]
    with pytest.raises(UserError, match=r"evaluation\.design=cohort and .*evaluation\.design=case_control"):
        compare.main([*map(str, runs), FAST])
