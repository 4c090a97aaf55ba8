"""``ddtl evaluate``: a finished run scored in another way and elsewhere, and what its record then says."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from sklearn import metrics

from ddtl.commands import cli
from ddtl.config.load import load
from ddtl.data.loading.datamodule import CTDataModule
from ddtl.evaluation import record, thresholds
from ddtl.evaluation.patients import PatientTable, by_patient
from ddtl.records import predictions as prediction_table, small
from ddtl.records.run_folder import RunFolder
from ddtl.reports.run import sentences
from ddtl.training.rescore import load_run, read_request
from ddtl.training.train import train
from ddtl.utils.errors import UserError
from ddtl.utils.reading import read_lines
from tests.support.runs import SMALL, config, run

PHANTOM = [word for word in SMALL if word.startswith("dataset.phantom.")]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run(tmp_path_factory.mktemp("evaluated"), "model=resnet18").folder  # which has BatchNorm


@pytest.fixture
def a_run(trained: Path, tmp_path: Path) -> Path:
    """A finished run whose record may be changed."""
    folder: Path = shutil.copytree(trained, tmp_path / "runs" / "phantom" / trained.name)
    return folder


def evaluate(folder: Path, *words: str) -> dict[str, Any]:
    assert cli.main(["evaluate", str(folder), *words]) == 0
    read: dict[str, Any] = json.loads((folder / "results.json").read_text())
    return read


@pytest.mark.slow
def test_every_number_of_the_record_is_that_of_its_predictions(trained: Path) -> None:
    r = json.loads((trained / "results.json").read_text())
    table = prediction_table.read(trained / "predictions.csv")
    assert (r["interval"]["unit"], r["threshold"], r["threshold_rule"]) == ("patient", 0.5, "fixed")
    for split in ("val", "test"):
        found, part = r[split], table.of(split)
        by = by_patient(part, "mean", 0.5)
        assert isinstance(by, PatientTable)
        assert found["patients"]["patients"] == found["groups"] == len(set(part.patient_id.tolist()))
        assert found["patients"]["roc_auc"] == pytest.approx(metrics.roc_auc_score(by.label, by.p))
        for scores in (found, found["patients"]):
            low, high = (scores["intervals"]["roc_auc"][end] for end in ("low", "high"))
            assert low <= scores["roc_auc"] <= high
        assert found["calibration"]["brier"] == pytest.approx(found["brier"])
        at_half = next(row for row in found["predictive_values"] if row["prevalence"] == 0.5)
        sensitivity, specificity = found["sensitivity"], found["specificity"]
        if sensitivity + 1 - specificity > 0:
            assert at_half["ppv"] == pytest.approx(sensitivity / (sensitivity + 1 - specificity))
    assert r["baselines"]["majority"]["accuracy"] == 0.5
    assert r["baselines"]["majority"]["roc_auc"] == 0.5
    assert r["baselines"]["file_facts"]["images"] == r["test"]["images"]


def test_a_threshold_chosen_on_validation_leaves_test_untouched(a_run: Path) -> None:
    before = json.loads((a_run / "results.json").read_text())
    after = evaluate(a_run, "evaluation.threshold=youden")
    val = prediction_table.read(a_run / "predictions.csv").of("val")
    by = by_patient(val, "mean", 0.5)
    assert isinstance(by, PatientTable)
    chosen = thresholds.choose(by.label, by.p, "youden")
    assert (after["threshold"], after["threshold_rule"]) == (chosen.value, "youden")
    assert after["threshold_unit"] == "patient"
    assert after["threshold_on_val"] == pytest.approx(chosen.reached)
    assert after["val"]["patients"]["sensitivity"] == pytest.approx(chosen.reached["sensitivity"])
    assert after["test"]["roc_auc"] == before["test"]["roc_auc"]
    assert (before["test_use"], after["test_use"]) == (1, 2), "another threshold rule is a further use"
    (row,) = read_lines(a_run.parent / "test_looks_grouped.jsonl")  # the run was copied here without its ledger
    assert (row["use"], row["decided"]["evaluation.threshold"]) == (2, "youden")
    assert evaluate(a_run, "evaluation.threshold=youden")["test_use"] == 2, "the same once more is no further use"
    text = (a_run / "methods.md").read_text()
    assert "played no part in training or in choosing the epoch, the threshold" not in text
    assert "test-set use number 2" in text
    aimed = evaluate(a_run, "evaluation.threshold=sensitivity", "evaluation.target=0.9")
    assert aimed["threshold_target"] == 0.9
    assert aimed["val"]["patients"]["sensitivity"] >= 0.9
    by_image = evaluate(a_run, "evaluation.threshold=youden", "evaluation.threshold_unit=image")
    chosen = thresholds.choose(val.label, val.probabilities[:, 1], "youden")
    assert (by_image["threshold"], by_image["threshold_unit"]) == (chosen.value, "image")


def elsewhere(run: Path, site: str) -> Path:
    """The folder with the scores on one site of the phantom."""
    sites = {
        folder: set(prediction_table.read(folder / "predictions.csv").site.tolist())
        for folder in (run / "evaluations").iterdir()
    }
    return next(folder for folder, found in sites.items() if found == {site})


def test_stored_predictions_are_scored_without_torch(a_run: Path) -> None:
    code = (
        "import sys; from ddtl.commands import cli; code = cli.main(sys.argv[1:]); "
        "sys.exit(code or 10 * bool({'torch', 'pytorch_lightning', 'wandb'} & set(sys.modules)))"
    )
    words = ["evaluate", str(a_run), "evaluation.threshold=youden"]
    done = subprocess.run(
        [sys.executable, "-c", code, *words], check=False, timeout=300, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert json.loads((a_run / "results.json").read_text())["threshold_rule"] == "youden"


def test_other_ways_to_score_a_patient_and_to_make_an_interval(a_run: Path) -> None:
    table = prediction_table.read(a_run / "predictions.csv").of("test")
    words = ["evaluation.patient=max", "evaluation.interval=percentile", "evaluation.level=0.8"]
    found = evaluate(a_run, *words, "evaluation.replicates=200", "evaluation.prevalences=[0.01]")
    by = by_patient(table, "max", 0.5)
    assert isinstance(by, PatientTable)
    assert found["test"]["patients"]["aggregation"] == "max"
    assert found["test"]["patients"]["brier"] == pytest.approx(np.mean((by.p - by.label) ** 2))
    assert found["interval"] | {"level": 0.8, "method": "percentile", "replicates": 200} == found["interval"]
    assert [row["prevalence"] for row in found["test"]["predictive_values"]] == [0.01]


def test_baselines_that_keep_their_level_and_threshold_say_so(a_run: Path) -> None:
    found = evaluate(a_run, "evaluation.level=0.8", "evaluation.threshold=0.35")
    assert (found["interval"]["level"], found["baselines"]["file_facts"]["level"]) == (0.8, 0.95)
    stated = "Baselines are scored at threshold 0.5. Their intervals are 95 % confidence intervals."
    assert stated in (a_run / "report.html").read_text().replace("\u202f", " ").replace("\u00a0", " ")
    assert evaluate(a_run, "evaluation.level=0.9")["baselines"]["file_facts"]["level"] == 0.95
    assert sentences.baselines_setting(evaluate(a_run, "evaluation.level=0.95", "evaluation.threshold=0.5")) == ""


@pytest.mark.slow
def test_elsewhere_the_threshold_is_the_runs_own_and_the_use_is_counted(
    a_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # where ./runs is another folder than the run's own
    r = evaluate(a_run, "evaluation.threshold=youden")
    runs_dir = a_run.parents[1]
    words = [*PHANTOM, "dataset=phantom", "dataset.phantom.sites=[b]"]
    monkeypatch.setenv("DDTL_CACHE", str(Path(os.environ["DDTL_CACHE"]).absolute()))
    assert evaluate(a_run, *words, "evaluation.threshold=youden") == r, "the run stays"
    there = elsewhere(a_run, "b")
    found = json.loads((there / "results.json").read_text())
    assert found["trained_on"] == {"dataset": "phantom", "protocol": "grouped", "run": a_run.name}
    assert found["threshold"] == r["threshold"]
    assert "val" not in found
    table = prediction_table.read(there / "predictions.csv")
    assert set(table.site.tolist()) == {"b"}
    assert found["test"]["roc_auc"] == pytest.approx(metrics.roc_auc_score(table.label, table.probabilities[:, 1]))
    assert (there / "report.html").exists()
    uses = read_lines(runs_dir / "phantom" / "test_looks_grouped.jsonl")
    assert [(row["run"], row["use"]) for row in uses] == [(a_run.name, 2), (a_run.name, found["test_use"])]
    evaluate(a_run, *words, "evaluation.threshold=youden", "dataset.harmonize=match")
    evaluate(a_run, *words, "evaluation.threshold=youden", "evaluation.batchnorm=adapt")
    evaluate(a_run, *words, "evaluation.threshold=youden", "evaluation.refit=true")
    uses = read_lines(runs_dir / "phantom" / "test_looks_grouped.jsonl")
    assert [row["use"] for row in uses] == [2, 3, 4, 5, 6]
    records = [json.loads(path.read_text()) for path in sorted((a_run / "evaluations").glob("*/results.json"))]
    assert {record["test_use"] for record in records} == {4, 5, 6}


def test_the_same_images_elsewhere_give_the_same_predictions(a_run: Path) -> None:
    words = [*PHANTOM, "dataset=phantom", f"paths.runs_dir={a_run.parents[1]}"]
    evaluate(a_run, *words)
    own = prediction_table.read(a_run / "predictions.csv").of("test")
    again = prediction_table.read(elsewhere(a_run, "a") / "predictions.csv")
    assert again.sample_id.tolist() == own.sample_id.tolist()
    assert np.allclose(again.logits, own.logits, atol=1e-5)


@pytest.mark.slow
def test_settings_of_the_dataset_that_are_not_named_stay_the_runs(
    a_run: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    own = json.loads((a_run / "results.json").read_text())
    evaluate(a_run, "dataset.phantom.seed=5")
    found = json.loads((a_run / "evaluations/phantom-grouped/results.json").read_text())
    assert found["test"]["images"] == own["test"]["images"]
    assert found["splits"]["train"]["images"] == own["splits"]["train"]["images"]
    assert found["digest"] != own["digest"]
    # The images have the names of the run's own.
    there = a_run / "evaluations/phantom-grouped"
    own_names, names = (
        set(prediction_table.read(folder / "predictions.csv").of("test").sample_id) for folder in (a_run, there)
    )
    assert own_names & names
    assert found["contents"]["test"] != own["contents"]["test"]


def test_the_options_own_settings_are_taken_where_the_dataset_is_named(a_run: Path) -> None:
    saved, _ = load_run(RunFolder(a_run))
    kept = read_request(saved, ["dataset.phantom.seed=5", "dataset.test_fraction=0.5"]).config.dataset
    assert saved.dataset.phantom is not None
    changed: dict[str, Any] = {
        "phantom": saved.dataset.phantom.model_copy(update={"seed": 5}),
        "test_fraction": 0.5,
        "batch_size": 1,
    }
    assert kept == saved.dataset.model_copy(update=changed)
    named = read_request(saved, ["dataset=phantom", "dataset.phantom.seed=5"]).config.dataset
    assert named.phantom is not None
    assert (named.phantom.n_patients, named.phantom.seed) == (150, 5)


def test_own_images_keep_their_folder_and_their_classes(a_run: Path, tmp_path: Path) -> None:
    saved, _ = load_run(RunFolder(a_run))
    words = ["dataset=folder", f"dataset.root={tmp_path}", "dataset.name=our site", "dataset.classes=['a, b',covid]",
             r"dataset.patient_regex='(P\d+)_'", "dataset.class_map={'a, b': healthy}",
             "dataset.window={center: -600, width: 1500}"]  # fmt: skip
    ours = saved.model_copy(update={"dataset": load(words, writes=False).dataset})
    again = read_request(ours, ["dataset.split_seed=5"]).config.dataset
    assert again == ours.dataset.model_copy(update={"split_seed": 5, "batch_size": 1, "image_size": 224})
    pooled = [
        "dataset=pooled", "dataset.sources=['phantom:a',third]", "dataset.phantom.n_patients=40",
        f"dataset.own={{third: {{root: {tmp_path}, class_map: {{x: covid}}}}}}",
    ]  # fmt: skip
    ours = saved.model_copy(update={"dataset": load(pooled, writes=False).dataset})
    again = read_request(ours, ["dataset.phantom.seed=2"]).config.dataset
    assert again.phantom is not None
    assert again.phantom.n_patients == 40
    assert (again.own, again.sources) == (ours.dataset.own, ours.dataset.sources)
    plugin = saved.model_copy(update={"dataset": saved.dataset.model_copy(update={"kind": "gone", "name": "gone"})})
    with pytest.raises(UserError, match="no option of the kind gone any more: name the dataset"):
        read_request(plugin, ["dataset.split_seed=5"])


@pytest.mark.slow
def test_another_site_and_another_split_each_have_their_folder(a_run: Path) -> None:
    shutil.rmtree(a_run / "evaluations", ignore_errors=True)
    words = [*PHANTOM, "dataset=phantom", f"paths.runs_dir={a_run.parents[1]}"]
    for more in ([], ["dataset.phantom.sites=[b]"], ["dataset.split_seed=5"], [], ["dataset.phantom.sites=[b]"]):
        evaluate(a_run, *words, *more)
    folders = sorted((a_run / "evaluations").iterdir())
    found = [json.loads((folder / "results.json").read_text()) for folder in folders]
    assert [folder.name for folder in folders] == [
        "phantom-grouped" + (f"-{one['digest'][:10]}" if number else "") for number, one in enumerate(found)
    ]
    assert len(found) == len({one["digest"] for one in found}) == 3, "the same images again replace their own scores"
    assert elsewhere(a_run, "b") != folders[0]


@pytest.mark.slow
def test_images_that_the_run_learned_from_are_counted(a_run: Path) -> None:
    words = [*PHANTOM, "dataset=phantom", f"paths.runs_dir={a_run.parents[1]}"]
    shutil.rmtree(a_run / "evaluations", ignore_errors=True)
    evaluate(a_run, *words)
    there = a_run / "evaluations" / "phantom-grouped" / "results.json"
    own = json.loads(there.read_text())
    assert (own["leaked_share"], [w for w in own["warnings"] if "optimistic" in w]) == (0, [])
    evaluate(a_run, *words, "dataset.split_seed=5")
    (there,) = set((a_run / "evaluations").glob("*/results.json")) - {there}
    split = (a_run / "split.csv").read_text().splitlines()[1:]
    learned = {row.split(",")[2] for row in split if row.split(",")[1] in ("train", "val")}
    table = prediction_table.read(there.with_name("predictions.csv"))
    share = np.mean([group in learned for group in table.group.tolist()])
    other = json.loads(there.read_text())
    assert other["leaked_share"] == share > 0.3
    assert f"{share:.0%} of the test images, or their patients or groups, are among those" in other["warnings"][-1]


@pytest.mark.slow
def test_files_that_the_run_trained_on_are_known_under_any_name(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rng = np.random.default_rng(0)
    for name in ("covid", "normal"):
        (tmp_path / "images" / name).mkdir(parents=True)
        for i in range(12):
            pixels = rng.integers(0, 256, (48, 48), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "images" / name / f"p{i}_{name}.png")
    words = [
        "dataset=folder", f"dataset.root={tmp_path / 'images'}", r"dataset.patient_regex=(p\d+_\w+)\.",
        "dataset.image_size=32", "model=squeezenet1_1", "model.weights=none", "trainer=cpu", "trainer.max_epochs=1",
        "trainer.limit_batches=1", "logger=none", f"paths.runs_dir={tmp_path / 'runs'}", "dataset.num_workers=0",
        "dataset.batch_size=4", "finetune=full",
    ]  # fmt: skip
    folder = train(load([*words, "dataset.name=mine"])).folder
    split = {row["sample_id"]: row["split"] for row in small.split(folder / "split.csv")}
    shutil.copytree(tmp_path / "images", tmp_path / "renamed" / "images")
    for i, path in enumerate(sorted((tmp_path / "renamed" / "images").glob("*/*.png"))):
        path.rename(path.with_name(f"q{i:02d}_{path.parent.name}.png"))
    other = [word.replace("images", "renamed/images").replace("(p", "(q") for word in words]
    others = [word for word in other if word.startswith(("dataset", "paths")) and "batch_size" not in word]
    evaluate(folder, *others, "dataset.name=theirs", "dataset.split_seed=3")
    (there,) = (folder / "evaluations").glob("*/predictions.csv")
    found = json.loads(there.with_name("results.json").read_text())
    renamed = {f"{name}/q{i:02d}_{name}.png": old for i, (name, old) in enumerate(
        (path.parent.name, f"{path.parent.name}/{path.name}") for path in sorted((tmp_path / "images").glob("*/*.png"))
    )}  # fmt: skip
    tested = [renamed[sample_id] for sample_id in prediction_table.read(there).of("test").sample_id.tolist()]
    share = np.mean([split[name] in ("train", "val") for name in tested])
    assert found["leaked_share"] == share > 0.3
    assert any("are among those trained on: optimistic" in warning for warning in found["warnings"])

    caplog.clear()
    assert cli.main(["predict", str(folder), str(tmp_path / "renamed"), f"output={tmp_path / 'out'}"]) == 0
    answer = json.loads((tmp_path / "out" / "predictions.json").read_text())
    (known,) = [one["files"] for one in answer["warnings"] if "the run trained on" in one["warning"]]
    assert len(known) == sum(part in ("train", "val") for part in split.values())
    (folder / "split.csv").unlink()
    assert cli.main(["predict", str(folder), str(tmp_path / "renamed"), f"output={tmp_path / 'again'}"]) == 0
    assert "whether the run trained on these images is not known" in caplog.text


@pytest.mark.slow
def test_a_phantom_of_another_seed_holds_other_people(a_run: Path) -> None:
    """Patients of every seed have the same ids; only those of the run's own seed can be known from training."""
    words = [*PHANTOM, "dataset=phantom", f"paths.runs_dir={a_run.parents[1]}", "dataset.split_seed=5"]
    for seed in (0, 8):
        shutil.rmtree(a_run / "evaluations", ignore_errors=True)
        evaluate(a_run, *words, f"dataset.phantom.seed={seed}")
        (there,) = (a_run / "evaluations").glob("*/results.json")
        found = json.loads(there.read_text())
        assert (found["leaked_share"] > 0, any("optimistic" in w for w in found["warnings"])) == (seed == 0, seed == 0)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["optimizer.lr=1"], "optimizer.lr: a trained run is evaluated as it is"),
        (["threshold=youden"], "Did you mean evaluation.threshold?"),
        (["evaluation.threshold=sensitivity"], "needs the value to reach: evaluation.target=0.95"),
        (
            ["evaluation.threshold=sensitivity_guaranteed", "evaluation.target=0.9"],
            "takes 29 positive validation patients or more, and there are 4",
        ),
        (["evaluation.treshold=0.5"], "evaluation.treshold"),
        (["evaluation.level=0.2"], "evaluation.level=0.2"),
        (["dataset=covid19"], "covid19ct"),
        (["evaluation.threshold=0.35", "evaluation.test=false"], "this command scores the test set and counts it"),
        (["dataset=phantom", "evaluation.test=false"], "Leave evaluation.test out"),
    ],
)
def test_a_mistake_is_named_and_changes_nothing(a_run: Path, words: list[str], message: str) -> None:
    def uses() -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in a_run.parent.glob("*.jsonl")}

    before, counted = (a_run / "results.json").read_bytes(), uses()
    with pytest.raises(UserError, match=message):
        cli.main(["evaluate", str(a_run), *words])
    assert (a_run / "results.json").read_bytes() == before
    assert uses() == counted, "what is refused is no use of the test set"


@pytest.mark.slow
def test_a_run_scored_again_on_validation_alone_was_scored_on_its_test_set_before(tmp_path: Path) -> None:
    words = ("trainer.max_epochs=1", "trainer.patience=null", "run.name=a")
    run(tmp_path, *words)
    folder = run(tmp_path, *words, "evaluation.test=false", "evaluation.threshold=0.3").folder
    assert "test" not in json.loads((folder / "results.json").read_text())
    text = (folder / "methods.md").read_text()
    assert "No test set was scored" not in text
    assert "this run was scored on it once before" in text


def test_what_is_no_finished_run_is_named(a_run: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no such folder"):
        cli.main(["evaluate", str(tmp_path / "none")])
    with pytest.raises(UserError, match=r"not the folder of a run: it contains no config\.yaml"):
        cli.main(["evaluate", str(tmp_path)])
    (a_run / "results.json").unlink()
    with pytest.raises(UserError, match="the run is not finished"):
        cli.main(["evaluate", str(a_run)])


def test_a_baseline_of_certain_probabilities_keeps_them(a_run: Path) -> None:
    from ddtl.config.load import load

    test = prediction_table.read(a_run / "predictions.csv").of("test")
    sure = (np.arange(len(test)) % 2).astype(float)
    found = record.baseline(sure, test, load().evaluation)
    assert found["brier"] == pytest.approx(np.mean((sure - test.label) ** 2))
    assert found["accuracy"] == pytest.approx(np.mean(sure == test.label))


@pytest.fixture(scope="module")
def own_images(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images as a hospital keeps them, ``covid/`` and ``normal/``: those that the run finds more and less likely."""
    data = CTDataModule(config(trained.parents[1]))
    data.load()
    table = prediction_table.read(trained / "predictions.csv")
    likely = dict(zip(table.sample_id.tolist(), table.probabilities[:, 1].tolist(), strict=True))
    root = tmp_path_factory.mktemp("hospital")
    for row, sample in enumerate(data.manifest.samples):
        if sample.sample_id in likely:
            folder = root / ("covid" if likely[sample.sample_id] > np.median(list(likely.values())) else "normal")
            folder.mkdir(exist_ok=True)
            Image.fromarray(data.cache[row]).save(folder / f"{row}_x.png")
    return root


def on_own(folder: Path, root: Path, *words: str, name: str = "mine") -> dict[str, Any]:
    argv = ["dataset=folder", f"dataset.root={root}", f"dataset.name={name}", "dataset.patient_regex='/(.+)_'", *words]
    assert cli.main(["evaluate", str(folder), *argv]) == 0
    (there,) = (folder / "evaluations").glob(f"{name}-grouped*/results.json")
    read: dict[str, Any] = json.loads(there.read_text())
    return read


@pytest.mark.slow
def test_own_classes_are_matched_by_name(a_run: Path, own_images: Path) -> None:
    found = on_own(a_run, own_images)
    assert (found["classes"], found["positive"]) == (["non-COVID", "COVID"], "COVID")
    assert "mine: classes are matched by their names: normal as non-COVID, covid as COVID." in found["warnings"]
    table = prediction_table.read(a_run / "evaluations" / "mine-grouped" / "predictions.csv")
    assert [name.startswith("covid/") for name in table.sample_id.tolist()] == (table.label == 1).tolist()
    again = on_own(a_run, own_images, "dataset.classes=[normal,covid]", name="one")
    assert again["test"]["roc_auc"] == found["test"]["roc_auc"]
    with pytest.raises(UserError, match="the names do not show"):  # what was said, and what the names say
        on_own(a_run, own_images, "dataset.classes=[covid,normal]", name="two")


def test_a_score_worse_than_chance_is_called_a_possible_inversion(a_run: Path, own_images: Path) -> None:
    """The classes exchanged by hand: the ROC AUC is its mirror image, and the record says what that may mean."""
    right = on_own(a_run, own_images)["test"]["roc_auc"]
    wrong = on_own(a_run, own_images, "dataset.class_map={covid: non-COVID, normal: COVID}", name="turned")
    assert wrong["test"]["roc_auc"] == pytest.approx(1 - right)
    assert right == 1
    assert any("test: ROC AUC" in text and "the classes may be inverted" in text for text in wrong["warnings"])


def test_classes_whose_names_do_not_tell_are_refused(a_run: Path, own_images: Path, tmp_path: Path) -> None:
    for name, other in (("covid", "CAP"), ("normal", "rest")):
        shutil.copytree(own_images / name, tmp_path / "images" / other)
    argv = ["evaluate", str(a_run), "dataset=folder", f"dataset.root={tmp_path}/images", "dataset.name=other"]
    one, two = "{CAP: non-COVID, rest: COVID}", "{CAP: COVID, rest: non-COVID}"
    with pytest.raises(UserError) as caught:
        cli.main(argv)
    assert f"'dataset.class_map={one}' or 'dataset.class_map={two}'" in str(caught.value)
    assert not (a_run / "evaluations" / "other-grouped").exists()
    assert cli.main([*argv, f"dataset.class_map={two}"]) == 0
