"""Made-up studies: the record, and the folders of runs and evaluations that it names. Nothing is trained."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ddtl.evaluation.comparison.paired_predictions import RunPredictions
from ddtl.evaluation.metrics import binary_scores
from ddtl.evaluation.score import score as by_image
from ddtl.records import study_folder
from ddtl.records.study_folder import Evaluation, JobRecord
from ddtl.utils.files import write_json
from tests.support import hospital
from tests.support.hospital import Hospital

PATIENTS = {"alpha": 40, "beta": 30}  # of the test sets


def test_set(name: str) -> Hospital:
    return Hospital(PATIENTS.get(name, 36), seed=sum(map(ord, name)))


def answers(name: str, separation: float, seed: int, threshold: float = 0.5) -> RunPredictions:
    """A network on a test set; another one for every seed, and always the same."""
    there = test_set(name)
    there.random = np.random.default_rng([len(name), round(separation * 10), seed])
    run = there.run(separation, threshold=threshold)
    ids = np.char.add(f"{name}/", run.predictions.sample_id)
    return replace(run, predictions=replace(run.predictions, sample_id=ids))


def evaluation(
    runs: Path, folder: str, target: str, separation: float, seed: int, *, home: bool = False, **changes: Any
) -> Evaluation:
    """A folder with the predictions of a network, and its line in the record."""
    run = answers(target, separation, seed, threshold=0.5 if home else 0.7)
    labels, shares = run.predictions.label, np.full(len(run.predictions), 0.4)
    baselines = {"majority": binary_scores(labels, shares, 0.5), "file_facts": {"why_not": "no files"}}
    own: dict[str, Any] = {"dataset": target, "baselines": baselines}
    if home:
        own["val"] = {**by_image(run.predictions, run.threshold), "images": 50}
    else:
        own["calibration"] = {"temperature": 1.5, "platt": None, "notes": []}
        again = {"temperature": 2.0 + seed, "platt": None, "notes": []}
        own["refitted"] = {"threshold": 0.5, "val_images": 24, "calibration": again}
        own["trained_on"] = {"dataset": "elsewhere", "protocol": "official", "run": "r"}
    hospital.folder(runs / folder, run, **{**own, **changes})
    return study_folder.evaluation(target, folder)


def run(
    runs: Path, source: str, seed: int, targets: Mapping[str, float], home: float = 3.0, **labels: Any
) -> JobRecord:
    """A run on one dataset, evaluated on others; the numbers are how well it tells the classes apart."""
    told = study_folder.labels(source, seed, **{"protocol": "official", **labels})
    name = "-".join(str(value) for value in told.values()).replace(" ", "")
    changes = {"leaked_share": 0.25} if told["protocol"] == "random" else {}
    own = evaluation(runs, f"{source}/{name}", source, home, seed, home=True, protocol=told["protocol"], **changes)
    others = [
        evaluation(runs, f"{source}/{name}/evaluations/{target}", target, separation, seed)
        for target, separation in targets.items()
    ]
    return study_folder.job(told, [own, *others], (f"seed={seed}",), f"{source}/{name}")


def failed(source: str, seed: int, targets: Sequence[str], reason: str, **labels: Any) -> JobRecord:
    told = study_folder.labels(source, seed, **{"protocol": "official", **labels})
    return study_folder.job(told, [study_folder.evaluation(target) for target in (source, *targets)], (), None, reason)


def study(runs: Path, kind: str, jobs: Sequence[JobRecord], controls: Sequence[Mapping[str, Any]] = ()) -> Path:
    """The study's folder."""
    folder = runs / "studies" / kind
    folder.mkdir(parents=True)
    study_folder.write(folder, {
        "study": kind, "name": kind, "settings": {}, "identity": {"study": kind}, "jobs": list(jobs),
        "started": "2026-11-23T12:00:00+00:00", "ended": "2026-11-23T13:00:00+00:00",
    })  # fmt: skip
    if controls:
        write_json(folder / "controls.json", {"pairs": list(controls)})
    return folder


def cross_dataset(runs: Path) -> Path:
    """Two hospitals, two methods, three seeds; a run and an evaluation that failed."""
    jobs: list[JobRecord] = []
    for seed in range(3):
        jobs.append(run(runs, "alpha", seed, {"beta": 1.0 + 0.3 * seed}, method="plain"))
        jobs.append(run(runs, "alpha", seed, {"beta": 2.0}, 2.8, method="strong"))
        if seed == 1:
            jobs.append(failed("beta", 1, ["alpha"], "CUDA out of memory", method="plain"))
        else:
            jobs.append(run(runs, "beta", seed, {"alpha": 0.5}, method="plain"))
        jobs.append(run(runs, "beta", seed, {}, 2.0, method="strong"))
        jobs[-1]["evaluations"].append(study_folder.evaluation("alpha", reason="no images in /data/alpha/images"))
    facts = {"roc_auc": 0.5, "accuracy": 0.5, "balanced_accuracy": 0.5}
    pairs = [
        {"source": "alpha", "target": "beta", "duplicates": ["beta/image0000", "beta/image0001"],
         "majority": facts, "file_facts": {**facts, "roc_auc": 0.62}},
        {"source": "beta", "target": "alpha", "duplicates": [], "majority": facts, "file_facts": facts},
    ]  # fmt: skip
    return study(runs, "cross_dataset", jobs, pairs)
