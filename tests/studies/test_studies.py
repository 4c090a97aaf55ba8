"""Studies: what each kind consists of, and that nothing is done twice, wherever a call was ended."""

from __future__ import annotations

import errno
import hashlib
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from filelock import FileLock

from ddtl.config import load
from ddtl.config.load import ConfigError
from ddtl.records import study_folder, test_ledger
from ddtl.records.run_folder import RunFolder
from ddtl.studies import execute, settings
from ddtl.studies.definitions import TESTED
from ddtl.studies.finished_work import FinishedWork
from ddtl.studies.settings import StudyPlan
from ddtl.sweeps.store import outcome
from ddtl.sweeps.store.snapshot import Snapshot
from ddtl.sweeps.store.store import Store
from ddtl.training import rescore
from ddtl.training.identity import scoring
from ddtl.utils.errors import Stopped, UserError
from ddtl.utils.files import write_json
from ddtl.utils.reading import read_lines
from tests.support import fork_server, records

ROOT = Path(__file__).resolve().parents[2]
TWO = ("study=cross_dataset", "study.datasets=[phantom:a,phantom:b]", "study.seeds=2")


def labels(plan: StudyPlan, *axes: str) -> list[tuple[Any, ...]]:
    return [tuple(each[axis] for axis in axes) for each in plan.labels]  # type: ignore[literal-required]


def targets(plan: StudyPlan, row: int) -> dict[str, str]:
    return {target.name: " ".join(target.words) for target in plan.jobs[row].targets}


# --- what a study consists of -----------------------------------------------------------------------------------------


def test_every_dataset_is_a_source_and_the_target_of_all_others():
    plan = settings.read(["study=cross_dataset", "study.seeds=2", "seed=7", "trainer.max_epochs=3"])
    assert labels(plan, "source", "seed", "method", "protocol", "schedule", "fold", "patients") == [
        (source, seed, "plain", "grouped", "lp_ft", None, None)
        for seed in (7, 8)
        for source in ("covid19ct", "sarscov2ct")
    ]
    assert plan.jobs[0].overrides == (
        "dataset=covid19ct", "seed=7", "trainer.max_epochs=3", "dataset.protocol=grouped", TESTED
    )  # fmt: skip
    assert targets(plan, 0) == {
        "covid19ct": "",
        "sarscov2ct": "dataset=sarscov2ct dataset.protocol=grouped evaluation.refit=true",
    }
    assert (plan.name, plan.folder) == ("cross_dataset-covid19ct-sarscov2ct", Path("runs/studies") / plan.name)
    assert [config.seed for config in plan.configs] == [7, 7, 8, 8]


def test_words_about_the_phantom_reach_the_phantom_alone():
    words = ["study=cross_dataset", "study.datasets=[phantom:b,covid19ct]", "study.seeds=1", "dataset.phantom.gap=grey"]
    b, covid = settings.read(words).jobs
    assert "dataset.phantom.gap=grey" in b.overrides
    assert "dataset.phantom.gap=grey" not in " ".join(covid.overrides)
    assert "dataset.phantom.gap=grey" in covid.targets[1].words
    assert "dataset.phantom.gap=grey" not in b.targets[1].words


def test_an_own_dataset_joins_by_its_declaration(tmp_path):
    own = f"study.own={{third: {{root: '{tmp_path}', patient_regex: '(P\\d+)_'}}}}"
    words = ["study=cross_dataset", "study.datasets=[covid19ct,third]", own, "study.seeds=1", "study.pooled=true"]
    plan = settings.read(words)
    third, pool = plan.configs[1].dataset, plan.configs[2].dataset
    assert (third.kind, third.name, third.root, third.patient_regex) == ("folder", "third", str(tmp_path), r"(P\d+)_")
    assert labels(plan, "source")[1:] == [("third",), ("covid19ct+third",)]
    assert pool.sources == ("covid19ct", "third")
    assert pool.own is not None
    assert pool.own["third"].patient_regex == r"(P\d+)_"
    asked = rescore.read_request(plan.configs[0], plan.jobs[0].targets[1].words).config
    assert asked.dataset.root == str(tmp_path)


def test_from_three_datasets_on_each_is_left_out_once():
    three = ["study=cross_dataset", "study.datasets=[phantom:a,covid19ct,sarscov2ct]", "study.seeds=1"]
    plan = settings.read(three)
    pools = ["covid19ct+sarscov2ct", "phantom:a+sarscov2ct", "phantom:a+covid19ct"]
    assert [source for (source,) in labels(plan, "source")][3:] == pools
    assert list(targets(plan, 3)) == ["covid19ct+sarscov2ct", "phantom:a", "covid19ct", "sarscov2ct"]
    assert len(settings.read([*three, "study.leave_one_out=false"]).jobs) == 3
    assert labels(settings.read([*three, "study.pooled=true"]), "source")[-1] == ("phantom:a+covid19ct+sarscov2ct",)
    assert len(settings.read([*TWO, "study.leave_one_out=true"]).jobs) == 4, "of two, the others are one dataset"


def test_methods_of_the_evaluation_share_the_plain_runs():
    plan = settings.read([*TWO, "study.methods=[plain,match,adapt,strong]", "study.seeds=1", "study.pooled=true"])
    of = {(each["source"], each["method"]): job for each, job in zip(plan.labels, plan.jobs, strict=True)}
    plain, match, adapt = (of["phantom:a", method] for method in ("plain", "match", "adapt"))
    assert plain.overrides == match.overrides == adapt.overrides
    assert [each.words[-1:] for each in match.targets] == [(), ("dataset.harmonize=match",)]
    assert [each.words[-1:] for each in adapt.targets] == [("evaluation.batchnorm=adapt",)] * 2
    assert "augment=strong" in of["phantom:a", "strong"].overrides
    pool = of["phantom:a+phantom:b", "match"]
    assert "dataset.harmonize=match" in pool.overrides, "a pool's sources have a map each, trained with"
    assert not any("harmonize" in word for target in pool.targets for word in target.words)


def test_adaptation_resumes_with_the_plain_run_of_the_same_seed():
    plan = settings.read([*TWO, "study.methods=[match,plain]", "study.patients=[5,0.5]"])
    adapted = [(job, each) for job, each in zip(plan.jobs, plan.labels, strict=True) if job.after is not None]
    assert len(adapted) == 2 * 2 * 2
    for job, each in adapted:
        assert job.after is not None
        first = plan.labels[job.after]
        assert (first["source"], first["method"], first["seed"]) == (each["source"], "plain", each["seed"])
        (target,) = job.targets
        assert target.name != each["source"]
        assert f"dataset.phantom.sites=[{target.name[-1]}]" in job.overrides
        assert f"dataset.train_patients={each['patients']}" in job.overrides


@pytest.mark.parametrize(
    ("words", "axes", "found"),
    [
        (
            ["study=seeds", "dataset=covid19ct", "study.seeds=3"],
            ("source", "seed"),
            [("covid19ct", s) for s in range(3)],
        ),
        (
            ["study=kfold", "dataset.n_folds=3", "study.seeds=2"],
            ("protocol", "fold", "seed"),
            [("kfold", fold, seed) for seed in (0, 1) for fold in range(3)],
        ),
        (
            ["study=schedules", "study.schedules=[full,gradual]", "study.seeds=1"],
            ("schedule",),
            [("full",), ("gradual",)],
        ),
        (
            ["study=learning_curve", "study.patients=[5,0.5]", "study.seeds=1"],
            ("patients",),
            [(5,), (0.5,), (None,)],
        ),
        (
            ["study=paper_vs_honest", "study.seeds=1"],
            ("source", "protocol"),
            [
                ("covid19ct", "random"),
                ("covid19ct", "official"),
                ("sarscov2ct", "random"),
                ("sarscov2ct", "grouped"),
            ],
        ),
        (
            ["study=grid", "optimizer.lr=0.1,0.2", "augment=none"],
            ("method",),
            [("optimizer.lr=0.1",), ("optimizer.lr=0.2",)],
        ),
    ],
)
def test_the_other_kinds(words, axes, found):
    plan = settings.read(words)
    assert labels(plan, *axes) == found
    for job, config, each in zip(plan.jobs, plan.configs, plan.labels, strict=True):
        assert config.evaluation.test
        assert config.seed == each["seed"]
        assert config.dataset.fold == (each["fold"] or 0)
        assert config.dataset.train_patients == each["patients"]
        assert [target.words for target in job.targets] == [()]


def test_schedules_can_be_tested_elsewhere():
    plan = settings.read(["study=schedules", "dataset=covid19ct", "study.targets=[sarscov2ct]", "study.seeds=1"])
    assert list(targets(plan, 0)) == ["covid19ct", "sarscov2ct"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["study.methods=[plian]"], "study.methods: no such method as plian. Did you mean plain?"),
        (["study.datasets=[covid19ct]"], "study.datasets=[covid19ct]: names two datasets or more."),
        (["study.datasets=[covid19ct,sarscov2]"], "no such dataset as sarscov2. Did you mean sarscov2ct?"),
        (["study.datasets=[covid19ct,covid19ct]"], "study.datasets=[covid19ct, covid19ct]: names one twice."),
        (["study.sede=3"], "study.sede=3: no such key. Did you mean study.seeds?"),
        (["study.seeds=0"], "study.seeds=0"),
        (["dataset=phantom"], "dataset=phantom: study=cross_dataset sets this for each of its runs. Leave it out."),
        (["evaluation.test=false"], "evaluation.test=false: a study is about test sets, and scores each."),
        (["n_trials=3"], "n_trials=3: is for a search. Leave it out of a study."),
        (["optimizer.lr=0.1,0.2"], "optimizer.lr=0.1,0.2: several values are for study=grid."),
        (["optimizer.lrr=0.1"], "optimizer.lrr=0.1: no such key. Did you mean optimizer.lr?"),
        (["study.methods=[match]", "study.patients=[5]"], "study.patients: resumes the runs of the method plain."),
        (
            ["study.methods=[adapt]", "model=squeezenet1_1"],
            "evaluation.batchnorm=adapt: squeezenet1_1 has no BatchNorm",
        ),
        (["dataset.protocol=official"], "dataset.protocol=official: sarscov2ct has none."),
        (["trainer.devices=2", "trainer=ddp"], "a study's runs take one device each"),
        (["study.name=a/b"], "study.name=a/b: must be a plain folder name"),
    ],
)
def test_mistakes_are_told_before_anything_runs(words, said):
    with pytest.raises(ConfigError) as caught:
        settings.read(["study=cross_dataset", *words])
    assert any(said in line for line in caught.value.problems), caught.value.problems


def test_a_kind_that_varies_nothing_is_refused():
    for words in (
        ["study=grid"],
        ["study=schedules", "study.schedules=[]"],
        ["study=learning_curve", "study.patients=[]"],
    ):
        with pytest.raises(ConfigError):
            settings.read(words)


def test_the_preview_needs_no_torch():
    code = (
        "import sys; from ddtl.commands.sweep import main; "
        "assert main(['study=cross_dataset', 'preview=1']) == 0; assert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr
    run, evaluation = done.stdout.splitlines()
    assert run.startswith("python train.py dataset=covid19ct seed=0")
    assert evaluation == "  ddtl evaluate RUN dataset=sarscov2ct dataset.protocol=grouped evaluation.refit=true"


# --- what is done, and what not again ---------------------------------------------------------------------------------


class Engine:
    """Runs trials in no time: folders with the least that a record must hold.

    Args:
        fails: whether a run breaks, by its words.
        breaks: whether an evaluation breaks, by its words.
        ends_after: the signal comes behind so many runs.
    """

    def __init__(
        self,
        fails: Callable[[str], bool] = lambda words: False,
        breaks: Callable[[str], bool] = lambda words: False,
        ends_after: int | None = None,
    ) -> None:
        self.fails, self.breaks, self.ends_after = fails, breaks, ends_after
        self.trained: list[str] = []
        self.evaluated: list[str] = []
        self.planned: list[str] = []

    def __call__(self, store: Store, show: Callable[[Snapshot], None]) -> None:
        while (task := store.next()) is not None:
            if len(self.trained) == self.ends_after:
                store.end(task, outcome.stopped())
                raise Stopped(15)
            words = " ".join(task.overrides)
            self.trained.append(words)
            self.planned.append(store.plan.planned[task.number])
            if self.fails(words):
                store.end(task, outcome.failed("error", "broken"))
                continue
            config, _ = load.check(task.overrides)
            runs = Path(config.paths.runs_dir)
            folder = _written(runs / config.dataset.name, words, scoring(config.evaluation))
            store.note(task.number, {"run": str(folder)})
            done = []
            for target, told in (each for each in store.plan.targets[task.number] if each[1]):
                self.evaluated.append(" ".join(told))
                if self.breaks(" ".join(told)):
                    done.append(study_folder.evaluation(target, words=told, reason="no images"))
                    continue
                asked = rescore.read_request(config, told).config
                there = _written(folder / "evaluations", " ".join(told), scoring(asked.evaluation))
                done.append(study_folder.evaluation(target, str(there), told))
            store.note(task.number, {study_folder.EVALUATIONS: done})
            store.end(task, outcome.completed([0.5]))
            show(store.snapshot())


def _written(under: Path, words: str, scored: dict[str, Any]) -> Path:
    folder = under / hashlib.sha256(words.encode()).hexdigest()[:10]
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "results.json", {**records.record(records.table()), "digest": "same", "evaluation": scored})
    for name in ("predictions.csv", "model.safetensors"):
        (folder / name).write_text("")
    return folder


def unseen(snapshot: Snapshot) -> None:
    """Nobody watches."""


@pytest.fixture
def images(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The digest that all datasets have now."""
    now = {"digest": "same"}
    monkeypatch.setattr(FinishedWork, "_digest", lambda self, config: now["digest"])
    return now


def call(tmp_path: Path, engine: Engine, *words: str) -> study_folder.Study:
    plan = settings.read([*TWO, "study.name=small", f"paths.runs_dir={tmp_path}", *words])
    return execute.execute(plan, engine, unseen)


def states(study: study_folder.Study) -> list[str]:
    return [job["state"] for job in study["jobs"]]


@pytest.mark.usefixtures("images")
def test_a_finished_study_computes_nothing_again(tmp_path):
    first = Engine()
    study = call(tmp_path, first)
    assert (len(first.trained), len(first.evaluated)) == (4, 4)
    assert states(study) == ["done"] * 4
    assert study == study_folder.read(tmp_path / "studies" / "small")
    for job in study["jobs"]:
        assert job["run"] is not None
        assert not Path(job["run"]).is_absolute()
        for evaluation in job["evaluations"]:
            assert (tmp_path / str(evaluation["folder"]) / "results.json").exists()
        assert [bool(each["words"]) for each in job["evaluations"]] == [False, True]
        assert job["evaluations"][0]["folder"] == job["run"]
    again = Engine()
    repeated = call(tmp_path, again)
    assert not again.trained
    assert repeated["jobs"] == study["jobs"]
    assert repeated["started"] == study["started"]


def scored(tmp_path: Path, run: str, plan: str) -> int:
    """The number of the test-set use when a run of a study is scored."""
    with test_ledger.count_as_one(plan):
        return test_ledger.record_use(tmp_path, "phantom", "grouped", test_ledger.Scoring(run, "epoch 1", "d")).number


@pytest.mark.usefixtures("images")
def test_what_was_defined_before_the_first_score_is_one_planned_use_and_what_came_later_is_not(tmp_path):
    assert scored(tmp_path, "by hand", "") == 1
    first = Engine(ends_after=2)
    with pytest.raises(Stopped):
        call(tmp_path, first)
    (plan,) = set(first.planned)
    study = study_folder.read(tmp_path / "studies" / "small")
    assert study["planned"]["plan"] == plan
    assert len(study["planned"]["uses"]) == 8, "four runs on two test sets each"

    grown = Engine(ends_after=0)  # nothing has been scored: the study may still grow as a plan
    with pytest.raises(Stopped):
        call(tmp_path, grown, "study.seeds=3")
    study = study_folder.read(tmp_path / "studies" / "small")
    plan = study["planned"]["plan"]
    assert len(study["planned"]["uses"]) == 12
    assert [scored(tmp_path, name, plan) for name in ("a", "b")] == [2, 2]

    rest = Engine()
    call(tmp_path, rest, "study.seeds=3")
    assert set(rest.planned) == {plan}, "going on with the plan"
    later = Engine()
    call(tmp_path, later, "study.seeds=4")
    assert later.planned == ["", ""], "a fourth seed was added when scores were known"
    assert [scored(tmp_path, name, "") for name in ("c", "d")] == [3, 4]


@pytest.mark.usefixtures("images")
def test_a_study_of_an_earlier_version_resumes_as_the_plan_that_it_had_written(tmp_path):
    with pytest.raises(Stopped):
        call(tmp_path, Engine(ends_after=1))
    path = tmp_path / "studies" / "small" / study_folder.NAME
    earlier = json.loads(path.read_text())
    del earlier["planned"]
    path.write_text(json.dumps(earlier))
    rest = Engine()
    call(tmp_path, rest, "study.seeds=3")
    assert [bool(plan) for plan in rest.planned] == [True, True, True, False, False]


@pytest.mark.slow
@pytest.mark.usefixtures("images")
def test_a_further_seed_and_a_further_dataset_compute_what_is_new(tmp_path):
    call(tmp_path, Engine())
    seeds = Engine()
    assert states(call(tmp_path, seeds, "study.seeds=3")) == ["done"] * 6
    assert all("seed=2" in words for words in seeds.trained)
    assert len(seeds.trained) == 2
    datasets = Engine()
    grown = ["study.seeds=3", "study.datasets=[phantom:a,phantom:b,covid19ct]", "study.leave_one_out=false"]
    study = call(tmp_path, datasets, *grown)
    assert sum("dataset=covid19ct" in words for words in datasets.trained) == 3
    assert len(study["jobs"]) == 9
    assert not [e for job in study["jobs"] for e in job["evaluations"] if e["folder"] is None]
    again = Engine()
    call(tmp_path, again, *grown)
    assert not again.trained


@pytest.mark.usefixtures("images")
def test_what_asks_for_less_or_for_something_else_is_refused_with_what_differs(tmp_path):
    call(tmp_path, Engine(), "optimizer.lr=0.1", "study.methods=[plain,match]")
    before = (tmp_path / "studies" / "small" / study_folder.NAME).read_text()
    cases = {
        ("optimizer.lr=0.2", "study.methods=[plain,match]"): "optimizer.lr: was 0.1, is 0.2",
        ("study.methods=[plain,match]",): "optimizer.lr: was 0.1, is (absent)",
        ("optimizer.lr=0.1", "study.methods=[plain]"): "study.methods: was [plain, match], is [plain]",
        ("optimizer.lr=0.1", "study.methods=[plain,match]", "study.seeds=1"): "study.seeds: was 2, is 1",
    }
    for words, said in cases.items():
        with pytest.raises(UserError, match="is another study") as caught:
            call(tmp_path, Engine(), *words)
        assert said in str(caught.value)
    assert (tmp_path / "studies" / "small" / study_folder.NAME).read_text() == before


@pytest.mark.slow
@pytest.mark.usefixtures("images")
@pytest.mark.parametrize("behind", [1, 5, 9])
def test_ended_anywhere_it_resumes_to_the_same_record(tmp_path, behind):
    words = ["study.methods=[plain,match,strong]", "study.patients=[5]"]
    whole, rest = Engine(), Engine()
    expected = call(tmp_path / "whole", whole, *words)
    assert len(whole.trained) == 4 + 4 + 4, "match shares the plain runs"
    with pytest.raises(Stopped):
        call(tmp_path / "parts", Engine(ends_after=behind), *words)
    half = study_folder.read(tmp_path / "parts" / "studies" / "small")
    assert half["ended"] is None
    assert states(half).count("done") < len(half["jobs"])
    study = call(tmp_path / "parts", rest, *words)
    assert len(rest.trained) == 12 - behind
    assert len({job["run"] for job in expected["jobs"]}) == 12
    there = json.loads(json.dumps(expected["jobs"]).replace("whole", "parts"))
    assert [shape(job) for job in study["jobs"]] == [shape(job) for job in there]


def shape(job: study_folder.JobRecord) -> list[Any]:
    """A job without the names of its folders, which a hash of paths has made here."""
    evaluations = [(each["target"], each["words"], each["folder"] is None) for each in job["evaluations"]]
    return [job["labels"], job["state"], evaluations]


@pytest.mark.usefixtures("images")
def test_a_failed_run_is_a_cell_with_a_reason_and_is_tried_again(tmp_path):
    broken = Engine(fails=lambda words: "sites=[a]" in words and "seed=1" in words and "patients" not in words)
    study = call(tmp_path, broken, "study.patients=[5]")
    assert states(study) == ["done", "done", "failed", "done", "done", "done", "failed", "done"]
    first, second = (job["reason"] for job in study["jobs"] if job["state"] == "failed")
    assert first == "error: broken"
    assert second == "there are no weights to begin with: phantom:a, grouped, full, seed 1 has failed"
    assert study_folder.lost(study) == [
        "phantom:a, grouped, full, seed 1: error: broken",
        f"phantom:a, grouped, full, 5 patients, seed 1: {second}",
    ]
    mended = Engine()
    assert states(call(tmp_path, mended, "study.patients=[5]")) == ["done"] * 8
    assert len(mended.trained) == 2


@pytest.mark.usefixtures("images")
def test_a_failed_evaluation_leaves_the_run_and_its_other_cells(tmp_path):
    study = call(tmp_path, Engine(breaks=lambda words: "sites=[b]" in words))
    assert states(study) == ["done"] * 4
    assert [e["reason"] for job in study["jobs"] for e in job["evaluations"]] == ["", "no images", "", ""] * 2
    assert study_folder.lost(study)[0] == "phantom:a, grouped, full, seed 0 on phantom:b: no images"
    assert not study_folder.lost(call(tmp_path, Engine()))


def test_other_images_are_trained_on_again(tmp_path, images):
    call(tmp_path, Engine())
    images["digest"] = "other"
    again = Engine()
    call(tmp_path, again)
    assert len(again.trained) == 4


@pytest.mark.usefixtures("images")
def test_a_run_that_is_gone_is_made_again(tmp_path):
    study = call(tmp_path, Engine())
    gone = study["jobs"][1]["run"]
    assert gone is not None
    (tmp_path / gone / "results.json").unlink()
    again = Engine()
    call(tmp_path, again)
    assert len(again.trained) == 1


@pytest.mark.usefixtures("images")
def test_two_commands_do_not_work_at_one_study(tmp_path):
    folder = tmp_path / "studies" / "small"
    folder.mkdir(parents=True)
    with FileLock(folder / ".lock"), pytest.raises(UserError, match="is in use by another process"):
        call(tmp_path, Engine())


def test_a_damaged_record_is_told(tmp_path):
    folder = tmp_path / "studies" / "small"
    folder.mkdir(parents=True)
    (folder / study_folder.NAME).write_text('{"study": ')
    with pytest.raises(UserError, match=r"study\.json: is damaged"):
        call(tmp_path, Engine())
    with pytest.raises(UserError, match=r"contains no study\.json"):
        study_folder.read(tmp_path)


class Notes:
    """A store that remembers what it is told about a trial."""

    def __init__(self, targets: Any) -> None:
        self.plan = SimpleNamespace(targets=(targets,))
        self.told: list[dict[str, Any]] = []

    def note(self, number: int, facts: dict[str, Any]) -> None:
        self.told.append(json.loads(json.dumps(facts)))


def evaluated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, score: Any, stops: bool = False) -> tuple[bool, Notes]:
    """The evaluations of a finished run on two targets, of which ``score`` makes a folder or an error."""
    from ddtl.sweeps.workers import evaluate_targets

    write_json(tmp_path / "results.json", records.record(records.table()))
    words = ("dataset=phantom", f"paths.runs_dir={tmp_path}")
    store = Notes((("phantom:a", words), ("phantom:b", (*words, "dataset.phantom.sites=[b]"))))
    monkeypatch.setattr(evaluate_targets, "score_target", lambda folder, config, trained, name: score(name))
    monkeypatch.setattr(evaluate_targets, "write_page", lambda folder: None)
    config = load.load(["logger=none"])
    return evaluate_targets.all_targets(store, 0, RunFolder(tmp_path), config, lambda: stops), store  # type: ignore[arg-type]


def test_an_evaluation_that_breaks_is_noted_and_the_next_one_is_made(tmp_path, monkeypatch, capsys):
    def score(name: str) -> Path:
        if name == "phantom:a":
            raise RuntimeError("no such operator")
        return tmp_path / "there"

    came_to_the_end, store = evaluated(tmp_path, monkeypatch, score)
    assert came_to_the_end
    assert len(store.told) == 2, "each is noted as soon as it is made"
    first, second = store.told[-1][study_folder.EVALUATIONS]
    assert (first["folder"], first["reason"]) == (None, "RuntimeError: no such operator")
    assert (second["folder"], second["reason"]) == (str(tmp_path / "there"), "")
    assert "Traceback" in capsys.readouterr().err


def test_a_full_disk_ends_the_evaluations_and_so_does_the_users_word(tmp_path, monkeypatch):
    def full(name: str) -> Path:
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        evaluated(tmp_path, monkeypatch, full)
    came_to_the_end, store = evaluated(tmp_path, monkeypatch, full, stops=True)
    assert (came_to_the_end, store.told) == (False, [])


# --- for real ---------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_real_study_on_the_phantom_and_its_repetition(tmp_path):
    words = [
        "study=cross_dataset", "study.datasets=[phantom:a,phantom:b]", "study.seeds=1", "study.methods=[plain,match]",
        "dataset.phantom.n_patients=24", "dataset.phantom.slices_per_patient=2", "dataset.phantom.size=64",
        "dataset.phantom.gap=grey", "dataset.image_size=32", "dataset.batch_size=8", "trainer.max_epochs=1",
        "model=squeezenet1_1", "model.weights=none", "logger=none", "trainer=cpu", f"paths.runs_dir={tmp_path}",
    ]  # fmt: skip
    command = [sys.executable, str(ROOT / "sweep.py"), *words]
    done = fork_server.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr
    study = study_folder.read(tmp_path / "studies" / "cross_dataset-phantom-a-phantom-b")
    assert states(study) == ["done"] * 4
    assert len({job["run"] for job in study["jobs"]}) == 2, "match shares the plain runs"
    folders = [tmp_path / str(e["folder"]) for job in study["jobs"] for e in job["evaluations"] if e["words"]]
    results = [json.loads((folder / "results.json").read_text()) for folder in folders]
    assert len({folder.name for folder in folders}) == len(folders) == 4
    assert [found.get("harmonize") for found in results] == [None, None, "match", "match"]
    assert all("refitted" in found and found["leaked_share"] == 0 for found in results)
    uses = read_lines(tmp_path / "phantom" / "test_looks_grouped.jsonl")
    assert len(uses) == 6, "two runs, each on its own test set and in two ways on the other's"
    assert {row["use"] for row in uses} == {found["test_use"] for found in results} == {1}, "one planned use"
    (own, *_) = tmp_path.glob("phantom/*/methods.md")
    assert "played no part in training or in choosing the epoch" in own.read_text()
    (tables,) = tmp_path.glob("studies/*/tables.txt")
    assert tables.read_text() in done.stdout
    for folder in (*folders, tmp_path / str(study["jobs"][0]["run"])):
        rows = len((folder / "predictions.csv").read_text().splitlines()) - 1
        assert np.load(folder / "embeddings.npz")["embeddings"].shape == (rows, 512)
    stamps = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.npz")}
    stamps |= {path: path.stat().st_mtime_ns for path in tmp_path.rglob("results.json")}
    (tmp_path / "studies" / study["name"] / study_folder.NAME).unlink()  # so that each run's process looks for itself
    again = fork_server.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    assert again.returncode == 0, again.stderr
    assert {path: path.stat().st_mtime_ns for path in stamps} == stamps
    assert study_folder.read(tmp_path / "studies" / study["name"])["jobs"] == study["jobs"]


@pytest.mark.slow
@pytest.mark.usefixtures("images")
def test_a_study_repeated_with_other_shared_settings_is_another_planned_use(tmp_path):
    found = []
    for words in (["optimizer.lr=1e-3"], ["optimizer.lr=1e-2"], ["optimizer.lr=1e-2", "evaluation.threshold=youden"]):
        engine = Engine()
        call(tmp_path, engine, *words)
        (plan,) = set(engine.planned)
        found.append(scored(tmp_path, " ".join(words), plan))
        (tmp_path / "studies" / "small" / study_folder.NAME).unlink()
    assert found == [1, 2, 3]
