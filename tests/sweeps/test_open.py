"""Opening a sweep: what is refused, what may change, and where a password may not be."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ddtl.sweeps.plan.settings import Plan
from ddtl.sweeps.store import open, storages
from ddtl.utils.errors import UserError
from tests.support.sweep_plans import ended, plan, states


def test_another_search_under_the_same_name_is_refused_with_what_differs(tmp_path: Path) -> None:
    ended(open.open_sweep(plan(tmp_path)))
    before = (tmp_path / "sweeps" / "small" / "journal.log").read_bytes()
    with pytest.raises(UserError, match=r"space\.optimizer\.lr: was .*0\.01.*, is .*0\.1(?s:.*)sweep\.name=") as no:
        open.open_sweep(plan(tmp_path, "search.space.optimizer.lr={float: [1e-5, 1e-1], log: true}", "trainer=cpu"))
    assert "seed" not in str(no.value)
    assert (tmp_path / "sweeps" / "small" / "journal.log").read_bytes() == before
    with pytest.raises(UserError, match=r"train\.optimizer\.weight_decay: was"):
        open.open_sweep(plan(tmp_path, "optimizer.weight_decay=0.3"))


def test_a_changed_plan_is_refused_even_where_only_the_journal_is_left(tmp_path: Path) -> None:
    store = open.open_sweep(plan(tmp_path))
    (store.folder / "plan.json").unlink()
    with pytest.raises(UserError, match="seed: was 0, is 1"):
        open.open_sweep(plan(tmp_path, "sweep.seed=1"))
    open.open_sweep(plan(tmp_path))
    assert (store.folder / "plan.json").exists()


def test_what_does_not_change_the_search_may_change(tmp_path: Path) -> None:
    ended(open.open_sweep(plan(tmp_path, "n_trials=1")))
    changed = ["n_trials=2", "finalize=false", "logger=none", "sweep.retries=9", "engine.workers=2"]
    assert list(ended(open.open_sweep(plan(tmp_path, *changed)))) == [1]


def test_a_joined_sweep_has_the_plan_of_the_command(tmp_path: Path) -> None:
    store = open.open_sweep(plan(tmp_path))
    assert open.reopen(store.folder).plan == store.plan


def test_no_sweep_is_no_sweep(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is not the folder of a sweep"):
        open.reopen(tmp_path)


def test_a_torn_journal_is_mended_and_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = open.open_sweep(plan(tmp_path))
    ended(store)
    with (store.folder / "journal.log").open("ab") as file:
        file.write(b'{"op_code":')
    after = open.open_sweep(plan(tmp_path, "n_trials=7"))
    assert "journal.torn" in capsys.readouterr().err
    assert list(ended(after)) == [6]


def sqlite(tmp_path: Path) -> str:
    return f"sweep.storage='sqlite:///{tmp_path / 'sweep.db'}'"


def test_sqlite_serves_one_worker(tmp_path: Path) -> None:
    store = open.open_sweep(plan(tmp_path, sqlite(tmp_path), "engine.workers=1"))
    ended(store)
    assert states(open.open_sweep(plan(tmp_path, sqlite(tmp_path), "engine.workers=1"))) == {"COMPLETE": 6}
    store.close()


@pytest.mark.parametrize("words", [["engine.workers=2"], ["engine=ray"]])
def test_sqlite_is_refused_for_several_with_the_reason(tmp_path: Path, words: list[str]) -> None:
    with pytest.raises(UserError, match=r"SQLite locks its whole file.*engine\.workers=1"):
        open.open_sweep(plan(tmp_path, sqlite(tmp_path), *words))
    assert not (tmp_path / "sweeps").exists()


@pytest.mark.parametrize(
    ("storage", "message"),
    [
        ("mysql://me:hush@host/db", "only postgresql"),
        ("postgresql//me:hush@host", "not a URL"),
        ("postgresql://me:hush@127.0.0.1:1/db", "cannot be opened"),
        ("postgresql://me@127.0.0.1:1/db?password=hush", "cannot be opened"),
    ],
)
def test_a_storage_that_does_not_do_is_refused_without_its_password(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], storage: str, message: str
) -> None:
    with pytest.raises(UserError, match=message) as refusal:
        open.open_sweep(plan(tmp_path, f"sweep.storage='{storage}'"))
    assert "hush" not in str(refusal.value)
    assert "hush" not in "".join(capsys.readouterr())
    for file in tmp_path.rglob("*"):
        assert file.is_dir() or "hush" not in file.read_text()


def test_the_password_may_stand_in_the_environment_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    secret = "postgresql://me:hush@host/db"
    monkeypatch.setenv(storages.VARIABLE, secret)
    assert storages.address("postgresql://me@host/db") == secret
    assert storages.address("postgresql://me@other/db") == "postgresql://me@other/db"
    assert storages.address(None) is None  # a journal stays a journal
    monkeypatch.delenv(storages.VARIABLE)
    assert storages.address("postgresql://me@host/db") == "postgresql://me@host/db"


def test_nothing_secret_is_kept_of_a_plan_with_a_password(tmp_path: Path) -> None:
    from ddtl.sweeps.plan import plan_file

    asked: Plan = plan(tmp_path, "sweep.storage='postgresql://me:hush@host/db'")
    kept = plan_file.without_password(asked)
    kept.folder.mkdir(parents=True)
    plan_file.write(kept)
    text = (kept.folder / plan_file.NAME).read_text()
    assert "hush" not in text + repr(kept)
    assert json.loads(text)["settings"]["sweep"]["storage"] == "postgresql://me@host/db"
