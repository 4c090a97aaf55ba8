"""A head that is fitted: the stated minimum, an epoch for each penalty, the same after a stop, and its neighbours."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from ddtl.config.load import check, load
from ddtl.evaluation.metrics import binary_scores
from ddtl.evaluation.predictions import Predictions
from ddtl.finetuning.fitted_head import fit, penalty_of
from ddtl.models.metrics import PatientRocAuc
from ddtl.records import predictions
from ddtl.schema.run import EvaluationConfig
from ddtl.training import nearest
from ddtl.training.train import assemble, train
from ddtl.utils.errors import UserError
from ddtl.utils.reading import read_lines, read_object
from tests.support.runs import PullThePlugError, assert_same_run, break_at, config, run

PROBE = ("finetune=logistic_probe", "augment=none", "trainer=cpu", "trainer.precision=32", "trainer.max_epochs=4")
ALL = "finetune.phases=[{name:a,train:[all],fraction:1.0}]"
MONITOR = "trainer.monitor=val/patient_roc_auc"


@pytest.fixture(scope="module")
def probe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run(tmp_path_factory.mktemp("probe"), *PROBE, MONITOR).folder


def objective(w: np.ndarray, b: np.ndarray, x: np.ndarray, y: np.ndarray, penalty: float, weights: np.ndarray) -> float:
    """The docstring of ``fit``, with the weights of standardised features."""
    logits = x @ w.T + b
    shifted = logits - logits.max(axis=1, keepdims=True)
    loss = np.log(np.exp(shifted).sum(axis=1)) - shifted[np.arange(len(y)), y]
    square = ((w[1] - w[0]) ** 2).sum() if len(b) == 2 else (w**2).sum()
    return float((weights[y] * loss).sum() / weights[y].sum() + penalty / 2 * square)


@pytest.mark.parametrize("n_classes", [2, 3])
@pytest.mark.parametrize("penalty", [10.0, 1e-3])
@pytest.mark.parametrize("weighted", [False, True])
def test_the_fit_is_the_least_value_of_what_is_stated(n_classes: int, penalty: float, weighted: bool) -> None:
    rng = np.random.default_rng(n_classes)
    x = rng.normal(size=(90, 5)) * [1, 10, 0.1, 3, 1] + [0, 100, 0, -3, 1]
    x[:, 4] = 7.0  # no deviation at all
    y = rng.integers(n_classes, size=90)
    y[:n_classes] = range(n_classes)
    weights = np.linspace(0.5, 2, n_classes) if weighted else np.ones(n_classes)
    w, b, is_reached = fit(x, y, n_classes, penalty, weights if weighted else None)
    assert is_reached
    mean, deviation = x.mean(axis=0), x.std(axis=0)
    deviation[4] = 1.0
    z, at = (x - mean) / deviation, (w * deviation, b + w @ mean)
    best = objective(*at, z, y, penalty, weights)
    for step in (1e-2, 1e-3):
        for _ in range(30):
            dw, db = rng.normal(size=w.shape), rng.normal(size=b.shape)
            if n_classes == 2:
                dw[0], db[0] = -dw[1], -db[1]  # the difference of the logits alone is fitted
            assert objective(at[0] + step * dw, at[1] + step * db, z, y, penalty, weights) > best


def test_a_feature_that_varies_by_rounding_alone_has_no_weight() -> None:
    rng = np.random.default_rng(0)
    y = rng.integers(2, size=80)
    x = np.column_stack([y + rng.normal(size=80), 0.3 + 1e-8 * rng.normal(size=80), np.full(80, 0.1)])
    w, b, _ = fit(x, y, 2, 0.1, None)
    alone, bias, _ = fit(x[:, :1], y, 2, 0.1, None)
    assert (w[:, 1:] == 0).all()
    assert w[:, 0] == pytest.approx(alone[:, 0])
    assert b == pytest.approx(bias)
    weights = np.array([1.0, 3.0])
    w, b, _ = fit(x[:, 1:], y, 2, 0.1, weights)
    assert (w == 0).all()
    assert b[1] - b[0] == pytest.approx(np.log(3 * y.sum() / (y == 0).sum()))


def test_images_of_one_class_are_not_fitted(tmp_path: Path) -> None:
    words = ("trainer.limit_batches=1", "dataset.batch_size=1", "evaluation.test=false")
    with pytest.raises(UserError, match=r"trainer\.limit_batches=null"):
        run(tmp_path, *PROBE, *words, "trainer.max_epochs=1")


def test_penalties_fall_by_a_constant_factor() -> None:
    assert [penalty_of(epoch, 4, (1000.0, 1.0)) for epoch in range(4)] == pytest.approx([1000, 100, 10, 1])
    assert penalty_of(0, 1, (5.0, 1.0)) == 5.0


def test_each_epoch_has_its_penalty_and_the_head_is_the_fit(probe: Path) -> None:
    rows, results = read_lines(probe / "metrics.jsonl"), read_object(probe / "results.json")
    assert [row["penalty"] for row in rows] == pytest.approx([100, 1, 0.01, 0.0001])
    assert [row["lr"] for row in rows] == [0.0] * 4
    best = max(rows, key=lambda row: row["val/patient_roc_auc"])  # of equal ones the first
    assert results["best_epoch"] == best["epoch"]

    made = assemble(config(probe, *PROBE, MONITOR))
    weights = load_file(probe / "model.safetensors")
    initial = made.network.state_dict()
    for name, value in weights.items():
        assert name.startswith("head.") or torch.equal(value, initial[name]), name
    manifest, network = made.datamodule.manifest, made.network.eval()
    rows_ = manifest.rows("train")
    images = torch.from_numpy(np.stack([made.datamodule.cache[row] for row in rows_])).float().div(255)
    with torch.no_grad():
        features = network.embed(images.reshape(len(rows_), 1, 32, 32), 4).mean(dim=(2, 3)).numpy().astype(float)
    labels = made.datamodule.labels[rows_]
    z = (features - features.mean(axis=0)) / np.where(features.std(axis=0) == 0, 1, features.std(axis=0))
    sklearns = LogisticRegression(C=1 / (best["penalty"] * len(z)), tol=1e-10, max_iter=100_000).fit(z, labels)
    ours = features @ weights["head.layers.1.weight"].numpy().T + weights["head.layers.1.bias"].numpy()
    assert np.abs((ours[:, 1] - ours[:, 0]) - sklearns.decision_function(z)).max() < 0.01


def test_the_monitored_score_is_that_of_the_patients_of_the_record(probe: Path) -> None:
    results = read_object(probe / "results.json")
    epoch = read_lines(probe / "metrics.jsonl")[results["best_epoch"]]
    assert epoch["val/patient_roc_auc"] == pytest.approx(results["val"]["patients"]["roc_auc"], abs=1e-9)
    assert epoch["val/roc_auc"] != epoch["val/patient_roc_auc"]


def test_the_pages_say_what_was_fitted(probe: Path) -> None:
    methods, page = (probe / "methods.md").read_text(), (probe / "report.html").read_text()
    assert "with 4 penalties λ from 100 to 0.0001" in methods
    assert "AdamW" not in methods
    assert "squared weights of the log odds" in methods
    assert "nearest training images by the same features have a ROC AUC of" in methods
    assert "dropout" not in methods.partition("**Model and training.**")[2].partition("\n")[0]
    assert "best ROC AUC by patient on validation" in methods
    assert "nearest training image" in page


@pytest.mark.parametrize("at", [(0, 1), (2, 0)])
def test_a_stopped_run_comes_to_the_same_bit(
    probe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: tuple[int, int]
) -> None:
    break_at(monkeypatch, [at])
    with pytest.raises(PullThePlugError):
        run(tmp_path, *PROBE, MONITOR)
    assert_same_run(probe, run(tmp_path, *PROBE, MONITOR).folder)


def test_mixed_precision_keeps_the_head_in_single(tmp_path: Path) -> None:
    found = run(tmp_path, *PROBE, "trainer.precision=bf16-mixed", "finetune.penalties=[1,1]", "trainer.max_epochs=1")
    logits = predictions.read(found.folder / "predictions.csv").logits
    assert len(np.unique(logits)) > 0.9 * logits.size  # in half precision many would be equal


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("finetune.penalties=[1,10]", "finetune.penalties=[10,1]"),
        (f"{ALL} finetune.backbone_lr_ratio=1 finetune.cached_views=0", "finetune.penalties=null"),
        ("model.head.hidden=[8]", "model.head.hidden=[]"),
        ("trainer.devices=2", "trainer.devices=1"),
        ("trainer.ema=0.9", "trainer.ema=null"),
        ("trainer.average_last=2", "trainer.average_last=null"),
        ("loss=focal", "loss=cross_entropy"),
        ("loss.label_smoothing=0.1", "loss.label_smoothing=0"),
        ("dataset.sampling=balanced", "dataset.sampling=shuffle"),
        ("augment.mixup=0.2", "augment.mixup=0"),
        ("augment=standard finetune.cached_views=0", "finetune.cached_views=4"),
        ("finetune.cache_gb=0", "finetune.cache_gb=4"),
    ],
)
def test_what_a_fitted_head_does_not_go_with_is_refused(words: str, says: str) -> None:
    with pytest.raises(UserError) as caught:
        check(["logger=none", *PROBE, *words.split()])
    assert says in str(caught.value)
    assert len(str(caught.value).splitlines()) <= 2


def test_features_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"do not fit in finetune\.cache_gb=1e-06"):
        run(tmp_path, *PROBE, "finetune.cache_gb=0.000001")


def test_variants_of_images_are_fitted_too(tmp_path: Path) -> None:
    words = [word for word in PROBE if word != "augment=none"]
    found = run(tmp_path, *words, "finetune.cached_views=2", "evaluation.test=false")
    assert "kept for" in (found.folder / "log.txt").read_text()
    assert len(read_lines(found.folder / "metrics.jsonl")) == 4


def test_a_penalty_at_the_edge_is_told(tmp_path: Path) -> None:
    words = ("finetune.penalties=[1e-9,1e-12]", "trainer.max_epochs=2")
    found = run(tmp_path, *PROBE, *words, "evaluation.test=false")
    assert any("of the penalties was the best on validation" in line for line in found.results["warnings"])


# ---- the monitored score


def test_patients_are_monitored_whatever_the_order_of_batches() -> None:
    rng = np.random.default_rng(0)
    ids = [f"p{row // 3}" for row in range(60)]
    labels = np.repeat(rng.integers(2, size=20), 3)
    logits = rng.normal(size=(60, 2)) + labels[:, None] * [[0, 1]]
    score = PatientRocAuc(ids, "mean")
    order = rng.permutation(60)
    for part in np.array_split(order, 7):
        score.update(torch.from_numpy(part), torch.from_numpy(logits[part]), torch.from_numpy(labels[part]))
    p = 1 / (1 + np.exp(logits[:, 0] - logits[:, 1]))
    assert float(score.compute()) == pytest.approx(roc_auc_score(labels[::3], p.reshape(20, 3).mean(axis=1)), abs=1e-12)


def test_without_patients_none_are_monitored(tmp_path: Path) -> None:
    images = tmp_path / "images"
    for label in ("a", "b"):
        (images / label).mkdir(parents=True)
    rng = np.random.default_rng(0)
    for number in range(40):
        pixels = rng.integers(256, size=(32, 32), dtype=np.uint8)
        Image.fromarray(pixels).save(images / "ab"[number % 2] / f"{number}.png")
    words = [
        "dataset=folder", f"dataset.root={images}", "dataset.classes=[a,b]", "dataset.image_size=32", "logger=none",
        "dataset.batch_size=4", "model=squeezenet1_1", "model.weights=none", f"paths.runs_dir={tmp_path / 'runs'}",
        MONITOR,
    ]  # fmt: skip
    with pytest.raises(UserError, match=r"Set trainer\.monitor=val/roc_auc\."):
        train(load(words))


# ---- the nearest training images


def _table(labels: np.ndarray) -> Predictions:
    texts = {name: np.array([f"{i}" for i in range(len(labels))]) for name in ("sample_id", "group", "patient_id")}
    texts |= dict.fromkeys(("split", "site"), np.full(len(labels), ""))
    return Predictions(("a", "b"), label=labels, logits=np.zeros((len(labels), 2)), **texts)


def test_neighbours_are_those_of_the_smallest_angle_and_validation_chooses_their_number() -> None:
    rng = np.random.default_rng(1)
    labels = rng.integers(2, size=400)
    direction = rng.normal(size=(400, 6)) + labels[:, None] * [1.5, 0, 0, 0, 0, 0]
    x = (direction * rng.uniform(0.1, 10, size=(400, 1))).astype(np.float32)  # lengths tell nothing
    train, val, test = slice(0, 200), slice(200, 300), slice(300, 400)
    settings = config_evaluation()
    found = nearest.baseline(
        (x[train], labels[train]), (x[val], _table(labels[val])), (x[test], _table(labels[test])), settings
    )

    def shares(part: slice, k: int) -> np.ndarray:
        unit = x / np.linalg.norm(x, axis=1, keepdims=True)
        order = np.argsort(-(unit[part] @ unit[train].T), axis=1)[:, :k]
        return labels[train][order].mean(axis=1)

    by_k = {k: roc_auc_score(labels[val], shares(val, k)) for k in nearest.NUMBERS}
    best = max(by_k, key=lambda k: (by_k[k], k))
    assert found["neighbours"] == best
    own = binary_scores(labels[test], shares(test, best), 0.5)
    assert found["roc_auc"] == pytest.approx(own["roc_auc"], abs=1e-9)
    assert found["accuracy"] == pytest.approx(own["accuracy"], abs=0.011)  # a share of half may be rounded
    assert found["intervals"]["roc_auc"]["low"] < found["roc_auc"] < found["intervals"]["roc_auc"]["high"]


def config_evaluation() -> EvaluationConfig:
    return check(["logger=none"])[0].evaluation


def test_the_record_has_them_with_a_paired_difference(probe: Path) -> None:
    found = read_object(probe / "results.json")["baselines"]["nearest"]
    assert found["neighbours"] in nearest.NUMBERS
    assert found["difference"]["interval"]["low"] <= found["difference"]["roc_auc"]


def test_features_beyond_half_precision_have_neighbours() -> None:
    rng = np.random.default_rng(0)
    labels = np.arange(60) % 2
    x = (1e30 * (rng.normal(size=(60, 3)) + labels[:, None])).astype(np.float32)
    table = _table(labels[30:])
    found = nearest.baseline((x[:30], labels[:30]), (x[30:], table), (x[30:], table), config_evaluation())
    assert found["roc_auc"] > 0.5
