"""What a record must be: the refusal names file and key, a bad record costs its row alone, and paths are claims."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from ddtl.commands import cli
from ddtl.config.load import load
from ddtl.dashboard import server
from ddtl.dashboard.index import Index
from ddtl.data.download import claims
from ddtl.records import epochs, journal, plan, run, settings, small, study, sweep
from ddtl.records.checking import inside
from ddtl.utils.errors import Unwritable, UserError
from ddtl.utils.files import write_json
from ddtl.utils.reading import Unreadable, read_bytes
from tests.support import records, study_records, sweep_records

SECRET = "S3CRET"


@pytest.fixture(scope="module")
def whole() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(json.dumps(records.record(records.table())))
    return found


def refused(record: dict[str, Any], change: Callable[[dict[str, Any]], object]) -> str:
    changed = json.loads(json.dumps(record))
    change(changed)
    with pytest.raises(Unreadable) as error:
        run.check_record(Path("RUN/results.json"), changed)
    return str(error.value)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (
            lambda r: r["test"]["intervals"]["roc_auc"].update(low="high"),
            "test.intervals.roc_auc.low should be a number",
        ),
        (lambda r: r["test"]["intervals"]["roc_auc"].update(low=True), "test.intervals.roc_auc.low should be a number"),
        (lambda r: r["test"].update(images="7"), "test.images should be a whole number"),
        (lambda r: r["test"].update(images=7.0), "test.images should be a whole number"),
        (lambda r: r["test"].update(images=-1), "test.images should be at least 0"),
        (lambda r: r["test"].update(roc_auc=7), "test.roc_auc should be at most 2"),
        (lambda r: r["test"].pop("brier"), "test.brier is missing"),
        (lambda r: r.update(threshold=None), "threshold should be a number"),
        (lambda r: r.update(dataset="../../x"), "dataset should be the name of a folder, without a path"),
        (lambda r: r.update(classes=["a", "a"]), "classes should be different names"),
        (lambda r: r.update(positive=SECRET), "positive should be the second of two classes"),
        (lambda r: r.update(grouping=SECRET), "grouping should be 'patient', 'near_duplicate' or 'none'"),
        (lambda r: r.pop("splits"), "splits is missing"),
        (lambda r: r["splits"].update({SECRET: r["splits"]["train"]}), "splits should be train, val and test"),
        (lambda r: (r.pop("test"), r.pop("val")), "test is missing, and so is val"),
        (lambda r: r["test"]["patients"].pop("aggregation"), "test.patients.aggregation is missing"),
        (lambda r: r["warnings"].append(1), "warnings[1] should be text"),
        (lambda r: r["test"].update(classes={SECRET: "x"}), "test.classes.… should be a whole number"),
    ],
)
def test_the_key_that_is_wrong_is_named_and_never_its_content(
    whole: dict[str, Any], change: Callable[[dict[str, Any]], object], says: str
) -> None:
    message = refused(whole, change)
    assert message.startswith(f"RUN/results.json: {says}")
    assert message.endswith("it scores again, without training.")
    assert SECRET not in message


def test_further_keys_and_what_earlier_versions_did_not_write_are_no_fault(whole: dict[str, Any]) -> None:
    older = {key: value for key, value in whole.items() if key not in ("calibration", "interval", "baselines", "look")}
    for record in (whole, {**whole, "of_a_later_version": [1]}, older):
        assert run.check_record(Path("results.json"), record) == record


def test_three_classes_have_a_matrix() -> None:
    record = json.loads(json.dumps(records.record(records.table(("a", "b", "c")))))
    assert run.check_record(Path("results.json"), record) == record
    record["test"]["confusion"]["counts"].pop()
    with pytest.raises(Unreadable, match=r"test\.confusion\.counts should be a row of counts for each class"):
        run.check_record(Path("results.json"), record)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda r: r["trials"][0].update(state="done"), r"trials\[0\]\.state should be 'complete', 'pruned'"),
        (lambda r: r["trials"][0].update(number=1), "trials should have different numbers"),
        (lambda r: r["trials"][3]["curve"].append([1]), r"curve\[\d+\] should be an epoch and a number"),
        (lambda r: r["trials"][0].update(values=[]), r"trials\[0\]\.values should contain a number for each objective"),
        (lambda r: r["trials"][0]["params"].update({"optimizer.lr": -1.0}), "should be values of what was searched"),
        (
            lambda r: r["identity"].update({"space.optimizer.lr": {"float": [1, 0]}}),
            "should be a range, positive where",
        ),
        (lambda r: r.update(ended="yesterday"), "ended should be a time in ISO 8601"),
        (lambda r: r.update(directions=[]), "directions should have 1 or more entries"),
        (lambda r: r["final"]["comparison"].update(pairs=[]), "final.comparison.pairs should have 1 or more entries"),
    ],
)
def test_a_sweep(tmp_path: Path, change: Callable[[dict[str, Any]], object], says: str) -> None:
    record = json.loads(json.dumps(sweep_records.record(12, final=sweep_records.final())))
    write_json(tmp_path / "sweep.json", record)
    assert sweep.read(tmp_path) == record
    change(record)
    write_json(tmp_path / "sweep.json", record)
    with pytest.raises(Unreadable, match=says):
        sweep.read(tmp_path)


@pytest.mark.parametrize("folder", ["../../x", "/etc", "a/../../x", "", "a\\..\\b"])
def test_a_study_names_no_folder_outside(tmp_path: Path, folder: str) -> None:
    job = study_records.run(tmp_path / "runs", "alpha", 0, {})
    made = study_records.study(tmp_path / "runs", "cross_dataset", [job])
    assert study.read(made)["jobs"][0]["run"] == job["run"]
    job["evaluations"][0]["folder"] = folder
    write_json(made / "study.json", {**study.read(made), "jobs": [job]})
    with pytest.raises(Unreadable, match=r"jobs\[0\]\.evaluations\[0\]\.folder should be a path within its folder"):
        study.read(made)


def test_a_link_out_of_the_folder_is_not_followed(tmp_path: Path) -> None:
    home = tmp_path / "home"
    (home / "in").mkdir(parents=True)
    (home / "out").symlink_to(tmp_path)
    (home / "loop").symlink_to("loop")
    assert inside(home, "in/x") == home / "in" / "x"
    assert inside(home, "loop") == home / "loop"
    with pytest.raises(Unreadable, match="leads out of"):
        inside(home, "out/x")


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ({"op_code": 99}, "op_code is none that ddtl knows"),
        ({"op_code": True}, "op_code is none that ddtl knows"),
        ({"op_code": 4, "study_id": 3, "datetime_start": None}, "study_id is that of no study"),
        (
            {"op_code": 7, "trial_id": 0, "step": "x", "intermediate_value": 1.0},
            "step should be the number of an epoch",
        ),
        ({"op_code": 6, "trial_id": 0, "state": 9, "values": None}, "state is none of Optuna's"),
        ({"op_code": 6, "trial_id": 0, "state": 1, "values": ["x"]}, "values should be numbers"),
        ({"op_code": 8, "trial_id": 0, "user_attr": {"owner": []}}, r"user_attr\.owner is not what ddtl writes"),
        (
            {"op_code": 8, "trial_id": 0, "user_attr": {"attempts": [{}]}},
            r"user_attr\.attempts is not what ddtl writes",
        ),
        ({"op_code": 5, "trial_id": 0, "param_name": "x", "distribution": "{}"}, "distribution is none of Optuna's"),
    ],
)
def test_a_line_of_a_journal_that_optuna_cannot_replay_is_named(
    tmp_path: Path, line: dict[str, Any], says: str
) -> None:
    before: list[dict[str, Any]] = [
        {"op_code": 0, "worker_id": "w", "study_name": "s", "directions": [2]},
        {"op_code": 4, "worker_id": "w", "study_id": 0, "datetime_start": "2026-11-29T05:02:09+00:00"},
        {"op_code": 7, "worker_id": "w", "trial_id": 0, "step": 0, "intermediate_value": float("inf")},
    ]
    path = tmp_path / "journal.log"
    path.write_text("".join(json.dumps(one) + "\n" for one in before))
    journal.check(path)
    with path.open("a") as file:
        file.write(json.dumps({"worker_id": "w", **line}) + "\n")
    with pytest.raises(Unreadable, match=f"line 4: {says}"):
        journal.check(path)
    journal.check(tmp_path / "none.log")


def test_a_plan_that_is_no_plan_is_refused_before_a_sweep_resumes(tmp_path: Path) -> None:
    (tmp_path / "plan.json").write_text("[]")
    with pytest.raises(
        Unreadable, match=r"plan\.json: is damaged, no JSON object\. Delete it; the command of the sweep"
    ):
        plan.read(tmp_path)
    assert plan.read(tmp_path / "none") is None


def test_reading_a_small_file_takes_no_room_for_the_limit(tmp_path: Path) -> None:
    import tracemalloc

    (tmp_path / "a").write_bytes(b"x" * 1000)
    tracemalloc.start()
    assert len(read_bytes(tmp_path / "a", 1 << 33)) == 1000
    assert tracemalloc.get_traced_memory()[1] < 1 << 20
    tracemalloc.stop()


# ---- a bad record costs its row alone


def _surrogate(folder: Path) -> None:
    (folder / "results.json").write_text('{"dataset": "\\ud800"}')


def _fifo(folder: Path) -> None:
    (folder / "results.json").unlink()
    os.mkfifo(folder / "results.json")


def _loop(folder: Path) -> None:
    (folder / "results.json").unlink()
    (folder / "results.json").symlink_to("results.json")


def _nan(folder: Path) -> None:
    results = json.loads((folder / "results.json").read_text())
    results["test"]["patients"]["roc_auc"] = float("nan")
    (folder / "results.json").write_text(json.dumps(results))


def _deep(folder: Path) -> None:
    (folder / "identity.json").write_text("[" * 100_000)


def _epochs(folder: Path) -> None:
    (folder / "metrics.jsonl").unlink()
    (folder / "metrics.jsonl").mkdir()


def _latin(folder: Path) -> None:
    os.rename(os.fsencode(folder), os.fsencode(folder.parent) + b"/b\xe9d")


HOSTILE = (_surrogate, _fifo, _loop, _nan, _deep, _epochs, _latin)


@pytest.mark.parametrize("damage", HOSTILE, ids=[one.__name__ for one in HOSTILE])
def test_a_bad_record_costs_its_row_alone(
    tmp_path: Path, damage: Callable[[Path], None], capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("good", "bad"):
        records.write(tmp_path / "covid19ct" / name)
    damage(tmp_path / "covid19ct" / "bad")
    rows = json.loads(server.CachedRows(tmp_path).now()[1])["rows"]
    states = {row["name"]: row["state"] for row in rows}
    assert states.pop("good") == "finished"
    assert list(states.values()) == ["broken"]
    (broken,) = (row for row in rows if row["state"] == "broken")
    assert broken["note"]
    assert "\n" not in broken["note"]
    assert cli.main(["runs", "list", f"paths.runs_dir={tmp_path}"]) == 0
    assert "broken" in capsys.readouterr().out
    assert cli.main(["runs", "clean", "broken", "yes=true", f"paths.runs_dir={tmp_path}"]) == 0
    assert (tmp_path / "covid19ct" / "good").is_dir()


@pytest.mark.parametrize(
    "owner",
    ["[]", '{"pid": 1e400}', '{"pid": 99999999999999999999, "host": "x"}', '{"pid": -1, "host": "x"}', '"x"', "{"],
)
def test_an_owner_of_odd_shape_is_none(tmp_path: Path, owner: str) -> None:
    records.write(tmp_path / "covid19ct" / "run")
    (tmp_path / "covid19ct" / "run" / "results.json").unlink()
    write_json(tmp_path / "covid19ct" / "run" / "identity.json", {"seed": 1})
    (tmp_path / "covid19ct" / "run" / ".owner.json").write_text(owner)
    assert small.owner(tmp_path / "covid19ct" / "run" / ".owner.json") is None
    assert [row.state for row in Index(tmp_path).rows()] == ["stopped"]


def test_a_long_training_is_read_from_its_end(tmp_path: Path) -> None:
    folder = tmp_path / "covid19ct" / "long"
    records.write(folder)
    (folder / "results.json").unlink()
    write_json(folder / "identity.json", {"trainer.monitor": "val/roc_auc", "trainer.max_epochs": 50_000})
    with (folder / "metrics.jsonl").open("w") as file:
        for epoch in range(40_000):
            file.write(
                json.dumps({"epoch": epoch, "val/roc_auc": 0.9 if epoch == 5 else 0.5, "more": "x" * 200}) + "\n"
            )
    assert (folder / "metrics.jsonl").stat().st_size > 2 * epochs.TAIL
    (row,) = Index(tmp_path).rows()
    assert (row.epoch, row.epochs) == (40_000, 50_000)
    assert row.best is None, "the best epoch is before what was read"
    assert epochs.last(folder)[-1]["epoch"] == 39_999
    assert len(epochs.last(folder)) < 30_000


# ---- what a record says of other paths is a claim


def _stored(folder: Path, *words: str) -> Path:
    """A run whose config.yaml names files."""
    records.write(folder)
    config = load([*words]).model_dump(mode="json")
    (folder / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    return folder


def test_a_stored_configuration_shows_nothing_of_a_file_that_it_names(tmp_path: Path) -> None:
    table = tmp_path / "private.csv"
    table.write_text(f"path,label,{SECRET}\nx.png,{SECRET}\n")
    folder = _stored(tmp_path / "run", "dataset=table", f"dataset.table={table}", "dataset.name=mine")
    config = settings.config(folder)
    from ddtl.data.loading.datamodule import CTDataModule

    with pytest.raises(UserError) as error, claims.named_by(folder / "config.yaml", config.dataset):
        CTDataModule(config).load()
    message = str(error.value)
    assert SECRET not in message
    assert message.startswith(f"{folder / 'config.yaml'} names dataset.table={table}. ")
    assert message.endswith(f"this says what is wrong with them: ddtl audit dataset=table dataset.table={table}")
    with pytest.raises(UserError, match=SECRET):
        CTDataModule(config).load()  # named by its owner
    table.unlink()
    with pytest.raises(Unwritable, match="no room"), claims.named_by(Path("x"), config.dataset):
        raise Unwritable("no room")
    with pytest.raises(UserError, match="is not on this machine"), claims.named_by(Path("x"), config.dataset):
        CTDataModule(config).load()


def test_config_yaml_says_which_key_is_wrong_and_nothing_else(tmp_path: Path) -> None:
    folder = _stored(tmp_path / "run", "dataset=covid19ct")
    whole = yaml.safe_load((folder / "config.yaml").read_text())
    assert settings.config(folder).seed == 0
    for change, says in (
        ({"seed": SECRET}, "seed should be a whole number"),
        ({SECRET: 1}, "contains a key that this version of ddtl does not know"),
        ({"model": {**whole["model"], "name": SECRET}}, "model.name is none that this version of ddtl knows"),
        ({"dataset": {**whole["dataset"], "name": "../x"}}, "dataset.name is none"),
        ({"dataset": None}, "dataset should be an object"),
    ):
        (folder / "config.yaml").write_text(yaml.safe_dump({**whole, **change}))
        with pytest.raises(Unreadable) as error:
            settings.config(folder)
        assert says in str(error.value)
        assert SECRET not in str(error.value)
    (folder / "config.yaml").write_text("a: &a [1]\nb: *a\n")
    with pytest.raises(Unreadable, match="contains YAML aliases"):
        settings.config(folder)


def test_checkpoints_outside_of_the_runs_folder_are_not_deleted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from types import SimpleNamespace

    from ddtl.sweeps.workers import cleanup

    monkeypatch.setattr(
        cleanup, "losers", lambda store: [tmp_path / "elsewhere" / "run", tmp_path / "runs" / "d" / "run"]
    )
    for folder in cleanup.losers(None):  # type: ignore[arg-type]
        (folder / "checkpoints").mkdir(parents=True)
        (folder / "checkpoints" / "last.ckpt").touch()
        (folder / "identity.json").write_text("{}")
    plan_ = SimpleNamespace(base=SimpleNamespace(paths=SimpleNamespace(runs_dir=str(tmp_path / "runs"))))
    study_ = SimpleNamespace(user_attrs={"sessions": ["2000-01-01T00:00:00+00:00"]})
    cleanup.tidy(SimpleNamespace(plan=plan_, study=study_))  # type: ignore[arg-type]
    assert (tmp_path / "elsewhere" / "run" / "checkpoints" / "last.ckpt").exists()
    assert not (tmp_path / "runs" / "d" / "run" / "checkpoints" / "last.ckpt").exists()


def test_a_stored_phantom_is_drawn_only_where_that_is_quick_or_done(tmp_path: Path) -> None:
    from ddtl.data.phantom.dataset import drawn_into
    from ddtl.data.phantom.render import PhantomSpec

    def asks(*words: str) -> Any:
        return settings.config(
            _stored(tmp_path / "run", "dataset=phantom", f"paths.cache_dir={tmp_path / 'c'}", *words)
        )

    claims.require_drawable(tmp_path / "config.yaml", asks())
    for word in ("dataset.phantom.n_patients=100000", "dataset.phantom.size=4096"):
        config = asks(word)
        with pytest.raises(UserError) as error:
            claims.require_drawable(tmp_path / "config.yaml", config)
        assert str(error.value).startswith(f"{tmp_path / 'config.yaml'} requests ")
        assert "ddtl audit phantom " in str(error.value)
        assert word in str(error.value)
        assert not (tmp_path / "c").exists()
    spec = PhantomSpec(**config.dataset.phantom.model_dump())
    drawn_into(spec, tmp_path / "c").parent.mkdir(parents=True)
    drawn_into(spec, tmp_path / "c").touch()
    claims.require_drawable(tmp_path / "config.yaml", config)


def test_a_list_of_a_record_may_hold_anything() -> None:
    from ddtl.records.checking import Record

    value = {"mixed": [[1.5], 2.5, {"a": 1}, None, "x"], "plain": [1, 2], "none": []}
    found = Record.of(value, (Path("r.json"), ""))
    assert found == value
    assert isinstance(found["mixed"][2], Record)


def test_a_key_that_a_record_lacks_is_one_line(tmp_path: Path) -> None:
    from ddtl.records.checking import MissingKey, Record

    found = Record.of({"a": [{"b": {}}], "x" * 50: {}}, (tmp_path / "r.json", "Delete it."))
    with pytest.raises(MissingKey, match=r"r\.json: a\.0\.b\.c is missing\. Delete it\.$"):
        found["a"][0]["b"]["c"]
    with pytest.raises(UserError, match=r"r\.json: …\.c is missing"):
        found["x" * 50]["c"]
    with pytest.raises(KeyError):
        found["d"]
    assert found.get("d") is None
    assert "d" not in found
    assert yaml.safe_load(yaml.safe_dump(found["a"])) == [{"b": {}}]
    assert json.loads(json.dumps(found)) == found
