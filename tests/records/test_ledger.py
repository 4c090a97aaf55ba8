"""The ledger of test-set uses: what counts as a further use, and that none is lost."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ddtl.evaluation import test_use
from ddtl.records import test_ledger
from ddtl.records.test_ledger import Scoring, record_use
from ddtl.utils.errors import UserError
from ddtl.utils.reading import read_lines

HALF = test_ledger.deciding_settings({"threshold": 0.5})
YOUDEN = test_ledger.deciding_settings({"threshold": "youden"})


def use(runs_dir: Path, run: str = "a", **others: Any) -> test_ledger.TestUse:
    """Count a use of a test set."""
    kinds = {key: others.pop(key) for key in ("dataset", "protocol", "earlier", "known") if key in others}
    where = {"dataset": "toy", "protocol": "grouped"} | kinds
    scoring = Scoring(**{"run": run, "checkpoint": "epoch 1", "digest": "d", "decided": HALF} | others)
    return record_use(runs_dir, scoring=scoring, **where)


def numbers(*uses: test_ledger.TestUse) -> list[int]:
    return [one.number for one in uses]


def ledger_in(runs_dir: Path) -> Path:
    return runs_dir / "toy" / "test_looks_grouped.jsonl"


def test_each_scoring_is_a_use_and_the_same_one_is_the_same_use(tmp_path: Path) -> None:
    found = [
        use(tmp_path),
        use(tmp_path, "b"),
        use(tmp_path, checkpoint="epoch 2"),
        use(tmp_path, digest="another site"),
        use(tmp_path, decided=YOUDEN),
        use(tmp_path, decided=test_ledger.deciding_settings({"threshold": 0.5}, harmonize="match")),
        use(tmp_path, decided=test_ledger.deciding_settings({"threshold": 0.5, "batchnorm": "adapt"})),
        use(tmp_path, decided=test_ledger.deciding_settings({"threshold": 0.5}, refit=True)),
    ]
    assert numbers(*found) == [1, 2, 3, 4, 5, 6, 7, 8]
    assert numbers(use(tmp_path), use(tmp_path, "b"), use(tmp_path, decided=YOUDEN)) == [1, 2, 5]
    rows = read_lines(ledger_in(tmp_path))
    assert [row["use"] for row in rows] == [1, 2, 3, 4, 5, 6, 7, 8]
    assert rows[4]["decided"]["evaluation.threshold"] == "youden"
    assert all(row["when"].endswith("+00:00") for row in rows)


def test_a_use_says_what_was_decided_since_the_runs_last_one(tmp_path: Path) -> None:
    first = use(tmp_path)
    assert (first.changed, first.total, first.of_run) == ((), 1, 1)
    second = use(tmp_path, decided=YOUDEN, digest="e")
    assert second.changed == ("evaluation.threshold: was 0.5, is youden", "other images or another split")
    assert (second.total, second.of_run) == (2, 2)
    again = use(tmp_path)
    assert (again.number, again.total, again.of_run) == (1, 2, 2)
    assert not test_use.is_first(again.record()), "chosen again, after another one was seen"
    assert use(tmp_path, "b").of_run == 1


def test_each_dataset_and_protocol_is_counted_apart(tmp_path: Path) -> None:
    found = use(tmp_path), use(tmp_path, protocol="random"), use(tmp_path, dataset="another")
    assert numbers(*found) == [1, 1, 1]


def test_the_uses_of_a_dataset_by_protocol(tmp_path: Path) -> None:
    use(tmp_path)
    use(tmp_path, "b")
    use(tmp_path, protocol="kfold-1-of-5")
    use(tmp_path, dataset="another")
    assert test_ledger.uses_of(tmp_path, "toy") == {"grouped": 2, "kfold-1-of-5": 1}
    assert test_ledger.uses_of(tmp_path, "nothing here") == {}


def test_the_uses_by_a_run(tmp_path: Path) -> None:
    use(tmp_path, identity="x")
    use(tmp_path, identity="x", decided=YOUDEN)
    use(tmp_path, "b", identity="y")
    assert test_ledger.uses_by_run(tmp_path, "toy", "grouped", "renamed", "x") == 2
    assert test_ledger.uses_by_run(tmp_path, "toy", "grouped", "c", "z") == 0
    assert test_use.before({}) == ""
    assert "scored on it 2 times before" in test_use.before({test_use.BEFORE: 2})


def test_uses_under_other_protocols_of_the_dataset_are_named(tmp_path: Path) -> None:
    use(tmp_path)
    use(tmp_path, "b")
    fold = use(tmp_path, protocol="kfold-0-of-5")
    assert (fold.number, dict(fold.others)) == (1, {"grouped": 2})
    assert not test_use.is_first(fold.record())
    assert test_use.history(fold.record()) == (
        "This test set has been used once. These images were scored as test sets under other protocols or names "
        "before (grouped: 2)."
    )
    assert dict(use(tmp_path, protocol="kfold-1-of-5").others) == {"grouped": 2}, "another fold is no other protocol"
    assert dict(use(tmp_path, protocol="random", dataset="another").others) == {}


def test_the_same_images_under_another_name_of_the_dataset_are_no_fresh_test_set(tmp_path: Path) -> None:
    use(tmp_path, "a", dataset="mine", images="same")
    use(tmp_path, "b", dataset="mine", images="same")
    use(tmp_path, "b", dataset="mine", images="others")
    renamed = use(tmp_path, "c", dataset="renamed", digest="e", images="same")
    assert (renamed.number, renamed.others) == (1, {"mine, grouped": 2})
    record = {"dataset": "renamed", **renamed.record()}
    assert not test_use.is_first(record)
    assert "other protocols or names before (mine, grouped: 2)" in test_use.history(record)
    assert use(tmp_path, "c", dataset="fresh", images="fresh").others == {}
    assert use(tmp_path, "d", dataset="old").others == {}


def test_a_pool_and_its_sources_hold_one_use(tmp_path: Path) -> None:
    for dataset in ("source", "pooled"):
        found = use(tmp_path, "a", dataset=dataset, images="same")
    assert found.others == {}
    for dataset in ("source", "pooled"):
        found = use(tmp_path, "b", dataset=dataset, images="same")
    assert found.others == {}


def test_a_plan_over_several_protocols_is_no_use_under_another_one(tmp_path: Path) -> None:
    with test_ledger.count_as_one("study s 01"):
        found = [use(tmp_path, protocol=protocol) for protocol in ("random", "grouped")]
    assert all(test_use.is_first(one.record()) for one in found)


def test_a_use_cut_off_by_a_crash_was_none(tmp_path: Path) -> None:
    use(tmp_path)
    use(tmp_path, "b")
    path = ledger_in(tmp_path)
    path.write_bytes(path.read_bytes()[:-5])
    assert numbers(use(tmp_path, "c"), use(tmp_path, "b")) == [2, 3]
    assert [row["run"] for row in read_lines(path)] == ["a", "c", "b"]


def test_an_edited_ledger_without_its_last_line_break_keeps_all_uses(tmp_path: Path) -> None:
    use(tmp_path)
    use(tmp_path, "b")
    path = ledger_in(tmp_path)
    path.write_bytes(path.read_bytes()[:-1])
    assert numbers(use(tmp_path, "c"), use(tmp_path, "b")) == [3, 2]


@pytest.mark.parametrize("line", ["{damaged", "[]", "{}", '{"use": "x", "run": "b"}'])
def test_a_damaged_line_counts_as_a_use_and_is_named(
    line: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    use(tmp_path)
    path = ledger_in(tmp_path)
    path.write_text(path.read_text() + line + "\n")
    assert use(tmp_path, "c").number == 3
    assert f"{path}, line 2 is damaged. It is counted as one use" in caplog.text
    assert line in path.read_text(), "nothing is taken out of a ledger"


def test_an_earlier_versions_ledger_resumes(tmp_path: Path) -> None:
    path = ledger_in(tmp_path)
    path.parent.mkdir()
    rows = [{"look": n, "when": "2026-01-01T00:00:00+00:00", "run": run, "checkpoint": "epoch 1", "digest": "d"}
            for n, run in enumerate("ab", start=1)]  # fmt: skip
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    record = {"look": 2, "digest": "d", "evaluation": {"threshold": 0.5}}
    same = use(tmp_path, "b", earlier=record, known=[record], identity="its identity")
    assert (same.number, same.total) == (2, 2)
    assert use(tmp_path, "b").number == 2, "killed before its record was written"
    other = use(tmp_path, "b", earlier=record, known=[record], decided=YOUDEN)
    assert (other.number, other.changed) == (3, ("evaluation.threshold: was 0.5, is youden",))
    assert (test_use.number(record), test_use.number({"test_use": 3}), test_use.number({})) == (2, 3, None)


def test_an_earlier_versions_scoring_is_remembered_when_its_record_is_replaced(tmp_path: Path) -> None:
    path = ledger_in(tmp_path)
    path.parent.mkdir()
    path.write_text(json.dumps({"look": 1, "run": "b", "checkpoint": "epoch 1", "digest": "d"}) + "\n")
    record: dict[str, Any] = {"look": 1, "digest": "d", "evaluation": {"threshold": 0.5}}
    full = {
        "target": None,
        "patient": "mean",
        "interval": "default",
        "level": 0.95,
        "replicates": 2000,
        "design": "case_control",
    }
    found = []
    for rule in ("youden", "youden", 0.5, 0.5, "youden", 0.3, "youden", 0.5):
        settings = {"threshold": rule, **full}
        decided = test_ledger.deciding_settings(settings)
        one = use(tmp_path, "b", earlier=record, known=[record], identity="its identity", decided=decided)
        record = {**one.record(), "digest": "d", "evaluation": settings}  # as `ddtl evaluate` replaces it
        found.append((one.number, one.changed))
    to_youden, to_half = ("evaluation.threshold: was 0.5, is youden",), ("evaluation.threshold: was youden, is 0.5",)
    third = "evaluation.threshold: was youden, is 0.3"
    assert found == [
        (2, to_youden),
        (2, to_youden),
        (1, to_half),
        (1, to_half),
        (2, to_youden),
        (3, (third,)),
        (2, ("evaluation.threshold: was 0.3, is youden",)),
        (1, ("evaluation.threshold: was 0.3, is 0.5",)),
    ]
    assert len(read_lines(path)) == 3


def test_a_setting_that_an_earlier_row_lacks_had_its_default(tmp_path: Path) -> None:
    use(tmp_path)
    later = {"threshold": 0.5, "patient": "mean", "target": None, "batchnorm": "stored"}
    assert use(tmp_path, decided=test_ledger.deciding_settings(later)).number == 1
    other = use(tmp_path, decided=test_ledger.deciding_settings({**later, "batchnorm": "adapt"}))
    assert (other.number, other.changed) == (2, ("evaluation.batchnorm: was stored, is adapt",))


def test_a_renamed_run_is_the_same_and_another_run_of_its_name_is_not(tmp_path: Path) -> None:
    use(tmp_path, "mine", identity="x")
    assert use(tmp_path, "renamed", identity="x").number == 1
    assert use(tmp_path, "mine", identity="y").number == 2, "trained again with other settings under the same name"


def test_a_run_that_was_copied_elsewhere_keeps_its_count(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    record = {"test_use": 4, "digest": "d", "evaluation": {"threshold": 0.5}}
    same = use(tmp_path, earlier=record, known=[record])
    assert (same.number, same.total) == (4, 4)
    assert "contains 0 uses of this test set, the run's own records 4" in caplog.text
    assert same.warnings
    other = use(tmp_path, earlier=record, known=[record], decided=YOUDEN)
    assert (other.number, other.warnings) == (5, ())


def test_a_copy_in_another_runs_folder_keeps_the_whole_history(tmp_path: Path) -> None:
    before, after = tmp_path / "before", tmp_path / "after"
    use(before)
    use(before, "b")
    use(before, decided=YOUDEN)
    again = use(before)
    assert (again.number, again.total, again.of_run) == (1, 3, 2)
    record = {**again.record(), "digest": "d", "evaluation": {"threshold": 0.5}}
    copied = use(after, earlier=record, known=[record])
    assert copied.record() == again.record()
    assert not test_use.is_first(copied.record())
    other = use(after, earlier=record, known=[record], decided=test_ledger.deciding_settings({"threshold": 0.3}))
    assert (other.number, other.total, other.of_run) == (4, 4, 3)
    assert other.changed == ("evaluation.threshold: was 0.5, is 0.3",)
    assert use(after, "b").number == 5


def test_the_first_scoring_of_a_copy_names_what_it_changed(tmp_path: Path) -> None:
    record = {**use(tmp_path / "before").record(), "digest": "d", "evaluation": {"threshold": 0.5}}
    copied = use(tmp_path / "after", earlier=record, known=[record], decided=YOUDEN)
    assert (copied.number, copied.total, copied.of_run) == (2, 2, 2)
    assert copied.changed == ("evaluation.threshold: was 0.5, is youden",)


def test_planned_uses_count_as_one(tmp_path: Path) -> None:
    assert use(tmp_path, "by hand").number == 1
    with test_ledger.count_as_one("study s 01"):
        planned = [use(tmp_path, name) for name in ("b", "c", "d")]
    assert numbers(*planned) == [2, 2, 2]
    assert [one.total for one in planned] == [2, 2, 2]
    assert use(tmp_path, "e").number == 3
    with test_ledger.count_as_one("study s 01"):
        assert use(tmp_path, "late, resumed").number == 2
    with test_ledger.count_as_one("study t 02"):
        assert use(tmp_path, "f").number == 4
    assert test_ledger.is_used(tmp_path, "study s 01")
    assert not test_ledger.is_used(tmp_path, "study s 0")
    assert use(tmp_path, "c").planned == "study s 01"
    assert test_use.label(planned[0].record()) == "test-set use number 2 (one planned use: study s 01)"


def test_the_first_plan_leaves_the_test_set_untouched(tmp_path: Path) -> None:
    with test_ledger.count_as_one("study s 01"):
        found = [use(tmp_path, name) for name in ("b", "c")]
    assert all(test_use.is_first(one.record()) for one in found)


def test_a_run_scored_otherwise_within_a_plan_is_not_its_first_scoring(tmp_path: Path) -> None:
    with test_ledger.count_as_one("study s 01"):
        first, second = use(tmp_path), use(tmp_path, decided=YOUDEN)
    assert (second.number, second.total) == (1, 1)
    assert (test_use.is_first(first.record()), test_use.is_first(second.record())) == (True, False)
    assert test_use.history(second.record()) == (
        "This test set has been used once. This run was scored on it before with other settings: "
        "evaluation.threshold: was 0.5, is youden."
    )


def test_a_ledger_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    ledger_in(tmp_path).mkdir(parents=True)
    for refused in (lambda: use(tmp_path), lambda: test_ledger.check_writable(tmp_path, "toy", "grouped")):
        with pytest.raises(
            UserError, match=r"test_looks_grouped.jsonl: this use of the test set cannot be written down"
        ):
            refused()


WRITER = """
import sys
from pathlib import Path
from ddtl.records.test_ledger import Scoring, record_use
for i in range(20):
    print(record_use(Path(sys.argv[1]), "toy", "grouped", Scoring(sys.argv[2], f"epoch {i}", "d")).number)
"""


def test_processes_at_once_never_share_a_number_or_lose_a_line(tmp_path: Path) -> None:
    writers = [
        subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path), f"run {i}"], stdout=subprocess.PIPE, text=True)
        for i in range(4)
    ]
    found = [int(line) for writer in writers for line in writer.communicate()[0].splitlines()]
    assert sorted(found) == list(range(1, 81))
    assert [row["use"] for row in read_lines(ledger_in(tmp_path))] == list(range(1, 81))


def test_the_ledger_does_without_torch() -> None:
    code = (
        "import sys, ddtl.records.test_ledger, ddtl.records.run_folder, ddtl.records.identity; "
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_line_that_was_removed_is_noticed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for run in ("a", "b", "c", "d"):
        assert not use(tmp_path, run).warnings
    path = ledger_in(tmp_path)
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:1] + lines[2:]))
    found = use(tmp_path, "e")
    assert (found.number, found.total) == (5, 5)
    assert len(found.warnings) == 1
    assert "was edited: line 2 was written as line 3" in found.warnings[0]
    assert found.warnings[0] in caplog.text


def test_a_row_of_an_earlier_version_knows_no_place(tmp_path: Path) -> None:
    use(tmp_path, "a")
    path = ledger_in(tmp_path)
    row = {key: value for key, value in json.loads(path.read_text()).items() if key != "line"}
    path.write_text(json.dumps(row) + "\n")
    assert not use(tmp_path, "b").warnings
    assert not use(tmp_path, "a").warnings
